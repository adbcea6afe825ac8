"""Connection: one WebSocket. A reader that is always reading, a writer, and an outbox between them.

A slow client holds up nobody: what is volatile is replaced by its successor while it waits, and a client that does not
even take what is reliable is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Protocol, TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from livedrag.server.access.credentials import Visitor
from livedrag.server.document.protocol import (
    VERSION,
    AckFrame,
    ClientMessage,
    Close,
    ErrorMessage,
    Hello,
    Ping,
    Pong,
    ProtocolError,
    Rejected,
    decode_client,
    encode,
)
from livedrag.server.metrics import Metrics
from livedrag.server.rooms.outbox import Disconnect, Outbox

log = logging.getLogger(__name__)

TOO_BIG = 1009
"""WebSocket's own close code for a message that is too large."""

FAREWELL_SECONDS = 2.0
"""How long a client has to take the reason why it is let go."""


class Seat(Protocol):
    """What a connection needs of a person in a room; `hub.Seat` is it."""

    def count(self, message: ClientMessage) -> None:
        """Count what comes in. Raises `Disconnect` where it is too much."""

    def receive(self, message: ClientMessage) -> None:
        """Take a message that is about the room."""


S = TypeVar("S", bound=Seat)


class House(Protocol[S]):
    """What a connection needs of the rooms; `hub.Hub` is it."""

    metrics: Metrics

    async def join(self, room: str, hello: Hello, outbox: Outbox, visitor: Visitor) -> S:
        """Let somebody in, or raise `Disconnect`."""

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
        except Disconnect as farewell:
            log.info("closing a connection: %s", farewell, extra={"room": room})
            await _say_farewell(websocket, house, farewell)


async def refuse(websocket: WebSocket, house: House[S], code: Close, reason: str, message: str) -> None:
    """Close a WebSocket with a reason that its client can read."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect, WebSocketDisconnected):
        await _say_farewell(websocket, house, Disconnect(code, ErrorMessage(reason=reason, message=message)))


async def _say_farewell(websocket: WebSocket, house: House[S], farewell: Disconnect) -> None:
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
        fault = ErrorMessage(reason="timed_out", message=f"no hello came within {patience:g} s")
        raise Disconnect(Close.TIMED_OUT, fault) from None
    except ProtocolError as error:
        raise Disconnect(Close.BAD_MESSAGE, ErrorMessage(reason="bad_message", message=str(error))) from None
    if not isinstance(message, Hello):
        fault = ErrorMessage(
            reason="bad_message", message=f"the first message is {_name(message)!r}: say 'hello' first"
        )
        raise Disconnect(Close.BAD_MESSAGE, fault)
    if message.version != VERSION:
        fault = ErrorMessage(
            reason="unknown_version", message=f"version {message.version!r}: this server speaks {VERSION!r}"
        )
        raise Disconnect(Close.UNKNOWN_VERSION, fault)
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
        expected, unexpected = ends.split((Disconnect, WebSocketDisconnect, WebSocketDisconnected))
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
                raise Disconnect(Close.BAD_MESSAGE, ErrorMessage(reason="bad_message", message=str(error))) from None
            outbox.put(Rejected(op_id=error.op_id, reason="invalid", message=str(error)))
            continue
        seat.count(message)
        match message:
            case Ping():
                outbox.put(Pong(time=message.time))
            case AckFrame(frame=frame):
                outbox.acknowledge(frame)
            case Hello():
                fault = ErrorMessage(
                    reason="bad_message", message="'hello' came a second time: it is the first message alone"
                )
                raise Disconnect(Close.BAD_MESSAGE, fault)
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
        raise Disconnect(TOO_BIG, ErrorMessage(reason="too_large", message=text))
    return decode_client(data, most_bytes)


def _first(ends: ExceptionGroup[Exception]) -> Exception:
    """Of several ends at once, the one that says most."""
    return next((end for end in ends.exceptions if isinstance(end, Disconnect)), ends.exceptions[0])


def _name(message: ClientMessage) -> str:
    return str(type(message).__struct_config__.tag)


def _fitting(reason: str) -> str:
    """A close reason has at most 123 bytes."""
    return reason.encode()[:123].decode(errors="ignore")
