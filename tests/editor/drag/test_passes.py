"""Rooms that share passes of the UNet get what each gets alone."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, DragStep, Point
from livedrag.editor.drag.passes import Answer, Request, answer, run_together
from livedrag.editor.models.ddim import Guidance
from livedrag.editor.points import distance
from tests.editor.drag.test_session import picture

SIDE = 128
NEAR = 1e-10
"""In float64, over 20 iterations."""
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Not shrinking: an example takes seconds."""


@pytest.fixture(scope="module")
def exact(tiny_folder: Path) -> Diffusion:
    return Diffusion.load(str(tiny_folder), device="cpu", dtype=torch.float64)


@dataclass(frozen=True)
class Room:
    """A room of a test.

    Args:
        joins: rounds that the others have done before it joins.
        iterations: that it stays for.
    """

    settings: dict[str, Any]
    prompt: str
    seed: int
    drags: list[Drag]
    pins: list[Point]
    mask: np.ndarray | None
    preview_every: int
    joins: int
    iterations: int


def places(margin: int = 12) -> st.SearchStrategy[Point]:
    inside = st.integers(margin, SIDE - margin)
    return st.builds(Point, inside, inside)


def drags() -> st.SearchStrategy[Drag]:
    pairs = st.tuples(places(), places()).filter(lambda pair: abs(pair[0].x - pair[1].x) > 8)
    return pairs.map(lambda pair: Drag(*pair))


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray | None:
    if draw(st.booleans()):
        return None
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    left, top = draw(st.integers(0, 60)), draw(st.integers(0, 60))
    mask[top : top + draw(st.integers(20, 120)), left : left + draw(st.integers(20, 120))] = True
    return mask


def rooms(iterations: int) -> st.SearchStrategy[Room]:
    numbers = st.fixed_dictionaries(
        {
            "lora_rank": st.integers(1, 9),
            "lora_targets": st.sampled_from(["to_q to_k to_v to_out", "to_q to_v", "to_k"]),
            "inversion_strength": st.sampled_from([0.4, 0.7, 1.0]),
            "latent_lr": st.sampled_from([0.01, 0.02]),
            "supervision": st.sampled_from(["points", "points", "region"]),
            "supervision_radius": st.integers(0, 3),
            "supervision_template": st.sampled_from(["current", "first"]),
            "background": st.sampled_from(["loss", "keep"]),
            "warp_share": st.sampled_from([0.0, 0.0, 0.5]),
            "alternation": st.sampled_from([1, 1, 2]),
        }
    )
    return st.builds(
        Room,
        settings=numbers,
        prompt=st.sampled_from(["", "a cat", "a red house on a hill"]),
        seed=st.integers(0, 99),
        drags=st.lists(drags(), min_size=1, max_size=4),
        pins=st.lists(places(), max_size=2),
        mask=masks(),
        preview_every=st.sampled_from([0, 3]),
        joins=st.integers(0, iterations // 2),
        iterations=st.integers(iterations // 2, iterations),
    )


def prepared(model: Diffusion, room: Room) -> DragSession:
    quick = {"lora_steps": 2, "lora_batch": 1, "lora_lr": 0.01, "ddim_steps": 6, "max_iterations": 99}
    chosen = DragSettings.resolve(None, {}, {**quick, **room.settings})
    session = DragSession(model, picture(), prompt=room.prompt, settings=chosen, seed=room.seed)
    for _ in session.prepare():
        pass
    for name, drag in enumerate(room.drags):
        session.add_drag(str(name), drag)
    session.set_mask(room.mask)
    session.set_pins(room.pins)
    return session


@dataclass
class Trace:
    """Latent and handles after each iteration, and the loss that led there."""

    states: list[tuple[torch.Tensor, dict[str, Point], float]]

    def note(self, session: DragSession, step: DragStep) -> None:
        self.states.append((session.latent, step.handles, step.loss))


def drag_alone(session: DragSession, room: Room) -> Trace:
    trace = Trace([])
    for _, step in zip(range(room.iterations), session.drag(room.preview_every), strict=False):
        trace.note(session, step)
    return trace


@torch.no_grad()
def one_pass(session: DragSession) -> None:
    preparation = session._state.preparation
    with preparation.lora.active():
        session.model.predict_features(session.latent, 300, preparation.prompt)


def drag_together(sessions: list[DragSession], members: list[Room]) -> tuple[list[Trace], list[int]]:
    """The traces of all, and how many rows each pass had."""
    traces, rows = [Trace([]) for _ in members], []
    loops = [session.shared.drag(room.preview_every) for session, room in zip(sessions, members, strict=True)]

    def going_on(index: int) -> Callable[[Answer], Request | None]:
        def go_on(answered: Answer) -> Request | None:
            step = next(loops[index], None) if answered is None else loops[index].send(answered)
            if isinstance(step, DragStep):
                traces[index].note(sessions[index], step)
                return None
            return step

        return go_on

    def answer_all(requests: Any) -> Any:
        rows.append(len(requests))
        return answer(list(requests.values()))

    for turn in range(max(room.joins + room.iterations for room in members)):
        if turn % 2:  # a pass of one room, with its LoRA merged into the weights
            one_pass(sessions[0])
        there = [i for i, room in enumerate(members) if room.joins <= turn < room.joins + room.iterations]
        run_together({str(index): going_on(index) for index in there}, answer_all)
    for loop in loops:
        loop.close()
    return traces, rows


def assert_each_gets_what_it_gets_alone(model: Diffusion, members: list[Room]) -> list[int]:
    alone, snapshots = [], []
    for room in members:
        session = prepared(model, room)
        snapshots.append(session.snapshot())
        alone.append(drag_alone(session, room))
        session.close()
    sessions = [DragSession.restore(model, picture(), snapshot) for snapshot in snapshots]
    together, rows = drag_together(sessions, members)
    for session in sessions:
        session.close()
    for mine, shared in zip(alone, together, strict=True):
        assert len(mine.states) == len(shared.states)
        for (latent, handles, loss), (same_latent, same_handles, same_loss) in zip(
            mine.states, shared.states, strict=True
        ):
            assert float((latent - same_latent).abs().max()) <= NEAR
            assert handles.keys() == same_handles.keys()
            assert all(distance(handles[name], place) <= NEAR for name, place in same_handles.items())
            assert loss == pytest.approx(same_loss, abs=1e-9)
    return rows


@settings(max_examples=2, phases=PHASES)
@given(members=st.lists(rooms(4), min_size=4, max_size=4))
def test_rooms_that_share_passes_get_what_each_gets_alone(exact: Diffusion, members: list[Room]) -> None:
    assert_each_gets_what_it_gets_alone(exact, members)


@pytest.mark.long
@settings(max_examples=25, phases=PHASES)
@given(members=st.lists(rooms(20), min_size=4, max_size=4))
def test_rooms_that_share_passes_get_what_each_gets_alone_over_20_iterations(
    exact: Diffusion, members: list[Room]
) -> None:
    assert_each_gets_what_it_gets_alone(exact, members)


def to_the_end(loops: list[Generator[Any, Answer, None]]) -> list[int]:
    """Run all of them, sharing passes; returns the rows of each pass."""
    rows = []

    def going_on(index: int) -> Callable[[Answer], Request | None]:
        def go_on(answered: Answer) -> Request | None:
            try:
                step = loops[index].send(answered)
            except StopIteration:
                going.discard(index)
                return None
            return step if isinstance(step, Request) else None

        return go_on

    def answer_all(requests: Any) -> Any:
        rows.append(len(requests))
        return answer(list(requests.values()))

    going = set(range(len(loops)))
    while going:
        run_together({str(index): going_on(index) for index in list(going)}, answer_all)
    return rows


def test_pictures_prepared_together_are_prepared_as_each_alone(exact: Diffusion) -> None:
    """LoRAs of different ranks, targets, batches and numbers of steps, and different levels of inversion."""
    kinds: list[dict[str, Any]] = [
        {"lora_rank": 2, "lora_steps": 3, "lora_batch": 1, "inversion_strength": 0.4},
        {"lora_rank": 5, "lora_steps": 2, "lora_batch": 6, "inversion_strength": 0.9},
        {"lora_rank": 3, "lora_steps": 3, "lora_batch": 2, "lora_targets": "to_v"},
        {"lora_rank": 2, "lora_steps": 3, "lora_batch": 1},  # shares its layers with the first
    ]

    def sessions() -> list[DragSession]:
        common: dict[str, Any] = {"ddim_steps": 6, "lora_lr": 1e-4}
        return [
            DragSession(
                exact,
                picture(),
                prompt="a cat"[:seed],
                settings=DragSettings.resolve(None, {}, common | kind),
                seed=seed,
            )
            for seed, kind in enumerate(kinds)
        ]

    alone, together = sessions(), sessions()
    for session in alone:
        for _ in session.prepare():
            pass
    rows = to_the_end([session.shared.prepare() for session in together])
    assert {3, 4} <= set(rows)
    for mine, shared in zip(alone, together, strict=True):
        own, other = mine._state.preparation, shared._state.preparation
        for weight, same in zip(own.lora.parameters(), other.lora.parameters(), strict=True):
            torch.testing.assert_close(weight, same, rtol=0, atol=NEAR)
        torch.testing.assert_close(mine.latent, shared.latent, rtol=0, atol=NEAR)
    for session in alone + together:
        session.close()


def test_pictures_rendered_together_are_rendered_as_each_alone(exact: Diffusion) -> None:
    """From different levels, with and without guidance; those that attend to their unedited pictures share passes with
    each other."""
    kinds: list[dict[str, Any]] = [
        {"inversion_strength": 0.4},
        {"inversion_strength": 0.9, "lora_rank": 5},
        {"inversion_strength": 0.7, "reference_control": True},
        {"inversion_strength": 0.4, "reference_control": True, "lora_rank": 3},
        {"inversion_strength": 0.7, "lora_rank": 2},
        {"inversion_strength": 0.7, "reference_control": True},
    ]
    guided = (4, 5)
    plain = Room({}, "a cat", 1, [Drag(Point(30, 40), Point(90, 60))], [], None, 0, 0, 0)
    sessions = [prepared(exact, replace(plain, settings=kind, seed=seed)) for seed, kind in enumerate(kinds)]
    for session in sessions:
        next(session.drag(0))
    for index in guided:
        sessions[index]._state.preparation.guidance = Guidance(exact.embed_nothing(), 3.0)
        restored = DragSession.restore(exact, picture(), sessions[index].snapshot())  # with guidance
        sessions[index].close()
        sessions[index] = restored
    again = [DragSession.restore(exact, picture(), session.snapshot()) for session in sessions]
    for session in sessions:
        for _ in session.render(0):
            pass
    rows = to_the_end([session.shared.render(0) for session in again])
    assert rows[:2] == [3, 3], "requests of a pass without control, and of one of the references"
    for mine, shared in zip(sessions, again, strict=True):
        ours, theirs = (each._state.denoising for each in (mine, shared))
        assert ours is not None
        assert theirs is not None
        assert ours.rendered is not None
        assert theirs.rendered is not None
        torch.testing.assert_close(ours.rendered, theirs.rendered, rtol=0, atol=NEAR)
    for session in sessions + again:
        session.close()
