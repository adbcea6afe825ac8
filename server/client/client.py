"""A small client of ``livedrag.v1``, for scripts, tests and benchmarks.

    room = create_room("http://127.0.0.1:8000", Path("bear.png").read_bytes())
    async with Client.join(address, room.id, room.secret) as client:
        await client.edit(AddDrag(id="arm", handle=(62, 150), target=(40, 110)))
        started = await client.run()
        async for frame in client.frames(started.run.id):
            Path(f"{frame.iteration:04}.{frame.format}").write_bytes(frame.data)
        Path("result.png").write_bytes(await client.get("result"))

A client keeps a replica of the room's document and the latest messages in `received`. It acknowledges frames, sends its
heartbeat, and when the connection breaks it connects again, resumes where it was and sends again what was not answered:
an operation that was awaited meanwhile is done once, however often it was sent. `examples/drag.py` is a whole script.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import secrets
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from livedrag.server.client.replica import Answer, Gap, Replica
from livedrag.server.document.protocol import (
    FINAL_CLOSES,
    VERSION,
    AckFrame,
    ClientMessage,
    Document,
    Edit,
    Edited,
    Ended,
    Frame,
    Operation,
    Ping,
    Presence,
    Redo,
    Rejected,
    Rename,
    Request,
    Reset,
    Role,
    Seeked,
    SeekMoment,
    ServerMessage,
    Snapshot,
    Started,
    StartRun,
    Stopping,
    StopRun,
    Undo,
    WasReset,
    Welcome,
    decode_server,
    encode,
)
from livedrag.server.errors import LivedragError, ServiceError

log = logging.getLogger(__name__)

Record = TypeVar("Record")

PAUSES = (0.1, 0.3, 1.0, 3.0, 5.0)
"""Seconds before the first, second, ... try to connect again, give or take a half; the last goes on."""
CONNECT_SECONDS = 10.0


class RequestFailed(ServiceError):
    """The server, or a proxy before it, answered a request with an error; ``reason`` is "http" where it gave none."""


class OperationRejected(LivedragError):
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


def create_room(
    address: str, picture: bytes, *, name: str = "picture.png", password: str = "", **fields: str | bytes
) -> NewRoom:
    """Make a room (blocking).

    Args:
        picture: a PNG, JPEG or WebP file.
        password: the server's, where it asks for one.
        fields: ``mask`` (a PNG), ``prompt``, ``drags`` (JSON).

    Raises:
        RequestFailed: the server does not want it.
    """
    boundary = secrets.token_hex(16)
    parts = {"picture": picture, **fields}
    body = (
        b"".join(_part(boundary, field, value, name) for field, value in parts.items()) + f"--{boundary}--\r\n".encode()
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", **_password(password)}
    answer = json.loads(request(address, "POST", "/api/rooms", body, headers))
    return NewRoom(answer["room"], answer["secret"], answer["url"])


def create_generated_room(address: str, prompt: str, *, seed: int | None = None, password: str = "") -> NewRoom:
    """Have a picture made from words, and make a room of it (blocking, until it is there).

    Args:
        prompt: what the picture should show.
        seed: of the noise it starts from; by default a random one.
        password: the server's, where it asks for one.

    Raises:
        RequestFailed: the server does not want it, or cannot.
    """
    headers = {"Content-Type": "application/json", **_password(password)}
    wanted = json.dumps({"prompt": prompt, "seed": seed}).encode()
    generation = json.loads(request(address, "POST", "/api/generations", wanted, headers))["id"]
    *_, last = request(address, "GET", f"/api/generations/{generation}", None, headers).splitlines()
    end = json.loads(last)
    if end["type"] != "done":
        raise RequestFailed(409, "not_generated", end.get("message", "the generation was cancelled"))
    answer = json.loads(
        request(address, "POST", "/api/rooms", json.dumps({"generation": generation}).encode(), headers)
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
            raise _failed(error.code, error.reason, error.read()) from None


def _failed(status: int, phrase: str, body: bytes) -> RequestFailed:
    try:
        fault = json.loads(body)["error"]
        return RequestFailed(status, str(fault["reason"]), str(fault["message"]))
    except (ValueError, KeyError, TypeError):  # not in our words: a proxy's page
        text = body[:200].decode(errors="replace")
        return RequestFailed(status, "http", f"the answer was {status} {phrase}: {text!r}")


def _password(password: str) -> dict[str, str]:
    return {"Livedrag-Password": quote(password)} if password else {}


def _part(boundary: str, field: str, value: str | bytes, name: str) -> bytes:
    file = f'; filename="{name}"' if isinstance(value, bytes) else ""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'
    return head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"


class Client:
    """One person in one room. Make one with `Client.join`.

    Attributes:
        welcome: the server's answer to the latest ``hello``.
        received: the latest messages, oldest first.
        count: how many messages there have been.
        connections: how many times this client has connected.
    """

    welcome: Welcome
    socket: ClientConnection

    def __init__(
        self,
        address: str,
        room: str,
        secret: str,
        *,
        password: str,
        acknowledge: bool,
        reconnect: bool,
        remember: int,
        **hello: Any,
    ) -> None:
        self.address = address
        self.room = room
        self.secret = secret
        self.received: list[ServerMessage] = []
        self.count = 0
        self.connections = 0
        self._password = _password(password)
        self._acknowledge = acknowledge
        self._reconnect = reconnect
        self._remember = remember
        self._hello = {"secret": secret, **hello}
        self._replica = Replica()
        self._arrived = asyncio.Condition()
        self._answers: dict[str, asyncio.Future[Answer]] = {}
        self._ended: BaseException | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def join(
        cls,
        address: str,
        room: str,
        secret: str,
        *,
        name: str = "script",
        password: str = "",
        acknowledge: bool = True,
        reconnect: bool = True,
        remember: int = 5000,
        **hello: Any,
    ) -> AsyncIterator[Client]:
        """Go into a room, and out of it at the end.

        Args:
            address: of the server, such as ``http://127.0.0.1:8000``, with its base path if it has one.
            name: shown to the others; two with one link and one name are one person, an empty one is somebody new.
            password: the server's, where it asks for one.
            acknowledge: whether to acknowledge frames; who does not gets two.
            reconnect: whether to connect again when the connection breaks.
            remember: how many messages to keep in ``received``.
            hello: other fields of `Hello`.

        Raises:
            ConnectionClosed: the server did not let us in; code and reason say why.
            OSError, InvalidHandshake: there is no such server.
        """
        client = cls(
            address,
            room,
            secret,
            password=password,
            acknowledge=acknowledge,
            reconnect=reconnect,
            remember=remember,
            name=name,
            **hello,
        )
        await client._connect()
        living = asyncio.create_task(client._live(), name=f"client of {room}")
        try:
            yield client
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            await client.socket.close()

    # The room --------------------------------------------------------------------------------------------------------

    @property
    def document(self) -> Document:
        """The room's document as far as this client knows, without what it has asked for and not been told."""
        assert self._replica.document is not None
        return self._replica.document

    @property
    def seq(self) -> int:
        """Number of the last record in `document`."""
        return self._replica.seq

    @property
    def connected(self) -> bool:
        """Whether there is a connection just now."""
        return self._replica.connected

    async def edit(self, op: Operation, *, op_id: str | None = None) -> Edited:
        """Do one operation; returns when it is on the server's disk. Raises `OperationRejected`."""
        offline = not self.connected
        record = await self._ask(Edit(op_id=op_id or new_id(), base=self.seq, op=op, offline=offline))
        assert isinstance(record, Edited)
        return record

    async def undo(self) -> Edited:
        """Take one's own last edit back, but for what others have changed since. Raises `OperationRejected`."""
        record = await self._ask(Undo(op_id=new_id()))
        assert isinstance(record, Edited)
        return record

    async def redo(self) -> Edited:
        """Do again what the last undo took back. Raises `OperationRejected`."""
        record = await self._ask(Redo(op_id=new_id()))
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

    async def seek(self, moment: int) -> Seeked:
        """Go back, or forth, to a kept moment of the timeline. Raises `OperationRejected`."""
        record = await self._ask(SeekMoment(op_id=new_id(), moment=moment))
        assert isinstance(record, Seeked)
        return record

    async def drag(self) -> Ended:
        """Press Drag and wait for the end. Raises `OperationRejected`."""
        return await self.end_of((await self.run()).run.id)

    async def end_of(self, run: str) -> Ended:
        """Wait for the end of a run; where the connection broke meanwhile, a snapshot may tell it.

        Raises:
            ConnectionClosed: it will not come any more.
        """
        async for message in self.messages(since=0):
            ended = _end_in(message, run)
            if ended is not None:
                return ended
        assert self._ended is not None
        raise self._ended

    # What the server says --------------------------------------------------------------------------------------------

    async def wait(
        self, kind: type[Record], wanted: Callable[[Record], bool] = lambda _: True, *, since: int = 0
    ) -> Record:
        """The first message of a kind, received already or to come; ``since`` leaves out that many of the first.

        Raises:
            ConnectionClosed: it will not come any more.
        """
        async with self._arrived:
            while True:
                for message in self._since(since):
                    if isinstance(message, kind) and wanted(message):
                        return message
                if self._ended is not None:
                    raise self._ended
                since = max(since, self.count)
                await self._arrived.wait()

    async def messages(self, *, since: int | None = None) -> AsyncIterator[ServerMessage]:
        """Every message from now on, or all that are remembered but for so many of the first; ends with the client."""
        seen = self.count if since is None else since
        while True:
            news, seen = self._since(seen), self.count
            for message in news:
                yield message
            async with self._arrived:
                while self.count == seen:
                    if self._ended is not None:
                        return
                    await self._arrived.wait()

    async def frames(self, run: str) -> AsyncIterator[Frame]:
        """The previews of a run, those that are remembered and those to come, until it has ended."""
        async for message in self.messages(since=0):
            if isinstance(message, Frame) and message.run == run:
                yield message
            if _end_in(message, run) is not None:
                return

    async def get(self, what: str) -> bytes:
        """``picture``, ``result`` or ``mask`` as a PNG, or what else there is. Raises `RequestFailed`."""
        return await self.fetch("GET", what)

    async def load_mask(self, png: bytes) -> None:
        """Replace the mask by a file; white may change. Raises `RequestFailed`."""
        await self.fetch("PUT", "mask", png)

    async def point(self, cursor: tuple[float, float] | None, **fields: Any) -> None:
        """Show the others where one points; ``fields`` are others of `Presence`."""
        await self.send(Presence(cursor=cursor, **fields))

    async def rename(self, name: str) -> None:
        """Be called something else."""
        await self.send(Rename(name=name))

    # For owners ------------------------------------------------------------------------------------------------------

    async def links(self) -> list[dict[str, Any]]:
        """The room's links: ``id``, ``role``, and when they were ``made`` and ``used``. Raises `RequestFailed`."""
        links: list[dict[str, Any]] = json.loads(await self.fetch("GET", "links"))
        return links

    async def make_link(self, role: Role) -> dict[str, Any]:
        """A new link: ``id``, ``role``, ``secret`` and ``url``. Raises `RequestFailed`."""
        link: dict[str, Any] = json.loads(await self.fetch("POST", "links", {"role": role}))
        return link

    async def revoke(self, link: str) -> None:
        """Revoke a link by its id; who came by it is put out. Raises `RequestFailed`."""
        await self.fetch("DELETE", f"links/{link}")

    async def set_role(self, person: str, role: Role) -> None:
        """Change what somebody may do. Raises `RequestFailed`."""
        await self.fetch("PUT", f"people/{person}", {"role": role})

    async def remove(self, person: str) -> None:
        """Put somebody out. Raises `RequestFailed`."""
        await self.fetch("DELETE", f"people/{person}")

    async def delete_room(self) -> None:
        """Delete the room, with all that is in it. Raises `RequestFailed`."""
        await self.fetch("DELETE", "")

    # Below it --------------------------------------------------------------------------------------------------------

    async def fetch(self, method: str, path: str, body: bytes | dict[str, Any] | None = None) -> bytes:
        """One HTTP request below the room's address; a dict is sent as JSON. Raises `RequestFailed`."""
        headers = {"Authorization": f"Bearer {self.secret}", "Livedrag-Name": quote(self._hello["name"])}
        headers |= self._password
        if isinstance(body, dict):
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        below = f"/api/rooms/{self.room}/{path}".rstrip("/")
        return await asyncio.to_thread(request, self.address, method, below, body, headers)

    async def send(self, message: ClientMessage) -> None:
        """Send anything, over the connection there is."""
        await self.socket.send(encode(message))

    # The connection --------------------------------------------------------------------------------------------------

    async def _ask(self, asked: Request) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._ended is not None:
            raise self._ended
        self._answers[asked.op_id] = answer
        self._replica.ask(asked)
        if self.connected:
            with contextlib.suppress(ConnectionClosed):  # it is sent again over the next one
                await self.send(asked)
        try:
            return await answer
        finally:
            self._answers.pop(asked.op_id, None)

    async def _connect(self) -> None:
        """Connect, say hello, and wait until the document is what the server has; then send what had no answer."""
        parts = urlsplit(self.address)
        url = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{parts.path}/ws/{self.room}"
        self.socket = await connect(
            url,
            subprotocols=[VERSION],  # type: ignore[list-item]
            max_size=None,
            compression=None,
            proxy=None,
            open_timeout=CONNECT_SECONDS,
            additional_headers=self._password,
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.send(self._replica.hello(**self._hello))
                while not self.connected:
                    await self._take(decode_server(await self.socket.recv()))
        except BaseException:
            await self.socket.close()
            raise
        self.connections += 1
        for asked in self._replica.resend():
            await self.send(asked)

    async def _live(self) -> None:
        """Keep connected until there is no use in it; whoever waits is told of whatever ends it."""
        try:
            end = await self._stay()
        except Exception as error:  # such as a message that is none of the protocol: the next would be too
            end = error
        self._replica.lose()
        self.socket.transport.abort()
        await self._end(end)

    async def _stay(self) -> Exception:
        """Listen, and connect again, until there is no use in it; returns what was the last end."""
        failures = 0
        while True:
            end = await self._listen()
            self._replica.lose()
            while True:
                code = end.rcvd.code if isinstance(end, ConnectionClosed) and end.rcvd else None
                if not self._reconnect or code in FINAL_CLOSES:
                    return end
                log.info("the connection of room %s broke (%s): connecting again", self.room, end)
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)] * random.uniform(0.5, 1.5))
                try:
                    await self._connect()
                except (ConnectionClosed, InvalidHandshake, Gap, OSError, TimeoutError) as error:
                    failures += 1
                    end = error
                else:
                    failures = 0
                    break

    async def _listen(self) -> Exception:
        """Take messages while the connection lasts, and keep it alive; returns how it ended."""
        beating = asyncio.create_task(self._beat())
        try:
            while True:
                async with asyncio.timeout(self.welcome.deadline):
                    packed = await self.socket.recv()
                await self._take(decode_server(packed))
        except (ConnectionClosed, Gap, TimeoutError) as end:
            self.socket.transport.abort()  # else closing waits for a peer that may be gone
            return end
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self.welcome.heartbeat)
                await self.send(Ping(time=asyncio.get_running_loop().time()))

    async def _take(self, message: ServerMessage) -> None:
        answered = self._replica.receive(message)
        if isinstance(message, Welcome):
            self.welcome = message
        answer = self._answers.get(answered.op_id) if answered is not None else None
        if answer is not None and not answer.done():
            if isinstance(answered, Rejected):
                answer.set_exception(OperationRejected(answered))
            elif answered is not None:
                answer.set_result(answered)
        if isinstance(message, Frame) and self._acknowledge:
            with contextlib.suppress(ConnectionClosed):
                await self.send(AckFrame(frame=message.frame))
        async with self._arrived:
            self.received.append(message)
            self.count += 1
            del self.received[: max(0, len(self.received) - self._remember)]
            self._arrived.notify_all()

    async def _end(self, end: BaseException) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(end)
        async with self._arrived:
            self._ended = end
            self._arrived.notify_all()

    def _since(self, seen: int) -> list[ServerMessage]:
        """What is remembered of the messages but so many of the first."""
        return self.received[max(0, seen - (self.count - len(self.received))) :]


def _end_in(message: ServerMessage, run: str) -> Ended | None:
    """The end of a run, if this message tells it."""
    match message:
        case Ended(run=ended) if ended.id == run:
            return message
        case Snapshot(document=document) if document.run and document.run.id == run and document.run.outcome:
            tracked = {id: drag.tracked for id, drag in document.drags.items() if drag.tracked}
            return Ended(seq=message.seq, run=document.run, tracked=tracked, result=document.result)
    return None


def new_id() -> str:
    """An id for an operation, a drag or a stroke."""
    return secrets.token_urlsafe(9)
