"""RunControl: when pictures are prepared, and how runs start, continue, follow edits and fail."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from livedrag.server.access.password import Caller
from livedrag.server.device.messages import (
    MomentInfo,
    Prepare,
    ReleaseSession,
    ResetSession,
    RunFinished,
    Seek,
    Start,
    Stop,
    TimelineChanged,
    UpdateRun,
)
from livedrag.server.document.protocol import (
    AddStroke,
    Edit,
    EditFurther,
    Hello,
    History,
    Moments,
    MoveDrag,
    Rejected,
    SetPrompt,
    SetSettings,
    Snapshot,
    StartRun,
    StopRun,
    Stroke,
    Undo,
)
from livedrag.server.rooms.outbox import Outbox
from livedrag.server.rooms.run_control import PREPARE_PAUSE, Ending, Idle, Running
from livedrag.server.rooms.session import RoomSession
from tests.open_room import OpenRoom, disk_full, open_registry, open_room, received, send, settle
from tests.quiet import MODEL, png

STROKE = Stroke(id="s", mode="paint", radius=4.0, points=[(5.0, 5.0)])


def test_a_picture_is_prepared_once_for_many_changes_and_not_during_a_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            for number in range(5):
                send(session, Edit(op_id=f"p{number}", base=1, op=SetPrompt(prompt=str(number))))
                await opened.advance(PREPARE_PAUSE / 2)
            assert opened.engine.submitted(Prepare) == []
            await opened.advance(PREPARE_PAUSE)
            (prepare,) = opened.engine.submitted(Prepare)
            assert prepare.desired.prompt == "4"
            send(session, StartRun(op_id="go"))
            await opened.advance(10 * PREPARE_PAUSE)
            assert len(opened.engine.submitted(Prepare)) == 1
            assert len(opened.engine.submitted(Start)) == 1

    asyncio.run(scenario())


def test_live_settings_neither_prepare_the_picture_nor_wait_for_the_end_of_a_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            await opened.advance(PREPARE_PAUSE)
            before = len(opened.engine.submitted(Prepare))
            for name in MODEL.live:
                send(session, Edit(op_id=f"idle-{name}", base=1, op=SetSettings(settings={name: MODEL.settings[name]})))
            await opened.advance(PREPARE_PAUSE)
            send(session, StartRun(op_id="go"))
            await opened.settle()
            send(session, Edit(op_id="live", base=1, op=SetSettings(settings={"warp_share": 0.5})))
            await opened.advance(PREPARE_PAUSE)
            assert opened.engine.submitted(UpdateRun)[-1].desired.settings["warp_share"] == 0.5
            assert len(opened.engine.submitted(Prepare)) == before
            send(session, StopRun(op_id="stop"))
            await opened.settle()
            send(session, Edit(op_id="after", base=1, op=SetSettings(settings={"warp_share": None})))
            await opened.advance(PREPARE_PAUSE)
            assert len(opened.engine.submitted(Prepare)) == before
            send(session, Edit(op_id="fixed", base=1, op=SetSettings(settings={"lora_steps": 9})))
            await opened.advance(PREPARE_PAUSE)
            assert len(opened.engine.submitted(Prepare)) == before + 1

    asyncio.run(scenario())


def test_the_state_of_a_run_follows_what_was_saved_and_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            await opened.advance(PREPARE_PAUSE)
            assert isinstance(session.room.run.state, Idle)
            send(session, StartRun(op_id="go"))
            send(session, StopRun(op_id="early"))  # before the engine has the run
            await opened.settle()
            (start,) = opened.engine.submitted(Start)
            assert [stop.run for stop in opened.engine.submitted(Stop)] == [start.run]
            assert isinstance(session.room.run.state, Idle)
            monkeypatch.setattr(opened.engine, "ends_stopped_runs", False)
            send(session, StartRun(op_id="again"))
            await opened.settle()
            assert isinstance(session.room.run.state, Running)
            send(session, StopRun(op_id="stop"))
            await opened.settle()
            assert isinstance(session.room.run.state, Ending)

    asyncio.run(scenario())


def test_an_interrupted_run_continues_from_its_checkpoint_under_its_own_id(tmp_path: Path) -> None:
    async def first() -> tuple[str, Hello, str]:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            send(session, StartRun(op_id="go"))
            await opened.settle()
            (start,) = opened.engine.submitted(Start)
            assert not start.resume
            return opened.id, opened.hello, start.run

    async def second(room_id: str, hello: Hello, run: str) -> None:
        async with open_registry(tmp_path) as (registry, engine, clock):
            room = await registry.open(room_id)
            again = Hello(version=hello.version, secret=hello.secret, since=2, of=room.log.instance)
            session = await registry.join(room_id, again, Outbox(), Caller())
            (snapshot,) = [message for message in received(session) if isinstance(message, Snapshot)]
            assert snapshot.document.run is not None
            assert (snapshot.document.run.id, snapshot.document.run.interrupted) == (run, True)
            send(session, StartRun(op_id="on"))
            await settle(registry, clock)
            (start,) = engine.submitted(Start)
            assert (start.run, start.resume) == (run, True)
            assert room.document.run is not None
            assert not room.document.run.interrupted

    asyncio.run(second(*asyncio.run(first())))


def test_a_start_that_was_not_saved_leaves_an_interrupted_run_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first() -> tuple[str, Hello]:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            send(session, StartRun(op_id="go"))
            await opened.settle()
            return opened.id, opened.hello

    async def second(room_id: str, hello: Hello) -> None:
        async with open_registry(tmp_path) as (registry, engine, clock):
            session = await registry.join(room_id, hello, Outbox(), Caller())
            with monkeypatch.context() as patched:
                patched.setattr(registry.store, "append", disk_full)
                send(session, StartRun(op_id="refused"))
                await settle(registry, clock)
            assert not session.room.draft.running, "nothing would ever end it"
            send(session, StartRun(op_id="on"))
            await settle(registry, clock)
            assert [start.resume for start in engine.submitted(Start)] == [True]

    asyncio.run(second(*asyncio.run(first())))


def test_the_engine_drops_an_edit_that_the_disk_refused_during_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            send(session, StartRun(op_id="go"))
            await opened.settle()
            with monkeypatch.context() as patched:
                patched.setattr(opened.registry.store, "append", disk_full)
                send(session, Edit(op_id="lost", base=1, op=MoveDrag(id="d1", target=(40.0, 40.0))))
                await opened.settle()
            assert session.room.draft.running, "the edit does not concern the run"
            (update,) = opened.engine.submitted(UpdateRun)
            assert update.desired.drags["d1"].target == (30.0, 20.0)

    asyncio.run(scenario())


def test_a_client_that_joins_late_and_shows_only_jpeg_gets_previews(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            send(session, StartRun(op_id="go"))
            await opened.settle()
            assert [start.desired.format for start in opened.engine.submitted(Start)] == ["webp"]
            await opened.join(formats=("jpeg",))
            await opened.settle()
            assert [update.desired.format for update in opened.engine.submitted(UpdateRun)] == ["jpeg"]
            await opened.join()
            await opened.settle()
            assert len(opened.engine.submitted(UpdateRun)) == 1, "a client that shows both needs nothing"

    asyncio.run(scenario())


def test_a_run_whose_state_cannot_be_made_ends_here_and_on_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            send(session, StartRun(op_id="go"))
            await opened.settle()

            def fail(*_: object) -> None:
                raise MemoryError("no memory for this mask")

            monkeypatch.setattr("livedrag.server.rooms.mask_cache.rasterise_mask", fail)
            send(session, Edit(op_id="paint", base=1, op=AddStroke(stroke=STROKE)))
            await opened.settle()
            run = session.room.document.run
            assert run is not None
            assert run.outcome == "failed"
            assert [stop.run for stop in opened.engine.submitted(Stop)] == [run.id]

    asyncio.run(scenario())


# Undo of what the engine did -----------------------------------------------------------------------------------------


async def after_a_run(opened: OpenRoom, result: bytes, moment: int = 1) -> RoomSession:
    """A room in which a run has ended at a moment of the timeline."""
    session = await opened.join()
    send(session, StartRun(op_id=f"go{moment}"))
    await opened.settle()
    run = session.room.document.run
    assert run is not None
    moments = [MomentInfo(id=id, parent=id - 1 if id else None, iteration=id, time=1.0) for id in range(moment + 1)]
    opened.engine.tell(TimelineChanged(room=opened.id, moments=moments, current=moment))
    opened.engine.tell(
        RunFinished(
            room=opened.id,
            run=run.id,
            outcome="arrived",
            iterations=moment,
            seq=1,
            tracked={"d1": (20.0, 15.0)},
            moment=moment,
            picture=result,
        )
    )
    await opened.settle()
    received(session)
    return session


def test_undo_of_runs_sends_the_engine_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await after_a_run(opened, png(color="red"))
            first = session.room.document
            await after_a_run(opened, png(color="blue"), 2)
            send(session, Undo(op_id="u1"))
            await opened.settle()
            (seek,) = opened.engine.submitted(Seek)
            assert (seek.moment, seek.picture) == (1, None)
            assert seek.desired.drags["d1"].handle == (10.0, 10.0)
            assert session.room.document == first
            assert [m.undo for m in received(session) if isinstance(m, History)][-1] == "run"
            send(session, Undo(op_id="u2"))
            await opened.settle()
            assert opened.engine.submitted(ResetSession) == [ResetSession(room=opened.id)]
            assert session.room.document.result is None

    asyncio.run(scenario())


def test_a_run_pressed_right_after_an_undo_begins_where_that_went(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await after_a_run(opened, png(color="red"))
            await after_a_run(opened, png(color="blue"), 2)
            send(session, Undo(op_id="u1"))
            send(session, StartRun(op_id="again"))
            await opened.settle()
            kinds = [type(command) for command in opened.engine.commands.queue if isinstance(command, Seek | Start)]
            assert kinds[-2:] == [Seek, Start]

    asyncio.run(scenario())


def test_undo_of_what_is_no_longer_stored_is_stale_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await after_a_run(opened, png(color="red"))
            await after_a_run(opened, png(color="blue"), 2)
            moments = [MomentInfo(id=id, parent=None if id == 0 else 0, iteration=id, time=1.0) for id in (0, 2)]
            opened.engine.tell(TimelineChanged(room=opened.id, moments=moments, current=2))
            await opened.settle()
            received(session)
            send(session, Undo(op_id="u1"))
            await opened.settle()
            messages = received(session)
            assert [(m.reason, "timeline no longer has" in m.message) for m in messages if isinstance(m, Rejected)] == [
                ("stale", True)
            ]
            assert opened.engine.submitted(Seek) == []

    asyncio.run(scenario())


def test_the_result_is_edited_further_as_a_picture_of_its_own_and_undone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await after_a_run(opened, png(color="red"))
            before = session.room.document
            assert before.result is not None
            send(session, EditFurther(op_id="on"))
            await opened.advance(PREPARE_PAUSE)
            assert opened.engine.submitted(ReleaseSession) == [ReleaseSession(room=opened.id)]
            assert opened.engine.submitted(Prepare)[-1].picture.sha256 == before.result.sha256
            assert [m.moments for m in received(session) if isinstance(m, Moments)] == [[]]
            send(session, Undo(op_id="u"))
            await opened.settle()
            (seek,) = opened.engine.submitted(Seek)
            assert (seek.moment, seek.picture) == (1, before.picture.sha256)
            assert session.room.document == before

    asyncio.run(scenario())
