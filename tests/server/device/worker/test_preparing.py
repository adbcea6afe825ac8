"""DeviceWorker over a small pipeline: preparing a picture before a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import (
    PlacedDrag,
    PreparationProgress,
    Prepare,
    UpdateRun,
)
from tests.server.device.workers import (
    PICTURE,
    Events,
    a_worker,
    finish,
    fitted,
    later,
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


def prepare(worker: DeviceWorker, **changed: Any) -> None:
    worker.obey(Prepare(picture=PICTURE, desired=later(**{"seq": 0, "drags": {}, **changed})))


def test_a_run_finds_the_picture_prepared(worker: DeviceWorker, events: Events, checkpoints: Checkpoints) -> None:
    prepare(worker)
    work(worker)
    steps = [(event.stage, event.step, event.steps) for event in events.of(PreparationProgress)]
    assert steps[:2] == [("fitting", 1, 2), ("fitting", 2, 2)]
    assert steps[-1][0] == "ready"
    assert checkpoints.newest("a") is not None
    start(worker)
    assert finish(worker, events).outcome == "exhausted"
    assert events.stages() == ["loading", "dragging", "rendering"]


def test_a_run_takes_over_what_was_prepared_so_far(worker: DeviceWorker, events: Events) -> None:
    prepare(worker)
    worker.advance()
    start(worker)
    finish(worker, events)
    assert fitted(events) == [2]


def test_nothing_that_a_run_has_moved_is_lost_to_a_preparation(
    small: Diffusion, worker: DeviceWorker, events: Events, checkpoints: Checkpoints
) -> None:
    start(worker)
    finish(worker, events)
    events.clear()
    prepare(worker, seq=10, prompt="a field")
    assert not worker.busy
    with a_worker(small, events, checkpoints) as another:
        prepare(another, seq=10, prompt="a field")
        assert not another.busy
    assert {event.stage for event in events.of(PreparationProgress)} == {"failed"}, "nothing fits that prompt"
    events.clear()
    prepare(worker, seq=11)
    work(worker)
    assert [event.stage for event in events.of(PreparationProgress)] == ["ready"], "the session fits as it is"
    saved = checkpoints.newest("a")
    assert saved is not None
    assert len(saved.moments) == 4


def test_a_preparation_says_which_end_of_the_prompt_is_ignored(worker: DeviceWorker, events: Events) -> None:
    prompt = "a koala that sits on a tree and looks at us " * 3 + "on a green hill"
    prepare(worker, prompt=prompt)
    work(worker)
    ignored = {event.ignored_prompt for event in events.of(PreparationProgress)}
    assert len(ignored) == 1
    (end,) = ignored
    assert end
    assert prompt.endswith(end)
    events.clear()
    prepare(worker, prompt="a koala", seq=1)
    work(worker)
    assert {event.ignored_prompt for event in events.of(PreparationProgress)} == {""}


def test_a_preparation_says_whether_the_model_knows_the_picture(
    worker: DeviceWorker, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(worker)
    work(worker)
    assert not any(event.unknown for event in events.of(PreparationProgress)), "not measured for this kind of model"
    events.clear()
    monkeypatch.setattr("livedrag.editor.drag.preparation.MIN_RECONSTRUCTION", {"stable-diffusion": 60.0})
    monkeypatch.setattr("livedrag.editor.drag.preparation.MAX_NOISE", {"stable-diffusion": 1.0})
    prepare(worker, seq=1)
    work(worker)
    assert events.of(PreparationProgress)[-1].unknown


def test_a_preparation_that_fails_says_so(worker: DeviceWorker, events: Events) -> None:
    prepare(worker, mask=b"no picture")
    work(worker)
    assert [event.stage for event in events.of(PreparationProgress)] == ["failed"]


def test_an_edit_during_a_preparation_does_not_stop_it(worker: DeviceWorker, events: Events) -> None:
    prepare(worker)
    worker.obey(UpdateRun(desired=later(seq=3)))
    work(worker)
    assert events.of(PreparationProgress)[-1].stage == "ready"
