"""The drag method: motion supervision, point tracking, denoising, and the session that runs the loop.

From the outside in:

    session         what callers use; `shared_session` for several on one device, which share passes of the UNet
    state           what a session consists of; `snapshot` stores it, `timeline` what one can jump back to
    preparation     fits the picture's LoRA and inverts the picture
    loop            the paper's algorithm; `iteration` and `arrival` look at the outcome of an iteration
    row_of_session  a session's state as tensors, of which `rows` computes an iteration with `motion` and `tracking`
    graphed         the same from a CUDA graph, which `warm_up` records before a drag; `run_ahead` launches the next
    latent_warp     not in the paper, like `region`, `alternation` and `pins`
    passes          what a step asks of the UNet, and how it is answered
    denoising       renders the dragged latent, with the reference-latent control of `attention`
    result          the picture at its uploaded size, with `detail`; `preview` makes small ones meanwhile
    following       applies the difference between two desired states to a session; `replay` makes an edit again
"""
