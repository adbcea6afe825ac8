"""Read feature maps at cells of the half-resolution raster, without ever upsampling the whole map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def patch_offsets(radius: int, like: Tensor) -> Tensor:
    """Offsets of a square patch, ``((2 * radius + 1) ** 2, 2)``, row-major; dtype and device of ``like``."""
    side = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(side, side)


def sample_cells(features: Tensor, cells: Tensor, raster: tuple[int, int]) -> Tensor:
    """The values that the features, bilinearly upsampled to the raster, have at whole cells.

    Args:
        features: ``(1, C, h, w)``.
        cells: whole cells ``(n, k, 2)``, (row, column), in the features' dtype; beyond the border they take the
            border's value.
        raster: rows and columns of cells.

    Returns:
        ``(n, C, k)``; differentiable in ``features``.
    """
    rows, columns = raster
    row = cells[..., 0].clamp(0, rows - 1)
    column = cells[..., 1].clamp(0, columns - 1)
    grid = torch.stack([(2 * column + 1) / columns - 1, (2 * row + 1) / rows - 1], dim=-1)
    sampled = grid_sample(features, grid[None], padding_mode="border", align_corners=False)
    return sampled[0].transpose(0, 1)


def sample_between_cells(features: Tensor, cells: Tensor, raster: tuple[int, int]) -> Tensor:
    """As `sample_cells`, at fractional cells: the upsampled map is interpolated bilinearly once more between the four
    whole cells around, as the authors' code does."""
    whole = cells.floor()
    row, column = (cells - whole).unbind(-1)
    corners = cells.new_tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    around = sample_cells(features, (whole[:, :, None] + corners).flatten(1, 2), raster)
    weights = torch.stack([(1 - row) * (1 - column), (1 - row) * column, row * (1 - column), row * column], dim=-1)
    blended: Tensor = (around.unflatten(-1, (-1, 4)) * weights[:, None]).sum(-1)
    return blended
