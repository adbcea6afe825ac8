"""DeviceWorker over a small pipeline: the timeline, going to and fro on it, and that of another base picture."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import (
    CommandFailed,
    MomentInfo,
    PlacedDrag,
    PreparationProgress,
    Prepare,
    ReleaseSession,
    ResetSession,
    RunFinished,
    RunProgress,
    Seek,
    SeekCompleted,
    Start,
    Stop,
    TimelineChanged,
    UpdateRun,
)
from livedrag.server.document.protocol import Points, Progress
from tests.quiet import png
from tests.server.device.workers import (
    DESIRED,
    PICTURE,
    SHORT,
    Events,
    a_worker,
    advance_to,
    advance_until,
    finish,
    later,
    latest,
    start,
    work,
)
from tests.stored import stored

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker.device_worker import DeviceWorker

AIMED = {"d1": PlacedDrag(handle=(30, 30), target=(60, 50))}


@pytest.fixture
def worker(small: Diffusion, events: Events, checkpoints: Checkpoints) -> Iterator[DeviceWorker]:
    with a_worker(small, events, checkpoints, every=2) as worker:
        yield worker


# The timeline --------------------------------------------------------------------------------------------------------


def test_every_iteration_is_a_moment_and_those_with_a_preview_have_thumbnails(
    worker: DeviceWorker, events: Events, checkpoints: Checkpoints
) -> None:
    start(worker)
    finish(worker, events)
    timeline = latest(events)
    assert [(moment.id, moment.parent, moment.iteration) for moment in timeline.moments] == [
        (0, None, 0),
        (1, 0, 1),
        (2, 1, 2),
        (3, 2, 3),
    ]
    assert timeline.current == 3
    thumbnails = {id: data for event in events.of(TimelineChanged) for id, data in event.thumbnails.items()}
    assert sorted(thumbnails) == [moment.id for moment in timeline.moments if moment.thumbnail]
    assert {0, 1} <= thumbnails.keys()
    assert Image.open(io.BytesIO(thumbnails[0])).size == (64, 43), "of the uploaded picture's shape"
    assert sum(len(event.thumbnails) for event in events.of(TimelineChanged)) == len(thumbnails), (
        "each is reported once"
    )
    on_disk = checkpoints.load_timeline("a")
    assert on_disk is not None
    assert (on_disk.moments, on_disk.current, on_disk.thumbnails) == (timeline.moments, 3, thumbnails)
    shots = checkpoints.frames("a")
    assert [shot.iteration for shot in shots] == [
        moment.iteration for moment in timeline.moments if moment.id in thumbnails
    ]
    assert Image.open(io.BytesIO(shots[-1].data)).format == "WEBP"


def test_going_back_during_a_run_branches_from_there(worker: DeviceWorker, events: Events) -> None:
    desired = later(settings={**SHORT, "max_iterations": 4})
    start(worker, desired)
    advance_until(worker, events, 3)
    there = events.records(Points)[0].handles["d1"]
    worker.obey(Seek(moment=1, desired=later(seq=10, settings=desired.settings)))
    assert [(event.moment, event.tracked["d1"]) for event in events.of(SeekCompleted)] == [(1, there)]
    ended = finish(worker, events)
    assert (ended.outcome, ended.iterations) == ("exhausted", 3 + 4), "a branch has a whole budget of its own"
    parents = {moment.id: moment.parent for moment in latest(events).moments}
    assert (parents[2], parents[4]) == (1, 1)
    assert events.of(CommandFailed) == []


def test_going_back_while_the_result_is_rendered_drags_on(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    advance_to(worker, events, "rendering")
    worker.obey(Seek(moment=1, desired=later(seq=10)))
    ended = finish(worker, events)
    assert (ended.outcome, ended.iterations) == ("exhausted", 6)
    assert ended.picture is not None
    assert len(events.of(RunFinished)) == 1


WARPED = {**SHORT, "warp_share": 1.0, "max_iterations": 60}
"""Settings with which the content arrives, whatever the model makes of it."""


@pytest.mark.parametrize("stopped", [False, True])
def test_a_point_aimed_elsewhere_while_the_result_is_rendered_is_dragged_on(
    worker: DeviceWorker, events: Events, stopped: bool
) -> None:
    start(worker, later(seq=1, settings=WARPED))
    advance_to(worker, events, "rendering")
    reached = events.records(Points)[-1]
    if stopped:
        worker.obey(Stop(room="a", run="r1"))
    drags = {"d1": PlacedDrag(handle=(30, 30), target=(30, 50))}
    worker.obey(UpdateRun(desired=later(seq=10, settings=WARPED, drags=drags)))
    ended = finish(worker, events)
    assert ended.picture is not None
    assert ended.seq == 10
    assert (ended.tracked["d1"] != reached.handles["d1"]) is not stopped
    assert (ended.iterations > reached.iteration) is not stopped


def test_the_last_moment_of_a_run_shows_its_result(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    ended = finish(worker, events)
    timeline = latest(events)
    assert (timeline.moments[-1].id, timeline.moments[-1].iteration) == (ended.moment, ended.iterations)
    assert timeline.moments[-1].thumbnail


def test_dragging_again_after_a_reset_makes_no_other_branch(worker: DeviceWorker, events: Events) -> None:
    for round in range(3):
        start(worker, later(seq=10 + round), f"r{round}")
        finish(worker, events)
        worker.obey(ResetSession(room="a"))
    assert [(moment.id, moment.parent) for moment in latest(events).moments] == [(0, None), (1, 0), (2, 1), (3, 2)]


def test_going_back_after_a_stop_renders_what_is_there(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    advance_until(worker, events, 2)
    worker.obey(Stop(room="a", run="r1"))
    worker.obey(Seek(moment=1, desired=later(seq=10)))
    ended = finish(worker, events)
    assert (ended.outcome, ended.iterations, ended.picture is None) == ("stopped", 2, False)


@pytest.mark.parametrize("on_disk", [False, True])
def test_an_idle_room_goes_back_and_the_next_run_goes_on_from_there(
    small: Diffusion, events: Events, checkpoints: Checkpoints, on_disk: bool
) -> None:
    with a_worker(small, events, checkpoints, sessions=1) as worker:
        start(worker)
        finish(worker, events)
        there = events.records(Points)[0].handles["d1"]
        if on_disk:
            start(worker, later(room="b"))
            finish(worker, events)
        events.clear()
        worker.obey(Seek(moment=1, desired=later(seq=10)))
        assert not worker.busy
        assert [(event.moment, event.tracked) for event in events.of(SeekCompleted)] == [(1, {"d1": there})]
        assert latest(events).current == 1
        start(worker, later(seq=11), "r2")
        finish(worker, events)
    assert events.stages() == ["loading", "dragging", "rendering"]
    assert {moment.id: moment.parent for moment in latest(events).moments}[4] == 1


def test_what_the_room_has_changed_meanwhile_stays_so(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    finish(worker, events)
    drags = {"d2": PlacedDrag(handle=(50, 20), target=(60, 20), handle_version=9)}
    worker.obey(Seek(moment=1, desired=later(seq=10, drags=drags)))
    assert events.of(SeekCompleted)[0].tracked == {"d2": pytest.approx((50, 20))}


def test_an_unknown_moment_is_refused(worker: DeviceWorker, events: Events) -> None:
    worker.obey(Seek(moment=7, desired=DESIRED))
    start(worker)
    finish(worker, events)
    worker.obey(Seek(moment=8, desired=DESIRED))
    complaints = events.of(CommandFailed)
    assert [complaint.moment for complaint in complaints] == [7, 8]
    assert [f"moment {complaint.moment} is not" in complaint.message for complaint in complaints] == [True, True]
    assert events.of(SeekCompleted) == []


def test_moments_of_a_picture_prepared_anew_have_new_names(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    finish(worker, events)
    start(worker, later(prompt="a field"), "r2")
    finish(worker, events)
    assert [moment.id for moment in latest(events).moments] == [4, 5, 6, 7], "browsers keep what the others looked like"


# Another base picture ------------------------------------------------------------------------------------------------

FURTHER = stored(png(96, 64, "maroon"))


def test_a_room_gets_its_session_with_an_earlier_picture_back(
    worker: DeviceWorker, events: Events, checkpoints: Checkpoints
) -> None:
    start(worker)
    finish(worker, events)
    reached = events.records(Points)[-1].handles["d1"]
    worker.obey(ReleaseSession(room="a"))
    worker.obey(Prepare(picture=FURTHER, desired=later(seq=10, drags={})))
    work(worker)
    assert events.of(PreparationProgress)[-1].stage == "ready", (
        "the edit of the other picture does not stand in its way"
    )
    further = latest(events)
    assert [moment.iteration for moment in further.moments] == [0]
    for _ in range(3):  # as many checkpoints as are stored otherwise
        worker.obey(Start(run="r2", picture=FURTHER, desired=later(seq=11)))
        finish(worker, events)
    worker.obey(ReleaseSession(room="a"))
    events.clear()
    worker.obey(Seek(moment=3, desired=later(seq=12), picture=PICTURE.sha256))
    assert [(event.moment, event.tracked) for event in events.of(SeekCompleted)] == [(3, {"d1": reached})]
    assert [moment.iteration for moment in latest(events).moments] == [0, 1, 2, 3]
    assert latest(events).thumbnails, "clients have forgotten them"
    events.clear()
    start(worker, later(seq=13), "r3")
    finish(worker, events)
    assert events.stages() == ["loading", "dragging", "rendering"], "the picture is prepared"
    assert {moment.id: moment.parent for moment in latest(events).moments}[4] == 3


def test_a_room_is_reset_with_the_picture_that_it_has_again(
    worker: DeviceWorker, events: Events, checkpoints: Checkpoints
) -> None:
    start(worker)
    finish(worker, events)
    worker.obey(ReleaseSession(room="a"))
    worker.obey(Prepare(picture=FURTHER, desired=later(seq=10, drags={})))
    work(worker)
    worker.obey(ReleaseSession(room="a"))
    worker.obey(ResetSession(room="a", picture=PICTURE.sha256))
    assert (len(latest(events).moments), latest(events).current) == (4, 0)
    start(worker, later(seq=13, drags=AIMED), "r3")  # the same drag as before would reach the same moments
    finish(worker, events)
    assert {moment.id: moment.parent for moment in latest(events).moments}[4] == 0


def test_a_run_says_at_which_moment_it_ended(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    ended = finish(worker, events)
    assert ended.moment == latest(events).current == 3


def test_a_copied_room_needs_no_preparation_and_leaves_the_original_as_it_is(
    worker: DeviceWorker, events: Events, checkpoints: Checkpoints
) -> None:
    start(worker)
    finish(worker, events)
    before = checkpoints.load_timeline("a")
    assert before is not None
    checkpoints.copy("a", "b", {"d1": 0})
    copied = checkpoints.load_timeline("b")
    assert copied is not None
    assert (copied.moments, copied.thumbnails) == (before.moments, before.thumbnails)
    events.clear()
    worker.obey(Start(run="r9", picture=PICTURE, desired=later(room="b", seq=0)))
    assert finish(worker, events).iterations == 3
    assert {record.stage for event in events.of(RunProgress, "b") if isinstance(record := event.record, Progress)} == {
        "loading",
        "dragging",
        "rendering",
    }
    assert worker_moments(events, "b")[: len(before.moments)] == before.moments
    assert checkpoints.load_timeline("a") == before


def test_a_copy_follows_what_was_edited_since_the_checkpoint(
    worker: DeviceWorker, events: Events, checkpoints: Checkpoints
) -> None:
    start(worker)
    ended = finish(worker, events)
    x, y = ended.tracked["d1"]
    checkpoints.copy("a", "b", {"d1": 7})  # the handle was placed again, at the same point
    events.clear()
    worker.obey(Start(run="r9", picture=PICTURE, desired=later(room="b", seq=0)))
    advance_until(worker, events, 1)
    (first, *_) = [event.record for event in events.of(RunProgress, "b") if isinstance(event.record, Points)]
    assert math.dist(first.handles["d1"], (30, 30)) < math.dist((x, y), (30, 30))


def worker_moments(events: Events, room: str) -> list[MomentInfo]:
    return events.of(TimelineChanged, room)[-1].moments
