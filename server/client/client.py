"""Client: one person in one room, for scripts, tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from livedrag.run_log import LogRow, rows_of
from livedrag.server.client.connection import Connection
from livedrag.server.client.errors import OperationRejected
from livedrag.server.client.inbox import Inbox
from livedrag.server.client.replica import Answer
from livedrag.server.client.room_requests import RoomRequests
from livedrag.server.document.protocol import (
    AckFrame,
    BaseReplaced,
    ClientMessage,
    Document,
    Edit,
    Edited,
    EditFurther,
    Ended,
    Frame,
    LoraChoice,
    ModelChoice,
    Operation,
    Points,
    Presence,
    Redo,
    Rejected,
    Rename,
    Request,
    Reset,
    RestoreRun,
    Seeked,
    SeekMoment,
    ServerMessage,
    SetModel,
    Snapshot,
    Started,
    StartRun,
    Stopping,
    StopRun,
    Undo,
    WasReset,
    Welcome,
)

Record = TypeVar("Record")


class Client(RoomRequests):
    """One person in one room. Make one with `Client.join`.

    It acknowledges frames and sends heartbeats. When the connection breaks it reconnects, resumes where it was and
    sends again what had no answer; an operation is done once, however often it was sent.
    """

    def __init__(
        self,
        address: str,
        room: str,
        secret: str,
        *,
        name: str,
        password: str,
        acknowledge: bool,
        remember: int,
        **hello: Any,
    ) -> None:
        super().__init__(address, room, secret, name, password)
        self._acknowledge = acknowledge
        self._inbox = Inbox(remember)
        self._answers: dict[str, asyncio.Future[Answer]] = {}
        hello = {"secret": secret, "name": name, **hello}
        self._connection = Connection(address, room, headers=self._headers, hello=hello, receive=self._receive)

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
        """Join a room, and leave it at the end.

        Args:
            address: of the server, such as ``http://127.0.0.1:8000``, with its base path if it has one.
            name: shown to the others. Two clients with one link and one name are the same person; an empty name makes
                each a new person.
            password: the server's, if it has one.
            acknowledge: whether to acknowledge frames; a client that does not gets two.
            reconnect: whether to reconnect when the connection breaks.
            remember: how many messages to keep in ``received``.
            hello: other fields of `Hello`.

        Raises:
            ConnectionClosed: the server did not let the client in; its code and reason say why.
            OSError, InvalidHandshake: there is no such server.
        """
        client = cls(
            address,
            room,
            secret,
            name=name,
            password=password,
            acknowledge=acknowledge,
            remember=remember,
            **hello,
        )
        await client._connection.open()
        task = asyncio.create_task(client._stay(reconnect=reconnect), name=f"client of {room}")
        try:
            yield client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client._connection.close()

    # State -----------------------------------------------------------------------------------------------------------

    @property
    def document(self) -> Document:
        """The room's document, without operations that have not been answered yet."""
        document = self._connection.replica.document
        assert document is not None
        return document

    @property
    def seq(self) -> int:
        """Number of the last record in `document`."""
        return self._connection.replica.seq

    @property
    def welcome(self) -> Welcome:
        """The server's answer to the latest ``hello``."""
        return self._connection.welcome

    @property
    def received(self) -> list[ServerMessage]:
        """The latest messages, oldest first."""
        return self._inbox.messages

    @property
    def count(self) -> int:
        """How many messages there have been."""
        return self._inbox.count

    @property
    def connected(self) -> bool:
        return self._connection.replica.connected

    @property
    def connections(self) -> int:
        """How many times this client has connected."""
        return self._connection.count

    @property
    def socket(self) -> ClientConnection:
        """The current WebSocket."""
        return self._connection.socket

    # Operations ------------------------------------------------------------------------------------------------------
    # They return when the change is on the server's disk, and raise `OperationRejected`.

    async def edit(self, op: Operation, *, op_id: str | None = None) -> Edited:
        """Change the document."""
        edit = Edit(op_id=op_id or new_id(), base=self.seq, op=op, offline=not self.connected)
        return await self._ask(edit, Edited)

    async def set_model(self, name: str = "", *, loras: Mapping[str, float] | None = None, vae: str = "") -> Edited:
        """Edit with another model, once it is loaded.

        Args:
            name: in the server's catalog, see `models`; empty: the one that the server was started with.
            loras: their weights, by name.
            vae: another autoencoder; empty: the model's own.
        """
        chosen = tuple(LoraChoice(name=lora, weight=weight) for lora, weight in (loras or {}).items())
        return await self.edit(SetModel(model=ModelChoice(name=name, loras=chosen, vae=vae)))

    async def undo(self) -> Edited:
        """Undo this person's last edit, except what others have changed since."""
        return await self._ask(Undo(op_id=new_id()), Edited)

    async def redo(self) -> Edited:
        """Redo what the last undo reverted."""
        return await self._ask(Redo(op_id=new_id()), Edited)

    async def run(self) -> Started:
        """Press Drag."""
        return await self._ask(StartRun(op_id=new_id()), Started)

    async def stop(self) -> Stopping:
        """Press Stop."""
        return await self._ask(StopRun(op_id=new_id()), Stopping)

    async def reset(self) -> WasReset:
        """Go back to the uploaded picture."""
        return await self._ask(Reset(op_id=new_id()), WasReset)

    async def edit_further(self) -> BaseReplaced:
        """Make the result the picture that is edited."""
        return await self._ask(EditFurther(op_id=new_id()), BaseReplaced)

    async def restore_run(self, run: str) -> Edited:
        """Make the result of an earlier run the room's result again, with the settings that it had."""
        return await self._ask(RestoreRun(op_id=new_id(), run=run), Edited)

    async def seek(self, moment: int) -> Seeked:
        """Go to a stored moment of the timeline."""
        return await self._ask(SeekMoment(op_id=new_id(), moment=moment), Seeked)

    async def drag(self) -> Ended:
        """Press Drag and wait for the end of the run."""
        return await self.end_of((await self.run()).run.id)

    # Messages --------------------------------------------------------------------------------------------------------

    async def end_of(self, run: str) -> Ended:
        """Wait for the end of a run. Raises `ConnectionClosed` if it can no longer come."""
        async for message in self.messages(since=0):
            ended = _end_in(message, run)
            if ended is not None:
                return ended
        assert self._inbox.end is not None
        raise self._inbox.end

    async def wait(
        self, kind: type[Record], wanted: Callable[[Record], bool] = lambda _: True, *, since: int = 0
    ) -> Record:
        """The first message of a kind, received already or to come; ``since`` skips that many of the first.

        Raises:
            ConnectionClosed: it can no longer come.
        """
        return await self._inbox.wait(kind, wanted, since=since)

    def messages(self, *, since: int | None = None) -> AsyncIterator[ServerMessage]:
        """Every message from now on, or all remembered ones after the first ``since``; ends with the connection."""
        return self._inbox.iterate(self.count if since is None else since)

    async def frames(self, run: str) -> AsyncIterator[Frame]:
        """The previews of a run until it ends, beginning with those that are remembered."""
        async for message in self.messages(since=0):
            if isinstance(message, Frame) and message.run == run:
                yield message
            if _end_in(message, run) is not None:
                return

    def log(self, run: str) -> list[LogRow]:
        """The numbers of a run's iterations, as far as its messages are remembered; see `livedrag.run_log`."""
        points = [each for each in self.received if isinstance(each, Points) and each.run == run]
        return [
            row
            for each in points
            for row in rows_of(each.iteration, each.handles, each.distances, each.content, each.loss, each.lost)
        ]

    async def send(self, message: ClientMessage) -> None:
        """Send any message over the current connection."""
        await self._connection.send(message)

    async def point(self, cursor: tuple[float, float] | None, **fields: Any) -> None:
        """Show the others this person's cursor; ``fields`` are others of `Presence`."""
        await self.send(Presence(cursor=cursor, **fields))

    async def rename(self, name: str) -> None:
        """Change this person's name."""
        await self.send(Rename(name=name))

    # Answers ---------------------------------------------------------------------------------------------------------

    async def _ask(self, request: Request, kind: type[Record]) -> Record:
        if self._inbox.end is not None:
            raise self._inbox.end
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[request.op_id] = future
        try:
            await self._connection.request(request)
            answer = await future
        finally:
            self._answers.pop(request.op_id, None)
        assert isinstance(answer, kind)
        return answer

    async def _receive(self, message: ServerMessage, answer: Answer | None) -> None:
        future = self._answers.get(answer.op_id) if answer is not None else None
        if future is not None and not future.done():
            if isinstance(answer, Rejected):
                future.set_exception(OperationRejected(answer))
            elif answer is not None:
                future.set_result(answer)
        if isinstance(message, Frame) and self._acknowledge:
            with contextlib.suppress(ConnectionClosed):
                await self.send(AckFrame(frame=message.frame))
        await self._inbox.add(message)

    async def _stay(self, *, reconnect: bool) -> None:
        end = await self._connection.stay(reconnect=reconnect)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(end)
        await self._inbox.close(end)


def _end_in(message: ServerMessage, run: str) -> Ended | None:
    """The end of a run, if this message has it; after a reconnection a snapshot may."""
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
