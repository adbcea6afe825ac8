"""Where a model comes from, how it is opened, and passes and DDIM steps with it.

From the outside in:

    diffusion     the model: pictures to latents and back, prompts to embeddings, passes of the UNet
    ddim          DDIM steps with it, along the levels of `noise_schedule`
    references    from what users write to files: `sources` says where each part is, `catalog` lists a folder's models
    loading       opens the parts, from diffusers' folders or by `single_file` from one of `checkpoints`
    files         which files are opened, and whether they are whole; `headers` and `kinds` say what a file is
    lora_files    LoRAs that people bring along, as `extra_layers`; a picture's own LoRA is one of the `adapters`
    features      what dragging reads of a pass of the UNet
    low_memory    passes that need less memory, by `pass_memory` and `recomputing`
    graphs        passes recorded on CUDA; `side_stream` has work beside them
"""
