"""What a client is sent when it joins a room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from livedrag.server.document.log_entries import latest_entries
from livedrag.server.document.protocol import (
    FRAME_CREDITS,
    VERSION,
    ErrorMessage,
    Hello,
    Log,
    Presences,
    Resumed,
    ServerMessage,
    Snapshot,
    Welcome,
)
from livedrag.server.rooms.session import RoomSession
from livedrag.server.version import page_version

if TYPE_CHECKING:
    from livedrag.server.rooms.room import LiveRoom


def greeting(room: LiveRoom, session: RoomSession, hello: Hello) -> Iterator[ServerMessage]:
    """The document, or what the client has missed of it, and the state of the run, the timeline and the people."""
    yield welcome(room, session)
    missed = room.log.missed(hello.since) if hello.since is not None and hello.of == room.log.instance else None
    if hello.since is None or missed is None:
        yield Snapshot(seq=room.seq, document=room.document)
        yield Log(entries=latest_entries(reversed(room.log.records)))
    else:
        yield Resumed(seq=hello.since)
        yield from missed
    yield room.engine_report
    yield room.history_of(session.person)
    if room.timeline.moments is not None:
        yield room.timeline.moments
    if room.presence.people:
        yield Presences(people=dict(room.presence.people))
    yield from room.run.latest.values()
    if room.damage:
        yield ErrorMessage(reason="damaged", message=room.damage)


def welcome(room: LiveRoom, session: RoomSession) -> Welcome:
    services = room.services
    return Welcome(
        version=VERSION,
        room=room.id,
        instance=room.log.instance,
        you=session.id,
        person=session.person,
        role=session.role,
        model=services.model_of(room.document),
        capabilities=services.capabilities,
        limits=services.room_limits,
        base=services.settings.base_path,
        page=page_version(services.settings.static_dir),
        heartbeat=services.settings.heartbeat,
        deadline=services.settings.deadline,
        frame_credits=FRAME_CREDITS,
    )
