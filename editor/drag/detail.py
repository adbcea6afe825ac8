"""Keep the uploaded picture's detail in a result: follow where content moved, and carry its pixels along.

The model edits a small working picture, whose texture, outlines and grain are softer than the upload's. Wherever the
edited working picture shows content of the unedited one, only displaced, the uploaded pixels are displaced likewise and
shown; what the model painted anew, such as ground that was uncovered, is shown as it painted it.

The displacement is estimated by iterative Lucas-Kanade (Lucas and Kanade 1981; Bouguet 2001) on a pyramid, starting
from the drags' own field.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, interpolate, pad

PYRAMID = (4, 2, 1)
"""Factors by which the working picture is reduced, one level after the other."""
UPDATES = 8
"""Updates of the displacement at each level."""
WINDOW = 4.0
"""Standard deviation, in pixels of a level, of the window in which a displacement is taken to be constant."""
SMOOTHNESS = 0.8
"""Standard deviation, in pixels of a level, of the blur that keeps displacements smooth."""
DAMPING = 5e-4
"""Added to the structure tensor's diagonal: where there is no texture, the displacement stays as it was."""
MAX_UPDATE = 2.0
"""Pixels of a level by which one update moves a place at most."""
AGREEMENT_WINDOW = 1.5
"""Standard deviation in pixels of the window in which agreement is judged."""
MAX_RESIDUAL = 0.10
"""Mean absolute difference, of values in [-1, 1], at which agreement has fallen to 1/e."""


def displaced(picture: Tensor, displacement: Tensor) -> Tensor:
    """The picture as seen through a displacement: at ``p`` it shows what the picture has at ``p + d(p)``.

    Args:
        picture: ``(1, C, h, w)``.
        displacement: ``(1, 2, H, W)``, (dx, dy) in pixels of a picture of ``H x W``, which need not be ``h x w``.

    Returns:
        ``(1, C, H, W)``, bicubic; beyond the border, the border's value.
    """
    rows, columns = displacement.shape[-2:]
    x = torch.arange(columns, dtype=displacement.dtype) + 0.5 + displacement[:, 0]
    y = torch.arange(rows, dtype=displacement.dtype)[:, None] + 0.5 + displacement[:, 1]
    grid = torch.stack([2 * x / columns - 1, 2 * y / rows - 1], dim=-1)
    return grid_sample(picture, grid, mode="bicubic", padding_mode="border", align_corners=False)


def estimate_displacement(unedited: Tensor, edited: Tensor, start: Tensor) -> Tensor:
    """Where in the unedited picture the content of each pixel of the edited one comes from.

    Args:
        unedited, edited: ``(1, 3, h, w)`` in [-1, 1].
        start: a first guess, ``(1, 2, h, w)``, (dx, dy) in pixels; zeros if there is none.

    Returns:
        ``(1, 2, h, w)`` in pixels; `displaced` (unedited, it) looks like ``edited`` where content only moved.
    """
    displacement = start
    for factor in PYRAMID:
        size = [max(8, side // factor) for side in unedited.shape[-2:]]
        before, after = (interpolate(picture, size, mode="area") for picture in (unedited, edited))
        scale = torch.tensor([size[1] / unedited.shape[-1], size[0] / unedited.shape[-2]])[None, :, None, None]
        level = interpolate(displacement, size, mode="bilinear", align_corners=False) * scale
        for _ in range(UPDATES):
            level = _blur(level + _update(displaced(before, level), after), SMOOTHNESS)
        finer = interpolate(level / scale, unedited.shape[-2:], mode="bilinear", align_corners=False)
        displacement = _better(unedited, edited, displacement, finer)
    return displacement


def agreement(unedited: Tensor, edited: Tensor, displacement: Tensor) -> Tensor:
    """How far each pixel of the edited picture is content of the unedited one that only moved.

    Returns:
        ``(1, 1, h, w)``, from 0 (painted anew) to 1 (moved).
    """
    residual = (displaced(unedited, displacement) - edited).abs().mean(1, keepdim=True)
    return torch.exp(-((_blur(residual, AGREEMENT_WINDOW) / MAX_RESIDUAL) ** 2))


def carry_detail(uploaded: Tensor, unedited: Tensor, edited: Tensor, displacement: Tensor) -> Tensor:
    """The edited picture at the upload's size, with the upload's own pixels wherever content only moved.

    Args:
        uploaded: ``(1, 3, H, W)`` in [-1, 1].
        unedited: the working picture as the model gives it back without the edit, ``(1, 3, h, w)`` in [-1, 1].
        edited: the working picture with the edit, same shape.
        displacement: of `estimate_displacement`, ``(1, 2, h, w)``.

    Returns:
        ``(1, 3, H, W)``; with no displacement and no edit, the upload itself.
    """
    size = uploaded.shape[-2:]
    scale = torch.tensor([size[1] / edited.shape[-1], size[0] / edited.shape[-2]])[None, :, None, None]
    moved = displaced(uploaded, _enlarged(displacement, size) * scale)
    repainted = _enlarged(edited - displaced(unedited, displacement), size)
    share = _enlarged(agreement(unedited, edited, displacement), size)
    return torch.lerp(_enlarged(edited, size), moved + repainted, share)


def _update(seen: Tensor, wanted: Tensor) -> Tensor:
    """One step of Lucas-Kanade: the displacement, ``(1, 2, h, w)``, that makes ``seen`` look more like ``wanted``."""
    wide = pad(seen, (1, 1, 1, 1), mode="replicate")
    across = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    down = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    difference = wanted - seen
    products = [across * across, down * down, across * down, across * difference, down * difference]
    xx, yy, xy, xd, yd = _blur(torch.cat([p.mean(1, keepdim=True) for p in products], dim=1), WINDOW).split(1, dim=1)
    xx, yy = xx + DAMPING, yy + DAMPING
    determinant = xx * yy - xy * xy
    step = torch.cat([yy * xd - xy * yd, xx * yd - xy * xd], dim=1) / determinant
    return step.clamp(-MAX_UPDATE, MAX_UPDATE)


def _better(unedited: Tensor, edited: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """At each place the displacement that explains its surroundings better, blended softly."""
    first, second = (
        _blur((displaced(unedited, displacement) - edited).abs().mean(1, keepdim=True), WINDOW)
        for displacement in (one, other)
    )
    return torch.lerp(one, other, _blur((second < first).to(one), SMOOTHNESS))


def _blur(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of ``(1, C, h, w)``, borders repeated."""
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[None, None].expand(maps.shape[1], 1, -1)
    wide = pad(maps, (radius, radius, radius, radius), mode="replicate")
    rows = conv2d(wide, kernel[:, :, None, :], groups=maps.shape[1])
    blurred: Tensor = conv2d(rows, kernel[:, :, :, None], groups=maps.shape[1])
    return blurred


def _enlarged(maps: Tensor, size: torch.Size | list[int]) -> Tensor:
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return interpolate(maps, list(size), mode="bilinear", align_corners=False, antialias=True)
