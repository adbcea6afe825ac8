from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from livedrag.editor.drag.tracking import have_arrived, take_templates, track_points
from livedrag.editor.sampling import patch_offsets

RASTER = (48, 64)


def texture(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 8, 24, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (0, -2), (2, 2)])
def test_a_shifted_texture_is_found(shift: tuple[int, int]) -> None:
    """A map moved by one of its cells is moved by two cells of the half-resolution raster."""
    before = texture()
    after = torch.roll(before, (shift[0] // 2, shift[1] // 2), (2, 3))
    handles = torch.tensor([[20.0, 30.0], [31.0, 11.0]])
    templates = take_templates(before, handles, RASTER)
    found = track_points(after, templates, handles, patch_offsets(3, handles), RASTER)
    assert (found - handles).tolist() == [list(shift)] * 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 47), st.integers(0, 63), st.integers(1, 12), st.integers(0, 10))
def test_tracking_never_leaves_its_window_nor_the_raster(row: int, column: int, radius: int, seed: int) -> None:
    handles = torch.tensor([[float(row), float(column)]])
    found = track_points(texture(seed), torch.randn(1, 8), handles, patch_offsets(radius, handles), RASTER)[0]
    assert (found - handles[0]).abs().max() <= radius
    assert 0 <= found[0] < 48
    assert 0 <= found[1] < 64


def test_arriving_means_closer_than_the_distance() -> None:
    handles = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    targets = torch.tensor([[0.0, 1.9], [0.0, 2.0], [3.0, 4.0]])
    assert have_arrived(handles, targets, 2.0).tolist() == [True, False, False]
