"""DeviceWorker with the real built-in model: pictures from words, and rooms that are dragged from their own latents."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from PIL import Image

from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import (
    DesiredState,
    Generate,
    PictureRef,
    PlacedDrag,
    PreparationProgress,
    Prepare,
    PreviewReady,
    ReleaseSession,
    RunFinished,
    RunProgress,
    SessionReleased,
    Start,
    Stop,
)
from livedrag.server.document.protocol import Generation, Points, Progress
from tests.server.device.workers import SHORT, Events, a_worker
from tests.stored import stored

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker.device_worker import DeviceWorker

GENERATION = Generation(prompt="a red apple", seed=5, guidance=4.0, ddim_steps=4, model="builtin")
DESIRED = DesiredState(
    room="a",
    seq=1,
    prompt="a red apple",
    settings=SHORT,
    drags={"d1": PlacedDrag(handle=(100, 100), target=(140, 110))},
    generation=GENERATION,
)


@pytest.fixture
def worker(model: Diffusion, events: Events, checkpoints: Checkpoints) -> Iterator[DeviceWorker]:
    with a_worker(model, events, checkpoints) as worker:
        yield worker


@pytest.fixture(scope="module")
def generation(model: Diffusion) -> Generation:
    return replace(GENERATION, model=model.name)


@pytest.fixture(scope="module")
def result(model: Diffusion, generation: Generation, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the words become."""
    events = Events()
    with a_worker(model, events, Checkpoints(tmp_path_factory.mktemp("checkpoints"))) as worker:
        worker.obey(Generate(room="apple", generation=generation))
        drain(worker)
    (finished,) = events.of(RunFinished, "apple")
    assert finished.picture is not None
    return finished.picture


@pytest.fixture(scope="module")
def picture(result: bytes) -> PictureRef:
    """It, as the service stores it."""
    return stored(result)


def drain(worker: DeviceWorker) -> None:
    while worker.busy:
        worker.advance()


def stages(events: Events) -> list[str]:
    """Of preparations and runs, in order, without repetitions."""
    prepared = [event.stage for event in events.of(PreparationProgress)]
    return list(dict.fromkeys([*prepared, *events.stages()]))


def test_words_become_a_picture_step_by_step_with_previews(
    model: Diffusion, worker: DeviceWorker, events: Events, generation: Generation, result: bytes
) -> None:
    worker.obey(Generate(room="apple", generation=generation))
    drain(worker)
    assert [(p.step, p.steps) for p in events.records(Progress) if p.stage == "generating"] == [
        (n, 4) for n in range(1, 5)
    ]
    previews = events.of(PreviewReady, "apple")
    assert [preview.iteration for preview in previews] == [1, 2, 3]
    assert Image.open(io.BytesIO(previews[0].data)).size == (model.native_side,) * 2
    (finished,) = events.of(RunFinished, "apple")
    assert (finished.outcome, finished.run, finished.picture) == ("arrived", "apple", result)
    assert [left.requested for left in events.of(SessionReleased, "apple")] == [False]


def test_a_generation_takes_turns_with_the_runs_of_rooms(
    model: Diffusion, events: Events, checkpoints: Checkpoints, generation: Generation, picture: PictureRef
) -> None:
    ticks = itertools.count()  # every step takes one: then turns alternate, however fast the machine is
    with a_worker(model, events, checkpoints, clock=lambda: float(next(ticks))) as worker:
        worker.obey(Start(run="r1", picture=picture, desired=replace(DESIRED, generation=None)))
        while "dragging" not in events.stages():
            worker.advance()
        worker.obey(Generate(room="apple", generation=generation))
        drain(worker)
    assert sorted(event.room for event in events if isinstance(event, RunFinished)) == ["a", "apple"]
    first, *_, last = (i for i, event in enumerate(events) if isinstance(event, PreviewReady) and event.room == "apple")
    assert any(isinstance(event, RunProgress) and event.room == "a" for event in events[first:last])


def test_a_cancelled_generation_ends_without_a_word(
    worker: DeviceWorker, events: Events, generation: Generation
) -> None:
    worker.obey(Generate(room="apple", generation=generation))
    worker.advance()
    worker.obey(ReleaseSession(room="apple"))
    drain(worker)
    assert not events.of(RunFinished, "apple")
    assert [left.requested for left in events.of(SessionReleased, "apple")] == [True]


def test_a_generation_that_cannot_be_made_fails_alone(
    worker: DeviceWorker, events: Events, generation: Generation
) -> None:
    worker.obey(Generate(room="apple", generation=replace(generation, ddim_steps=0)))
    drain(worker)
    (finished,) = events.of(RunFinished, "apple")
    assert finished.outcome == "failed"
    assert "0 steps" in str(finished.message)


def test_a_room_with_a_generated_picture_is_dragged_from_its_own_latent(
    worker: DeviceWorker, events: Events, generation: Generation, picture: PictureRef
) -> None:
    worker.obey(Prepare(picture=picture, desired=replace(DESIRED, generation=generation)))
    drain(worker)
    steps = [event for event in events.of(PreparationProgress) if event.stage == "generating"]
    assert [(event.step, event.steps) for event in steps] == [(n, 4) for n in range(1, 5)]
    assert stages(events) == ["generating", "fitting", "ready"]
    worker.obey(Start(run="r1", picture=picture, desired=replace(DESIRED, generation=generation)))
    drain(worker)
    assert stages(events) == ["generating", "fitting", "ready", "loading", "dragging", "rendering"]
    (finished,) = events.of(RunFinished)
    assert finished.outcome in ("arrived", "exhausted")


def test_a_run_generates_again_by_itself_and_stops_there_too(
    worker: DeviceWorker, events: Events, generation: Generation, picture: PictureRef
) -> None:
    desired = replace(DESIRED, generation=generation)
    worker.obey(Start(run="r1", picture=picture, desired=desired))
    while "generating" not in events.stages():
        worker.advance()
    worker.obey(Stop(room="a", run="r1"))
    drain(worker)
    assert [event.outcome for event in events.of(RunFinished)] == ["stopped"]
    worker.obey(Start(run="r2", picture=picture, desired=desired))
    drain(worker)
    assert "inverting" not in events.stages()
    assert [event.run for event in events.of(RunFinished)] == ["r1", "r2"]


def test_a_generated_session_that_is_on_disk_is_not_generated_again(
    model: Diffusion, checkpoints: Checkpoints, generation: Generation, picture: PictureRef
) -> None:
    desired = replace(DESIRED, generation=generation)
    first, second = Events(), Events()
    with a_worker(model, first, checkpoints) as worker:
        worker.obey(Start(run="r1", picture=picture, desired=desired))
        while len(first.records(Points)) < 2:
            worker.advance()
        worker.obey(ReleaseSession(room="a"))
    with a_worker(model, second, checkpoints) as worker:
        worker.obey(Start(run="r1", picture=picture, desired=desired, resume=True))
        drain(worker)
    assert not {"generating", "fitting", "inverting"} & set(second.stages())
    (finished,) = second.of(RunFinished)
    assert (finished.run, finished.picture is not None) == ("r1", True)


@pytest.mark.parametrize(
    ("changed", "how"),
    [({"prompt": "a green pear"}, {}), ({"settings": {**SHORT, "ddim_steps": 5}}, {}), ({}, {"model": "another"})],
)
def test_what_is_no_longer_as_it_was_generated_is_a_picture_like_any_other(
    worker: DeviceWorker,
    events: Events,
    generation: Generation,
    picture: PictureRef,
    changed: dict[str, object],
    how: dict[str, str],
) -> None:
    desired = replace(DESIRED, generation=replace(generation, **how), **changed)
    worker.obey(Prepare(picture=picture, desired=desired))
    drain(worker)
    assert stages(events) == ["fitting", "inverting", "ready"]


def test_what_the_model_would_generate_otherwise_now_is_a_picture_like_any_other(
    worker: DeviceWorker, events: Events, generation: Generation, picture: PictureRef
) -> None:
    """As when the weights behind a name have changed."""
    worker.obey(Prepare(picture=picture, desired=replace(DESIRED, generation=replace(generation, seed=6))))
    drain(worker)
    assert stages(events) == ["generating", "fitting", "inverting", "ready"]
