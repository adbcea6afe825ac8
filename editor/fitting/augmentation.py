"""Data augmentation for fitting the LoRA: smooth random warps of the picture, so that the LoRA also knows what a drag
may make of it. Not part of the published method; `DragSettings.lora_copies` says how many."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

KNOTS = 4
"""Control points along a side of the displacement field."""
DISPLACEMENT = 0.12
"""Standard deviation of the displacement at a control point, as a share of half the picture's side."""
BORDER = 0.25
"""Share of half the side, at each border, over which the displacement falls to zero."""


def random_warp(picture: Tensor, generator: torch.Generator) -> Tensor:
    """The picture under a smooth random warp.

    Args:
        picture: ``(1, 3, H, W)`` in [-1, 1], on the CPU.
        generator: CPU generator of the displacement.

    Returns:
        A new picture of the same shape and range.
    """
    height, width = picture.shape[-2:]
    xs, ys = (torch.arange(side) * 2 / side + 1 / side - 1 for side in (width, height))
    within = [((1 - places.abs()) / BORDER).clamp(max=1) for places in (xs, ys)]
    identity = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
    knots = torch.randn(1, 2, KNOTS, KNOTS, generator=generator) * DISPLACEMENT
    field = interpolate(knots, (height, width), mode="bicubic", align_corners=True) * within[1][:, None] * within[0]
    grid = identity + field.permute(0, 2, 3, 1)
    warped: Tensor = grid_sample(picture, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return warped.clamp(-1, 1)
