"""Smoothly warped copies of a picture, for its LoRA to be fitted to besides: what a drag makes of the picture is then
nearer to what the LoRA knows. Not part of the published method."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

KNOTS = 4
"""Along a side of the smooth displacement."""
REACH = 0.12
"""Standard deviation of the displacement at a knot, in parts of half the picture's side."""
BORDER = 0.25
"""The displacement falls to nothing over so much of half the side."""


def warped_copy(picture: Tensor, generator: torch.Generator) -> Tensor:
    """A copy of a picture ``(1, 3, H, W)`` in [-1, 1], warped at random.

    Args:
        picture: on the CPU.
        generator: CPU generator of the displacement.
    """
    height, width = picture.shape[-2:]
    xs, ys = (torch.arange(side) * 2 / side + 1 / side - 1 for side in (width, height))
    within = [((1 - places.abs()) / BORDER).clamp(max=1) for places in (xs, ys)]
    still = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
    knots = torch.randn(1, 2, KNOTS, KNOTS, generator=generator) * REACH
    moved = interpolate(knots, (height, width), mode="bicubic", align_corners=True) * within[1][:, None] * within[0]
    places = still + moved.permute(0, 2, 3, 1)
    copy: Tensor = grid_sample(picture, places, mode="bicubic", padding_mode="border", align_corners=False)
    return copy.clamp(-1, 1)
