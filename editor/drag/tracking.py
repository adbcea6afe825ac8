"""Point tracking: find where the content of each handle is now (the paper's section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from livedrag.editor.sampling import is_inside, sample_cells


def take_templates(features: Tensor, handles: Tensor, raster: tuple[int, int]) -> Tensor:
    """The feature under each handle, which `track_points` looks for later.

    Args:
        features: ``(1, C, h, w)``.
        handles: whole cells ``(n, 2)``, (row, column).
        raster: rows and columns of cells.

    Returns:
        Templates ``(n, C)``.
    """
    return sample_cells(features, handles[:, None], raster)[..., 0]


def take_patches(features: Tensor, handles: Tensor, offsets: Tensor, raster: tuple[int, int]) -> Tensor:
    """The features around each handle, ``(n, C, k)``; what `motion_supervision_loss` may pull.

    Args:
        features: ``(1, C, h, w)``.
        handles: whole cells ``(n, 2)``, (row, column).
        offsets: of the patch's cells from its handle, ``(k, 2)``; see `livedrag.editor.sampling.patch_offsets`.
        raster: rows and columns of cells.
    """
    return sample_cells(features, handles[:, None] + offsets, raster)


def track_points(
    features: Tensor,
    templates: Tensor,
    handles: Tensor,
    offsets: Tensor,
    raster: tuple[int, int],
    *,
    counts: Tensor | None = None,
) -> Tensor:
    """The cell of the window around each handle whose feature is nearest to its template in L1.

    Args:
        features: ``(1, C, h, w)``.
        templates: ``(n, C)``.
        handles: whole cells ``(n, 2)``, (row, column).
        offsets: of the window's cells from its handle, ``(k, 2)``; those beyond the border do not count.
        raster: rows and columns of cells.
        counts: which of the window's cells count, ``(k,)``; by default all.

    Returns:
        Whole cells ``(n, 2)``; among equally near ones the first in row-major order.
    """
    window = handles[:, None] + offsets
    distances = (sample_cells(features, window, raster) - templates[..., None]).abs().sum(1)
    candidates = is_inside(window, raster) if counts is None else is_inside(window, raster) & counts
    nearest = distances.masked_fill(~candidates, torch.inf).argmin(-1)
    return window.gather(1, nearest[:, None, None].expand(-1, 1, 2))[:, 0]


def have_arrived(handles: Tensor, targets: Tensor, arrival_distance: float | Tensor) -> Tensor:
    """Whether each handle is closer to its target than the arrival distance.

    Args:
        handles: cells ``(n, 2)``, (row, column).
        targets: cells ``(n, 2)``, (row, column).
        arrival_distance: in cells.

    Returns:
        ``(n,)`` booleans.
    """
    distances: Tensor = (handles - targets).norm(dim=-1)
    return distances < arrival_distance
