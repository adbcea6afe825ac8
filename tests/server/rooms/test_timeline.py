"""Timeline: requests to jump to a moment are answered once, where they came from last."""

from __future__ import annotations

import asyncio
from pathlib import Path

from livedrag.server.device.messages import CommandFailed, MomentInfo, Seek, SeekCompleted, TimelineChanged
from livedrag.server.document.protocol import Rejected, Seeked, SeekMoment
from livedrag.server.rooms.session import RoomSession
from livedrag.server.rooms.timeline import SEEK_SECONDS
from tests.open_room import OpenRoom, open_room, received, send


async def with_moments(opened: OpenRoom) -> RoomSession:
    session = await opened.join()
    moments = [MomentInfo(id=id, parent=id - 1 if id else None, iteration=id, time=1.0) for id in range(2)]
    opened.engine.tell(TimelineChanged(room=opened.id, moments=moments, current=1))
    await opened.settle()
    received(session)
    return session


def test_a_jump_requested_again_over_a_new_connection_is_answered_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            first = await with_moments(opened)
            send(first, SeekMoment(op_id="back", moment=0))
            await opened.settle()
            second = await opened.join()
            first.room.leave(first)
            send(second, SeekMoment(op_id="back", moment=0))
            await opened.settle()
            opened.engine.tell(CommandFailed(room=opened.id, message="thinned out", moment=0))
            await opened.settle()
            assert len(opened.engine.submitted(Seek)) == 1
            assert [m.op_id for m in received(second) if isinstance(m, Rejected)] == ["back"]
            assert not [m for m in received(first) if isinstance(m, Rejected)]

    asyncio.run(scenario())


def test_a_moment_reached_late_still_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await with_moments(opened)
            send(session, SeekMoment(op_id="back", moment=0))
            await opened.advance(SEEK_SECONDS - 1)
            assert not [m for m in received(session) if isinstance(m, Rejected)]
            await opened.advance(1)
            assert [m.reason for m in received(session) if isinstance(m, Rejected)] == ["busy"]
            opened.engine.tell(SeekCompleted(room=opened.id, moment=0, tracked={"d1": (11.0, 11.0)}))
            await opened.settle()
            document = session.room.document
            assert (document.moment, document.drags["d1"].tracked) == (0, (11.0, 11.0))
            assert [m.op_id for m in received(session) if isinstance(m, Seeked)] == ["back"]

    asyncio.run(scenario())
