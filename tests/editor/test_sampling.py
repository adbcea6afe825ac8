from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from livedrag.editor.sampling import bilinear, gathered, patch_offsets, sample_between_cells, sample_cells

RASTER = (24, 40)


def feature_map() -> torch.Tensor:
    return torch.randn(1, 5, 6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_patches_run_in_row_major_order() -> None:
    assert patch_offsets(1, torch.zeros(1)).tolist() == [[r, c] for r in (-1, 0, 1) for c in (-1, 0, 1)]


def test_every_cell_has_the_value_of_the_upsampled_map() -> None:
    features = feature_map()
    whole = interpolate(features, RASTER, mode="bilinear")[0]
    cells = torch.cartesian_prod(*(torch.arange(side, dtype=torch.float64) for side in RASTER))
    assert torch.allclose(sample_cells(features, cells[None], RASTER)[0], whole.flatten(1))


def test_between_cells_the_upsampled_map_is_interpolated_again() -> None:
    features = feature_map()
    whole = interpolate(features, RASTER, mode="bilinear")[0]
    row, column, down, along = 7, 12, 0.3, 0.6
    expected = (
        whole[:, row, column] * (1 - down) * (1 - along)
        + whole[:, row, column + 1] * (1 - down) * along
        + whole[:, row + 1, column] * down * (1 - along)
        + whole[:, row + 1, column + 1] * down * along
    )
    place = torch.tensor([[[row + down, column + along]]], dtype=torch.float64)
    assert torch.allclose(sample_between_cells(features, place, RASTER)[0, :, 0], expected)


def test_beyond_the_border_is_the_borders_value() -> None:
    features = feature_map()
    beyond = torch.tensor([[[-3.0, 5.0], [30.0, 5.0], [-0.4, 5.0]]], dtype=torch.float64)
    edge = torch.tensor([[[0.0, 5.0], [23.0, 5.0], [0.0, 5.0]]], dtype=torch.float64)
    assert torch.allclose(sample_between_cells(features, beyond, RASTER), sample_cells(features, edge, RASTER))


def test_gradients_reach_the_features() -> None:
    features = feature_map().requires_grad_()
    places = torch.rand(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 20
    torch.autograd.gradcheck(lambda f: sample_between_cells(f, places, RASTER), (features,))


def test_what_apples_gpus_compute_is_the_same_and_so_is_its_gradient() -> None:
    """Places far outside, on the border, between cells, and on cells."""
    generator = torch.Generator().manual_seed(1)
    grid = 3 * torch.rand(1, 7, 9, 2, dtype=torch.float64, generator=generator) - 1.5
    grid[0, 0, :2] = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    weights = torch.randn(1, 5, 7, 9, dtype=torch.float64, generator=generator)
    found = []
    for function in (bilinear, gathered):
        features = feature_map().requires_grad_()
        values = function(features, grid)
        found.append((values.detach(), *torch.autograd.grad((values * weights).sum(), features)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
