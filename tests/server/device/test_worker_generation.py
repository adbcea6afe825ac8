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
from livedrag.server.device.engine import (
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
from tests.server.device.test_worker import SHORT, Told, a_worker
from tests.stored import stored

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker import DeviceWorker

DRAWN = Generation(prompt="a red apple", seed=5, guidance=4.0, ddim_steps=4, model="builtin")
DESIRED = DesiredState(
    room="a",
    seq=1,
    prompt="a red apple",
    settings=SHORT,
    drags={"d1": PlacedDrag(handle=(100, 100), target=(140, 110))},
    generation=DRAWN,
)


@pytest.fixture
def worker(model: Diffusion, told: Told, checkpoints: Checkpoints) -> Iterator[DeviceWorker]:
    with a_worker(model, told, checkpoints) as worker:
        yield worker


@pytest.fixture(scope="module")
def drawn(model: Diffusion) -> Generation:
    return replace(DRAWN, model=model.name)


@pytest.fixture(scope="module")
def result(model: Diffusion, drawn: Generation, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the words become."""
    told = Told()
    with a_worker(model, told, Checkpoints(tmp_path_factory.mktemp("checkpoints"))) as worker:
        worker.obey(Generate(room="apple", generation=drawn))
        drain(worker)
    (finished,) = told.events(RunFinished, "apple")
    assert finished.picture is not None
    return finished.picture


@pytest.fixture(scope="module")
def picture(result: bytes) -> PictureRef:
    """It, as the service stores it."""
    return stored(result)


def drain(worker: DeviceWorker) -> None:
    while worker.busy:
        worker.advance()


def stages(told: Told) -> list[str]:
    """Of preparations and runs, in order, without repetitions."""
    prepared = [event.stage for event in told.events(PreparationProgress)]
    return list(dict.fromkeys([*prepared, *told.stages()]))


def test_words_become_a_picture_step_by_step_with_previews(
    model: Diffusion, worker: DeviceWorker, told: Told, drawn: Generation, result: bytes
) -> None:
    worker.obey(Generate(room="apple", generation=drawn))
    drain(worker)
    assert [(p.step, p.steps) for p in told.records(Progress) if p.stage == "generating"] == [
        (n, 4) for n in range(1, 5)
    ]
    previews = told.events(PreviewReady, "apple")
    assert [preview.iteration for preview in previews] == [1, 2, 3]
    assert Image.open(io.BytesIO(previews[0].data)).size == (model.native_side,) * 2
    (finished,) = told.events(RunFinished, "apple")
    assert (finished.outcome, finished.run, finished.picture) == ("arrived", "apple", result)
    assert [left.requested for left in told.events(SessionReleased, "apple")] == [False]


def test_a_drawing_takes_turns_with_the_runs_of_rooms(
    model: Diffusion, told: Told, checkpoints: Checkpoints, drawn: Generation, picture: PictureRef
) -> None:
    ticks = itertools.count()  # every step takes one: then turns alternate, however fast the machine is
    with a_worker(model, told, checkpoints, clock=lambda: float(next(ticks))) as worker:
        worker.obey(Start(run="r1", picture=picture, desired=replace(DESIRED, generation=None)))
        while "dragging" not in told.stages():
            worker.advance()
        worker.obey(Generate(room="apple", generation=drawn))
        drain(worker)
    assert sorted(event.room for event in told if isinstance(event, RunFinished)) == ["a", "apple"]
    first, *_, last = (i for i, event in enumerate(told) if isinstance(event, PreviewReady) and event.room == "apple")
    assert any(isinstance(event, RunProgress) and event.room == "a" for event in told[first:last])


def test_a_cancelled_drawing_ends_without_a_word(worker: DeviceWorker, told: Told, drawn: Generation) -> None:
    worker.obey(Generate(room="apple", generation=drawn))
    worker.advance()
    worker.obey(ReleaseSession(room="apple"))
    drain(worker)
    assert not told.events(RunFinished, "apple")
    assert [left.requested for left in told.events(SessionReleased, "apple")] == [True]


def test_a_drawing_that_cannot_be_made_fails_alone(worker: DeviceWorker, told: Told, drawn: Generation) -> None:
    worker.obey(Generate(room="apple", generation=replace(drawn, ddim_steps=0)))
    drain(worker)
    (finished,) = told.events(RunFinished, "apple")
    assert finished.outcome == "failed"
    assert "0 steps" in str(finished.message)


def test_a_room_of_a_drawing_is_dragged_from_its_own_latent(
    worker: DeviceWorker, told: Told, drawn: Generation, picture: PictureRef
) -> None:
    worker.obey(Prepare(picture=picture, desired=replace(DESIRED, generation=drawn)))
    drain(worker)
    drawing = [event for event in told.events(PreparationProgress) if event.stage == "generating"]
    assert [(event.step, event.steps) for event in drawing] == [(n, 4) for n in range(1, 5)]
    assert stages(told) == ["generating", "fitting", "ready"]
    worker.obey(Start(run="r1", picture=picture, desired=replace(DESIRED, generation=drawn)))
    drain(worker)
    assert stages(told) == ["generating", "fitting", "ready", "loading", "dragging", "rendering"]
    (finished,) = told.events(RunFinished)
    assert finished.outcome in ("arrived", "exhausted")


def test_a_run_draws_again_by_itself_and_stops_there_too(
    worker: DeviceWorker, told: Told, drawn: Generation, picture: PictureRef
) -> None:
    desired = replace(DESIRED, generation=drawn)
    worker.obey(Start(run="r1", picture=picture, desired=desired))
    while "generating" not in told.stages():
        worker.advance()
    worker.obey(Stop(room="a", run="r1"))
    drain(worker)
    assert [event.outcome for event in told.events(RunFinished)] == ["stopped"]
    worker.obey(Start(run="r2", picture=picture, desired=desired))
    drain(worker)
    assert "inverting" not in told.stages()
    assert [event.run for event in told.events(RunFinished)] == ["r1", "r2"]


def test_a_drawn_session_that_is_on_disk_is_not_generated_again(
    model: Diffusion, checkpoints: Checkpoints, drawn: Generation, picture: PictureRef
) -> None:
    desired = replace(DESIRED, generation=drawn)
    first, second = Told(), Told()
    with a_worker(model, first, checkpoints) as worker:
        worker.obey(Start(run="r1", picture=picture, desired=desired))
        while len(first.records(Points)) < 2:
            worker.advance()
        worker.obey(ReleaseSession(room="a"))
    with a_worker(model, second, checkpoints) as worker:
        worker.obey(Start(run="r1", picture=picture, desired=desired, resume=True))
        drain(worker)
    assert not {"generating", "fitting", "inverting"} & set(second.stages())
    (finished,) = second.events(RunFinished)
    assert (finished.run, finished.picture is not None) == ("r1", True)


@pytest.mark.parametrize(
    ("changed", "how"),
    [({"prompt": "a green pear"}, {}), ({"settings": {**SHORT, "ddim_steps": 5}}, {}), ({}, {"model": "another"})],
)
def test_what_is_no_longer_as_it_was_drawn_is_a_picture_like_any_other(
    worker: DeviceWorker,
    told: Told,
    drawn: Generation,
    picture: PictureRef,
    changed: dict[str, object],
    how: dict[str, str],
) -> None:
    desired = replace(DESIRED, generation=replace(drawn, **how), **changed)
    worker.obey(Prepare(picture=picture, desired=desired))
    drain(worker)
    assert stages(told) == ["fitting", "inverting", "ready"]


def test_what_the_model_would_draw_otherwise_now_is_a_picture_like_any_other(
    worker: DeviceWorker, told: Told, drawn: Generation, picture: PictureRef
) -> None:
    """As when the weights behind a name have changed."""
    worker.obey(Prepare(picture=picture, desired=replace(DESIRED, generation=replace(drawn, seed=6))))
    drain(worker)
    assert stages(told) == ["generating", "fitting", "inverting", "ready"]
