"""Fitting a LoRA to the picture. From what callers use down:

lora           a picture's LoRA: its weights and AdamW's moments; `fitted_lora` is one as a file
fit_step       a step of fitting, and what it asks of the UNet; `augmentation` makes further pictures to fit to
fit_rows       a pass of fitting as a function of tensors, for one LoRA or several, with the step of `adamw`
lora_adapters  a LoRA on the UNet, merged into its weights or not; `row_loras` gives each row of a pass its own
lora_layers    PEFT's layers, which LoRAs take turns in
"""
