"""A run whose arrival is judged by what the picture shows.

In most tests the tracker claims what it likes, and what the search finds is given, so that their disagreement is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, Point
from livedrag.editor.drag.content import ContentSearch
from livedrag.editor.drag.handles import Handle, current_position, track_handles
from livedrag.editor.drag.motion import motion_supervision_loss
from livedrag.editor.drag.rows import Points
from livedrag.editor.points import Cell, distance
from tests.editor.drag.test_session import DRAG, make_session, picture

CONTENT = {"arrival_check": "content", "max_iterations": 60}
Place = Callable[[DragSession, str, Handle], Point]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that goes 12 cells towards the target each time, whatever the content does."""

    def track(handles: dict[str, Handle], *args: Any, moved: bool) -> dict[str, Handle]:
        tracked = track_handles(handles, *args, moved=False)
        return {name: _hastened(handle, args[2]) if moved else handle for name, handle in tracked.items()}

    def find(points: Points, *_: Any) -> torch.Tensor:
        way = points.targets - points.cells
        length = way.norm(dim=-1, keepdim=True)
        further: torch.Tensor = points.cells + way * (12 / length).clamp(max=1)
        return further.round()

    monkeypatch.setattr("livedrag.editor.drag.iteration.track_handles", track)  # after the last iteration
    monkeypatch.setattr("livedrag.editor.drag.rows.find", find)


def _hastened(handle: Handle, rasters: Any) -> Handle:
    way = rasters.to_cell(handle.target) - handle.offset - handle.cell
    length = np.hypot(way.row, way.column)
    part = 1 if length <= 12 else 12 / length
    return replace(handle, cell=(handle.cell + Cell(way.row * part, way.column * part)).rounded())


@pytest.fixture
def session(tiny: Diffusion, hasty: None) -> Iterator[DragSession]:
    made = make_session(tiny, **CONTENT)  # type: ignore[arg-type]
    for _ in made.prepare():
        pass
    yield made
    made.close()


def show(session: DragSession, monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    """What the search finds from now on."""

    def find(self: object, handles: dict[str, Handle], *_: object) -> dict[str, Point]:
        return {name: place(session, name, handle) for name, handle in handles.items()}

    monkeypatch.setattr(ContentSearch, "find", find)


def stayed(_session: DragSession, _name: str, handle: Handle) -> Point:
    return handle.warp.handle


def followed(session: DragSession, _name: str, handle: Handle) -> Point:
    return current_position(handle, session._state.rasters)


def test_a_tracker_that_is_right_arrives(session: DragSession, monkeypatch: pytest.MonkeyPatch) -> None:
    show(session, monkeypatch, followed)
    *_, last = session.drag(preview_every=0)
    assert last.arrived
    assert last.lost == ()
    assert last.content["a"] < 4


def test_content_that_stays_is_lost_and_tried_again_with_twice_the_step_twice(
    session: DragSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(session, monkeypatch, stayed)
    lengths: list[float] = []

    def note(*args: Any, step: Any, **kwargs: Any) -> torch.Tensor:
        lengths.append(float(step))
        return motion_supervision_loss(*args, step=step, **kwargs)

    monkeypatch.setattr("livedrag.editor.drag.rows.motion_supervision_loss", note)
    start = session.latent
    steps = list(session.drag(preview_every=0))
    assert [step for step, _ in itertools.groupby(lengths)] == [1, 2, 4]
    backs = [step for step in steps if step.iteration == 0]
    assert [step.lost for step in backs] == [("a",)] * 4, "three times back, then the run ends there"
    assert all(step.content["a"] == pytest.approx(distance(DRAG.handle, DRAG.target)) for step in backs[:3])
    assert not any(step.arrived for step in steps)
    assert steps[-1].iteration == 0
    assert len(steps) < 60, "it does not use up its iterations on a drag that it has given up"
    assert torch.equal(session.latent, start), "what did not help is undone"
    assert steps[-1].handles["a"] == DRAG.handle


def test_the_published_check_believes_the_tracker(session: DragSession, monkeypatch: pytest.MonkeyPatch) -> None:
    show(session, monkeypatch, stayed)
    session.change({"arrival_check": "tracker"})
    *_, last = session.drag(preview_every=0)
    assert last.arrived
    assert last.lost == ()


def test_a_drag_that_follows_at_the_second_attempt_is_not_lost(
    session: DragSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(session, monkeypatch, lambda s, n, h: (followed if h.tries else stayed)(s, n, h))
    steps = list(session.drag(preview_every=0))
    assert ("a",) in [step.lost for step in steps]
    assert steps[-1].arrived
    assert steps[-1].lost == ()


def test_it_goes_back_to_the_last_moment_at_which_both_agreed(tiny: Diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture agrees with the tracker until the tenth iteration; it is searched at the first and every eighth."""
    session = make_session(tiny, **CONTENT, latent_lr=1e-4)  # type: ignore[arg-type]
    for _ in session.prepare():
        pass
    show(session, monkeypatch, lambda s, n, h: followed(s, n, h) if s.iteration < 10 else Point(5, 5))
    steps = session.drag(preview_every=0)
    before = [next(steps) for _ in range(12)]
    kept = session.timeline[8].latent
    session.change({"arrival_distance": 250.0})  # now every handle claims to have arrived
    back = next(steps)
    assert [step.iteration for step in before] == list(range(1, 13))
    assert (back.iteration, back.lost) == (8, ("a",))
    assert torch.equal(session.latent, kept.to(session.latent))
    assert session.timeline.current == 8
    session.close()


def test_the_run_goes_on_without_a_lost_drag(session: DragSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session.add_drag("b", Drag(Point(100, 100), Point(30, 100)))
    show(session, monkeypatch, lambda s, n, h: (stayed if n == "a" else followed)(s, n, h))
    steps = list(session.drag(preview_every=0))
    assert steps[-1].lost == ("a",)
    assert not steps[-1].arrived
    assert steps[-1].distances["b"] < 4
    assert steps[-1].distances["a"] > 30


def test_at_the_end_of_its_iterations_a_run_still_notices(
    session: DragSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(session, monkeypatch, stayed)
    session.change({"max_iterations": 3})  # 12 of 32 cells each: the tracker claims it as they end
    *_, last = session.drag(preview_every=0)
    assert last.iteration == 3
    assert last.lost == ("a",)
    assert not last.arrived


@pytest.mark.parametrize("edit", ["target", "handle", "run"])
def test_an_edit_and_a_new_run_give_a_lost_drag_another_chance(
    session: DragSession, monkeypatch: pytest.MonkeyPatch, edit: str
) -> None:
    show(session, monkeypatch, stayed)
    *_, last = session.drag(preview_every=0)
    assert last.lost == ("a",)
    if edit == "target":
        session.set_target("a", Point(40, 90))
    elif edit == "handle":
        session.set_handle("a", Point(50, 50))
    run = session.drag(preview_every=0, iterations_done=0 if edit == "run" else 1)
    assert next(run).lost == ()


def test_content_that_cannot_be_recognised_is_where_it_is_tracked(
    session: DragSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ContentSearch, "find", lambda *_: {})
    *_, last = session.drag(preview_every=0)
    assert last.arrived


def test_region_supervision_is_checked_too(tiny: Diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(tiny, **{**CONTENT, "supervision": "region", "max_iterations": 24})  # type: ignore[arg-type]
    for _ in session.prepare():
        pass
    show(session, monkeypatch, stayed)
    steps = list(session.drag(preview_every=0))
    assert steps[-1].lost == ("a",)
    assert not steps[-1].arrived
    first = next(index for index, step in enumerate(steps) if step.lost)
    ways = [step.distances["a"] for step in steps]
    assert ways[first + 1] - ways[first + 2] == pytest.approx(2 * (ways[0] - ways[1])), "twice as fast"
    session.close()


@pytest.mark.parametrize("supervision", ["points", "region"])
def test_a_run_with_lost_drags_continues_from_a_snapshot_bit_for_bit(
    session: DragSession, tiny: Diffusion, monkeypatch: pytest.MonkeyPatch, supervision: str
) -> None:
    show(session, monkeypatch, stayed)
    session.change({"supervision": supervision, "max_iterations": 24})
    for taken in (3, 6, 11):
        session.reset()
        run = session.drag(preview_every=0)
        list(itertools.islice(run, taken))
        restored = DragSession.restore(tiny, picture(), session.snapshot())
        for mine, theirs in itertools.zip_longest(run, restored.drag(preview_every=0)):
            assert mine == theirs
            assert torch.equal(session.latent, restored.latent)
        restored.close()


def test_previews_change_nothing(session: DragSession, monkeypatch: pytest.MonkeyPatch) -> None:
    show(session, monkeypatch, stayed)
    runs = []
    for every in (0, 1, 3):
        session.reset()
        runs.append([(step.iteration, step.lost, session.latent) for step in session.drag(every)])
    for run in runs[1:]:
        assert [step[:2] for step in run] == [step[:2] for step in runs[0]]
        assert all(torch.equal(one[2], other[2]) for one, other in zip(run, runs[0], strict=True))


def test_a_real_search_sees_that_content_stayed_and_that_it_was_warped(
    model: Diffusion, samples: Path, hasty: None
) -> None:
    arm = Drag(Point(62, 150), Point(40, 110))
    bear = Image.open(samples / "teddy-bear.png").convert("RGB")
    quick: dict[str, Any] = {"lora_steps": 0, "ddim_steps": 10, "inversion_strength": 0.2, "latent_lr": 1e-6}
    for warp_share, lost in ((0.0, ("arm",)), (1.0, ())):
        settings = DragSettings.resolve(None, {}, {**quick, "arrival_check": "content", "warp_share": warp_share})
        session = DragSession(model, bear, prompt="a teddy bear", settings=settings)
        for _ in session.prepare():
            pass
        session.add_drag("arm", arm)
        *_, last = session.drag(preview_every=0)
        assert last.lost == lost
        assert last.arrived is not bool(lost)
        session.close()


def test_a_drag_that_is_given_up_is_not_warped_again(session: DragSession, monkeypatch: pytest.MonkeyPatch) -> None:
    show(session, monkeypatch, stayed)
    session.change({"warp_share": 1.0, "max_iterations": 200})
    start = session.latent
    *_, last = session.drag(preview_every=0)
    assert last.lost == ("a",)
    assert torch.equal(session.latent, start)
    assert last.handles["a"] == DRAG.handle
