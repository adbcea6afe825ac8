"""Clean latent to small picture, at several qualities.

* ``full``: the model's own decoder.
* ``tiny``: an `AutoencoderTiny`, where the model has one or the user names one.
* ``latent``: a linear map from latent to colour, fitted once per model; an eighth of the size, at next to no cost.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from editor.model import Diffusion

Quality = Literal["latent", "tiny", "full"]

DECODER_SHARE = 0.2
"""A decoder that takes more than this share of the time between two previews gives way to ``latent``."""


def decode_preview(model: Diffusion, latent: Tensor, quality: Quality, longest_side: int) -> Tensor:
    """Clean latent to the pixels of a preview.

    A latent of at least twice the wanted size is averaged down first, which costs a fraction and shows the same.

    Args:
        model: whose latent it is.
        latent: ``(1, 4, H/8, W/8)``.
        quality: see the top of this file.
        longest_side: that the picture should have at least, in pixels.

    Returns:
        ``(1, 3, h, w)``, about [-1, 1]; ``latent`` gives one pixel for each of the latent.

    Raises:
        SettingsError: ``tiny`` where there is no tiny autoencoder.
    """
    if quality == "latent":
        weights, constant = model.latent_colours[:-1], model.latent_colours[-1]
        return torch.einsum("bchw,cd->bdhw", latent, weights) + constant[:, None, None]
    factor = max(1, max(latent.shape[-2:]) * model.latent_stride // longest_side)
    small = nn.functional.avg_pool2d(latent, factor, ceil_mode=True) if factor > 1 else latent
    return model.decode(small) if quality == "full" else model.decode_tiny(small)


def affordable(model: Diffusion, decode_seconds: float, iteration_seconds: float, every: int) -> Quality:
    """The quality to show by default: a decoder, unless it takes over `DECODER_SHARE` of ``every`` iterations."""
    if decode_seconds > DECODER_SHARE * iteration_seconds * every:
        return "latent"
    return "full" if model.tiny is None else "tiny"
