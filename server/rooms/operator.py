"""Operator: what the person who runs the server sees of it, and may do with rooms and workers."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from livedrag.server.document.protocol import Points, Progress
from livedrag.server.metrics import DeviceStats, state_of
from livedrag.server.rooms.registry import RoomRegistry
from livedrag.server.rooms.room import LiveRoom
from livedrag.server.storage.errors import Damaged, StoreError
from livedrag.server.storage.usage import StoredRoom, stored_rooms
from livedrag.software import version

log = logging.getLogger(__name__)

MAX_LISTED = 500
"""Rooms in a status: those used last."""
EJECTED = "the operator of this server has closed this room for now: reload the page to come back"
DELETED = "the operator of this server has deleted this room"


class PersonStatus(Struct, frozen=True, kw_only=True):
    """A person in a room."""

    name: str
    role: str


class RoomStatus(Struct, frozen=True, kw_only=True):
    """A room.

    Args:
        title: given by people, or empty.
        people: who is in it now; empty for one that is only on disk.
        run: the stage of its run, such as ``queued`` or ``dragging``; empty where nothing runs.
        ahead: rooms before it in the queue, while it is ``queued``.
        iteration: of the run.
        device_seconds: of device time since the server started.
        worker: that has its session; empty for none.
        bytes: of its log, pictures and checkpoints on disk.
        used: when it was last used, in seconds since the epoch.
    """

    id: str
    title: str = ""
    people: list[PersonStatus] = []
    run: str = ""
    ahead: int = 0
    iteration: int = 0
    device_seconds: float = 0.0
    worker: str = ""
    bytes: int = 0
    used: float = 0.0


class WorkerStatus(Struct, frozen=True, kw_only=True):
    """A worker; the numbers are of sessions on its device, and of runs."""

    id: str
    device: str
    state: str
    sessions: int
    running: int
    queued: int
    bytes: int
    restarts: int


class ServerStatus(Struct, frozen=True, kw_only=True):
    """The whole server.

    Args:
        people: in all rooms.
        queued: runs that wait for a device.
        bytes: of the data directory.
        storage: why nothing can be saved, or empty.
        rooms: those used last, at most `MAX_LISTED`; ``rooms_stored`` counts all.
        nodes: the workers by the node that they run on.
    """

    version: str
    model: str
    people: int
    queued: int
    bytes: int
    storage: str
    rooms_open: int
    rooms_stored: int
    rooms: list[RoomStatus]
    nodes: dict[str, list[WorkerStatus]]


class Operator:
    """The operator's view of a server."""

    def __init__(self, registry: RoomRegistry) -> None:
        self._registry = registry

    async def status(self) -> ServerStatus:
        """Everything as it is now. Raises `StoreError`."""
        registry = self._registry
        try:
            listed = await asyncio.to_thread(stored_rooms, registry.store, MAX_LISTED)
        except sqlite3.Error as error:
            raise StoreError(f"the sizes of rooms cannot be read: {error}") from error
        workers = registry.engine.workers()
        registry.device_seconds.note(workers)
        where = {room: worker.worker for worker in workers for room in worker.rooms}
        rooms = [self._room(room, where) for room in listed]
        return ServerStatus(
            version=version(),
            model=registry.model.name if registry.model else "",
            people=sum(len(room.connected) for room in registry.rooms.values()),
            queued=sum(worker.queued for worker in workers),
            bytes=registry.store.disk_bytes(),
            storage=registry.store.space.problem(),
            rooms_open=len(registry.rooms),
            rooms_stored=await asyncio.wrap_future(registry.store.count_rooms()),
            rooms=sorted(rooms, key=lambda room: (not room.people, not room.run)),
            nodes=_by_node(workers),
        )

    async def eject(self, room_id: str) -> None:
        """Send everyone out of a room and take it off its device. They may come back; its run is interrupted.

        Pressing Drag goes on with an interrupted run, from its last checkpoint.

        Raises:
            UnknownRoom: there is none.
        """
        room = await self._registry.open(room_id)
        log.info("the operator sends everyone out of a room", extra={"room": room_id})
        self._registry.eject(room, EJECTED)

    async def delete(self, room_id: str) -> None:
        """Delete a room with everything that is stored of it. Raises `UnknownRoom`."""
        log.info("the operator deletes a room", extra={"room": room_id})
        try:
            room = await self._registry.open(room_id)
        except Damaged:
            await asyncio.wrap_future(self._registry.store.delete(room_id))
        else:
            await self._registry.delete(room, DELETED)

    def drain(self, worker: str) -> None:
        """Take a worker out of service. Raises `DrainRefused`."""
        self._registry.engine.drain(worker)

    def _room(self, stored: StoredRoom, where: Mapping[str, str]) -> RoomStatus:
        status = RoomStatus(
            id=stored.id,
            title=stored.title,
            bytes=stored.bytes,
            used=stored.used,
            device_seconds=self._registry.device_seconds.of(stored.id),
            worker=where.get(stored.id, ""),
        )
        room = self._registry.rooms.get(stored.id)
        return status if room is None else _opened(room, status)


def _opened(room: LiveRoom, status: RoomStatus) -> RoomStatus:
    """The status of a room with what is known of it because it is open."""
    members = room.members.members
    people = [
        PersonStatus(name=members[person].name, role=members[person].role or "viewer")
        for person in sorted(room.connected, key=lambda person: members[person].name)
        if person in members
    ]
    progress, points = room.run.latest.get(Progress), room.run.latest.get(Points)
    running = room.draft.running
    return replace(
        status,
        people=people,
        run=progress.stage if running and isinstance(progress, Progress) else "starting" if running else "",
        ahead=progress.step if running and isinstance(progress, Progress) and progress.stage == "queued" else 0,
        iteration=points.iteration if running and isinstance(points, Points) else 0,
    )


def _by_node(workers: Iterable[DeviceStats]) -> dict[str, list[WorkerStatus]]:
    nodes: dict[str, list[WorkerStatus]] = {}
    for worker in workers:
        nodes.setdefault(worker.node, []).append(
            WorkerStatus(
                id=worker.worker,
                device=worker.device,
                state=state_of(worker),
                sessions=worker.sessions,
                running=worker.running,
                queued=worker.queued,
                bytes=worker.memory_bytes,
                restarts=worker.restarts,
            )
        )
    return nodes
