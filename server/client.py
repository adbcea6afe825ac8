"""A small client of ``livedrag.v1``, for scripts, tests and benchmarks.

    room = create_room("http://127.0.0.1:8000", Path("bear.png").read_bytes())
    async with Client.join(address, room.id, room.secret) as client:
        await client.edit(AddDrag(id="arm", handle=(62, 150), target=(40, 110)))
        ended = await client.drag()

A client keeps a replica of the room's document, folded from what the server tells, and every message in `received`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server.protocol import (
    VERSION,
    AckFrame,
    ClientMessage,
    DocRecord,
    Document,
    Edit,
    Edited,
    Ended,
    Frame,
    Hello,
    Operation,
    Ping,
    Rejected,
    Reset,
    ServerMessage,
    Snapshot,
    Started,
    StartRun,
    Stopping,
    StopRun,
    WasReset,
    Welcome,
    decode_server,
    encode,
)
from server.room import fold

Record = TypeVar("Record")


class RequestFailed(Exception):
    """The server answered a request with an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class OperationRejected(Exception):
    """The room did not accept an operation."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(rejected.message)
        self.reason = rejected.reason


@dataclass(frozen=True)
class NewRoom:
    """What the server answers to a new picture; ``url`` is the page's path, its secret included."""

    id: str
    secret: str
    url: str


def create_room(address: str, picture: bytes, *, name: str = "picture.png", **fields: str | bytes) -> NewRoom:
    """Make a room (blocking).

    Args:
        picture: a PNG, JPEG or WebP file.
        fields: ``mask`` (a PNG), ``prompt``, ``drags`` (JSON).

    Raises:
        RequestFailed: the server does not want it.
    """
    boundary = secrets.token_hex(16)
    parts = {"picture": picture, **fields}
    body = (
        b"".join(_part(boundary, field, value, name) for field, value in parts.items()) + f"--{boundary}--\r\n".encode()
    )
    answer = json.loads(
        request(address, "POST", "/api/rooms", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    )
    return NewRoom(answer["room"], answer["secret"], answer["url"])


def request(
    address: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """One HTTP request (blocking). Raises `RequestFailed`."""
    sent = urllib.request.Request(f"{address}{path}", body, dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(sent, timeout=60) as response:
            answer: bytes = response.read()
            return answer
    except urllib.error.HTTPError as error:
        with error:
            fault = json.loads(error.read())["error"]
        raise RequestFailed(error.code, fault["reason"], fault["message"]) from None


def _part(boundary: str, field: str, value: str | bytes, name: str) -> bytes:
    file = f'; filename="{name}"' if isinstance(value, bytes) else ""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'
    return head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"


@dataclass(eq=False)
class Client:
    """One person in one room. Make one with `Client.join`."""

    address: str
    room: str
    secret: str
    socket: ClientConnection
    welcome: Welcome
    document: Document
    seq: int
    acknowledge: bool = True
    received: list[ServerMessage] = field(default_factory=list)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    _answers: dict[str, asyncio.Future[DocRecord]] = field(default_factory=dict)
    _ended: BaseException | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def join(
        cls, address: str, room: str, secret: str, *, name: str = "script", acknowledge: bool = True, **hello: Any
    ) -> AsyncIterator[Client]:
        """Go into a room, and out of it at the end.

        Args:
            address: of the server, such as ``http://127.0.0.1:8000``.
            acknowledge: whether to acknowledge frames; who does not gets two.
            hello: other fields of `Hello`.

        Raises:
            ConnectionClosed: the server did not let us in; code and reason say why.
        """
        parts = urlsplit(address)
        url = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{parts.path}/ws/{room}"
        async with connect(url, subprotocols=[VERSION], max_size=None, compression=None, proxy=None) as socket:  # type: ignore[list-item]
            await socket.send(encode(Hello(**{"version": VERSION, "secret": secret, "name": name, **hello})))
            first = [decode_server(await socket.recv()), decode_server(await socket.recv())]
            welcome, snapshot = first
            assert isinstance(welcome, Welcome)
            assert isinstance(snapshot, Snapshot)
            client = cls(
                address, room, secret, socket, welcome, snapshot.document, snapshot.seq, acknowledge, received=first
            )
            tasks = [asyncio.create_task(client._listen()), asyncio.create_task(client._beat())]
            try:
                yield client
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def edit(self, op: Operation, *, op_id: str | None = None) -> Edited:
        """Do one operation; returns when it is on the server's disk. Raises `OperationRejected`."""
        record = await self._ask(Edit(op_id=op_id or new_id(), base=self.seq, op=op))
        assert isinstance(record, Edited)
        return record

    async def run(self) -> Started:
        """Press Drag. Raises `OperationRejected`."""
        record = await self._ask(StartRun(op_id=new_id()))
        assert isinstance(record, Started)
        return record

    async def stop(self) -> Stopping:
        """Press Stop. Raises `OperationRejected`."""
        record = await self._ask(StopRun(op_id=new_id()))
        assert isinstance(record, Stopping)
        return record

    async def reset(self) -> WasReset:
        """Go back to the uploaded picture. Raises `OperationRejected`."""
        record = await self._ask(Reset(op_id=new_id()))
        assert isinstance(record, WasReset)
        return record

    async def drag(self) -> Ended:
        """Press Drag and wait for the end. Raises `OperationRejected`."""
        run = (await self.run()).run.id
        return await self.wait(Ended, lambda ended: ended.run.id == run)

    async def wait(
        self, kind: type[Record], wanted: Callable[[Record], bool] = lambda _: True, *, since: int = 0
    ) -> Record:
        """The first message of a kind, received already or to come; ``since`` leaves out that many of the first.

        Raises:
            ConnectionClosed: it will not come any more.
        """
        async with self._arrived:
            while True:
                for message in self.received[since:]:
                    if isinstance(message, kind) and wanted(message):
                        return message
                if self._ended is not None:
                    raise self._ended
                since = max(since, len(self.received))
                await self._arrived.wait()

    async def get(self, what: str) -> bytes:
        """``picture``, ``result`` or ``mask`` as a PNG. Raises `RequestFailed`."""
        return await asyncio.to_thread(
            request, self.address, "GET", f"/api/rooms/{self.room}/{what}", None, self._headers
        )

    async def load_mask(self, png: bytes) -> None:
        """Replace the mask by a file; white may change. Raises `RequestFailed`."""
        await asyncio.to_thread(request, self.address, "PUT", f"/api/rooms/{self.room}/mask", png, self._headers)

    async def send(self, message: ClientMessage) -> None:
        """Send anything."""
        await self.socket.send(encode(message))

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    async def _ask(self, message: Edit | StartRun | StopRun | Reset) -> DocRecord:
        answer: asyncio.Future[DocRecord] = asyncio.get_running_loop().create_future()
        self._answers[message.op_id] = answer
        try:
            await self.send(message)
            return await answer
        finally:
            del self._answers[message.op_id]

    async def _listen(self) -> None:
        end: BaseException | None = None
        try:
            async for packed in self.socket:
                await self._take(decode_server(packed))
        except ConnectionClosed as closed:
            end = closed
        end = end or self.socket.protocol.close_exc
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(end)
        async with self._arrived:
            self._ended = end
            self._arrived.notify_all()

    async def _take(self, message: ServerMessage) -> None:
        match message:
            case Snapshot(seq=seq, document=document):
                self.seq, self.document = seq, document
            case Edited() | Started() | Stopping() | Ended() | WasReset():
                if message.seq > self.seq:  # else the answer to an operation that was sent again
                    self.seq, self.document = message.seq, fold(self.document, message)
                answer = self._answers.get("" if isinstance(message, Ended) else message.op_id)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            case Rejected(op_id=op_id):
                answer = self._answers.get(op_id)
                if answer is not None and not answer.done():
                    answer.set_exception(OperationRejected(message))
            case Frame(frame=frame) if self.acknowledge:
                await self.send(AckFrame(frame=frame))
        async with self._arrived:
            self.received.append(message)
            self._arrived.notify_all()

    async def _beat(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self.welcome.heartbeat)
                await self.send(Ping(time=asyncio.get_running_loop().time()))


def new_id() -> str:
    """An id for an operation, a drag or a stroke."""
    return secrets.token_urlsafe(9)
