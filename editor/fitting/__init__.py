"""Fitting a LoRA to the picture. From what callers use down:

lora         a picture's LoRA, and what a step of fitting asks for; `augmentation` makes further pictures
fit_rows     a pass of fitting as a function of tensors, for one LoRA or several, with the step of `adamw`
lora_layers  PEFT's layers, which LoRAs take turns in; `row_loras` gives each row of a pass its own LoRA
fitted_lora  as a file
"""
