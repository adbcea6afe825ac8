"""Point tracking: find where the content of each handle is now (the paper's section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor

from livedrag.editor.sampling import is_inside, patch_offsets, sample_cells


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


def take_patches(features: Tensor, handles: Tensor, radius: int | Tensor, raster: tuple[int, int]) -> Tensor:
    """The features around each handle, ``(n, C, (2 * radius + 1) ** 2)``; what `motion_supervision_loss` may pull.

    Args:
        features: ``(1, C, h, w)``.
        handles: whole cells ``(n, 2)``, (row, column).
        radius: of the square patch, in cells; or the offsets of its cells, ``(k, 2)``.
        raster: rows and columns of cells.
    """
    return sample_cells(features, handles[:, None] + patch_offsets(radius, handles), raster)


def track_points(
    features: Tensor,
    templates: Tensor,
    handles: Tensor,
    radius: int | Tensor,
    raster: tuple[int, int],
    *,
    counts: Tensor | None = None,
) -> Tensor:
    """The cell within ``radius`` of each handle whose feature is nearest to its template in L1.

    Args:
        features: ``(1, C, h, w)``.
        templates: ``(n, C)``.
        handles: whole cells ``(n, 2)``, (row, column).
        radius: r2; the window has ``2 * radius + 1`` cells a side, cut at the border. Or the offsets of its
            cells, ``(k, 2)``.
        raster: rows and columns of cells.
        counts: which of the window's cells count, ``(k,)``; by default all.

    Returns:
        Whole cells ``(n, 2)``; among equally near ones the first in row-major order.
    """
    window = handles[:, None] + patch_offsets(radius, handles)
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
