"""An iteration as a function of tensors: filling up changes nothing, and the device is waited for once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from livedrag.editor import Diffusion, Drag, DragSession, NumericalError, Point
from livedrag.editor.drag.arrival import active
from livedrag.editor.drag.graphed import cut, filled_up
from livedrag.editor.drag.iteration import carry
from livedrag.editor.drag.latent import Adam, DraggedLatent, adam_step
from livedrag.editor.drag.row_of_session import row_of
from livedrag.editor.drag.rows import Proposal, iterate
from livedrag.editor.models.trees import leaves
from tests.editor.drag.test_passes import places
from tests.editor.drag.test_session import make_session
from tests.strict_recorder import WAITS, Watched

NEAR = 1e-12


@pytest.fixture(scope="module")
def exact(tiny_folder: Path) -> Diffusion:
    return Diffusion.load(str(tiny_folder), device="cpu", dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_of_adam_is_torchs(dtype: torch.dtype) -> None:
    ours = DraggedLatent(torch.randn(1, 4, 8, 8, dtype=dtype), 0, unedited=True)
    theirs = ours.value.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.01)
    for _ in range(5):
        theirs.grad = torch.randn_like(theirs)
        value, moments = adam_step(ours.value, theirs.grad, ours.adam(0.01))
        ours.take(value, moments, loss=1.0, largest=1.0, learning_rate=0.01)
        optimizer.step()
        assert torch.equal(ours.value, theirs)


def test_adam_mini_divides_all_numbers_by_one() -> None:
    latent = DraggedLatent(torch.zeros(1, 4, 8, 8, dtype=torch.float64), 0, unedited=True)
    gradient = torch.zeros_like(latent.value)
    gradient[0, 0, 0, :2] = torch.tensor([1.0, 1e-3])
    own, _ = adam_step(latent.value, gradient, latent.adam(0.1))
    shared, moments = adam_step(latent.value, gradient, latent.adam(0.1, mini=True))
    assert torch.allclose(own, -0.1 * gradient.sign(), atol=1e-5), "Adam's steps are equally long"
    root = gradient.square().mean().sqrt()
    assert torch.allclose(shared, -0.1 * gradient / root, atol=1e-5), "those of Adam-mini are like the gradient"
    latent.take(shared, moments, loss=1.0, largest=1.0, learning_rate=0.1)
    again, _ = adam_step(latent.value, gradient, latent.adam(0.1, mini=True))
    assert torch.allclose(again, 2 * shared, atol=1e-5)


def prepared(model: Diffusion, points: list[Drag], pins: list[Point], masked: bool, **changed: Any) -> DragSession:
    session = make_session(model, drag=None, **changed)
    for _ in session.prepare():
        pass
    for name, drag in enumerate(points):
        session.add_drag(str(name), drag)
    session.set_pins(pins)
    if masked:
        session.set_mask(np.eye(128) + np.eye(128, k=1))
    return session


def proposals(session: DragSession) -> tuple[Proposal, Proposal]:
    """Of the next iteration, and of the same filled up."""
    state = session._state
    row = row_of(state, carry(state, active(state, state.edit.handles)), with_noise=False)
    with state.preparation.lora.active():
        (plain,), (filled,) = (iterate(session.model, [each]) for each in (row, filled_up(row)))
    return plain, cut(filled, row)


@settings(max_examples=6, phases=(Phase.explicit, Phase.generate))
@given(
    points=st.lists(st.builds(Drag, places(), places()).filter(lambda d: d.handle != d.target), min_size=1, max_size=5),
    pins=st.lists(places(), max_size=3),
    masked=st.booleans(),
    numbers=st.fixed_dictionaries(
        {
            "supervision_radius": st.integers(0, 3),
            "tracking_radius": st.integers(1, 5),
            "supervision_template": st.sampled_from(["current", "first"]),
            "supervision": st.sampled_from(["points", "points", "region"]),
        }
    ),
)
def test_filling_up_changes_nothing(
    exact: Diffusion, points: list[Drag], pins: list[Point], masked: bool, numbers: dict[str, Any]
) -> None:
    session = prepared(exact, points, pins, masked, **numbers)
    steps = session.drag(preview_every=0)
    for _ in range(3):
        plain, filled = proposals(session)
        for ours, theirs in zip(leaves(plain), leaves(filled), strict=True):
            torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=NEAR)
        if next(steps).arrived:
            break
    session.close()


def test_what_counts_is_padded_to_powers_of_two(exact: Diffusion) -> None:
    drags = [Drag(Point(30 + 10 * index, 40), Point(90, 60)) for index in range(3)]
    session = prepared(exact, drags, [Point(10, 10)] * 5, masked=False, tracking_radius=3)
    state = session._state
    row = filled_up(row_of(state, state.edit.handles, with_noise=False))
    assert row.points is not None
    assert row.pins is not None
    assert (len(row.points.cells), len(row.pins.cells)) == (4, 8)
    assert (len(row.points.window.offsets), len(row.points.pulled.offsets)) == (81, 9)
    session.close()


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
@pytest.mark.parametrize("supervision", ["points", "region"])
def test_an_iteration_waits_for_the_device_once(
    exact: Diffusion, masked: bool, supervision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = prepared(exact, [Drag(Point(30, 40), Point(90, 60))], [Point(64, 100)], masked, supervision=supervision)
    steps = session.drag(preview_every=0)
    next(steps)
    next(steps)  # from here on, what the unedited latent gives is known
    reads: list[torch.Size] = []
    to_list = torch.Tensor.tolist

    def note(tensor: torch.Tensor) -> Any:
        reads.append(tensor.shape)
        return to_list(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", note)
    with Watched(WAITS):
        next(steps)
    assert len(reads) == 1
    session.close()


def test_a_step_that_is_not_finite_is_not_taken() -> None:
    latent = DraggedLatent(torch.zeros(1, 4, 8, 8), 3, unedited=True)
    adam = latent.adam(0.1)
    assert isinstance(adam, Adam)
    with pytest.raises(NumericalError, match="iteration 4 gave a loss of nan"):
        latent.take(torch.ones(1), adam.moments, loss=float("nan"), largest=1.0, learning_rate=0.1)
    assert not latent.value.any()
