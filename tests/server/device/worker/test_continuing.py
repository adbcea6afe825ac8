"""DeviceWorker over a small pipeline: what continues from a checkpoint, and from where."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import (
    CommandFailed,
    PlacedDrag,
    Prepare,
    ReleaseSession,
    ResetSession,
    RunFinished,
    Start,
)
from livedrag.server.document.protocol import Points
from tests.server.device.test_checkpoints import WRITTEN_BY_0_1
from tests.server.device.workers import (
    DESIRED,
    PICTURE,
    SHORT,
    Events,
    a_worker,
    advance_to,
    advance_until,
    finish,
    fitted,
    later,
    latest,
    start,
    work,
)

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker.device_worker import DeviceWorker

AIMED = {"d1": PlacedDrag(handle=(30, 30), target=(60, 50))}


@pytest.fixture
def worker(small: Diffusion, events: Events, checkpoints: Checkpoints) -> Iterator[DeviceWorker]:
    with a_worker(small, events, checkpoints, every=2) as worker:
        yield worker


def test_an_interrupted_run_goes_on_where_its_last_checkpoint_is(
    small: Diffusion, events: Events, checkpoints: Checkpoints
) -> None:
    desired = later(settings={**SHORT, "max_iterations": 7})
    with a_worker(small, events, checkpoints, every=2) as killed:
        start(killed, desired)
        advance_until(killed, events, 5)
    events.clear()
    with a_worker(small, events, checkpoints, every=2) as worker:
        aimed = later(seq=10, settings=desired.settings, drags=AIMED)
        worker.obey(Start(run="r1", picture=PICTURE, desired=aimed, resume=True))
        ended = finish(worker, events)
    assert events.stages() == ["loading", "dragging", "rendering"]
    assert (events.records(Points)[0].iteration, ended.iterations, ended.outcome) == (5, 7, "exhausted")
    assert events.of(CommandFailed) == []


@pytest.mark.parametrize("leaves", [False, True])
def test_an_interrupted_run_keeps_its_count_when_the_picture_is_prepared_first(
    small: Diffusion, events: Events, checkpoints: Checkpoints, leaves: bool
) -> None:
    desired = later(settings={**SHORT, "max_iterations": 7})
    with a_worker(small, events, checkpoints, every=2) as killed:
        start(killed, desired)
        advance_until(killed, events, 5)
    with a_worker(small, events, checkpoints, sessions=1, every=2) as worker:
        worker.obey(Prepare(picture=PICTURE, desired=desired))
        work(worker)
        if leaves:
            start(worker, later(room="b"), "another")
            finish(worker, events)
        events.clear()
        worker.obey(Start(run="r1", picture=PICTURE, desired=desired, resume=True))
        ended = finish(worker, events)
    assert (events.records(Points)[0].iteration, ended.iterations, ended.outcome) == (5, 7, "exhausted")


def test_a_run_that_had_ended_but_for_its_picture_makes_no_further_iteration(
    small: Diffusion, events: Events, checkpoints: Checkpoints
) -> None:
    with a_worker(small, events, checkpoints) as killed:
        start(killed)
        advance_to(killed, events, "rendering")
    events.clear()
    with a_worker(small, events, checkpoints) as worker:
        worker.obey(Start(run="r1", picture=PICTURE, desired=DESIRED, resume=True))
        ended = finish(worker, events)
    assert (ended.iterations, ended.outcome, ended.picture is None) == (3, "exhausted", False)


def test_another_run_begins_where_the_last_one_left_the_content(
    small: Diffusion, events: Events, checkpoints: Checkpoints
) -> None:
    with a_worker(small, events, checkpoints) as before:
        start(before)
        left = finish(before, events).tracked
    events.clear()
    with a_worker(small, events, checkpoints) as worker:
        start(worker, later(), "r2")
        ended = finish(worker, events)
    assert events.stages() == ["loading", "dragging", "rendering"]
    assert (events.records(Points)[0].iteration, ended.iterations) == (1, 3)
    assert events.records(Points)[0].handles["d1"] == pytest.approx(left["d1"], abs=8)


def test_a_checkpoint_of_another_picture_or_prompt_is_none(
    small: Diffusion, events: Events, checkpoints: Checkpoints
) -> None:
    with a_worker(small, events, checkpoints) as before:
        start(before)
        finish(before, events)
    events.clear()
    with a_worker(small, events, checkpoints) as worker:
        start(worker, later(prompt="a field"), "r2")
        finish(worker, events)
    assert "fitting" in events.stages()


def test_a_run_in_a_worker_that_was_killed_while_fitting_begins_anew(
    small: Diffusion, events: Events, checkpoints: Checkpoints
) -> None:
    with a_worker(small, events, checkpoints) as killed:
        start(killed)
        advance_to(killed, events, "fitting")
    with a_worker(small, events, checkpoints) as worker:
        worker.obey(Start(run="r1", picture=PICTURE, desired=DESIRED, resume=True))
        assert finish(worker, events).outcome == "exhausted"
    assert fitted(events) == [1, 1, 2]


def test_a_long_fitting_is_kept_as_it_goes(
    small: Diffusion, events: Events, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    from livedrag.server.device.worker import stages as module

    monkeypatch.setattr(module, "PREPARATION_SAVE_SECONDS", 0.0)
    with a_worker(small, events, checkpoints) as killed:
        start(killed)
        advance_to(killed, events, "fitting")
    with a_worker(small, events, checkpoints) as worker:
        worker.obey(Start(run="r1", picture=PICTURE, desired=DESIRED, resume=True))
        assert finish(worker, events).outcome == "exhausted"
    assert fitted(events) == [1, 2]


def test_a_rewind_survives_the_worker(small: Diffusion, events: Events, checkpoints: Checkpoints) -> None:
    with a_worker(small, events, checkpoints) as before:
        start(before)
        finish(before, events)
        before.obey(ResetSession(room="a"))
    events.clear()
    with a_worker(small, events, checkpoints) as worker:
        start(worker, later(drags={"d1": PlacedDrag(handle=(33, 35), target=(70, 40), handle_version=4)}), "r2")
        finish(worker, events)
    assert events.records(Points)[0].handles["d1"] == pytest.approx((33, 35), abs=1)


def test_a_full_disk_is_reported_once_and_the_run_goes_on(
    worker: DeviceWorker, events: Events, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    start(worker)
    assert finish(worker, events).outcome == "exhausted"
    (complaint,) = events.of(CommandFailed)
    assert "No space left on device" in complaint.message
    assert checkpoints.newest("a") is None


def test_a_released_room_is_on_disk_and_a_wiped_one_is_not(
    worker: DeviceWorker, events: Events, checkpoints: Checkpoints
) -> None:
    start(worker)
    advance_until(worker, events, 1)
    worker.obey(ReleaseSession(room="a"))
    assert not worker.busy
    saved = checkpoints.newest("a")
    assert saved is not None
    assert (saved.run, saved.iterations) == ("r1", 1)
    worker.obey(ReleaseSession(room="a", wipe=True))
    assert checkpoints.newest("a") is None
    assert events.of(RunFinished) == []


def test_a_session_of_version_0_1_goes_on(small: Diffusion, events: Events, tmp_path: Path) -> None:
    shutil.copytree(WRITTEN_BY_0_1, tmp_path / "checkpoints")
    settings = {**SHORT, "lora_rank": 1, "seed": 1, "max_iterations": 2}
    with a_worker(small, events, Checkpoints(tmp_path / "checkpoints")) as worker:
        start(worker, later(settings=settings), "r2")
        ended = finish(worker, events)
    assert events.stages() == ["loading", "dragging", "rendering"], "it was prepared already"
    assert (ended.outcome, ended.iterations) == ("exhausted", 2)
    parents = {moment.id: moment.parent for moment in latest(events).moments}
    assert parents[4] == 1, "it was at the first moment"
