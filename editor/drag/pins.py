"""Pins: places that keep what the unedited picture has there. They are not in the paper."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from livedrag.editor.drag.handles import cells_of
from livedrag.editor.points import Point, Rasters
from livedrag.editor.sampling import is_inside, sample_cells


def pin_cells(pins: Iterable[Point], rasters: Rasters, like: Tensor) -> Tensor:
    """The whole cells nearest to pins, ``(n, 2)``; dtype and device of ``like``."""
    return cells_of([rasters.nearest_cell(pin) for pin in pins], like.dtype).to(like.device)


def pin_loss(
    features: Tensor,
    unedited: Tensor,
    cells: Tensor,
    offsets: Tensor,
    raster: tuple[int, int],
    *,
    counts: Tensor | None = None,
) -> Tensor:
    """Sum over pins of the L1 between the patch there and the same patch of the unedited features.

    On the scale of motion supervision: mean over channels, sum over the patch's cells inside the raster, so that a pin
    weighs as much as a handle.

    Args:
        features: ``(1, C, h, w)``; gradients flow to them.
        unedited: the same of the unedited latent.
        cells: whole cells ``(n, 2)``, (row, column).
        offsets: of the patch's cells from its pin, ``(k, 2)``; see `livedrag.editor.sampling.patch_offsets`.
        raster: rows and columns of cells.
        counts: which cells of each pin's patch count, ``(n, k)``; by default all.

    Returns:
        Scalar loss; 0, without a gradient, while nothing has changed at the pins.
    """
    patches = cells[:, None] + offsets
    inside = is_inside(patches, raster) if counts is None else is_inside(patches, raster) & counts
    moved = sample_cells(features, patches, raster) - sample_cells(unedited.detach(), patches, raster)
    return (moved.abs().mean(1) * inside).sum()
