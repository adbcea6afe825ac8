"""Motion supervision: pull the content at each handle one small step towards its target (the paper's section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from livedrag.editor.sampling import is_inside, sample_between_cells, sample_cells


def motion_supervision_loss(
    features: Tensor,
    handles: Tensor,
    targets: Tensor,
    offsets: Tensor,
    raster: tuple[int, int],
    *,
    step: float | Tensor = 1.0,
    templates: Tensor | None = None,
    counts: Tensor | None = None,
) -> Tensor:
    """Sum over handles of the L1 between the patch one step towards the target and the detached patch at the handle.

    In the paper the step is the unit vector from handle to target. Mean over channels, which is the scale of the
    authors' code, and sum over the patch's cells. Cells outside the raster do not count, so a patch cut by the border
    weighs less, as in the paper; in the authors' code it weighs as much as a whole one.

    Args:
        features: UNet features, ``(1, C, h, w)``; gradients flow to them.
        handles: whole cells ``(n, 2)``, (row, column).
        targets: cells ``(n, 2)``, fractions allowed, none equal to its handle.
        offsets: of the patch's cells from its handle, ``(k, 2)``; see `livedrag.editor.sampling.patch_offsets`.
        raster: rows and columns of cells.
        step: its length in cells, for all handles or for each, ``(n, 1)``; a longer one than 1 ends at the target.
        templates: patches to pull instead of those at the handles now, ``(n, C, k)``, as in
            GoodDrag (arXiv 2404.07206); see `livedrag.editor.drag.tracking.take_patches`.
        counts: which cells of each handle's patch count, ``(n, k)``; by default all.

    Returns:
        Scalar loss.
    """
    cells = handles[:, None] + offsets
    inside = is_inside(cells, raster) if counts is None else is_inside(cells, raster) & counts
    here = sample_cells(features.detach(), cells, raster) if templates is None else templates
    way = targets - handles
    ahead = torch.nn.functional.normalize(way, dim=-1) * way.norm(dim=-1, keepdim=True).clamp(min=1.0).clamp(max=step)
    there = sample_between_cells(features, cells + ahead[:, None], raster)
    return ((there - here).abs().mean(1) * inside).sum()


def mask_loss(below: Tensor, below_unedited: Tensor, mask: Tensor, weight: float | Tensor) -> Tensor:
    """Keep what must not change: ``weight * sum |(z_{t-1} - z_{t-1}^0) * (1 - M)|``.

    Args:
        below: the dragged latent one DDIM step further down, ``(1, 4, H/8, W/8)``.
        below_unedited: the unedited latent one DDIM step further down, same shape.
        mask: M, ``(1, 1, H/8, W/8)``, 1 where the picture may change.
        weight: lambda.

    Returns:
        Scalar loss.
    """
    return weight * ((below - below_unedited) * (1 - mask)).abs().sum()
