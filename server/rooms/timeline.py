"""The timeline of a room, and the requests to jump to one of its moments."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livedrag.server.device.messages import CommandFailed, Seek, SeekCompleted, TimelineChanged
from livedrag.server.document.checks import Refused
from livedrag.server.document.protocol import Moment, Moments, Run, SeekMoment
from livedrag.server.errors import ServiceError
from livedrag.server.rooms.run_control import desired_state
from livedrag.server.rooms.session import RoomSession

if TYPE_CHECKING:
    from livedrag.server.rooms.room import LiveRoom

log = logging.getLogger(__name__)

SEEK_SECONDS = 60.0
"""After how long a request to jump is refused; if the engine completes it later, it still counts."""


@dataclass(frozen=True, eq=False)
class SeekRequest:
    """A request that the engine has not answered; ``session`` is the latest that it came from."""

    session: RoomSession
    message: SeekMoment


class Timeline:
    """The moments of a room."""

    def __init__(self, room: LiveRoom) -> None:
        self.moments: Moments | None = None
        self.thumbnails: dict[int, bytes] = {}  # WebP by moment
        self._room = room
        self._requests: dict[int, dict[tuple[str, str], SeekRequest]] = {}  # by moment, then person and op_id

    def update(self, event: TimelineChanged) -> None:
        """Take in the whole timeline, of which ``thumbnails`` are only the new ones."""
        ids = {moment.id for moment in event.moments}
        thumbnails = {**self.thumbnails, **event.thumbnails}
        self.thumbnails = {id: picture for id, picture in thumbnails.items() if id in ids}
        self.moments = to_moments(event, self._room.document.run)
        self._room.broadcast(self.moments)

    def clear(self) -> None:
        """Forget the timeline of a picture that is not edited any more."""
        self.moments, self.thumbnails = Moments(run=None, moments=[], current=None), {}
        self._room.broadcast(self.moments)

    def has(self, moment: int) -> bool:
        """Whether a moment is on the timeline."""
        return self.moments is not None and any(known.id == moment for known in self.moments.moments)

    async def seek(self, session: RoomSession, message: SeekMoment) -> None:
        """Have the engine jump to a moment. Its answer becomes a record, or a refusal."""
        room, request, key = self._room, SeekRequest(session, message), (session.person, message.op_id)
        ids = {moment.id for moment in self.moments.moments} if self.moments is not None else set()
        if message.moment not in ids:
            available = ", ".join(map(str, sorted(ids)[:20])) or "none"
            text = f"moment {message.moment} is not on the timeline (any more): available are {available}"
            room.requests.reject(session, message.op_id, Refused("unknown", text))
            return
        text = f"could not jump to moment {message.moment}: the device is busy or restarting, try again"
        waiting = self._requests.setdefault(message.moment, {})
        under_way = key in waiting
        waiting[key] = request  # sent again over a new connection, it is answered there
        try:
            if not under_way:
                desired = await desired_state(room)
                if not room.closed:
                    room.services.engine.submit(Seek(moment=message.moment, desired=desired))
        except (OSError, ServiceError, ValueError) as error:
            log.error("cannot jump to a moment: %s", error, extra={"room": room.id})
            latest = waiting.pop(key, request)
            room.requests.reject(latest.session, message.op_id, Refused("busy", text))
            return
        await room.services.clock.sleep(SEEK_SECONDS)
        if self._requests.get(message.moment, {}).get(key) is request:  # it stays: the engine may still complete it
            room.requests.reject(session, message.op_id, Refused("busy", text))

    def complete(self, event: SeekCompleted) -> None:
        """The engine has jumped to a moment."""
        for request in self._requests.pop(event.moment, {}).values():
            self._record(request, event)

    def _record(self, request: SeekRequest, event: SeekCompleted) -> None:
        session, message = request.session, request.message
        self._room.requests.apply(
            session, message.op_id, lambda: self._room.draft.seek(session.person, message, event.tracked)
        )

    def fail(self, event: CommandFailed) -> bool:
        """The engine could not jump to a moment; returns whether this answers a request."""
        requests = self._requests.pop(event.moment, {}) if event.moment is not None else {}
        for request in requests.values():
            self._room.requests.reject(request.session, request.message.op_id, Refused("unknown", event.message))
        return bool(requests)


def to_moments(event: TimelineChanged, run: Run | None) -> Moments:
    """The timeline as clients get it."""
    return Moments(
        run=run.id if run is not None and run.outcome is None else None,
        moments=[
            Moment(id=m.id, parent=m.parent, iteration=m.iteration, time=m.time, thumbnail=m.thumbnail)
            for m in event.moments
        ],
        current=event.current,
    )
