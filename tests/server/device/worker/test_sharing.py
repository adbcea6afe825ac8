"""DeviceWorker over a small pipeline: sharing the device, waiting for a place, and running out of memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch

from livedrag.editor.cost import Memory
from livedrag.editor.fitting.fit_step import ROWS_PER_PASS
from livedrag.editor.models.graphs import Graphs
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import (
    CommandFailed,
    DesiredState,
    PlacedDrag,
    PreparationProgress,
    Prepare,
    RunFinished,
    SessionReleased,
    StatsReported,
    StepStarted,
    Stop,
    UpdateRun,
)
from livedrag.server.document.protocol import Progress
from tests.recorders import EagerRecorder
from tests.server.device.workers import PICTURE, SHORT, Events, a_worker, finish, fitted, later, start

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker.device_worker import DeviceWorker

LONG = {**SHORT, "max_iterations": 1000}


@pytest.fixture
def worker(small: Diffusion, events: Events, checkpoints: Checkpoints) -> Iterator[DeviceWorker]:
    with a_worker(small, events, checkpoints) as worker:
        yield worker


def desired_of(room: str, **changes: Any) -> DesiredState:
    return later(room=room, **changes)


def begin(worker: DeviceWorker, *rooms: str, **changes: Any) -> None:
    for room in rooms:
        start(worker, desired_of(room, **changes), f"run-{room}")


def prepare(worker: DeviceWorker, room: str) -> None:
    worker.obey(Prepare(picture=PICTURE, desired=desired_of(room, drags={})))


def ended(events: Events) -> list[tuple[str, str]]:
    return [(event.room, event.outcome) for event in events if isinstance(event, RunFinished)]


def stages_of(events: Events, room: str) -> list[str]:
    records = [record for record in events.records(Progress) if record.run == f"run-{room}"]
    return list(dict.fromkeys(record.stage for record in records))


def turns(events: Events) -> list[str]:
    """The rooms in the order of their turns."""
    return [event.room for event in events if isinstance(event, StepStarted)]


# Sharing -------------------------------------------------------------------------------------------------------------


def test_eight_equal_rooms_get_the_same_time(small: Diffusion, events: Events, checkpoints: Checkpoints) -> None:
    times: dict[str, float] = {}
    clock = itertools.accumulate(itertools.cycle([0.1, 0.3, 0.2]))  # no machine's, so that none can hiccup
    with a_worker(small, events, checkpoints, sessions=8, clock=clock.__next__) as worker:
        begin(worker, *"abcdefgh", settings=LONG)
        while min(times.values(), default=0.0) < 4:
            worker.advance()
            times = worker.stats.rooms
    assert set(times) == set("abcdefgh")
    assert max(times.values()) / min(times.values()) <= 1.1, times


def test_the_first_step_after_an_edit_goes_first(small: Diffusion, events: Events, checkpoints: Checkpoints) -> None:
    with a_worker(small, events, checkpoints, clock=itertools.count(step=0.05).__next__) as worker:
        begin(worker, "a", "b", settings=LONG)
        while not {"dragging"} <= set(stages_of(events, "a")) & set(stages_of(events, "b")):
            worker.advance()
        for room in ("b", "a", "b"):
            worker.obey(UpdateRun(desired=desired_of(room, settings=LONG, seq=10)))
            worker.advance()
            assert turns(events)[-1] == room


def test_a_picture_is_prepared_while_no_run_needs_the_device(worker: DeviceWorker, events: Events) -> None:
    prepare(worker, "b")
    begin(worker, "a")
    while ("a", "exhausted") not in ended(events):
        worker.advance()
    rooms = turns(events)
    assert rooms.count("b") <= len(rooms) / 3
    while worker.busy:
        worker.advance()
    assert events.of(PreparationProgress, "b")[-1].stage == "ready"


# Places --------------------------------------------------------------------------------------------------------------


def test_a_room_without_a_place_waits_reports_how_long_and_gets_one(
    small: Diffusion, events: Events, checkpoints: Checkpoints
) -> None:
    with a_worker(small, events, checkpoints, clock=itertools.count(step=0.05).__next__) as worker:
        begin(worker, *"abcd")
        finish(worker, events)
    assert [room for room, _ in ended(events)][:2] in (["a", "b"], ["b", "a"])
    assert sorted(ended(events)) == [(room, "exhausted") for room in "abcd"]
    queued = [record for record in events.records(Progress) if record.stage == "queued"]
    assert [(record.run, record.step, record.steps) for record in queued[:2]] == [("run-c", 0, 2), ("run-d", 1, 2)]
    assert queued[0].seconds_left is None, "nothing is known of what a step takes"
    assert [record.step for record in queued if record.run == "run-d"][-1] == 0, "it moved up"
    assert stages_of(events, "d")[0] == "queued"


def test_the_wait_is_estimated_once_steps_have_been_timed(worker: DeviceWorker, events: Events) -> None:
    begin(worker, "a")
    finish(worker, events)
    begin(worker, *"abcde", seq=10)
    worker.advance()
    waits = {record.run: record.seconds_left for record in events.records(Progress) if record.stage == "queued"}
    first, third = waits["run-c"], waits["run-e"]
    assert first is not None
    assert third is not None
    assert 0 < first < third, "two get a place at once, the third when one of them has done"


def test_a_run_that_waits_can_be_stopped(worker: DeviceWorker, events: Events) -> None:
    begin(worker, *"abc")
    worker.obey(Stop(room="c", run="run-c"))
    assert ended(events) == [("c", "stopped")]
    finish(worker, events)
    assert len(ended(events)) == 3


def test_a_preparation_leaves_its_place_to_a_run_and_goes_on_later(worker: DeviceWorker, events: Events) -> None:
    for room in ("a", "b"):
        prepare(worker, room)
    while len(events.of(PreparationProgress, "b")) < 1:
        worker.advance()
    begin(worker, "c")
    assert [event.room for event in events if isinstance(event, RunFinished)] == []
    assert stages_of(events, "c") == []
    finish(worker, events)
    steps = [event.step for event in events.of(PreparationProgress, "b") if event.stage == "fitting"]
    assert steps == [1, 2], "it was fitted once"
    assert {event.stage for room in "ab" for event in events.of(PreparationProgress, room)[-1:]} == {"ready"}


def test_a_room_that_prepares_anew_keeps_its_place(small: Diffusion, events: Events, checkpoints: Checkpoints) -> None:
    with a_worker(small, events, checkpoints, sessions=1) as worker:
        prepare(worker, "a")
        while not events.of(PreparationProgress, "a"):
            worker.advance()
        prepare(worker, "b")
        worker.obey(Prepare(picture=PICTURE, desired=desired_of("a", drags={}, prompt="a field", seq=10)))
        for _ in range(100):
            worker.advance()
    assert [events.of(PreparationProgress, room)[-1].stage for room in "ab"] == ["ready", "ready"]


def test_sessions_leave_when_they_hold_too_much(small: Diffusion, events: Events, checkpoints: Checkpoints) -> None:
    with a_worker(small, events, checkpoints, sessions=99) as worker:
        begin(worker, "a")
        finish(worker, events)
        held = worker.stats.memory_bytes
    events.clear()
    with a_worker(
        small, events, checkpoints, sessions=99, memory=Memory(sessions=int(2.5 * held), total=2**40)
    ) as worker:
        for room in "abc":
            begin(worker, room, seq=10)
            finish(worker, events)
        assert [event.room for event in events if isinstance(event, SessionReleased)] == ["a"]
        assert held < worker.stats.memory_bytes <= 2.5 * held


def test_settings_that_need_more_memory_than_there_is_fail_the_run_beforehand(
    small: Diffusion, events: Events, checkpoints: Checkpoints
) -> None:
    with a_worker(small, events, checkpoints, memory=Memory(sessions=2**22, total=2**40)) as worker:
        begin(worker, "a", settings={**SHORT, "lora_rank": 256})
        begin(worker, "b")
        finish(worker, events)
    assert sorted(ended(events)) == [("a", "failed"), ("b", "exhausted")]
    assert "lora_rank is 256, use a smaller one" in (events.of(RunFinished, "a")[0].message or "")
    assert stages_of(events, "a") == ["loading"], "nothing was fitted"


def test_radii_that_would_hold_the_device_are_refused_during_a_run(worker: DeviceWorker, events: Events) -> None:
    drags = {f"d{n}": PlacedDrag(handle=(10 + n, 20), target=(70, 10 + n)) for n in range(30)}
    begin(worker, "a", settings=LONG)
    while "dragging" not in stages_of(events, "a"):
        worker.advance()
    worker.obey(UpdateRun(desired=desired_of("a", seq=10, settings={**LONG, "supervision_radius": 32})))
    worker.obey(UpdateRun(desired=desired_of("a", seq=11, settings={**LONG, "supervision_radius": 32}, drags=drags)))
    (refused,) = events.of(CommandFailed)
    assert "use smaller radii or fewer drags" in refused.message
    worker.obey(Stop(room="a", run="run-a"))
    assert finish(worker, events).outcome == "stopped"


def test_the_operator_caps_settings(small: Diffusion, events: Events, checkpoints: Checkpoints) -> None:
    with a_worker(small, events, checkpoints, caps={"lora_rank": 8, "ddim_steps": 20}) as worker:
        assert worker.info.ranges["lora_rank"] == (1, 8)
        assert (worker.info.settings["lora_rank"], worker.info.settings["ddim_steps"]) == (8, 20)
        begin(worker, "a", settings={**SHORT, "lora_rank": 9})
        begin(worker, "b")
        finish(worker, events)
    assert sorted(ended(events)) == [("a", "failed"), ("b", "exhausted")]
    assert "lora_rank is 9: this server allows at most 8" in (events.of(RunFinished, "a")[0].message or "")


def test_other_rooms_go_on_between_the_passes_of_a_large_batch(
    small: Diffusion, events: Events, checkpoints: Checkpoints
) -> None:
    with a_worker(small, events, checkpoints, clock=itertools.count(step=0.05).__next__) as worker:
        begin(worker, "b", settings=LONG)
        while "dragging" not in stages_of(events, "b"):
            worker.advance()
        begin(worker, "a", settings={**SHORT, "lora_steps": 1, "lora_batch": 6 * ROWS_PER_PASS})
        while "fitting" not in stages_of(events, "a"):
            worker.advance()
    rooms = turns(events)
    fitting = rooms[rooms.index("a") :]
    assert fitting.count("a") >= 6
    assert fitting.count("b") > fitting.count("a"), "a step of fitting is the background"


def test_what_the_device_has_done_is_counted(worker: DeviceWorker, events: Events) -> None:
    begin(worker, "a")
    finish(worker, events)
    stats = [event.stats for event in events if isinstance(event, StatsReported)][-1]
    assert (stats.sessions, stats.running, stats.queued) == (1, 0, 0)
    assert stats.steps["fitting"] == 2
    assert stats.steps["dragging"] == 4
    assert sum(stats.seconds.values()) == pytest.approx(stats.rooms["a"])


# A full memory -------------------------------------------------------------------------------------------------------


def full(monkeypatch: pytest.MonkeyPatch, times: int, error: Exception) -> None:
    """The device has no memory left so many times, in rooms with the seed 1."""
    from livedrag.editor import DragSession
    from livedrag.editor.drag.loop import DragLoop

    iterate = DragLoop._iterate
    left = [times]

    def no_memory(self: DragLoop, **options: bool) -> Any:
        if self.seed_of_test == 1 and left[0]:  # type: ignore[attr-defined]
            left[0] -= 1
            raise error
        return iterate(self, **options)

    made = DragSession.__init__

    def note(self: DragSession, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        self._shared._loop.seed_of_test = options["seed"]  # type: ignore[attr-defined]

    monkeypatch.setattr(DragSession, "__init__", note)
    monkeypatch.setattr(DragLoop, "_iterate", no_memory)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_full_memory_frees_idle_sessions_and_the_run_goes_on(
    small: Diffusion, events: Events, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    full(monkeypatch, 1, error)
    with a_worker(small, events, checkpoints, sessions=9) as worker:
        begin(worker, "a")
        finish(worker, events)
        begin(worker, "b", settings={**SHORT, "seed": 1})
        finish(worker, events)
    assert ended(events) == [("a", "exhausted"), ("b", "exhausted")]
    assert next(event.room for event in events if isinstance(event, SessionReleased)) == "a"
    assert fitted(events) == [1, 2, 1, 2], "what was prepared stays so"


class Forgetting(EagerRecorder):
    """Counts how often the memory of what it recorded was given back."""

    forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1


def test_a_full_memory_drops_graphs(
    small: Diffusion, events: Events, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Forgetting()
    monkeypatch.setattr(small, "graphs", Graphs(recorder, eager_runs=0))
    full(monkeypatch, 1, torch.OutOfMemoryError("CUDA out of memory"))
    with a_worker(small, events, checkpoints, sessions=9) as worker:
        begin(worker, "b", settings={**SHORT, "seed": 1})
        finish(worker, events)
    assert recorder.forgotten == 1
    assert ended(events) == [("b", "exhausted")]


def test_a_memory_that_stays_full_fails_that_run_alone(
    small: Diffusion, events: Events, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, 2, torch.OutOfMemoryError("CUDA out of memory"))
    with a_worker(small, events, checkpoints, sessions=9) as worker:
        begin(worker, "a")
        begin(worker, "b", settings={**SHORT, "seed": 1})
        finish(worker, events)
        assert sorted(ended(events)) == [("a", "exhausted"), ("b", "failed")]
        (failed,) = events.of(RunFinished, "b")
        assert "not enough memory" in (failed.message or "")
        events.clear()
        monkeypatch.undo()
        begin(worker, "b", seq=10, settings={**SHORT, "seed": 1})
        finish(worker, events)
    assert ended(events) == [("b", "exhausted")]
    assert stages_of(events, "b") == ["loading", "dragging", "rendering"], "from its checkpoint"


def test_an_unexpected_fault_fails_that_run_alone(
    worker: DeviceWorker, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, 1, ZeroDivisionError("of this test"))
    begin(worker, "a")
    begin(worker, "b", settings={**SHORT, "seed": 1})
    finish(worker, events)
    assert sorted(ended(events)) == [("a", "exhausted"), ("b", "failed")]
    assert "ZeroDivisionError: of this test" in (events.of(RunFinished, "b")[0].message or "")


def test_a_device_that_has_stopped_working_takes_the_worker_along(
    worker: DeviceWorker, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, 1, RuntimeError("CUDA error: device-side assert triggered"))
    begin(worker, "b", settings={**SHORT, "seed": 1})
    with pytest.raises(RuntimeError, match="device-side assert"):
        finish(worker, events)
    assert ended(events) == [], "the engine asks for the run again, of another worker"


# Previews ------------------------------------------------------------------------------------------------------------


def test_the_quality_of_previews_can_be_chosen(
    small: Diffusion, events: Events, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    from livedrag.editor.drag import content, decoding, preview

    decode = decoding.decode_preview

    qualities = set[str]()

    def note(model: Diffusion, latent: torch.Tensor, quality: Any, longest_side: int) -> torch.Tensor:
        qualities.add(quality)
        return decode(model, latent, quality, longest_side)

    for module in (preview, content):  # whichever calls it
        monkeypatch.setattr(module, "decode_preview", note)
    with a_worker(small, events, checkpoints, quality="latent") as worker:
        begin(worker, "a")
        finish(worker, events)
    assert qualities == {"latent"}
