"""DeviceWorker over a small pipeline: rooms that share passes of the UNet."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch

from livedrag.editor import Point
from livedrag.editor.drag import passes
from livedrag.editor.drag.passes import Request
from livedrag.editor.models.graphs import Graphs
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.edit_log import PREPARED_TOGETHER, SHARED
from livedrag.server.device.messages import PlacedDrag, RunFinished, Start, Stop, UpdateRun
from livedrag.server.document.protocol import Points
from tests.quiet import png
from tests.recorders import EagerRecorder
from tests.server.device.workers import PICTURE, SHORT, Events, a_worker, finish, later, start
from tests.stored import stored

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker.device_room import DeviceRoom
    from livedrag.server.device.worker.device_worker import DeviceWorker

LONG = {**SHORT, "max_iterations": 1000, "preview_every": 0, "latent_lr": 1e-6}
"""Nothing moves, so nothing arrives."""
UPRIGHT = stored(png(64, 96))


@dataclass
class Passes:
    """A clock that only passes of the UNet move, and what they were.

    Args:
        base, row: seconds of a pass, and of each of its rows.
        rows: of each pass.
    """

    base: float = 1.0
    row: float = 0.1
    now: float = 0.0
    rows: list[int] = field(default_factory=list)
    full: int = 99

    def clock(self) -> float:
        return self.now

    def answer(self, requests: Sequence[Request]) -> Any:
        if len(requests) >= self.full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.rows.append(len(requests))
        self.now += self.base + self.row * len(requests)
        return passes.answer(requests)


@pytest.fixture
def unet(monkeypatch: pytest.MonkeyPatch) -> Passes:
    made = Passes()
    monkeypatch.setattr("livedrag.server.device.worker.shared_step.answer", made.answer)
    return made


@pytest.fixture
def worker(small: Diffusion, events: Events, checkpoints: Checkpoints, unet: Passes) -> Iterator[DeviceWorker]:
    with a_worker(small, events, checkpoints, sessions=9, clock=unet.clock, share_passes=True) as worker:
        yield worker


def begin(worker: DeviceWorker, rooms: str, **changes: Any) -> None:
    for room in rooms:
        start(worker, later(room=room, **changes), f"run-{room}")


def iterations(events: Events, room: str) -> int:
    records = [record.iteration for record in events.records(Points) if record.run == f"run-{room}"]
    return max(records, default=0)


def outcomes(events: Events) -> dict[str, str]:
    return {event.room: event.outcome for event in events if isinstance(event, RunFinished)}


def drag_until(worker: DeviceWorker, events: Events, rooms: str, least: int) -> None:
    while min(iterations(events, room) for room in rooms) < least:
        worker.advance()


def share(worker: DeviceWorker, unet: Passes, rows: int, iterations: int = 1) -> None:
    """Go on until so many rooms have shared so many whole iterations, one after the other."""
    unet.rows.clear()
    for _ in range(400):
        if unet.rows[-iterations:] == [rows] * iterations:
            return
        worker.advance()
    pytest.fail(f"the passes had these rows: {unet.rows}")


def test_rooms_share_passes_where_that_is_faster(worker: DeviceWorker, events: Events, unet: Passes) -> None:
    begin(worker, "abcd", settings=LONG)
    share(worker, unet, 4, iterations=3)


def test_passes_before_there_is_a_graph_do_not_decide_how_many_rooms_share(
    worker: DeviceWorker, events: Events, small: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording takes many times as long as what is recorded, so that sharing would never be worth it."""
    graphs = Graphs(EagerRecorder(), eager_runs=1)
    monkeypatch.setattr(small, "graphs", graphs)
    measured: list[int] = []
    sizes, step, cold = worker._turns._sizes, worker._turns._step, set[bool]()
    measure = sizes.measure

    def note(bucket: Hashable, size: int, seconds: float) -> None:
        measured.append(size)
        measure(bucket, size, seconds)

    def watched(group: list[DeviceRoom]) -> None:
        before, known = graphs.cold_runs, len(measured)
        step(group)
        cold.add(graphs.cold_runs > before)
        assert graphs.cold_runs == before or len(measured) == known

    monkeypatch.setattr(sizes, "measure", note)
    monkeypatch.setattr(worker._turns, "_step", watched)
    begin(worker, "ab", settings={**LONG, "max_iterations": 30})
    finish(worker, events)
    assert cold == {True, False}
    assert set(measured) == {1, 2}


def test_rooms_do_not_share_passes_where_that_is_slower(worker: DeviceWorker, events: Events, unet: Passes) -> None:
    unet.base, unet.row = 0.0, 1.0
    begin(worker, "ab", settings=LONG)
    drag_until(worker, events, "ab", 5)
    before = len(unet.rows)
    drag_until(worker, events, "ab", 7)
    assert set(unet.rows[before:]) == {1}


def test_they_do_so_by_default_on_a_cpu_too(
    small: Diffusion, events: Events, checkpoints: Checkpoints, unet: Passes
) -> None:
    from livedrag.server.device.worker.device_worker import DeviceWorker

    with closing(DeviceWorker(small, events.append, checkpoints, clock=unet.clock)) as worker:
        begin(worker, "ab", settings=LONG)
        share(worker, unet, 2)


def test_the_operator_can_have_no_room_share(
    small: Diffusion, events: Events, checkpoints: Checkpoints, unet: Passes
) -> None:
    with a_worker(small, events, checkpoints, sessions=9, clock=unet.clock, share_passes=False) as worker:
        begin(worker, "ab", settings=LONG)
        drag_until(worker, events, "ab", 5)
        assert set(unet.rows) == {1}
        assert not any(room.log.problems for room in worker._rooms.values())


@pytest.mark.long
def test_time_is_shared_fairly_among_rooms_of_two_shapes(worker: DeviceWorker, events: Events) -> None:
    begin(worker, "abcde", settings=LONG)
    for room in "fgh":
        drags = {"d1": PlacedDrag(handle=(30, 30), target=(40, 70))}
        desired = later(room=room, settings=LONG, drags=drags)
        worker.obey(Start(run=f"run-{room}", picture=UPRIGHT, desired=desired))
    drag_until(worker, events, "abcdefgh", 40)
    times = worker.stats.rooms
    assert set(times) == set("abcdefgh")
    assert max(times.values()) / min(times.values()) <= 1.1, times


def test_a_stop_ends_one_room_within_an_iteration_and_an_edit_counts_in_the_next(
    worker: DeviceWorker, events: Events, unet: Passes
) -> None:
    begin(worker, "ab", settings=LONG)
    drag_until(worker, events, "ab", 1)
    share(worker, unet, 2)
    assert all(SHARED in worker._rooms[room].log.problems for room in "ab"), "results will say so"
    before = {room: iterations(events, room) for room in "ab"}
    worker.obey(Stop(room="a", run="run-a"))
    target = (10.0, 12.0)
    drags = {"d1": PlacedDrag(handle=(30, 30), target=target)}
    worker.obey(UpdateRun(desired=later(room="b", settings=LONG, drags=drags, seq=10)))
    worker.advance()
    assert iterations(events, "b") == before["b"] + 1
    session = worker._rooms["b"].session
    assert session is not None
    assert session.drags["d1"].target == Point(*target)
    while "a" not in outcomes(events):
        worker.advance()
    assert iterations(events, "a") <= before["a"] + 1
    assert outcomes(events) == {"a": "stopped"}


def test_a_room_that_fails_leaves_the_others_alone(worker: DeviceWorker, events: Events, unet: Passes) -> None:
    begin(worker, "abc", settings=LONG)
    drag_until(worker, events, "abc", 1)
    share(worker, unet, 2)
    session = worker._rooms["c"].session
    assert session is not None
    with torch.no_grad():
        session._state.latent.value.fill_(torch.nan)
    while not outcomes(events):
        worker.advance()
    assert outcomes(events) == {"c": "failed"}
    drag_until(worker, events, "ab", max(iterations(events, room) for room in "ab") + 1)
    for room in "ab":
        other = worker._rooms[room].session
        assert other is not None
        assert bool(other.latent.isfinite().all())


def test_groups_shrink_when_the_memory_is_full(worker: DeviceWorker, events: Events, unet: Passes) -> None:
    unet.full = 2
    begin(worker, "ab", settings=LONG)
    drag_until(worker, events, "ab", 6)
    assert outcomes(events) == {}
    assert set(unet.rows) == {1}


def test_rooms_whose_shared_pass_failed_go_on_alone(
    worker: DeviceWorker, events: Events, unet: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("of this test")

    monkeypatch.setattr(passes, "row_loras", broken)
    begin(worker, "ab", settings=LONG)
    drag_until(worker, events, "ab", 6)
    assert outcomes(events) == {}


def test_an_interrupted_run_goes_on_alone(worker: DeviceWorker, events: Events, unet: Passes) -> None:
    """It may be what its worker died of."""
    for room in "ab":
        desired = later(room=room, settings=LONG)
        worker.obey(Start(run=f"run-{room}", picture=PICTURE, desired=desired, resume=room == "a"))
    drag_until(worker, events, "ab", 5)
    assert set(unet.rows) == {1}


def test_rooms_are_prepared_together(worker: DeviceWorker, events: Events, unet: Passes) -> None:
    begin(worker, "ab", settings={**LONG, "lora_steps": 12})
    while not any(room.log.problems for room in worker._rooms.values()):
        worker.advance()
    room = worker._rooms["a"]
    assert room.log.problems == [PREPARED_TOGETHER]
    room.log.clear()
    assert room.log.problems == [PREPARED_TOGETHER], "a reset leaves the LoRA"
