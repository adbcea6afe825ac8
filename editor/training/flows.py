"""Smooth displacements from one view of a scene to another, exact at every place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

KNOTS = 5
"""Knots along a side of the smooth part."""
BENDS = 3
"""Local bends at most."""
NUMBERS = 6 + 2 * KNOTS**2 + 5 * BENDS

TURN = 0.15
"""Standard deviation of the rotation, in radians."""
GROWTH = 0.12
"""Standard deviation of the logarithm of the scale."""
SHIFT = 0.55
"""Largest translation along each axis, in halves of the scene's side: 70 of 256 pixels. Without large translations
the features learn positions instead of content, because zero padding tells them where they are."""
SMOOTH = 0.05
"""Largest standard deviation of the smooth part at its knots, in halves of the scene's side."""
BEND = (8 / 128, 36 / 128)
"""Shortest and longest bend, in halves of the scene's side."""
REACH = 2.8
"""Radius of a bend in lengths of it: far enough that it folds nothing."""


@dataclass(frozen=True)
class Flows:
    """Where each place of view B is in view A, for N pairs: an affine map, a smooth part and local bends.

    Args:
        numbers: ``(N, NUMBERS)``. Places are (x, y) from -1 to 1 across the view, pixel centres as `grid_sample` has
            them without ``align_corners``.
    """

    numbers: Tensor

    def at(self, places: Tensor) -> Tensor:
        """Places ``(N, H, W, 2)`` of view B to places of view A, same shape."""
        affine, knots, bends = self.numbers.split([6, 2 * KNOTS**2, 5 * BENDS], dim=1)
        moved = apply_affine(affine.unflatten(1, (2, 3)), places)
        smooth = grid_sample(
            knots.unflatten(1, (2, KNOTS, KNOTS)), places, mode="bicubic", padding_mode="border", align_corners=False
        )
        moved = moved + smooth.movedim(1, -1)
        for centre, shift, reach in (bend.split([2, 2, 1], dim=1) for bend in bends.split(5, dim=1)):
            radius = (places - centre[:, None, None]).norm(dim=-1) / reach[:, None]
            strength = torch.cos(radius.clamp(max=1) * (math.pi / 2)).square()
            moved = moved - strength[..., None] * shift[:, None, None]
        return moved


def apply_affine(matrices: Tensor, places: Tensor) -> Tensor:
    """Affine maps ``(N, 2, 3)`` of places ``(N, H, W, 2)``."""
    turned = (places.flatten(1, 2) @ matrices[..., :2].mT).view_as(places)
    return turned + matrices[:, None, None, :, 2]


def draw_flows(random: np.random.Generator, anchors: NDArray[np.float64]) -> Flows:
    """Random flows, on the host.

    Args:
        anchors: places ``(N, 3, 2)`` of view A that the bends move.
    """
    count = len(anchors)
    angle, scale = random.normal(0, TURN, count), np.exp(random.normal(0, GROWTH, count))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.stack([cosine, -sine, sine, cosine], axis=1).reshape(count, 2, 2)
    shift = random.uniform(-SHIFT, SHIFT, (count, 2))
    affine = np.concatenate([turn, shift[..., None]], axis=2)
    knots = random.standard_normal((count, 2 * KNOTS**2)) * random.uniform(0, SMOOTH, (count, 1))
    direction, length = random.uniform(0, 2 * np.pi, (count, BENDS)), random.uniform(*BEND, (count, BENDS))
    bent = np.arange(BENDS) < random.integers(1, BENDS + 1, (count, 1))
    along = np.stack([np.cos(direction), np.sin(direction)], axis=2) * (length * bent)[..., None]
    seen = np.linalg.solve(turn[:, None], (anchors - shift[:, None])[..., None])[..., 0]  # in view B, before bending
    bends = np.concatenate([seen + along, along, (REACH * length)[..., None]], axis=2)
    numbers = np.concatenate([affine.reshape(count, 6), knots, bends.reshape(count, 5 * BENDS)], axis=1)
    return Flows(torch.from_numpy(numbers.astype(np.float32)))
