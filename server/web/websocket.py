"""One WebSocket connection: a reader, a writer, and an outbox between them.

A slow client delays no one: volatile messages are replaced by newer ones while they wait, and a client that does not
even read the reliable ones is disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from livedrag.server.access.password import Caller
from livedrag.server.access.rate_limits import RateLimited
from livedrag.server.document.protocol import (
    VERSION,
    ClientMessage,
    Close,
    ErrorMessage,
    Hello,
    ProtocolError,
    Rejected,
    decode_client,
    encode,
)
from livedrag.server.rooms.outbox import Disconnect, Outbox
from livedrag.server.rooms.registry import RoomRegistry
from livedrag.server.rooms.session import RoomSession
from livedrag.server.web.context import caller_of, context_of

log = logging.getLogger(__name__)

MESSAGE_TOO_BIG = 1009
"""WebSocket's own close code for a message that is too large."""

CLOSED_MEANWHILE = 1006
"""WebSocket's own code for a connection that is gone without a close frame."""

CLOSE_SECONDS = 2.0
"""How long a client has to read why it is disconnected."""


async def connect(websocket: WebSocket) -> None:
    """The endpoint: speak ``livedrag.v1`` with a client until either side ends it."""
    context = context_of(websocket)
    connection = Connection(websocket, context.registry)
    try:
        context.registry.limits.check_address(connection.caller.address, "connect")
    except RateLimited as error:
        context.registry.metrics.rejects.labels(error.setting).inc()
        await connection.refuse(Close.TOO_MANY, "too_many", str(error))
    else:
        await connection.serve()


class Connection:
    """A WebSocket of one client to one room."""

    def __init__(self, websocket: WebSocket, registry: RoomRegistry) -> None:
        self.caller: Caller = caller_of(websocket)
        self._websocket = websocket
        self._registry = registry
        self._room: str = websocket.path_params["room"]
        self._max_bytes = registry.settings.max_message_bytes

    async def serve(self) -> None:
        """Accept the client, let it join the room, and exchange messages until the end."""
        offered = self._websocket.scope["subprotocols"]
        await self._websocket.accept(subprotocol=VERSION if VERSION in offered else None)
        with contextlib.suppress(WebSocketDisconnect, WebSocketDisconnected):
            try:
                await self._converse(await self._hello())
            except Disconnect as disconnect:
                log.info("closing a connection: %s", disconnect, extra={"room": self._room})
                await self._close(disconnect)

    async def refuse(self, code: Close, reason: str, message: str) -> None:
        """Accept the client only to send it an error, which a refused handshake could not carry."""
        await self._websocket.accept()
        with contextlib.suppress(WebSocketDisconnect, WebSocketDisconnected):
            await self._close(_disconnect(code, reason, message))

    async def _close(self, disconnect: Disconnect) -> None:
        self._registry.metrics.closes.labels(str(int(disconnect.code))).inc()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._websocket.send_bytes(encode(disconnect.error))
                await self._websocket.close(disconnect.code, _close_reason(str(disconnect)))

    async def _hello(self) -> Hello:
        deadline = self._registry.settings.deadline
        try:
            async with asyncio.timeout(deadline):
                message = self._decode(await self._receive())
        except TimeoutError:
            raise _disconnect(Close.TIMED_OUT, "timed_out", f"no 'hello' within {deadline:g} s") from None
        except ProtocolError as error:
            raise _disconnect(Close.BAD_MESSAGE, "bad_message", str(error)) from None
        if not isinstance(message, Hello):
            text = f"the first message is {_tag(message)!r}: send 'hello' first"
            raise _disconnect(Close.BAD_MESSAGE, "bad_message", text)
        if message.version != VERSION:
            text = f"version {message.version!r}: this server speaks {VERSION!r}"
            raise _disconnect(Close.UNKNOWN_VERSION, "unknown_version", text)
        return message

    async def _converse(self, hello: Hello) -> None:
        """Read and write until either ends; raises how it ended."""
        outbox = Outbox(self._registry.metrics, self._registry.settings.max_unsent_bytes)
        session = await self._registry.join(self._room, hello, outbox, self.caller)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(outbox.dismissed(), name="dismissed")
                tasks.create_task(self._write(outbox), name="writer")
                tasks.create_task(self._read(session, outbox), name="reader")
        except ExceptionGroup as ends:  # not `except*`, which may wrap again what is raised inside it
            expected, unexpected = ends.split((Disconnect, WebSocketDisconnect, WebSocketDisconnected))
            if unexpected is not None or expected is None:
                raise
            raise _most_telling(expected) from None
        finally:
            session.room.leave(session)

    async def _read(self, session: RoomSession, outbox: Outbox) -> None:
        while True:
            try:
                message = self._decode(await self._receive())
            except ProtocolError as error:
                if error.op_id is None:
                    raise _disconnect(Close.BAD_MESSAGE, "bad_message", str(error)) from None
                outbox.put(Rejected(op_id=error.op_id, reason="invalid", message=str(error)))
                continue
            session.room.receive(session, message)

    async def _write(self, outbox: Outbox) -> None:
        while True:
            message = await outbox.get()
            try:
                await self._websocket.send_bytes(message)
            except RuntimeError as error:  # the server has closed this connection, which is received only next
                raise WebSocketDisconnect(CLOSED_MEANWHILE) from error

    async def _receive(self) -> bytes | str:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006), message.get("reason"))
        packed: bytes | None = message.get("bytes")
        if packed is not None:
            return packed
        text: str = message["text"]
        return text

    def _decode(self, data: bytes | str) -> ClientMessage:
        if len(data) > self._max_bytes:
            text = f"message of {len(data)} bytes: at most {self._max_bytes} are allowed"
            raise _disconnect(MESSAGE_TOO_BIG, "too_large", text)
        return decode_client(data, self._max_bytes)


def _disconnect(code: int, reason: str, message: str) -> Disconnect:
    return Disconnect(code, ErrorMessage(reason=reason, message=message))


def _most_telling(ends: ExceptionGroup[Exception]) -> Exception:
    """Of several ends at once, a disconnection with a reason."""
    return next((end for end in ends.exceptions if isinstance(end, Disconnect)), ends.exceptions[0])


def _tag(message: ClientMessage) -> str:
    return str(type(message).__struct_config__.tag)


def _close_reason(text: str) -> str:
    """The text cut to the 123 bytes that a close frame can carry."""
    return text.encode()[:123].decode(errors="ignore")
