"""Connection: one WebSocket. A reader that is always reading, a writer, and an outbox between them.

A slow client holds up nobody: what is volatile is replaced by its successor while it waits, and a client that does not
even take what is reliable is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Protocol, TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from server.exchange import Visitor
from server.metrics import Metrics
from server.protocol import (
    FRAME_CREDITS,
    VERSION,
    AckFrame,
    ClientMessage,
    Close,
    EngineReport,
    Fault,
    Frame,
    Hello,
    History,
    Moments,
    People,
    Ping,
    Points,
    Pong,
    Prepared,
    Presences,
    Progress,
    ProtocolError,
    Rejected,
    ServerMessage,
    decode_client,
    encode,
)

log = logging.getLogger(__name__)

MOST_WAITING = 2000
"""Reliable messages that may wait for one client."""
TOO_BIG = 1009
"""WebSocket's own close code for a message that is too large."""

FAREWELL_SECONDS = 2.0
"""How long a client has to take the reason why it is let go."""

VOLATILE = (
    People,
    Presences,
    History,
    Moments,
    EngineReport,
    Prepared,
    Progress,
    Points,
    Pong,
    Frame,
)


class Farewell(Exception):
    """The connection is to be closed with a code and a reason; ``fault`` is what the client is told before."""

    def __init__(self, code: int, fault: Fault) -> None:
        super().__init__(fault.message)
        self.code = code
        self.fault = fault


class Outbox:
    """What waits to be sent to one client: reliable messages in order, of volatile ones the latest of each kind."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics if metrics is not None else Metrics()
        self._waiting: dict[object, bytes] = {}
        self._frame: Frame | None = None  # the one that waits, or waited last
        self._presences: Presences | None = None  # those that wait
        self._unacknowledged: dict[int, float] = {}  # when they were decoded
        self._next = 0
        self._changed = asyncio.Event()
        self._farewell: Farewell | None = None
        self._leaving = asyncio.Event()

    def put(self, message: ServerMessage, packed: bytes | None = None) -> None:
        """Send a message when its turn comes; ``packed`` spares encoding it again for every client."""
        key: object = type(message)
        if isinstance(message, Presences) and self._presences is not None:  # each tells of those who have changed
            message, packed = Presences(people={**self._presences.people, **message.people}), None
        if isinstance(message, VOLATILE):
            replaced = self._waiting.pop(key, None)  # its successor waits in its own place, behind what it depends on
            if replaced is not None and key is Frame:
                self._metrics.frames.add("replaced")
        else:
            key = self._next = self._next + 1
        if isinstance(message, Frame):
            self._frame = message
        elif isinstance(message, Presences):
            self._presences = message
        self._waiting[key] = packed if packed is not None else encode(message)
        self._changed.set()
        if len(self._waiting) > MOST_WAITING:
            text = f"{MOST_WAITING} messages wait to be read by this client"
            self.dismiss(Farewell(Close.TIMED_OUT, Fault(reason="timed_out", message=text)))

    def dismiss(self, farewell: Farewell) -> None:
        """Let the client go, without waiting for it to take what waits."""
        self._farewell = self._farewell or farewell
        self._leaving.set()

    async def dismissed(self) -> None:
        """Wait for the client to be let go. Raises the `Farewell`."""
        await self._leaving.wait()
        assert self._farewell is not None
        raise self._farewell

    def acknowledge(self, frame: int) -> None:
        """The client has shown or dropped a frame: one credit back."""
        decoded = self._unacknowledged.pop(frame, None)
        if decoded is not None:
            self._metrics.frames.add("acknowledged")
            self._metrics.frame_age.observe(max(0.0, time.time() - decoded))
        self._changed.set()

    async def get(self) -> bytes:
        """Wait for what is to be sent next."""
        while (packed := self.take()) is None:
            self._changed.clear()
            await self._changed.wait()
        return packed

    def take(self) -> bytes | None:
        """What is to be sent next, if anything may be sent now."""
        for key in self._waiting:
            if key is Frame and len(self._unacknowledged) >= FRAME_CREDITS:
                continue
            if key is Frame and self._frame is not None:
                self._unacknowledged[self._frame.frame] = self._frame.time
                self._metrics.frames.add("sent")
            if key is Presences:
                self._presences = None
            return self._waiting.pop(key)
        return None


class Seat(Protocol):
    """What a connection needs of a person in a room; `hub.Seat` is it."""

    def count(self, message: ClientMessage) -> None:
        """Count what comes in. Raises `Farewell` where it is too much."""

    def receive(self, message: ClientMessage) -> None:
        """Take a message that is about the room."""


S = TypeVar("S", bound=Seat)


class House(Protocol[S]):
    """What a connection needs of the rooms; `hub.Hub` is it."""

    metrics: Metrics

    async def join(self, room: str, hello: Hello, outbox: Outbox, visitor: Visitor) -> S:
        """Let somebody in, or raise `Farewell`."""

    def leave(self, seat: S) -> None:
        """Somebody has gone."""


async def serve(
    websocket: WebSocket, house: House[S], room: str, visitor: Visitor, *, patience: float, most_bytes: int
) -> None:
    """Speak ``livedrag.v1`` over one accepted or acceptable WebSocket until it ends.

    Args:
        visitor: what the handshake says of who it is.
        patience: seconds that the client has to say hello.
        most_bytes: of a message that it sends.
    """
    await websocket.accept(subprotocol=VERSION if VERSION in websocket.scope["subprotocols"] else None)
    with contextlib.suppress(WebSocketDisconnect, WebSocketDisconnected):
        try:
            hello = await _hello(websocket, patience, most_bytes)
            await _converse(websocket, house, room, hello, visitor, most_bytes)
        except Farewell as farewell:
            log.info("closing a connection: %s", farewell, extra={"room": room})
            await _say_farewell(websocket, house, farewell)


async def refuse(websocket: WebSocket, house: House[S], code: Close, reason: str, message: str) -> None:
    """Close a WebSocket with a reason that its client can read."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect, WebSocketDisconnected):
        await _say_farewell(websocket, house, Farewell(code, Fault(reason=reason, message=message)))


async def _say_farewell(websocket: WebSocket, house: House[S], farewell: Farewell) -> None:
    house.metrics.closes.add(str(int(farewell.code)))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            await websocket.send_bytes(encode(farewell.fault))
            await websocket.close(farewell.code, _fitting(str(farewell)))


async def _hello(websocket: WebSocket, patience: float, most_bytes: int) -> Hello:
    try:
        async with asyncio.timeout(patience):
            message = _decoded(await _receive(websocket), most_bytes)
    except TimeoutError:
        fault = Fault(reason="timed_out", message=f"no hello came within {patience:g} s")
        raise Farewell(Close.TIMED_OUT, fault) from None
    except ProtocolError as error:
        raise Farewell(Close.BAD_MESSAGE, Fault(reason="bad_message", message=str(error))) from None
    if not isinstance(message, Hello):
        fault = Fault(reason="bad_message", message=f"the first message is {_name(message)!r}: say 'hello' first")
        raise Farewell(Close.BAD_MESSAGE, fault)
    if message.version != VERSION:
        fault = Fault(reason="unknown_version", message=f"version {message.version!r}: this server speaks {VERSION!r}")
        raise Farewell(Close.UNKNOWN_VERSION, fault)
    return message


async def _converse(
    websocket: WebSocket, house: House[S], room: str, hello: Hello, visitor: Visitor, most_bytes: int
) -> None:
    """Read and write until either ends; raises how it ended."""
    outbox = Outbox(house.metrics)
    seat = await house.join(room, hello, outbox, visitor)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(outbox.dismissed(), name="doorman")
            tasks.create_task(_write(websocket, outbox), name="writer")
            tasks.create_task(_read(websocket, seat, outbox, most_bytes), name="reader")
    except ExceptionGroup as ends:  # not `except*`, which may wrap again what is raised inside it
        expected, unexpected = ends.split((Farewell, WebSocketDisconnect, WebSocketDisconnected))
        if unexpected is not None or expected is None:
            raise
        raise _first(expected) from None
    finally:
        house.leave(seat)


async def _read(websocket: WebSocket, seat: Seat, outbox: Outbox, most_bytes: int) -> None:
    while True:
        try:
            message = _decoded(await _receive(websocket), most_bytes)
        except ProtocolError as error:
            if error.op_id is None:
                raise Farewell(Close.BAD_MESSAGE, Fault(reason="bad_message", message=str(error))) from None
            outbox.put(Rejected(op_id=error.op_id, reason="invalid", message=str(error)))
            continue
        seat.count(message)
        match message:
            case Ping():
                outbox.put(Pong(time=message.time))
            case AckFrame(frame=frame):
                outbox.acknowledge(frame)
            case Hello():
                fault = Fault(reason="bad_message", message="'hello' came a second time: it is the first message alone")
                raise Farewell(Close.BAD_MESSAGE, fault)
            case _:
                seat.receive(message)


async def _write(websocket: WebSocket, outbox: Outbox) -> None:
    while True:
        packed = await outbox.get()
        await websocket.send_bytes(packed)


async def _receive(websocket: WebSocket) -> bytes | str:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006), message.get("reason"))
    packed: bytes | None = message.get("bytes")
    if packed is not None:
        return packed
    text: str = message["text"]
    return text


def _decoded(data: bytes | str, most_bytes: int) -> ClientMessage:
    if len(data) > most_bytes:
        text = f"message of {len(data)} bytes: at most {most_bytes} are allowed"
        raise Farewell(TOO_BIG, Fault(reason="too_large", message=text))
    return decode_client(data, most_bytes)


def _first(ends: ExceptionGroup[Exception]) -> Exception:
    """Of several ends at once, the one that says most."""
    return next((end for end in ends.exceptions if isinstance(end, Farewell)), ends.exceptions[0])


def _name(message: ClientMessage) -> str:
    return str(type(message).__struct_config__.tag)


def _fitting(reason: str) -> str:
    """A close reason has at most 123 bytes."""
    return reason.encode()[:123].decode(errors="ignore")
