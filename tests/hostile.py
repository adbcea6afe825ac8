"""Clients that try to exhaust a server, each in one way, over and over, from addresses of their own.

`attacking` runs them in a process of their own, so that what they cost does not count as the server's slowness.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import itertools
import multiprocessing
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgpack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from livedrag.server.client import NewRoom
from livedrag.server.document.protocol import (
    VERSION,
    AddStroke,
    ClearMask,
    Edit,
    Edited,
    Hello,
    Operation,
    Rejected,
    Stroke,
    Undo,
    decode_server,
    encode,
)
from livedrag.server.document.strokes import MAX_STROKE_WORK
from tests.quiet import png

LARGE = (5000, 5000)
UPLOADS = 20
"""Pictures that one client uploads at once."""
STROKES, POINTS = 50, 2000
SILENT = 300
"""Connections that one client opens at once."""
PATIENCE = 30.0
"""Seconds that an attacker waits for an answer."""
ROUND_PAUSE, EDIT_PAUSE = 0.1, 0.5
"""Seconds between two rounds of an attack, and between two edits that everyone in the room receives whole."""


EXPECTED = (OSError, TimeoutError, WebSocketException, http.client.HTTPException)
"""What ends a round: the attacker was refused or disconnected."""


@dataclass(frozen=True)
class Attacker:
    """One hostile client: ``source`` is the address it connects from, ``room`` the room it may enter."""

    kind: str
    port: int
    source: str
    room: NewRoom

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[ClientConnection]:
        """A WebSocket on which nothing was said yet."""
        async with connect(
            f"ws://127.0.0.1:{self.port}/ws/{self.room.id}",
            subprotocols=[VERSION],
            max_size=None,
            compression=None,
            proxy=None,
            close_timeout=1,
            local_addr=(self.source, 0),
        ) as socket:
            yield socket

    @contextlib.asynccontextmanager
    async def joined(self) -> AsyncIterator[ClientConnection]:
        """A WebSocket in the room."""
        async with self.connected() as socket:
            name = f"{self.kind} from {self.source}"
            await socket.send(encode(Hello(version=VERSION, secret=self.room.secret, name=name)))
            await socket.recv()
            yield socket

    def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> int:
        """The status of the answer to a request, which is waited for at most `PATIENCE` seconds."""
        headers = {"Authorization": f"Bearer {self.room.secret}", "Content-Type": content_type}
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=PATIENCE, source_address=(self.source, 0)
        )
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()


async def upload_large_pictures(attacker: Attacker, done: Callable[[], None]) -> None:
    """Many pictures of 25 megapixels at once, 82 KiB each."""
    boundary = secrets.token_hex(16)
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="picture"; filename="p.png"\r\n\r\n'
    body = head.encode() + large_picture() + f"\r\n--{boundary}--\r\n".encode()

    def upload(_: int) -> None:
        attacker.request("POST", "/api/rooms", body, f"multipart/form-data; boundary={boundary}")
        done()

    with ThreadPoolExecutor(UPLOADS) as threads:
        await asyncio.gather(
            *(asyncio.get_running_loop().run_in_executor(threads, upload, n) for n in range(UPLOADS)),
            return_exceptions=True,
        )


@functools.cache
def large_picture() -> bytes:
    """Encoded once: this process has many attacks to make meanwhile."""
    return png(*LARGE)


async def clear_and_undo(attacker: Attacker, done: Callable[[], None]) -> None:
    """Long strokes, as many as a room holds, cleared and restored again and again."""
    async with attacker.joined() as socket:
        await ask(socket, edit(ClearMask()))
        for _ in range(STROKES):
            await ask(socket, edit(AddStroke(stroke=stroke(POINTS, radius=5))))
        while True:
            await ask(socket, edit(ClearMask()))
            await asyncio.sleep(EDIT_PAUSE)
            await ask(socket, Undo(op_id=new_id()))
            await asyncio.sleep(EDIT_PAUSE)
            done()


async def draw_heavy_masks(attacker: Attacker, done: Callable[[], None]) -> None:
    """Strokes wider than the picture: one that must be refused, the heaviest that is allowed, and its mask."""
    allowed = int(MAX_STROKE_WORK / (2 * LARGE[0] * LARGE[1]))
    path = f"/api/rooms/{attacker.room.id}/mask"
    async with attacker.joined() as socket:
        while True:
            await ask(socket, edit(AddStroke(stroke=stroke(POINTS, radius=10_000))))
            await ask(socket, edit(AddStroke(stroke=stroke(allowed, radius=10_000))))
            status = asyncio.create_task(asyncio.to_thread(attacker.request, "GET", path))
            while not status.done():
                await asyncio.wait([status], timeout=1)
                await ask(socket, edit(ClearMask()))
            status.exception()
            done()


async def stay_silent(attacker: Attacker, done: Callable[[], None]) -> None:
    """Connections on which nothing is ever sent."""

    async def open_one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", attacker.port, local_addr=(attacker.source, 0))
        try:
            await reader.read()
            done()
        finally:
            writer.transport.abort()

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(open_one() for _ in range(SILENT)), return_exceptions=True)


async def never_read(attacker: Attacker, done: Callable[[], None]) -> None:
    """Cause large messages and read none of them."""
    async with attacker.joined() as socket:
        socket.transport.pause_reading()
        try:
            await socket.send(encode(edit(ClearMask())))
            for _ in range(STROKES):
                await socket.send(encode(edit(AddStroke(stroke=stroke(POINTS, radius=5)))))
            while True:
                await socket.send(encode(edit(ClearMask())))
                await asyncio.sleep(EDIT_PAUSE)
                await socket.send(encode(Undo(op_id=new_id())))
                await asyncio.sleep(EDIT_PAUSE)
        finally:
            socket.transport.abort()
            done()


async def send_nonsense(attacker: Attacker, done: Callable[[], None]) -> None:
    """Messages that are deeply nested, or whose type is not text."""
    for nonsense in (b"\x91" * 995 + b"\xc0", msgpack.packb({"type": ["x"]})):
        async with attacker.connected() as socket:
            await socket.send(nonsense)
            try:
                while True:
                    await socket.recv()
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == 4400:
                    done()


Attack = Callable[[Attacker, Callable[[], None]], Awaitable[None]]
ATTACKS: Mapping[str, Attack] = {
    "uploads": upload_large_pictures,
    "strokes": clear_and_undo,
    "masks": draw_heavy_masks,
    "silence": stay_silent,
    "deafness": never_read,
    "nonsense": send_nonsense,
}


@contextlib.contextmanager
def attacking(attackers: Sequence[Attacker]) -> Iterator[Mapping[str, int]]:
    """Run the attackers meanwhile. What it gives is filled at the end: how often each kind of attack was done."""
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", len(ATTACKS))
    done: dict[str, int] = {}
    process = context.Process(target=_attack, args=(tuple(attackers), counts), daemon=True)
    process.start()
    try:
        yield done
    finally:
        process.kill()
        process.join()
        done.update(zip(ATTACKS, counts.get_obj(), strict=True))


def _attack(attackers: Sequence[Attacker], counts: Any) -> None:
    os.nice(3)  # an attacker has a machine of its own: its work must not take the server's

    async def go_on(attacker: Attacker) -> None:
        def done() -> None:
            with counts.get_lock():
                counts[list(ATTACKS).index(attacker.kind)] += 1

        while True:
            with contextlib.suppress(*EXPECTED):
                await ATTACKS[attacker.kind](attacker, done)
            await asyncio.sleep(ROUND_PAUSE)

    async def all_of_them() -> None:
        await asyncio.gather(*(go_on(attacker) for attacker in attackers))

    asyncio.run(all_of_them())


async def ask(socket: ClientConnection, request: Edit | Undo) -> Edited | Rejected:
    """Send a request and wait for its answer."""
    await socket.send(encode(request))
    while True:
        message = decode_server(await socket.recv())
        if isinstance(message, Edited | Rejected) and message.op_id == request.op_id:
            return message


def edit(op: Operation) -> Edit:
    return Edit(op_id=new_id(), base=0, op=op)


def new_id() -> str:
    return secrets.token_hex(8)


def stroke(points: int, radius: float) -> Stroke:
    """A stroke from corner to corner and back."""
    ends = itertools.cycle([(0.0, 0.0), (LARGE[0] - 1.0, LARGE[1] - 1.0)])
    return Stroke(id=new_id(), mode="paint", radius=radius, points=list(itertools.islice(ends, points)))
