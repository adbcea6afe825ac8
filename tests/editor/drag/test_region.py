from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from livedrag.editor import Diffusion, Drag, DragSession, Point
from livedrag.editor.drag.handles import current_position, new_handle
from livedrag.editor.drag.region import advance_content, carry_features, has_held, region_loss
from livedrag.editor.points import Rasters, Size
from tests.editor.drag.test_session import make_session, picture

RASTERS = Rasters(Size(128, 128), Size(128, 128))
DRAG = Drag(Point(40, 64), Point(64, 64))
QUICK = {"supervision": "region", "latent_lr": 0.02, "max_iterations": 16}


def ramp() -> torch.Tensor:
    """Features ``(1, 2, 32, 32)`` that say where they are, x and y in pixels of the working picture."""
    place = (torch.arange(32, dtype=torch.float64) + 0.5) * 4 - 0.5
    return torch.stack(torch.meshgrid(place, place, indexing="xy"))[None]


def carried_to(way: float) -> dict[str, object]:
    handle = new_handle(DRAG, RASTERS)
    there = Point(40 + 24 * way, 64)
    return {"a": replace(handle, warp=Drag(DRAG.handle, there))}


def test_features_are_carried_along_the_field_of_the_drags() -> None:
    unedited = ramp()
    target = (0, 0, 16, 16)  # its centre is at (65.5, 65.5), a pixel and a half from the target
    for way in (0.5, 1.0):
        carried = carry_features(unedited, carried_to(way), None, RASTERS)  # type: ignore[arg-type]
        shift = unedited[target] - carried.features[target]
        assert shift == pytest.approx(24 * way, abs=3 if way == 1 else 12)
        assert carried.moved[16, 16] == 1
    far = carried.features[..., 0, 0]
    torch.testing.assert_close(far, unedited[..., 0, 0])
    assert carried.moved[0, 0] == 0


def test_nothing_outside_the_mask_is_carried() -> None:
    mask = np.zeros((128, 128), dtype=bool)
    mask[32:96, 16:112] = True
    carried = carry_features(ramp(), carried_to(1.0), mask, RASTERS)  # type: ignore[arg-type]
    outside = torch.ones(32, 32, dtype=torch.bool)
    outside[8:24, 4:28] = False
    assert carried.moved.any()
    assert not carried.moved[outside].any()
    assert torch.equal(carried.features[0, :, outside], ramp()[0, :, outside])


def test_a_mask_smaller_than_a_cell_moves_nothing() -> None:
    carried = carry_features(ramp(), carried_to(1.0), np.zeros((128, 128), dtype=bool), RASTERS)  # type: ignore[arg-type]
    assert not carried.moved.any()
    features = ramp().requires_grad_()
    loss = region_loss(features, carried)
    assert loss == 0
    (gradient,) = torch.autograd.grad(loss, features)
    assert not gradient.any()


def test_the_loss_is_the_mean_over_all_that_moves() -> None:
    carried = carry_features(ramp(), carried_to(1.0), None, RASTERS)  # type: ignore[arg-type]
    moved = carried.moved.bool()
    features = carried.features.clone()
    features[:, :, moved] += 0.25
    features[:, :, ~moved] += 100
    assert region_loss(features, carried) == pytest.approx(0.25)


def test_content_goes_a_share_of_the_way_in_each_iteration_and_is_held_at_the_target() -> None:
    handles = {"a": new_handle(DRAG, RASTERS), "b": new_handle(Drag(Point(20, 20), Point(20, 50)), RASTERS)}
    places = []
    for _ in range(14):
        handles = advance_content(handles, 16, RASTERS)
        places.append({name: current_position(handle, RASTERS) for name, handle in handles.items()})
    assert [place["a"].x for place in places[:10]] == pytest.approx([40 + 2.4 * step for step in range(1, 11)])
    assert [place["b"].y for place in places[:10]] == pytest.approx([20 + 3 * step for step in range(1, 11)])
    assert has_held(handles["a"], 16)
    assert not has_held(handles["a"], 40), "a longer run holds it for longer"


@pytest.fixture
def session(tiny: Diffusion) -> Iterator[DragSession]:
    made = make_session(tiny, **QUICK)  # type: ignore[arg-type]
    for _ in made.prepare():
        pass
    yield made
    made.close()


def left(session: DragSession, latent: torch.Tensor) -> float:
    """The region loss of a latent where the session's content is."""
    state = session._state
    preparation = state.preparation
    with torch.no_grad(), preparation.lora.active():
        features = state.model.predict_features(latent, preparation.level.timestep, preparation.prompt)
    unedited = state.reference.features()
    return float(region_loss(features, carry_features(unedited, state.edit.handles, None, state.rasters)))


def test_a_run_carries_the_features_to_the_target(session: DragSession) -> None:
    unedited = session.latent
    steps = list(session.drag(preview_every=0))
    assert [round(step.distances["a"], 6) for step in steps[:10]] == pytest.approx(
        [np.hypot(60, 20) * (1 - step / 10) for step in range(1, 11)], abs=1e-5
    )
    assert steps[-1].arrived
    assert steps[-1].iteration == 10 + 4 - 1, "the tenth iteration reaches the target; then it is held"
    assert left(session, session.latent) < 0.95 * left(session, unedited)
    held = [step.loss for step in steps[9:-1]]
    assert held == sorted(held, reverse=True), "the better it fits, the longer it is held"


def test_it_goes_on_where_the_warp_ends(tiny: Diffusion) -> None:
    session = make_session(tiny, **{**QUICK, "max_iterations": 32}, warp_share=0.5)  # type: ignore[arg-type]
    for _ in session.prepare():
        pass
    steps = list(session.drag(preview_every=0))
    warped = [step for step in steps if step.loss == 0 and not step.arrived]
    assert warped
    assert warped[-1].distances["a"] == pytest.approx(np.hypot(60, 20) / 2)
    assert steps[len(warped)].distances["a"] < np.hypot(60, 20) / 2
    session.close()


def test_a_new_target_is_followed_and_held_anew(session: DragSession) -> None:
    run = session.drag(preview_every=0)
    for _ in range(11):
        next(run)
    assert session._state.edit.handles["a"].held > 0
    session.set_target("a", Point(90, 100))
    step = next(run)
    assert 0 < step.distances["a"] < 40
    assert session._state.edit.handles["a"].held == 0


def test_supervision_may_change_during_a_run(session: DragSession) -> None:
    """Tracking goes on where the field has carried the content, and the other way round."""
    run = session.drag(preview_every=0)
    carried = [next(run) for _ in range(3)][-1].handles["a"]
    session.change({"supervision": "points"})
    step = next(run)
    assert step.loss > 0
    assert np.hypot(step.handles["a"].x - carried.x, step.handles["a"].y - carried.y) < 1e-6
    tracked = [next(run) for _ in range(2)][-1]
    session.change({"supervision": "region"})
    assert next(run).distances["a"] < tracked.distances["a"]


def test_a_run_continues_from_a_snapshot_bit_for_bit(tiny: Diffusion, session: DragSession) -> None:
    for taken in (4, 11):  # on the way, and while it is held
        session.reset()
        run = session.drag(preview_every=0)
        list(itertools.islice(run, taken))
        restored = DragSession.restore(tiny, picture(), session.snapshot())
        for mine, theirs in itertools.zip_longest(run, restored.drag(preview_every=0)):
            assert mine == theirs
            assert torch.equal(session.latent, restored.latent)
        restored.close()
