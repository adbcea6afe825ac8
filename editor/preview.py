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

UNNOTICED_SHARE = 0.05
"""A decoder that takes more than this share makes smaller previews."""

UNNOTICED_SECONDS = 0.1
"""Unless it is done within this time anyway: people do not notice."""

LEAST_SIDE = 128
"""No decoded preview is made smaller than this for the sake of speed, in pixels."""


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


def affordable(
    model: Diffusion, longest_side: int, decode_seconds: float, iteration_seconds: float, every: int
) -> tuple[Quality, int]:
    """The quality to show by default, and the longest side to decode at.

    A decoder at the wanted side where nobody notices what it takes, else at half of it; no decoder where even that
    takes over `DECODER_SHARE` of the time between two previews.

    Args:
        model: that is to decode.
        longest_side: that is wanted, in pixels.
        decode_seconds: what decoding at that side takes.
        iteration_seconds: what an iteration takes.
        every: iterations between two previews.
    """
    decoder: Quality = "full" if model.tiny is None else "tiny"
    between = iteration_seconds * every
    if decode_seconds > max(UNNOTICED_SHARE * between, UNNOTICED_SECONDS) and longest_side >= 2 * LEAST_SIDE:
        longest_side, decode_seconds = longest_side // 2, decode_seconds / 4
    return ("latent" if decode_seconds > DECODER_SHARE * between else decoder), longest_side
