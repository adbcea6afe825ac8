"""Decoding a clean latent for a preview, at one of the qualities that `livedrag.editor.drag.preview` describes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.settings import Quality


def decode_preview(model: Diffusion, latent: Tensor, quality: Quality, longest_side: int) -> Tensor:
    """Clean latent to the pixels of a preview.

    A latent of at least twice the requested size is averaged down first, which is cheaper and looks the same.

    Args:
        model: whose latent it is.
        latent: ``(1, 4, H/8, W/8)``.
        quality: ``latent``, ``tiny`` or ``full``.
        longest_side: that the picture should have at least, in pixels.

    Returns:
        ``(1, 3, h, w)``, about [-1, 1]; quality ``latent`` gives one pixel per latent cell.

    Raises:
        SettingsError: quality ``tiny`` without a tiny autoencoder.
    """
    if quality == "latent":
        weights, constant = model.latent_colours[:-1], model.latent_colours[-1]
        return torch.einsum("bchw,cd->bdhw", latent, weights) + constant[:, None, None]
    factor = max(1, max(latent.shape[-2:]) * model.latent_stride // longest_side)
    small = nn.functional.avg_pool2d(latent, factor, ceil_mode=True) if factor > 1 else latent
    return model.decode(small) if quality == "full" else model.decode_tiny(small)
