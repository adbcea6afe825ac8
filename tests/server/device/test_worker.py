"""DeviceWorker with the real built-in model and short settings: stages, stopping, going on, edits, sharing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from msgspec.structs import replace

from livedrag.pictures import read_picture
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.engine import (
    AnyEvent,
    CommandFailed,
    DesiredState,
    PlacedDrag,
    PreviewReady,
    ResetSession,
    RunFinished,
    RunProgress,
    Start,
    StatsReported,
    Stop,
    UpdateRun,
)
from livedrag.server.document.protocol import Points, Progress, Setting
from tests.quiet import png
from tests.stored import stored

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker import DeviceWorker

T = TypeVar("T")

PICTURE = stored(png(96, 64))
SHORT: dict[str, Setting] = {
    "warp_share": 0.0,
    "inversion_strength": 0.7,
    "lora_steps": 2,
    "ddim_steps": 4,
    "max_iterations": 3,
    "preview_every": 2,
    "preview_side": 64,
}
DESIRED = DesiredState(
    room="a", seq=1, prompt="", settings=SHORT, drags={"d1": PlacedDrag(handle=(30, 30), target=(70, 40))}
)


class Told(list[AnyEvent]):
    """What a worker has told."""

    def records(self, kind: type[T]) -> list[T]:
        return [event.record for event in self if isinstance(event, RunProgress) and isinstance(event.record, kind)]

    def events(self, kind: type[T], room: str = "a") -> list[T]:
        return [event for event in self if isinstance(event, kind) and getattr(event, "room", None) == room]

    def stages(self) -> list[str]:
        """In order, without repetitions."""
        return list(dict.fromkeys(record.stage for record in self.records(Progress)))


@pytest.fixture
def worker(model: Diffusion, told: Told, checkpoints: Checkpoints) -> Iterator[DeviceWorker]:
    with a_worker(model, told, checkpoints) as worker:
        yield worker


@contextmanager
def a_worker(model: Diffusion, told: Told, checkpoints: Checkpoints, **options: Any) -> Iterator[DeviceWorker]:
    from livedrag.server.device.worker import DeviceWorker

    worker = DeviceWorker(model, told.append, checkpoints, **{"sessions": 2, **options})
    try:
        yield worker
    finally:
        worker.close()


def start(worker: DeviceWorker, desired: DesiredState = DESIRED, run: str = "r1") -> None:
    worker.obey(Start(run=run, picture=PICTURE, desired=desired))


def finish(worker: DeviceWorker, told: Told) -> RunFinished:
    while worker.busy:
        worker.advance()
    return [event for event in told if isinstance(event, RunFinished)][-1]


def advance_to(worker: DeviceWorker, told: Told, stage: str) -> None:
    while worker.busy and stage not in told.stages():
        worker.advance()
    assert stage in told.stages()


def fitted(told: Told) -> list[int]:
    """The steps of fitting there were, over all runs."""
    return [record.step for record in told.records(Progress) if record.stage == "fitting"]


def fit_a_step(worker: DeviceWorker, told: Told, desired: DesiredState) -> None:
    """A run that is stopped after its first step of fitting."""
    before = len(fitted(told))
    start(worker, desired)
    while len(fitted(told)) == before:
        worker.advance()
    worker.obey(Stop(room=desired.room, run="r1"))
    finish(worker, told)


def later(**changes: Any) -> DesiredState:
    return replace(DESIRED, **{"seq": 9, **changes})


def test_people_are_told_of_all_settings(worker: DeviceWorker) -> None:
    assert worker.info.kind == "builtin"
    assert {"official", "paper"} <= set(worker.info.presets)
    assert {"preset", "seed", "preview_every", "preview_side", "lora_steps", "latent_lr"} <= set(worker.info.settings)
    assert worker.info.ranges["arrival_distance"] == (0.5, 256)
    assert worker.info.ranges["preview_side"] == (32, 1024)
    numbers = {name for name, value in worker.info.settings.items() if type(value) in (int, float)}
    assert set(worker.info.ranges) == numbers
    assert worker.info.words == {"lora_targets": ("to_q", "to_k", "to_v", "to_out")}


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_picture_that_cannot_be_read_fails_the_run_and_names_the_file(
    worker: DeviceWorker, told: Told, damage: str
) -> None:
    picture = stored(png(96, 64, "coral"))
    Path(picture.path).unlink() if damage == "missing" else Path(picture.path).write_bytes(png(96, 64))
    worker.obey(Start(run="r1", picture=picture, desired=DESIRED))
    ended = finish(worker, told)
    assert ended.outcome == "failed"
    assert picture.path in (ended.message or "")


def test_a_run_goes_through_its_stages_and_ends_with_a_picture(worker: DeviceWorker, told: Told) -> None:
    start(worker)
    ended = finish(worker, told)
    assert told.stages() == ["loading", "fitting", "inverting", "dragging", "rendering"]
    assert (ended.outcome, ended.iterations, ended.run, ended.seq, ended.message) == ("exhausted", 3, "r1", 1, None)
    assert [event for event in told if not isinstance(event, StatsReported)][-1] is ended
    assert ended.picture is not None
    assert read_picture(io.BytesIO(ended.picture), "result").size == (96, 64)
    points = told.records(Points)
    assert points[0].handles["d1"] == pytest.approx((30, 30), abs=1)
    assert ended.tracked == {"d1": points[-1].handles["d1"]}
    assert fitted(told) == [1, 2]
    frames = told.events(PreviewReady)
    assert {frame.stage for frame in frames} == {"dragging", "rendering"}
    assert {(frame.format, frame.width, frame.height) for frame in frames} == {("webp", 64, 43)}
    assert frames[0].data[8:12] == b"WEBP"


def test_a_stop_while_fitting_keeps_what_was_fitted(worker: DeviceWorker, told: Told) -> None:
    start(worker)
    advance_to(worker, told, "fitting")
    worker.obey(Stop(room="a", run="r1"))
    worker.advance()
    assert not worker.busy
    ended = finish(worker, told)
    assert (ended.outcome, ended.picture, ended.iterations) == ("stopped", None, 0)
    start(worker, run="r2")
    assert finish(worker, told).outcome == "exhausted"
    assert fitted(told) == [1, 2]


def test_a_stop_while_dragging_renders_what_there_is_and_the_next_run_goes_on(worker: DeviceWorker, told: Told) -> None:
    start(worker)
    advance_to(worker, told, "dragging")
    worker.obey(Stop(room="a", run="r1"))
    ended = finish(worker, told)
    assert (ended.outcome, ended.iterations) == ("stopped", 1)
    assert ended.picture is not None
    told.clear()
    start(worker, run="r2")
    assert finish(worker, told).iterations == 3
    assert told.stages() == ["loading", "dragging", "rendering"]
    assert told.records(Points)[0].iteration == 1


def test_a_stop_while_rendering_keeps_the_last_picture_if_there_is_one(worker: DeviceWorker, told: Told) -> None:
    for run, expected in (("r1", True), ("r2", False)):
        told.clear()
        start(worker, run=run)
        advance_to(worker, told, "rendering")
        worker.obey(Stop(room="a", run=run))
        assert (finish(worker, told).picture is not None) is expected


def test_a_stop_of_another_run_is_no_stop(worker: DeviceWorker, told: Told) -> None:
    start(worker)
    advance_to(worker, told, "fitting")
    worker.obey(Stop(room="a", run="r0"))
    worker.advance()
    assert worker.busy


def test_targets_handles_and_masks_change_during_a_run(worker: DeviceWorker, told: Told) -> None:
    start(worker)
    advance_to(worker, told, "dragging")
    before = told.records(Points)[-1].distances["d1"]
    drags = {
        "d1": PlacedDrag(handle=(30, 30), target=(90, 60)),
        "d2": PlacedDrag(handle=(50, 20), target=(60, 20), handle_version=8),
    }
    worker.obey(UpdateRun(desired=later(drags=drags, mask=png(96, 64, "white", "L"))))
    worker.advance()
    latest = told.records(Points)[-1]
    assert latest.distances["d1"] > before + 15
    assert set(latest.handles) == {"d1", "d2"}
    drags = {"d2": PlacedDrag(handle=(20, 50), target=(60, 20), handle_version=9)}
    worker.obey(UpdateRun(desired=later(seq=10, drags=drags)))
    worker.advance()
    assert told.records(Points)[-1].handles["d2"] == pytest.approx((20, 50), abs=6)
    ended = finish(worker, told)
    assert (set(ended.tracked), ended.seq) == ({"d2"}, 10)
    assert told.events(CommandFailed) == []


def test_a_change_that_cannot_be_followed_is_complained_of_and_the_run_goes_on(
    worker: DeviceWorker, told: Told
) -> None:
    start(worker)
    advance_to(worker, told, "dragging")
    worker.obey(UpdateRun(desired=later(settings={**SHORT, "latent_lr": 99.0})))
    worker.obey(UpdateRun(desired=later(seq=10, mask=png(9, 9, "white", "L"))))
    worker.obey(UpdateRun(desired=later(seq=11, mask=png(96, 64, "black", "L"))))
    assert ["99.0" in complaint.message for complaint in told.events(CommandFailed)] == [True, False, False]
    assert "9 x 9" in told.events(CommandFailed)[1].message
    assert "lets nothing change" in told.events(CommandFailed)[2].message
    assert finish(worker, told).outcome == "exhausted"


def test_a_run_with_a_mask_that_lets_nothing_change_fails(worker: DeviceWorker, told: Told) -> None:
    start(worker, later(mask=png(96, 64, "black", "L")))
    ended = finish(worker, told)
    assert (ended.outcome, told.stages()) == ("failed", ["loading"])
    assert "paint a region or clear the mask" in (ended.message or "")


def test_without_drags_a_run_stops(worker: DeviceWorker, told: Told) -> None:
    start(worker)
    advance_to(worker, told, "dragging")
    worker.obey(UpdateRun(desired=later(drags={})))
    assert finish(worker, told).outcome == "stopped"


def test_numbers_that_are_not_finite_fail_the_run_and_the_next_goes_on_from_the_last_good_latent(
    worker: DeviceWorker, told: Told, model: Diffusion
) -> None:
    start(worker)
    advance_to(worker, told, "dragging")
    weight = model.unet.conv_in.weight
    kept = weight.clone()
    try:
        weight.data.fill_(float("nan"))
        ended = finish(worker, told)
    finally:
        weight.data.copy_(kept)
    assert ended.outcome == "failed"
    assert "nan" in (ended.message or "")
    told.clear()
    start(worker, later(), "r2")
    ended = finish(worker, told)
    assert (ended.outcome, ended.picture is None) == ("exhausted", False)
    assert told.stages() == ["loading", "dragging", "rendering"], "what was prepared stays so"


def test_settings_that_cannot_be_fail_the_run_and_quote_themselves(worker: DeviceWorker, told: Told) -> None:
    start(worker, later(settings={"lora_rank": 100_000}))
    ended = finish(worker, told)
    assert ended.outcome == "failed"
    assert "lora_rank is 100000" in (ended.message or "")
    start(worker, later(seq=10), "r2")
    advance_to(worker, told, "fitting")


def test_another_prompt_prepares_the_picture_anew(worker: DeviceWorker, told: Told) -> None:
    fit_a_step(worker, told, DESIRED)
    fit_a_step(worker, told, later(prompt="a field"))
    assert fitted(told) == [1, 1]


def test_rewinding_puts_the_content_back(worker: DeviceWorker, told: Told) -> None:
    start(worker)
    finish(worker, told)
    worker.obey(ResetSession(room="a"))
    told.clear()
    start(worker, later(drags={"d1": PlacedDrag(handle=(33, 35), target=(70, 40), handle_version=4)}), "r2")
    finish(worker, told)
    assert told.stages() == ["loading", "dragging", "rendering"]
    assert told.records(Points)[0].handles["d1"] == pytest.approx((33, 35), abs=1)


def test_rooms_share_the_device_step_by_step(worker: DeviceWorker, told: Told) -> None:
    for room in ("a", "b"):
        start(worker, later(room=room, settings={**SHORT, "lora_steps": 6}), f"run-{room}")
    while len(fitted(told)) < 8:
        worker.advance()
    shares = [[record.run for record in told.records(Progress)].count(f"run-{room}") for room in ("a", "b")]
    assert min(shares) >= 4


def test_the_session_idle_for_longest_leaves_the_device_and_goes_on_when_it_is_back(
    worker: DeviceWorker, told: Told
) -> None:
    for room in ("a", "b", "c", "c", "a"):
        fit_a_step(worker, told, later(room=room))
    assert fitted(told) == [1, 1, 1, 2, 2]


def places_after(model: Diffusion, folder: Path, *others: str) -> list[tuple[float, float]]:
    """Where the second run of room a finds its content, on a device for one session that others have used between."""
    told = Told()
    with a_worker(model, told, Checkpoints(folder), sessions=1) as worker:
        start(worker)
        finish(worker, told)
        for room in others:
            start(worker, later(room=room))
            finish(worker, told)
        told.clear()
        start(worker, later(drags={"d1": PlacedDrag(handle=(30, 30), target=(60, 50))}), "r2")
        finish(worker, told)
    assert told.stages() == ["loading", "dragging", "rendering"], "it was prepared already"
    return [points.handles["d1"] for points in told.records(Points)]


def test_a_run_goes_on_as_if_nobody_had_used_the_device_meanwhile(model: Diffusion, tmp_path: Path) -> None:
    assert places_after(model, tmp_path / "1", "b", "c") == places_after(model, tmp_path / "2")


def test_a_rewind_reaches_a_session_that_has_left_the_device(
    model: Diffusion, told: Told, checkpoints: Checkpoints
) -> None:
    with a_worker(model, told, checkpoints, sessions=1) as worker:
        for room in ("a", "b"):
            start(worker, later(room=room))
            finish(worker, told)
        worker.obey(ResetSession(room="a"))
        told.clear()
        start(worker, later(seq=10, drags={"d1": PlacedDrag(handle=(33, 35), target=(70, 40), handle_version=4)}), "r2")
        finish(worker, told)
    assert told.stages() == ["loading", "dragging", "rendering"]
    assert told.records(Points)[0].handles["d1"] == pytest.approx((33, 35), abs=1)


def test_jpeg_for_those_who_cannot_show_webp(worker: DeviceWorker, told: Told) -> None:
    start(worker, later(format="jpeg"))
    advance_to(worker, told, "dragging")
    assert {frame.data[:2] for frame in told.events(PreviewReady)} == {b"\xff\xd8"}


def test_the_model_is_left_as_it_was(model: Diffusion, worker: DeviceWorker, told: Told) -> None:
    before = {name for name, _ in model.unet.named_parameters()}
    fit_a_step(worker, told, DESIRED)
    worker.close()
    assert {name for name, _ in model.unet.named_parameters()} == before
