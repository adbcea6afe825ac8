"""Where passes run from graphs, the next iteration is launched before the host has read what this one found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, DragStep, Point
from livedrag.editor.drag.passes import Answer, Iterated, IterationPass, Launched, Request, answer, run_together
from livedrag.editor.drag.run_ahead import RunAhead
from livedrag.editor.models.graphs import Graphs
from tests.editor.drag.test_passes import PHASES, SIDE, drags, masks, places
from tests.editor.drag.test_session import picture
from tests.recorders import EagerRecorder

QUICK = {"lora_steps": 1, "lora_batch": 1, "ddim_steps": 6, "max_iterations": 7}
MASK = np.zeros((SIDE, SIDE), dtype=bool)
MASK[:, 20:100] = True


@pytest.fixture(scope="module")
def exact(tiny_folder: Path) -> Diffusion:
    """Runs ahead: on the CPU, its recorder does the work anew."""
    model = Diffusion.load(str(tiny_folder), device="cpu", dtype=torch.float64)
    model.graphs = Graphs(EagerRecorder())
    return model


@pytest.fixture
def plain(exact: Diffusion) -> Iterator[None]:
    """The model does not run ahead."""
    before, exact.graphs = exact.graphs, None
    yield
    exact.graphs = before


def prepared(model: Diffusion, *, mask: np.ndarray | None = None, pins: Sequence[Point] = (), **changed: Any) -> Any:
    chosen = DragSettings.resolve(None, {}, {**QUICK, **changed})
    session = DragSession(model, picture(), prompt="a cat", settings=chosen)
    for _ in session.prepare():
        pass
    session.add_drag("a", Drag(Point(40, 60), Point(80, 70)))
    session.add_drag("b", Drag(Point(90, 30), Point(70, 34)))
    session.set_mask(mask)
    session.set_pins(pins)
    return session


class Watched:
    """Answers a session's requests, and notes which iteration is launched and read when.

    Attributes:
        log: such as ``("launched", 2)`` and ``("read", 1)``.
    """

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.launched = 0

    def answer(self, request: Request) -> Answer:
        (answered,) = answer([request])
        if not isinstance(answered, Launched):
            return answered
        number, self.launched = self.launched, self.launched + 1
        self.log.append(("launched", number))

        def wait() -> Iterated:
            self.log.append(("read", number))
            return answered.wait()

        return dataclasses.replace(answered, wait=wait)


def steps_of(session: DragSession, watched: Watched, preview_every: int = 0) -> Iterator[DragStep]:
    loop, answered = session.shared.drag(preview_every), None
    while True:
        try:
            step = loop.send(answered)
        except StopIteration:
            return
        answered = None
        if isinstance(step, Request):
            answered = watched.answer(step)
        else:
            yield step


State = tuple[torch.Tensor, dict[str, Point], float, dict[str, float], tuple[str, ...], torch.Tensor | None]


def state(session: DragSession, step: DragStep) -> State:
    return session.latent, step.handles, step.loss, dict(step.content), step.lost, step.predicted_x0


def assert_same(ours: Sequence[State], theirs: Sequence[State]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one[0], other[0])
        assert one[1:5] == other[1:5]
        assert (one[5] is None) == (other[5] is None)
        if one[5] is not None and other[5] is not None:
            assert torch.equal(one[5], other[5])


def without(run: Callable[[], list[State]]) -> list[State]:
    """What a run from graphs gives when it does not run ahead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunAhead, "_should_go_on", lambda *_: False)
        return run()


def test_the_next_iteration_is_launched_before_this_one_is_read(exact: Diffusion) -> None:
    session, watched = prepared(exact), Watched()
    assert len(list(steps_of(session, watched))) == 8  # the last one of a run only tracks
    session.close()
    expected = [("launched", 0)]
    for number in range(1, 7):
        expected += [("launched", number), ("read", number - 1)]
    assert watched.log == [*expected, ("read", 6)]


def test_without_graphs_it_is_not(exact: Diffusion, plain: None) -> None:
    session, watched = prepared(exact), Watched()
    list(steps_of(session, watched))
    session.close()
    assert watched.log == [(what, number) for number in range(7) for what in ("launched", "read")]


WAYS: dict[str, dict[str, Any]] = {
    "published": {},
    "masked": {"mask": MASK},
    "pinned": {"pins": [Point(20, 20), Point(110, 100)]},
    "masked and pinned": {"mask": MASK, "pins": [Point(50, 100)]},
    "first template": {"supervision_template": "first", "supervision_step": 4.0, "steps_per_tracking": 3},
    "Adam-mini": {"latent_optimizer": "adam_mini", "latent_lr": 0.04},
    "region": {"supervision": "region", "mask": MASK},
    "content": {"arrival_check": "content"},
}
RARELY: dict[str, dict[str, Any]] = {
    "background kept": {"background": "keep", "mask": MASK},
    "alternation": {"alternation": 3},
    "half warped": {"warp_share": 0.5},
    "warped": {"warp_share": 1.0, "arrival_distance": 1.0},
}
"""In which some iterations depend on more than the one before."""


@pytest.mark.parametrize("way", [*WAYS, *RARELY])
def test_a_run_is_the_same_bit_for_bit(exact: Diffusion, way: str) -> None:
    def run() -> list[State]:
        session = prepared(exact, **(WAYS | RARELY)[way])
        arrived.clear()
        states = []
        for step in steps_of(session, watched, preview_every=2):
            states.append(state(session, step))
            arrived.append(step.arrived)
        session.close()
        return states

    watched, arrived = Watched(), list[bool]()
    ahead = run()
    reads = [number for what, number in watched.log if what == "read"]
    launches = watched.launched
    assert_same(ahead, without(run))
    if way in WAYS:
        assert launches == len(reads) + arrived[-1]  # none in vain, but for the last one before content has arrived
        assert watched.log.index(("launched", 1)) < watched.log.index(("read", 0))


def test_what_is_launched_early_is_dropped_when_content_has_arrived(exact: Diffusion) -> None:
    session, watched = prepared(exact, arrival_distance=4.0), Watched()
    for name in ("a", "b"):
        place = session.drags[name].handle
        session.set_target(name, Point(place.x + 5, place.y))
    steps = list(steps_of(session, watched))
    assert steps[-1].arrived
    before = session.latent
    assert len(steps) < 7
    assert watched.launched <= len(steps) + 1
    assert torch.equal(before, session.latent)
    session.close()


Action = tuple[str, Any]


def actions() -> st.SearchStrategy[Action]:
    """What people do between two iterations."""
    return st.one_of(
        st.tuples(st.just("aim"), places()),
        st.tuples(st.just("place"), places()),
        st.tuples(st.just("add"), drags()),
        st.tuples(st.just("remove"), st.none()),
        st.tuples(st.just("mask"), masks()),
        st.tuples(st.just("pin"), st.lists(places(), max_size=2)),
        st.tuples(st.just("set"), st.sampled_from([{"latent_lr": 0.02}, {"mask_weight": 0.5}, {"max_iterations": 4}])),
        st.tuples(st.just("seek"), st.integers(0, 2)),
        st.tuples(st.just("reset"), st.none()),
    )


def do(session: DragSession, action: Action) -> None:
    match action:
        case "aim", target:
            session.set_target("a", target)
        case "place", handle:
            if handle != session.drags["a"].target:
                session.set_handle("a", handle)
        case "add", drag:
            session.add_drag("c", drag)
        case "remove", _:
            if "c" in session.drags:
                session.remove_drag("c")
        case "mask", mask:
            session.set_mask(mask)
        case "pin", pins:
            session.set_pins(pins)
        case "set", overrides:
            session.change(overrides)
        case "seek", index:
            session.seek(min(index, len(session.timeline) - 1))
        case "reset", _:
            session.reset()


@settings(max_examples=12, deadline=None, phases=PHASES)
@given(
    way=st.sampled_from([*WAYS, *RARELY]),
    done=st.dictionaries(st.integers(0, 5), actions(), min_size=1, max_size=4),
    preview_every=st.sampled_from([0, 2]),
)
def test_whatever_people_do_meanwhile_a_run_is_the_same(
    exact: Diffusion, way: str, done: dict[int, Action], preview_every: int
) -> None:
    def run() -> list[State]:
        session, states = prepared(exact, **(WAYS | RARELY)[way]), []
        for number, step in enumerate(session.drag(preview_every)):
            states.append(state(session, step))
            if number in done:
                do(session, done[number])
            if number == 8:
                break
        session.close()
        return states

    assert_same(run(), without(run))


def test_a_failure_of_what_is_launched_early_loses_no_iteration(exact: Diffusion) -> None:
    """The step can be taken again, as after running out of memory."""
    session, watched = prepared(exact), Watched()
    loop = session.shared.drag(0)
    request = loop.send(None)
    early = loop.send(watched.answer(request))
    assert isinstance(early, IterationPass)
    with pytest.raises(torch.OutOfMemoryError):
        loop.throw(torch.OutOfMemoryError("no memory"))
    assert session.iteration == 0
    again = [state(session, step) for step in session.drag(0)]
    session.close()
    other = prepared(exact)
    assert_same(again, [state(other, step) for step in other.drag(0)])
    other.close()


def test_rooms_that_share_passes_run_ahead_together(exact: Diffusion) -> None:
    """One of them is aimed anew: it is launched again, and the other is not."""
    rooms = {name: prepared(exact, lora_steps=2, lora_rank=rank) for name, rank in (("one", 2), ("two", 3))}
    loops, sizes = {name: session.shared.drag(0) for name, session in rooms.items()}, []
    states: dict[str, list[State]] = {"one": [], "two": []}

    def resume(name: str) -> Callable[[Answer], Request | None]:
        def go_on(answered: Answer) -> Request | None:
            step = loops[name].send(answered)
            if isinstance(step, Request):
                return step
            assert isinstance(step, DragStep)
            states[name].append(state(rooms[name], step))
            return None

        return go_on

    def answer_all(requests: Any) -> Any:
        sizes.append(len(requests))
        return answer(list(requests.values()))

    for number in range(4):
        run_together({name: resume(name) for name in rooms}, answer_all)
        if number == 1:
            rooms["one"].set_target("a", Point(30, 90))
    assert sizes == [2, 2, 2, 2, 1, 2]
    for name, loop in loops.items():
        loop.close()
        rooms[name].close()
        alone = prepared(exact, lora_steps=2, lora_rank={"one": 2, "two": 3}[name])
        expected = []
        for number, step in enumerate(alone.drag(0)):
            expected.append(state(alone, step))
            if number == 1 and name == "one":
                alone.set_target("a", Point(30, 90))
            if number == 3:
                break
        alone.close()
        for ours, theirs in zip(states[name], expected, strict=True):
            torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-10)
            assert ours[1] == theirs[1]
