"""Results of rooms say what was changed at which iteration, and are made again exactly from that."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from livedrag.edit_metadata import EditMetadata, decode, encode
from livedrag.picture_metadata import read_metadata
from livedrag.pictures import read_picture
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import PlacedDrag, ReleaseSession, ResetSession, RunFinished, Seek, Stop, UpdateRun
from livedrag.server.device.run_numbers import stored_numbers
from livedrag.server.document.protocol import Points
from tests.server.device.workers import PICTURE, SHORT, Events, a_worker, finish, later, start

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker.device_worker import DeviceWorker

LONG = {**SHORT, "max_iterations": 5, "preset": "official", "seed": 3}
DRAGS = {"d1": PlacedDrag(handle=(30, 30), target=(70, 40))}


def a_mask() -> bytes:
    mask = np.zeros((64, 96), np.uint8)
    mask[5:60, 10:90] = 255
    png = io.BytesIO()
    Image.fromarray(mask).save(png, "PNG")
    return png.getvalue()


@pytest.fixture
def worker(small: Diffusion, events: Events, checkpoints: Checkpoints) -> Iterator[DeviceWorker]:
    with a_worker(small, events, checkpoints, every=2) as worker:
        yield worker


def said_by(ended: RunFinished) -> EditMetadata:
    assert ended.picture is not None
    said = read_metadata(io.BytesIO(ended.picture))
    assert said is not None
    return decode(encode(said))


def made_again(said: EditMetadata, model: Diffusion) -> Image.Image:
    from livedrag.editor import DragSession, DragSettings
    from livedrag.editor.drag.replay import finish as finish_replay
    from livedrag.editor.drag.replay import replay

    with open(PICTURE.path, "rb") as file:
        picture = read_picture(file, "picture")
    base = DragSettings.resolve(said.preset or None, model.defaults)
    session = DragSession(model, picture, prompt=said.prompt, settings=base.changed(said.settings), seed=said.seed)
    for _ in session.prepare():
        pass
    for _ in replay(session, said, base):
        pass
    for _ in session.render():
        pass
    finish_replay(session, said, base)
    result = session.result()
    session.close()
    return result


def assert_made_again(ended: RunFinished, model: Diffusion) -> EditMetadata:
    said = said_by(ended)
    assert ended.picture is not None
    assert not said.inexact
    assert made_again(said, model).tobytes() == Image.open(io.BytesIO(ended.picture)).tobytes()
    return said


def advance_to_iteration(worker: DeviceWorker, events: Events, iteration: int) -> None:
    while not (points := events.records(Points)) or points[-1].iteration < iteration:
        worker.advance()


def test_changes_during_a_run_a_stop_and_a_second_run(worker: DeviceWorker, events: Events, small: Diffusion) -> None:
    start(worker, later(seq=1, settings=LONG, prompt="a cat", drags=DRAGS))
    advance_to_iteration(worker, events, 2)
    aimed = {"d1": PlacedDrag(handle=(30, 30), target=(50, 60)), "d2": PlacedDrag(handle=(80, 20), target=(60, 20))}
    changed = later(seq=2, settings={**LONG, "latent_lr": 0.03}, prompt="a cat", drags=aimed, mask=a_mask())
    worker.obey(UpdateRun(desired=changed))
    advance_to_iteration(worker, events, 4)
    worker.obey(UpdateRun(desired=replace(changed, seq=3, pins={"p": (5.0, 5.0)})))
    worker.obey(Stop(room="a", run="r1"))
    said = assert_made_again(finish(worker, events), small)
    assert (said.prompt, said.seed, said.preset, said.room) == ("a cat", 3, "official", "a")
    assert [(run.steps, [state.at for state in run.states]) for run in said.runs] == [(4, [0, 2, 4])]
    events.clear()
    start(worker, replace(changed, seq=4, mask=None), run="r2")
    while "rendering" not in events.stages():
        worker.advance()
    worker.obey(UpdateRun(desired=replace(changed, seq=5, mask=None, settings={**changed.settings, "feather": 9.0})))
    said = assert_made_again(finish(worker, events), small)
    assert [len(run.states) for run in said.runs] == [3, 1]
    assert [state.settings["feather"] for state in said.final] == [9.0]
    assert said.last.mask is None


def test_a_session_that_was_on_disk_and_one_that_was_reset(
    worker: DeviceWorker, events: Events, small: Diffusion
) -> None:
    desired = later(seq=1, settings=LONG, drags=DRAGS)
    start(worker, desired)
    finish(worker, events)
    worker.obey(ReleaseSession(room="a"))
    start(worker, replace(desired, seq=2), run="r2")
    assert len(assert_made_again(finish(worker, events), small).runs) == 2
    worker.obey(ResetSession(room="a"))
    start(worker, replace(desired, seq=3), run="r3")
    assert len(assert_made_again(finish(worker, events), small).runs) == 1


def test_after_a_jump_it_says_that_it_cannot(worker: DeviceWorker, events: Events) -> None:
    desired = later(seq=1, settings=LONG, drags=DRAGS)
    start(worker, desired)
    finish(worker, events)
    worker.obey(Seek(moment=2, desired=desired))
    start(worker, replace(desired, seq=2), run="r2")
    assert said_by(finish(worker, events)).inexact == ("the room has jumped to another step of its timeline",)


def test_too_many_changes_are_not_listed(worker: DeviceWorker, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedrag.server.device.edit_log.MAX_STATES", 5)
    desired = later(seq=1, settings=LONG, drags=DRAGS)
    start(worker, desired)
    advance_to_iteration(worker, events, 1)
    for seq in range(2, 12):
        moved = {"d1": PlacedDrag(handle=(30, 30), target=(70, 40 + seq))}
        worker.obey(UpdateRun(desired=replace(desired, seq=seq, drags=moved)))
    said = said_by(finish(worker, events))
    assert said.inexact == ("there were too many changes to list",)
    assert said.last.drags["d1"].target == (70, 51)


def test_tiles_are_noted_of_the_rooms_that_had_them_and_of_no_other(
    worker: DeviceWorker, events: Events, small: Diffusion
) -> None:
    from livedrag.editor.models.low_memory import TILED, LowMemory

    desired = later(seq=1, settings=LONG, drags=DRAGS)
    free = [0]
    small.low_memory = LowMemory(lambda: free[0])
    try:
        start(worker, desired)
        advance_to_iteration(worker, events, 2)
        free[0] = 2**40
        assert said_by(finish(worker, events)).inexact == (TILED,), "when it was prepared"
        events.clear()
        start(worker, replace(desired, room="b"))
        free[0] = 2**40
        assert not said_by(finish(worker, events)).inexact
        free[0] = 0
        start(worker, replace(desired, room="c", seq=1))
        assert said_by(finish(worker, events)).inexact == (TILED,), "and when its result was decoded"
        start(worker, replace(desired, seq=2), run="r2")
        free[0] = 2**40
        assert said_by(finish(worker, events)).inexact == (TILED,)
    finally:
        small.low_memory = LowMemory(None)


def test_a_server_can_leave_it_out(small: Diffusion, events: Events, checkpoints: Checkpoints) -> None:
    with a_worker(small, events, checkpoints, metadata=False) as worker:
        start(worker, later(settings=LONG, drags=DRAGS))
        ended = finish(worker, events)
    assert ended.picture is not None
    assert read_metadata(io.BytesIO(ended.picture)) is None


def test_a_copy_of_a_room(worker: DeviceWorker, events: Events, small: Diffusion, checkpoints: Checkpoints) -> None:
    """Handles count as placed anew in it, but not as moved."""
    placed = {"d1": PlacedDrag(handle=(30, 30), target=(70, 40), handle_version=4)}
    desired = later(seq=5, settings=LONG, drags=placed)
    start(worker, desired)
    finish(worker, events)
    checkpoints.copy("a", "b", {"d1": 4})
    start(worker, replace(desired, room="b", seq=0, drags=DRAGS), run="r2")
    said = assert_made_again(finish(worker, events), small)
    assert [len(run.states) for run in said.runs] == [1, 0]
    assert said.room == "b"


def test_the_numbers_of_a_run_are_in_its_checkpoint(
    worker: DeviceWorker, events: Events, checkpoints: Checkpoints
) -> None:
    start(worker, later(seq=1, settings=LONG, drags=DRAGS))
    finish(worker, events)
    numbers = stored_numbers(checkpoints, "a", PICTURE.sha256)
    reported = events.records(Points)
    assert (numbers.run, [row.iteration for row in numbers.rows]) == ("r1", [each.iteration for each in reported])
    worker.obey(ReleaseSession(room="a"))
    start(worker, later(seq=2, settings=LONG, drags=DRAGS), run="r2")
    events.clear()
    advance_to_iteration(worker, events, 1)
    worker.obey(ReleaseSession(room="a"))
    assert stored_numbers(checkpoints, "a", PICTURE.sha256).run == "r2"
