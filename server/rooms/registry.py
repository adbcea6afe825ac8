"""All rooms of a server: opening, creating, deleting and expiring them, and the engine's events for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from types import TracebackType

import msgspec

from livedrag.server.access.credentials import Credentials
from livedrag.server.access.password import Caller
from livedrag.server.access.rate_limits import RateLimited, RateLimits
from livedrag.server.device.engine import Engine
from livedrag.server.device.messages import AnyEvent, ReleaseSession, WorkerRestarted, WorkerRestarting
from livedrag.server.document.protocol import Close, Document, Hello, ModelInfo, RoomLimits
from livedrag.server.errors import UnknownRoom
from livedrag.server.images.animation import find_encoder
from livedrag.server.images.rasteriser import Rasteriser
from livedrag.server.metrics import Metrics
from livedrag.server.rooms.admission import Admission, new_link
from livedrag.server.rooms.background import BackgroundTasks
from livedrag.server.rooms.clock import Clock
from livedrag.server.rooms.device_seconds import DeviceSeconds
from livedrag.server.rooms.engine_reports import EngineReports
from livedrag.server.rooms.generation import Generations
from livedrag.server.rooms.outbox import Disconnect, Outbox
from livedrag.server.rooms.room import LiveRoom, RoomEvent
from livedrag.server.rooms.services import Services
from livedrag.server.rooms.session import RoomSession
from livedrag.server.settings import MIB, Settings
from livedrag.server.storage import Store, StoreError

log = logging.getLogger(__name__)

LINGER_SECONDS = 60.0
"""How long a room stays open that no one joins, and the session of a closed room on its device."""
MAX_UNUSED_BYTES = 64 * MIB
"""Memory of the strokes of all open rooms that no one has joined."""
GOODBYE_SECONDS = 1.0
"""How long connections have to close when the server stops."""
HOUSEKEEPING_SECONDS = 3600.0
REPORT_SECONDS = 1.0
"""Between two readings of what workers report, which is about as often as they do."""
DAY = 86_400.0


class RoomRegistry:
    """All rooms of a server."""

    def __init__(self, settings: Settings, store: Store, engine: Engine, clock: Clock | None = None) -> None:
        self.settings = settings
        self.store = store
        self.engine = engine
        self._engine_reports = EngineReports()
        self.limits = RateLimits(settings)
        self.metrics = Metrics()
        self.admission = Admission(store, Credentials(store, settings.password), self.limits, self.open)
        self.checkpoints = store.checkpoints
        self.generations = Generations(settings, engine, self.metrics)
        self.room_limits = RoomLimits.of(settings)
        self.model: ModelInfo | None = None
        self.encoder: str | None = None
        self.tasks = BackgroundTasks()
        self.device_seconds = DeviceSeconds()
        self.rooms: dict[str, LiveRoom] = {}  # those that are open
        self.is_stopping = False  # clients are being disconnected
        self._clock = clock or Clock()
        self._opening = asyncio.Lock()
        self._rasteriser = Rasteriser()
        self._timers: dict[str, asyncio.Task[None]] = {}  # by room: closes it, or releases its session
        self._disconnected = asyncio.Event()
        self._add_metrics()

    def _add_metrics(self) -> None:
        rooms = self.rooms
        gauge = self.metrics.gauge
        gauge("livedrag_rooms_open", "Rooms in memory.", lambda: len(rooms))
        gauge("livedrag_people", "People in rooms.", lambda: sum(len(room.connected) for room in rooms.values()))
        gauge("livedrag_connections", "Open connections.", lambda: len(self._sessions()))
        gauge("livedrag_disk_bytes", "Size of the data directory.", self.store.disk_bytes)
        gauge("livedrag_largest_room_bytes", "Log and pictures of the largest room in use.", self.store.sizes.largest)
        self.metrics.watch_engine(self.engine.stats)

    async def __aenter__(self) -> RoomRegistry:
        """Start the engine. Raises `EngineError`."""
        self.model, self.encoder = await asyncio.gather(
            self.engine.start(self.on_event), asyncio.to_thread(find_encoder)
        )
        self.tasks.start(self._keep_house())
        self.tasks.start(self._count_device_seconds())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.tasks.cancel()
        await self.engine.close()

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The optional features of this server."""
        available = {"password": bool(self.settings.password), "mp4": self.encoder is not None}
        return tuple(name for name, is_available in available.items() if is_available)

    # Rooms -----------------------------------------------------------------------------------------------------------

    async def create(self, document: Document) -> tuple[str, str]:
        """Create a room, whose pictures are in the store already; returns its id and its owner's secret."""
        room_id, (link, secret) = secrets.token_urlsafe(9), new_link("owner")
        await asyncio.wrap_future(self.store.create(room_id, document, [link]))
        return room_id, secret

    async def copy(self, room: LiveRoom, title: str) -> tuple[str, str]:
        """Copy a room as it is now, with its preparation; returns the copy's id and its owner's secret.

        Links, members and undo are not copied. A run under way is interrupted in the copy. Raises `OSError`.
        """
        document = msgspec.structs.replace(room.document, title=title)
        versions = {id: room.draft.handle_version(id) for id in document.drags}
        room_id, (link, secret) = secrets.token_urlsafe(9), new_link("owner")
        try:
            await asyncio.to_thread(self.checkpoints.copy, room.id, room_id, versions)
            await asyncio.wrap_future(self.store.create(room_id, document, [link]))
        except (OSError, StoreError):
            await asyncio.to_thread(self.checkpoints.wipe, room_id)
            raise
        return room_id, secret

    async def open(self, room_id: str) -> LiveRoom:
        """A room, from memory or disk. Raises `UnknownRoom`."""
        if room_id not in self.rooms:
            async with self._opening:
                if room_id not in self.rooms:
                    self.rooms[room_id] = await self._load(room_id)
                    self._start_timer(room_id, self._close_if_unused)
                    self._close_old_unused(room_id)
        return self.rooms[room_id]

    async def _load(self, room_id: str) -> LiveRoom:
        saved = await asyncio.wrap_future(self.store.load(room_id))
        if saved is None:
            raise UnknownRoom(room_id)
        assert self.model is not None
        services = Services(
            settings=self.settings,
            store=self.store,
            engine=self.engine,
            model=self.model,
            rate_limits=self.limits,
            room_limits=self.room_limits,
            metrics=self.metrics,
            clock=self._clock,
            tasks=self.tasks,
            rasteriser=self._rasteriser,
            capabilities=self.capabilities,
        )
        room = LiveRoom(room_id, saved, services, self._on_unused)
        try:
            timeline = await asyncio.to_thread(self.checkpoints.load_timeline, room_id, saved.document.picture.sha256)
        except OSError as error:
            log.error("the timeline of room %s cannot be read: %s", room_id, error)
        else:
            if timeline is not None:
                room.timeline.update(timeline)
        return room

    def eject(self, room: LiveRoom, why: str) -> None:
        """Disconnect everyone in a room, and take it off its device. A run in it is interrupted; anyone may come back.

        Args:
            why: for the people in it.
        """
        self._close(room)
        self.engine.submit(ReleaseSession(room=room.id))
        room.disconnect(room.sessions.values(), Close.REMOVED, "ejected", why)

    async def delete(self, room: LiveRoom, why: str = "an owner has deleted this room") -> None:
        """Delete a room with everything that is stored of it, and disconnect everyone in it.

        Args:
            why: for the people in it.
        """
        deleting = self.store.delete(room.id)
        self._close(room)
        self.engine.submit(ReleaseSession(room=room.id, wipe=True))
        room.disconnect(room.sessions.values(), Close.ROOM_DELETED, "room_deleted", why)
        await asyncio.wrap_future(deleting)

    def _close(self, room: LiveRoom) -> None:
        if self.rooms.get(room.id) is room:
            del self.rooms[room.id]
        self._stop_timer(room.id)
        room.close()

    def _on_unused(self, room: LiveRoom) -> None:
        self._close_if_unused(room.id)
        if not self._sessions():
            self._disconnected.set()

    def _close_if_unused(self, room_id: str) -> None:
        room = self.rooms.get(room_id)
        if room is not None and not room.in_use:
            self._close(room)
            self._start_timer(room_id, self._release)

    def _close_old_unused(self, but: str) -> None:
        """Close the rooms that no one has joined, the oldest first, if together they take too much memory."""
        unused = [room for room in self.rooms.values() if not room.in_use]
        total = sum(room.draft.held_bytes for room in unused)
        for room in unused:
            if total > MAX_UNUSED_BYTES and room.id != but:
                total -= room.draft.held_bytes
                self._close_if_unused(room.id)

    def _release(self, room_id: str) -> None:
        """No one has come back: the session may leave the device."""
        if room_id not in self.rooms:
            self.engine.submit(ReleaseSession(room=room_id))

    def _start_timer(self, room_id: str, then: Callable[[str], None]) -> None:
        self._stop_timer(room_id)
        self._timers[room_id] = self.tasks.start(self._linger(room_id, then))

    def _stop_timer(self, room_id: str) -> None:
        timer = self._timers.pop(room_id, None)
        if timer is not None:
            timer.cancel()

    async def _linger(self, room_id: str, then: Callable[[str], None]) -> None:
        await self._clock.sleep(LINGER_SECONDS)
        del self._timers[room_id]
        then(room_id)

    async def _keep_house(self) -> None:
        """Delete rooms and cookies that were not used for a long time, every hour."""
        while True:
            try:
                await self._expire()
            except StoreError as error:
                log.error("old rooms could not be deleted: %s", error)
            await self._clock.sleep(HOUSEKEEPING_SECONDS)

    async def _count_device_seconds(self) -> None:
        while True:
            await self._clock.sleep(REPORT_SECONDS)
            self.device_seconds.note(self.engine.workers())

    async def _expire(self) -> None:
        now = self._clock.now()
        await asyncio.wrap_future(self.store.expire_sessions(now - self.settings.session_days * DAY))
        if self.settings.room_days:
            before = now - self.settings.room_days * DAY
            for room_id in await asyncio.wrap_future(self.store.expire(before, set(self.rooms))):
                log.info("deleted a room that was not used for a long time", extra={"room": room_id})
                self.engine.submit(ReleaseSession(room=room_id, wipe=True))

    # Sessions --------------------------------------------------------------------------------------------------------

    async def join(self, room_id: str, hello: Hello, outbox: Outbox, caller: Caller) -> RoomSession:
        """Open a session in a room, which gets the document, or what it has missed. Raises `Disconnect`."""
        try:
            room, member = await self.admission.admit(room_id, hello, caller)
        except Disconnect as disconnect:
            if isinstance(disconnect.__cause__, RateLimited):
                self.metrics.rejects.labels(disconnect.__cause__.setting).inc()
            raise
        return room.join(member, hello, outbox, caller.address)

    async def disconnect_all(self) -> None:
        """The server stops: ask all clients to reconnect later, and wait until they have gone."""
        self.is_stopping = True
        self.generations.close()
        for room in self.rooms.values():
            text = "the server is stopping: reconnect in a moment"
            room.disconnect(room.sessions.values(), Close.GOING_AWAY, "going_away", text)
            room.close_followers()
        if self._sessions():
            self._disconnected.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._disconnected.wait(), GOODBYE_SECONDS)

    def _sessions(self) -> list[RoomSession]:
        return [session for room in self.rooms.values() for session in room.sessions.values()]

    # Events from the engine ------------------------------------------------------------------------------------------

    def on_event(self, event: AnyEvent) -> None:
        """Pass an event of the engine to whom it concerns."""
        if isinstance(event, WorkerRestarting | WorkerRestarted):
            self._engine_reports.on_event(event, self.rooms.values(), ready=self.engine.state == "ready")
        elif isinstance(event, RoomEvent) and not self.generations.on_event(event):
            room = self.rooms.get(event.room)
            if room is not None:
                room.on_event(event)
