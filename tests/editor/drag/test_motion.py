from __future__ import annotations

import pytest
import torch

from livedrag.editor.drag.motion import mask_loss, motion_supervision_loss
from livedrag.editor.drag.tracking import take_patches
from livedrag.editor.sampling import patch_offsets

RASTER = (32, 32)


def square(radius: int) -> torch.Tensor:
    return patch_offsets(radius, torch.zeros(1))


def blob(row: float, column: float, side: int = 16) -> torch.Tensor:
    """A feature map ``(1, 1, side, side)`` with one soft blob at a place of the map."""
    rows, columns = torch.meshgrid(torch.arange(side).double(), torch.arange(side).double(), indexing="ij")
    return torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4)[None, None]


def test_descending_the_loss_moves_features_to_the_target() -> None:
    """The paper's idea in small: the blob's centre of mass goes towards the target."""
    features = blob(8, 5).requires_grad_()
    handle, target = torch.tensor([[17.0, 11.0]]).double(), torch.tensor([[17.0, 25.0]]).double()
    optimizer = torch.optim.SGD([features], lr=0.02)

    def centre(weights: torch.Tensor) -> float:
        columns = torch.arange(16).double()
        row = weights[0, 0, 8].clamp(min=0)
        return ((row * columns).sum() / row.sum()).item()

    before = centre(features.detach())
    for _ in range(20):
        optimizer.zero_grad()
        motion_supervision_loss(features, handle, target, square(3), RASTER).backward()
        optimizer.step()
    assert centre(features.detach()) > before + 0.1


def test_the_detached_patch_gets_no_gradient() -> None:
    """Only the patch one step ahead is pulled; the patch at the handle is what it is pulled to."""
    features = torch.randn(1, 3, 16, 16, dtype=torch.float64).requires_grad_()
    handle, target = torch.tensor([[8.0, 8.0]]).double(), torch.tensor([[8.0, 24.0]]).double()
    motion_supervision_loss(features, handle, target, square(0), RASTER).backward()
    assert features.grad is not None
    ahead = features.grad.abs().sum((0, 1)).nonzero()
    assert ahead[:, 1].min() >= 4  # cell 9 reads columns 4 and 5 of the map; cell 8 would read 3 and 4


def test_where_the_map_is_constant_rounding_gives_no_gradient() -> None:
    """From the outermost feature's centre outwards, the patch and the patch one step ahead are the same."""
    features = torch.randn(1, 64, 8, 8).requires_grad_()
    handle, target = torch.tensor([[31.0, 30.0]]), torch.tensor([[31.6, 31.3]])
    loss = motion_supervision_loss(features, handle, target, square(0), RASTER)
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_scale_is_mean_over_channels_and_sum_over_the_patch() -> None:
    rows = torch.arange(16).double()[None, None, :, None].expand(1, 7, 16, 16)  # value = row of the map = cell / 2
    handle, target = torch.tensor([[15.0, 15.0]]).double(), torch.tensor([[25.0, 15.0]]).double()
    assert motion_supervision_loss(rows, handle, target, square(1), RASTER).item() == pytest.approx(9 * 0.5)


def test_points_add_up_and_the_border_cuts_patches() -> None:
    features = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    handles = torch.tensor([[0.0, 0.0], [31.0, 12.0], [9.0, 9.0]]).double()
    targets = torch.tensor([[10.0, 4.0], [20.0, 12.0], [9.0, 20.0]]).double()
    together = motion_supervision_loss(features, handles, targets, square(2), RASTER)
    alone = sum(
        motion_supervision_loss(features, handles[i : i + 1], targets[i : i + 1], square(2), RASTER) for i in range(3)
    )
    assert torch.allclose(together, torch.as_tensor(alone))


def test_the_mask_loss_is_blind_where_everything_may_change() -> None:
    below = torch.randn(1, 4, 8, 8, dtype=torch.float64).requires_grad_()
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    mask[..., :3] = 1
    loss = mask_loss(below, torch.zeros_like(below), mask, 0.1)
    loss.backward()
    assert below.grad is not None
    assert not below.grad[..., :3].any()
    assert torch.allclose(below.grad[..., 3:].abs(), torch.tensor(0.1).double())
    assert mask_loss(below, torch.zeros_like(below), torch.ones_like(mask), 0.1).item() == 0


def test_a_template_is_pulled_in_place_of_the_patch_at_the_handle() -> None:
    """The loss is zero where the features one step ahead are already the template, whatever is at the handle."""
    features = torch.randn(1, 5, 16, 16, dtype=torch.float64)
    handle, target = torch.tensor([[9.0, 9.0]]).double(), torch.tensor([[9.0, 20.0]]).double()
    ahead = take_patches(features, handle + torch.tensor([0, 4.0]), square(2), RASTER)
    assert motion_supervision_loss(features, handle, target, square(2), RASTER, step=4, templates=ahead).item() < 1e-12
    here = take_patches(features, handle, square(2), RASTER)
    with_template = motion_supervision_loss(features, handle, target, square(2), RASTER, templates=here)
    assert torch.equal(with_template, motion_supervision_loss(features, handle, target, square(2), RASTER))
    assert with_template.item() > 0.1


def test_a_longer_step_ends_at_the_target() -> None:
    columns = torch.arange(16).double().expand(1, 3, 16, 16)  # value = column of the map = cell / 2
    handle = torch.tensor([[15.0, 10.0]]).double()

    def loss(way: float, step: float) -> float:
        target = handle + torch.tensor([0.0, way])
        return motion_supervision_loss(columns, handle, target, square(0), RASTER, step=step).item()

    assert loss(10, 4) == pytest.approx(4 / 2)
    assert loss(2.5, 4) == pytest.approx(2.5 / 2)
    assert loss(0.7, 1) == pytest.approx(1 / 2), "as in the paper: one cell, however near the target is"
