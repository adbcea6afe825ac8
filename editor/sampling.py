"""Read feature maps at cells of the half-resolution raster, without upsampling the whole map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def patch_offsets(radius: int, like: Tensor) -> Tensor:
    """Offsets of a square patch's cells from its centre, ``((2 * radius + 1) ** 2, 2)``, (row, column), row-major.

    Args:
        radius: in cells.
        like: has the dtype and device that they get.
    """
    side = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(side, side)


def is_inside(cells: Tensor, raster: tuple[int, int]) -> Tensor:
    """Whether cells ``(..., 2)`` are inside a raster of so many rows and columns, ``(...)``."""
    (rows, columns), (row, column) = raster, cells.unbind(-1)
    return (row >= 0) & (row < rows) & (column >= 0) & (column < columns)


def _within_centres(features: Tensor, cells: Tensor, raster: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows and columns of cells; those beyond the centres of the outermost features move to the first whole cell there.

    The upsampled map is constant from there on. Reading it at one cell makes differences exactly zero, so that rounding
    errors neither choose the nearest of equal cells nor give an L1 between them a gradient.
    """
    rows, columns = raster
    first_row, first_column = ((size // features.shape[axis] - 1) // 2 for axis, size in ((2, rows), (3, columns)))
    return (
        cells[..., 0].clamp(first_row, rows - 1 - first_row),
        cells[..., 1].clamp(first_column, columns - 1 - first_column),
    )


def bilinear(features: Tensor, grid: Tensor) -> Tensor:
    """Features at places between them, as ``grid_sample`` with the border's values beyond it.

    Args:
        features: ``(1, C, h, w)``.
        grid: x and y from -1 to 1, edge to edge, ``(1, n, k, 2)``.

    Returns:
        ``(1, C, n, k)``; differentiable in ``features``.
    """
    if features.device.type == "mps":  # Metal has neither borders nor gradients for it before torch 2.13
        return gathered(features, grid)
    return grid_sample(features, grid, padding_mode="border", align_corners=False)


def gathered(features: Tensor, grid: Tensor) -> Tensor:
    """The same as `bilinear`, of four cells each, by what every device can do."""
    rows, columns = features.shape[-2:]
    last = grid.new_tensor([columns - 1, rows - 1])
    at = (((grid + 1) * (last + 1) - 1) / 2).clamp(min=torch.zeros_like(last), max=last)
    low = at.floor()
    high = torch.minimum(low + 1, last)
    right, down = (at - low).unbind(-1)
    flat = features.flatten(2)[0]

    def values(x: Tensor, y: Tensor) -> Tensor:
        index = (y * columns + x).long()
        found: Tensor = flat.index_select(1, index.flatten()).unflatten(1, index.shape)
        return found

    (left_x, top_y), (right_x, bottom_y) = low.unbind(-1), high.unbind(-1)
    top = torch.lerp(values(left_x, top_y), values(right_x, top_y), right)
    bottom = torch.lerp(values(left_x, bottom_y), values(right_x, bottom_y), right)
    return torch.lerp(top, bottom, down).movedim(1, 0)


def sample_cells(features: Tensor, cells: Tensor, raster: tuple[int, int]) -> Tensor:
    """The values of the features, bilinearly upsampled to the raster, at whole cells.

    Args:
        features: ``(1, C, h, w)``.
        cells: whole cells ``(n, k, 2)``, (row, column), in the features' dtype; outside the raster they have
            the border's value.
        raster: rows and columns of cells.

    Returns:
        ``(n, C, k)``; differentiable in ``features``.
    """
    rows, columns = raster
    row, column = _within_centres(features, cells, raster)
    grid = torch.stack([(2 * column + 1) / columns - 1, (2 * row + 1) / rows - 1], dim=-1)
    return bilinear(features, grid[None])[0].transpose(0, 1)


def sample_between_cells(features: Tensor, cells: Tensor, raster: tuple[int, int]) -> Tensor:
    """As `sample_cells`, at fractional cells ``(n, k, 2)``: bilinear between the four whole cells around, as in the
    authors' code."""
    cells = torch.stack(_within_centres(features, cells, raster), dim=-1)
    whole = cells.floor()
    row, column = (cells - whole).unbind(-1)
    side = torch.arange(2, dtype=cells.dtype, device=cells.device)
    corners = torch.cartesian_prod(side, side)
    around = sample_cells(features, (whole[:, :, None] + corners).flatten(1, 2), raster)
    weights = torch.stack([(1 - row) * (1 - column), (1 - row) * column, row * (1 - column), row * column], dim=-1)
    blended: Tensor = (around.unflatten(-1, (-1, 4)) * weights[:, None]).sum(-1)
    return blended
