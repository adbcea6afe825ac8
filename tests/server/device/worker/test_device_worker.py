"""DeviceWorker: stages, stopping, going on, edits, sharing.

Short settings over a small pipeline with random weights; where the model matters, over the built-in one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from livedrag.pictures import read_picture
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import (
    CommandFailed,
    DesiredState,
    PlacedDrag,
    PreviewReady,
    ResetSession,
    Start,
    StatsReported,
    Stop,
    UpdateRun,
)
from livedrag.server.document.protocol import Points, Progress
from tests.quiet import png
from tests.server.device.workers import DESIRED, SHORT, Events, a_worker, advance_to, finish, fitted, later, start
from tests.stored import stored

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker.device_worker import DeviceWorker


@pytest.fixture
def worker(small: Diffusion, events: Events, checkpoints: Checkpoints) -> Iterator[DeviceWorker]:
    with a_worker(small, events, checkpoints) as worker:
        yield worker


@pytest.fixture
def builtin_worker(model: Diffusion, events: Events, checkpoints: Checkpoints) -> Iterator[DeviceWorker]:
    with a_worker(model, events, checkpoints) as worker:
        yield worker


def fit_a_step(worker: DeviceWorker, events: Events, desired: DesiredState) -> None:
    """A run that is stopped after its first step of fitting."""
    before = len(fitted(events))
    start(worker, desired)
    while len(fitted(events)) == before:
        worker.advance()
    worker.obey(Stop(room=desired.room, run="r1"))
    finish(worker, events)


def test_the_model_info_has_all_settings(builtin_worker: DeviceWorker) -> None:
    info = builtin_worker.info
    assert info.kind == "builtin"
    assert {"official", "paper"} <= set(info.presets)
    assert {"preset", "seed", "preview_every", "preview_side", "lora_steps", "latent_lr"} <= set(info.settings)
    assert info.ranges["arrival_distance"] == (0.5, 256)
    assert info.ranges["preview_side"] == (32, 1024)
    numbers = {name for name, value in info.settings.items() if type(value) in (int, float)}
    assert set(info.ranges) == numbers
    assert info.words == {"lora_targets": ("to_q", "to_k", "to_v", "to_out")}


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_picture_that_cannot_be_read_fails_the_run_and_names_the_file(
    worker: DeviceWorker, events: Events, damage: str
) -> None:
    picture = stored(png(96, 64, "coral"))
    Path(picture.path).unlink() if damage == "missing" else Path(picture.path).write_bytes(png(96, 64))
    worker.obey(Start(run="r1", picture=picture, desired=DESIRED))
    ended = finish(worker, events)
    assert ended.outcome == "failed"
    assert picture.path in (ended.message or "")


def test_a_run_goes_through_its_stages_and_ends_with_a_picture(builtin_worker: DeviceWorker, events: Events) -> None:
    start(builtin_worker)
    ended = finish(builtin_worker, events)
    assert events.stages() == ["loading", "fitting", "inverting", "dragging", "rendering"]
    assert (ended.outcome, ended.iterations, ended.run, ended.seq, ended.message) == ("exhausted", 3, "r1", 1, None)
    assert [event for event in events if not isinstance(event, StatsReported)][-1] is ended
    assert ended.picture is not None
    assert read_picture(io.BytesIO(ended.picture), "result").size == (96, 64)
    points = events.records(Points)
    assert points[0].handles["d1"] == pytest.approx((30, 30), abs=1)
    assert ended.tracked == {"d1": points[-1].handles["d1"]}
    assert fitted(events) == [1, 2]
    frames = events.of(PreviewReady)
    assert {frame.stage for frame in frames} == {"dragging", "rendering"}
    assert {(frame.format, frame.width, frame.height) for frame in frames} == {("webp", 64, 43)}
    assert frames[0].data[8:12] == b"WEBP"


def test_a_stop_while_fitting_keeps_what_was_fitted(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    advance_to(worker, events, "fitting")
    worker.obey(Stop(room="a", run="r1"))
    worker.advance()
    assert not worker.busy
    ended = finish(worker, events)
    assert (ended.outcome, ended.picture, ended.iterations) == ("stopped", None, 0)
    start(worker, run="r2")
    assert finish(worker, events).outcome == "exhausted"
    assert fitted(events) == [1, 2]


def test_a_stop_while_dragging_renders_what_there_is_and_the_next_run_goes_on(
    worker: DeviceWorker, events: Events
) -> None:
    start(worker)
    advance_to(worker, events, "dragging")
    worker.obey(Stop(room="a", run="r1"))
    ended = finish(worker, events)
    assert (ended.outcome, ended.iterations) == ("stopped", 1)
    assert ended.picture is not None
    events.clear()
    start(worker, run="r2")
    assert finish(worker, events).iterations == 3
    assert events.stages() == ["loading", "dragging", "rendering"]
    assert events.records(Points)[0].iteration == 1


def test_a_stop_while_rendering_keeps_the_last_picture_if_there_is_one(worker: DeviceWorker, events: Events) -> None:
    for run, expected in (("r1", True), ("r2", False)):
        events.clear()
        start(worker, run=run)
        advance_to(worker, events, "rendering")
        worker.obey(Stop(room="a", run=run))
        assert (finish(worker, events).picture is not None) is expected


def test_a_stop_of_another_run_is_no_stop(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    advance_to(worker, events, "fitting")
    worker.obey(Stop(room="a", run="r0"))
    worker.advance()
    assert worker.busy


def test_targets_handles_and_masks_change_during_a_run(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    advance_to(worker, events, "dragging")
    before = events.records(Points)[-1].distances["d1"]
    drags = {
        "d1": PlacedDrag(handle=(30, 30), target=(90, 60)),
        "d2": PlacedDrag(handle=(50, 20), target=(60, 20), handle_version=8),
    }
    worker.obey(UpdateRun(desired=later(drags=drags, mask=png(96, 64, "white", "L"))))
    worker.advance()
    latest = events.records(Points)[-1]
    assert latest.distances["d1"] > before + 15
    assert set(latest.handles) == {"d1", "d2"}
    drags = {"d2": PlacedDrag(handle=(20, 50), target=(60, 20), handle_version=9)}
    worker.obey(UpdateRun(desired=later(seq=10, drags=drags)))
    worker.advance()
    assert events.records(Points)[-1].handles["d2"] == pytest.approx((20, 50), abs=6)
    ended = finish(worker, events)
    assert (set(ended.tracked), ended.seq) == ({"d2"}, 10)
    assert events.of(CommandFailed) == []


def test_a_change_that_cannot_be_applied_is_refused_and_the_run_goes_on(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    advance_to(worker, events, "dragging")
    worker.obey(UpdateRun(desired=later(settings={**SHORT, "latent_lr": 99.0})))
    worker.obey(UpdateRun(desired=later(seq=10, mask=png(9, 9, "white", "L"))))
    worker.obey(UpdateRun(desired=later(seq=11, mask=png(96, 64, "black", "L"))))
    assert ["99.0" in complaint.message for complaint in events.of(CommandFailed)] == [True, False, False]
    assert "9 x 9" in events.of(CommandFailed)[1].message
    assert "lets nothing change" in events.of(CommandFailed)[2].message
    assert finish(worker, events).outcome == "exhausted"


def test_a_run_with_a_mask_that_lets_nothing_change_fails(worker: DeviceWorker, events: Events) -> None:
    start(worker, later(mask=png(96, 64, "black", "L")))
    ended = finish(worker, events)
    assert (ended.outcome, events.stages()) == ("failed", ["loading"])
    assert "paint a region or clear the mask" in (ended.message or "")


def test_without_drags_a_run_stops(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    advance_to(worker, events, "dragging")
    worker.obey(UpdateRun(desired=later(drags={})))
    assert finish(worker, events).outcome == "stopped"


def test_numbers_that_are_not_finite_fail_the_run_and_the_next_goes_on_from_the_last_good_latent(
    worker: DeviceWorker, events: Events, small: Diffusion
) -> None:
    start(worker)
    advance_to(worker, events, "dragging")
    weight = small.unet.conv_in.weight
    kept = weight.clone()
    try:
        weight.data.fill_(float("nan"))
        ended = finish(worker, events)
    finally:
        weight.data.copy_(kept)
    assert ended.outcome == "failed"
    assert "nan" in (ended.message or "")
    events.clear()
    start(worker, later(), "r2")
    ended = finish(worker, events)
    assert (ended.outcome, ended.picture is None) == ("exhausted", False)
    assert events.stages() == ["loading", "dragging", "rendering"], "what was prepared stays so"


def test_settings_that_cannot_be_fail_the_run_and_quote_themselves(worker: DeviceWorker, events: Events) -> None:
    start(worker, later(settings={"lora_rank": 100_000}))
    ended = finish(worker, events)
    assert ended.outcome == "failed"
    assert "lora_rank is 100000" in (ended.message or "")
    start(worker, later(seq=10), "r2")
    advance_to(worker, events, "fitting")


def test_another_prompt_prepares_the_picture_anew(worker: DeviceWorker, events: Events) -> None:
    fit_a_step(worker, events, DESIRED)
    fit_a_step(worker, events, later(prompt="a field"))
    assert fitted(events) == [1, 1]


def test_rewinding_puts_the_content_back(worker: DeviceWorker, events: Events) -> None:
    start(worker)
    finish(worker, events)
    worker.obey(ResetSession(room="a"))
    events.clear()
    start(worker, later(drags={"d1": PlacedDrag(handle=(33, 35), target=(70, 40), handle_version=4)}), "r2")
    finish(worker, events)
    assert events.stages() == ["loading", "dragging", "rendering"]
    assert events.records(Points)[0].handles["d1"] == pytest.approx((33, 35), abs=1)


def test_rooms_share_the_device_step_by_step(worker: DeviceWorker, events: Events) -> None:
    for room in ("a", "b"):
        start(worker, later(room=room, settings={**SHORT, "lora_steps": 6}), f"run-{room}")
    while len(fitted(events)) < 8:
        worker.advance()
    shares = [[record.run for record in events.records(Progress)].count(f"run-{room}") for room in ("a", "b")]
    assert min(shares) >= 4


def test_the_session_idle_for_longest_leaves_the_device_and_goes_on_when_it_is_back(
    worker: DeviceWorker, events: Events
) -> None:
    for room in ("a", "b", "c", "c", "a"):
        fit_a_step(worker, events, later(room=room))
    assert fitted(events) == [1, 1, 1, 2, 2]


def places_after(small: Diffusion, folder: Path, *others: str) -> list[tuple[float, float]]:
    """Where the second run of room a finds its content, on a device for one session that others have used between."""
    events = Events()
    with a_worker(small, events, Checkpoints(folder), sessions=1) as worker:
        start(worker)
        finish(worker, events)
        for room in others:
            start(worker, later(room=room))
            finish(worker, events)
        events.clear()
        start(worker, later(drags={"d1": PlacedDrag(handle=(30, 30), target=(60, 50))}), "r2")
        finish(worker, events)
    assert events.stages() == ["loading", "dragging", "rendering"], "it was prepared already"
    return [points.handles["d1"] for points in events.records(Points)]


def test_a_run_goes_on_as_if_no_other_room_had_used_the_device(small: Diffusion, tmp_path: Path) -> None:
    assert places_after(small, tmp_path / "1", "b", "c") == places_after(small, tmp_path / "2")


def test_a_rewind_reaches_a_session_that_has_left_the_device(
    small: Diffusion, events: Events, checkpoints: Checkpoints
) -> None:
    with a_worker(small, events, checkpoints, sessions=1) as worker:
        for room in ("a", "b"):
            start(worker, later(room=room))
            finish(worker, events)
        worker.obey(ResetSession(room="a"))
        events.clear()
        start(worker, later(seq=10, drags={"d1": PlacedDrag(handle=(33, 35), target=(70, 40), handle_version=4)}), "r2")
        finish(worker, events)
    assert events.stages() == ["loading", "dragging", "rendering"]
    assert events.records(Points)[0].handles["d1"] == pytest.approx((33, 35), abs=1)


def test_previews_are_jpeg_where_a_client_lacks_webp(worker: DeviceWorker, events: Events) -> None:
    start(worker, later(format="jpeg"))
    advance_to(worker, events, "dragging")
    assert {frame.data[:2] for frame in events.of(PreviewReady)} == {b"\xff\xd8"}


def test_the_model_is_left_as_it_was(small: Diffusion, worker: DeviceWorker, events: Events) -> None:
    before = {name for name, _ in small.unet.named_parameters()}
    fit_a_step(worker, events, DESIRED)
    worker.close()
    assert {name for name, _ in small.unet.named_parameters()} == before


def test_a_run_says_which_drags_are_lost(worker: DeviceWorker, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handle counts as arrived at once, but the picture shows the content where it was."""
    from livedrag.editor import Point
    from livedrag.editor.drag.content import ContentSearch

    monkeypatch.setattr(ContentSearch, "find", lambda *_: {"d1": Point(30, 30)})
    start(worker, replace(DESIRED, settings={**SHORT, "arrival_check": "content", "arrival_distance": 250.0}))
    ended = finish(worker, events)
    assert (ended.outcome, ended.lost) == ("exhausted", ("d1",))
    points = events.records(Points)
    assert [point.lost for point in points] == [("d1",)] * len(points)
    assert points[0].content["d1"] == pytest.approx(41.2, abs=0.1)
