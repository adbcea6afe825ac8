"""The linear map from latents to colours: the quickest preview of a latent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from livedrag.editor.models.diffusion import Diffusion


def fit_latent_colours(model: Diffusion) -> Tensor:
    """The map from a latent cell (and a constant 1) to RGB, ``(5, 3)``.

    Least squares over smooth random pictures and their latents, one latent cell at a time.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = 2 * torch.rand(4, 3, 4, 4, generator=generator, dtype=model.latent_dtype).to(model.device) - 1
    pictures = nn.functional.interpolate(coarse, scale_factor=4 * model.latent_stride, mode="bilinear")
    latents = torch.cat([model.encode(picture[None]) for picture in pictures])
    colours = nn.functional.avg_pool2d(pictures, model.latent_stride).movedim(1, -1).flatten(0, 2)
    known = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1).movedim(1, -1).flatten(0, 2)
    solution: Tensor = torch.linalg.lstsq(known.cpu(), colours.cpu()).solution  # Metal lacks it before torch 2.13
    return solution.to(model.device)
