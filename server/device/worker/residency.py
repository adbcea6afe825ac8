"""Residency: which rooms are on the device, and which wait for a place there."""

from __future__ import annotations

import logging
import time

from livedrag.server.device.messages import DesiredState, EventHandler, SessionReleased
from livedrag.server.device.worker.device_room import DeviceRoom, Work
from livedrag.server.device.worker.scheduler import Scheduler
from livedrag.server.device.worker.session_files import SessionFiles
from livedrag.server.device.worker.usage import DeviceUsage

log = logging.getLogger(__name__)


class Residency:
    """The rooms of one device, within its limits.

    Args:
        max_sessions: on the device. Idle ones leave for rooms that have work; where none is idle, rooms wait.
        max_bytes: that the sessions may hold together, likewise; 0: no limit.
    """

    def __init__(
        self,
        files: SessionFiles,
        scheduler: Scheduler,
        usage: DeviceUsage,
        on_event: EventHandler,
        *,
        max_sessions: int,
        max_bytes: int,
    ) -> None:
        self.rooms: dict[str, DeviceRoom] = {}
        self._files = files
        self._scheduler = scheduler
        self._usage = usage
        self._emit = on_event
        self._max_sessions, self._max_bytes = max_sessions, max_bytes

    @property
    def active(self) -> list[DeviceRoom]:
        """The rooms that take steps."""
        return [room for room in self.rooms.values() if room.active]

    @property
    def queue(self) -> list[DeviceRoom]:
        """The rooms that wait for a place: runs before preparations, each in the order in which they came."""
        waiting = [room for room in self.rooms.values() if room.work is not None and not room.work.has_place]
        return sorted(waiting, key=_order)

    @property
    def held_bytes(self) -> int:
        """Memory that the sessions on the device hold."""
        return sum(room.session.shared.nbytes for room in self.rooms.values() if room.session is not None)

    def room(self, desired: DesiredState) -> DeviceRoom:
        """The room with this desired state, which is added if it is not there."""
        return self.rooms.setdefault(desired.room, DeviceRoom(desired))

    def give(self, room: DeviceRoom, work: Work) -> None:
        """Give a room something to do, as soon as it has a place."""
        room.stop_work()
        self._scheduler.enter(room.id, [other.id for other in self.active])
        work.waiting_since = time.monotonic()
        room.work = work
        self.fill()

    def fill(self) -> None:
        """Give places to rooms that wait. Those whose session is on the device have theirs already."""
        queue = self.queue
        for room in queue:
            assert room.work is not None
            room.work.has_place = room.session is not None
        for room in queue:
            assert room.work is not None
            if not room.work.has_place and not self._make_place(room):
                break
            room.work.has_place = True

    def _make_place(self, room: DeviceRoom) -> bool:
        """Whether there is a place for a room; idle sessions leave for any room, preparations for runs."""
        while True:
            here = [other for other in self.rooms.values() if other.session is not None or other.active]
            if not here or (len(here) < self._max_sessions and self._fits_beside(here)):
                return True
            idle = [other for other in here if other.idle]
            preparing = [other for other in here if other.active and not other.run] if room.run else []
            if idle:
                self.evict(min(idle, key=lambda other: other.used_at))
            elif preparing:
                self._postpone(max(preparing, key=_order))
            else:
                return False

    def _fits_beside(self, here: list[DeviceRoom]) -> bool:
        """Whether one more session of average size fits into the memory for sessions."""
        held = [room.session.shared.nbytes for room in here if room.session is not None]
        return not self._max_bytes or not held or sum(held) + sum(held) / len(held) <= self._max_bytes

    def _postpone(self, room: DeviceRoom) -> None:
        """Take a preparation off the device; it goes on when there is a place again."""
        work = room.work
        assert work is not None
        work.close()
        if room.session is not None:
            self._files.save(room)
            room.close_session()
        work.restart()
        work.has_place = False

    def evict(self, room: DeviceRoom) -> None:
        """Move an idle session from the device to disk; if the disk refuses it, it is lost."""
        log.info("the idle session of room %s leaves the device", room.id)
        self._files.save(room, leaves=True)
        self.release(room)

    def release(self, room: DeviceRoom, *, requested: bool = False) -> None:
        """Take a room off the device, and report it."""
        self.remove(room)
        self._emit(SessionReleased(room=room.id, requested=requested))

    def remove(self, room: DeviceRoom) -> None:
        """Take a room off the device."""
        room.stop_work()
        room.close_session()
        self.rooms.pop(room.id, None)
        self._scheduler.leave(room.id)
        self._usage.leave(room.id)


def _order(room: DeviceRoom) -> tuple[int, float]:
    assert room.work is not None
    return (room.work.priority, room.work.waiting_since)
