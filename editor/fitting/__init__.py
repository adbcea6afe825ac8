"""Fitting a LoRA to the picture."""
