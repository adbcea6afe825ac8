"""Hub: where the workers of all machines connect to the server; `Connection` is the server's end of one of them."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from livedrag.server.device.engine import EngineError
from livedrag.server.device.messages import AnyCommand, AnyEvent, EventHandler, Prepare, Ready, Start
from livedrag.server.device.ray.wire import (
    BEAT_SECONDS,
    DEAD_SECONDS,
    HANDSHAKE_SECONDS,
    HEADER,
    LOADING_SECONDS,
    MAX_PAYLOAD,
    NONCE_BYTES,
    Endpoint,
    Kind,
    Picture,
    ProcessInfo,
    frame,
    proof,
)

log = logging.getLogger(__name__)

PROOF_BYTES = 32
PICTURES_KNOWN = 1024
"""Whose files a worker may ask for: those of its latest commands."""


@dataclass(frozen=True)
class Tls:
    """The files of the certificate that the server shows to workers, and of its key."""

    certificate: Path
    key: Path


@dataclass(eq=False)
class Expected:
    """A worker that was started and has not connected yet."""

    secret: bytes
    connected: asyncio.Future[Connection] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Hub:
    """Listens for workers that were announced by `expect`; all others are refused.

    Args:
        host: address to listen at, and by which workers reach it.
        port: 0: any free one.
    """

    def __init__(self, host: str, port: int = 0, tls: Tls | None = None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._expected: dict[str, Expected] = {}
        self._server: asyncio.Server | None = None
        self._certificate = ""

    async def start(self) -> None:
        """Listen. Raises `EngineError`."""
        context = None
        try:
            if self._tls is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self._tls.certificate, self._tls.key)
                self._certificate = self._tls.certificate.read_text()
        except (OSError, ssl.SSLError) as error:
            names = f"{self._tls.certificate} and {self._tls.key}" if self._tls else ""
            raise EngineError(f"the certificate for workers cannot be read from {names}: {error}") from error
        try:
            self._server = await asyncio.start_server(self._greet, self._host, self._port, ssl=context)
        except OSError as error:
            raise EngineError(
                f"cannot listen for workers at {self._host}, port {self._port}: {error.strerror or error}. "
                "Choose others with --ray-host and --ray-port"
            ) from error
        self._port = self._server.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{self._host}:{self._port}"

    def expect(self, worker: str) -> Endpoint:
        """Announce a worker; it connects with what this returns."""
        self._expected[worker] = expected = Expected(secrets.token_bytes(32))
        return Endpoint(
            host=self._host, port=self._port, worker=worker, secret=expected.secret, certificate=self._certificate
        )

    async def connection(self, worker: str) -> Connection:
        """Wait until an announced worker has connected."""
        return await self._expected[worker].connected

    def forget(self, worker: str) -> None:
        """Refuse a worker that was announced."""
        expected = self._expected.pop(worker, None)
        if expected is not None and not expected.connected.done():
            expected.connected.cancel()

    def close(self) -> None:
        """Listen no more. Connections stay."""
        if self._server is not None:
            self._server.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The handshake: what knows the secret of an announced worker is that worker, once."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                server_nonce = secrets.token_bytes(NONCE_BYTES)
                writer.write(server_nonce)
                (length,) = await reader.readexactly(1)
                name = (await reader.readexactly(length)).decode("ascii", "replace")
                worker_nonce = await reader.readexactly(NONCE_BYTES)
                shown = await reader.readexactly(PROOF_BYTES)
            expected = self._expected.get(name)
            secret = secrets.token_bytes(32) if expected is None else expected.secret
            known = hmac.compare_digest(shown, proof(secret, "worker", server_nonce, worker_nonce))
            if expected is None or not known or expected.connected.done():
                log.warning("refused a connection of a worker that was not started by this server")
                writer.close()
                return
            writer.write(proof(secret, "server", server_nonce, worker_nonce))
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            expected.connected.set_result(Connection(reader, writer))
        except (OSError, EOFError, TimeoutError):
            writer.close()


class Connection:
    """One worker's. Silence, and the end, are reported once by ``on_lost``; no event comes after that.

    Silence is counted in beats of this end, so that time in which this process stands still does not count.

    Attributes:
        process: of the worker; None until it has said so.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = msgspec.msgpack.Decoder(AnyEvent)
        self._pictures: OrderedDict[str, str] = OrderedDict()  # path by SHA-256
        self._tasks: list[asyncio.Task[None]] = []
        self._answers: set[asyncio.Task[None]] = set()
        self._lost = False
        self._loaded = False
        self._silent = 0.0  # seconds
        self.process: ProcessInfo | None = None

    def serve(self, on_event: EventHandler, on_lost: Callable[[str], None]) -> None:
        """Pass events on from now on. ``on_lost`` is called with how it was lost, such as "stopped"."""
        self._on_event, self._on_lost = on_event, on_lost
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._read()), loop.create_task(self._beat())]

    def send(self, command: AnyCommand) -> None:
        """Send a command; lost if the connection is."""
        if isinstance(command, Start | Prepare):
            self._pictures[command.picture.sha256] = command.picture.path
            self._pictures.move_to_end(command.picture.sha256)
            while len(self._pictures) > PICTURES_KNOWN:
                self._pictures.popitem(last=False)
        self._write(Kind.COMMAND, msgspec.msgpack.encode(command))

    async def end(self, seconds: float) -> None:
        """Ask the worker to end, report nothing more, and wait until it has, for so many seconds at most."""
        if self._lost:
            return
        self._lost = True
        self._write(Kind.END)
        reading, beats = self._tasks
        beats.cancel()
        await asyncio.wait([reading], timeout=seconds)
        self._stop()
        self._writer.close()

    def lose(self, how: str) -> None:
        """Count it as lost; nothing that it sends is read any more."""
        if self._lost:
            return
        self._lost = True
        self._stop()
        self._writer.transport.abort()
        self._on_lost(how)

    def _stop(self) -> None:
        for task in (*self._tasks, *self._answers):
            if task is not asyncio.current_task():
                task.cancel()

    def _write(self, kind: Kind, payload: bytes = b"") -> None:
        if not self._writer.is_closing():
            self._writer.write(frame(kind, payload))

    async def _read(self) -> None:
        try:
            while True:
                kind, size = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                if size > MAX_PAYLOAD:
                    raise ValueError(f"a frame of {size} bytes, of which {MAX_PAYLOAD} are allowed")
                payload = await self._reader.readexactly(size)
                self._silent = 0.0
                self._take(kind, payload)
        except (OSError, EOFError):
            self.lose("stopped")
        except (msgspec.MsgspecError, ValueError) as error:
            log.error("a worker has sent what cannot be read: %s", error)
            self.lose("sent what cannot be read")

    def _take(self, kind: int, payload: bytes) -> None:
        match kind:
            case Kind.EVENT if not self._lost:
                event: AnyEvent = self._decoder.decode(payload)
                self._loaded = self._loaded or isinstance(event, Ready)
                self._on_event(event)
            case Kind.PICTURE:
                answer = asyncio.get_running_loop().create_task(self._answer(payload.decode()))
                self._answers.add(answer)
                answer.add_done_callback(self._answers.discard)
            case Kind.PROCESS:
                self.process = msgspec.msgpack.decode(payload, type=ProcessInfo)

    async def _answer(self, sha256: str) -> None:
        """Send a picture that a command of this worker has named, and no other file."""
        data = None
        with contextlib.suppress(OSError):
            if sha256 in self._pictures:
                data = await asyncio.to_thread(Path(self._pictures[sha256]).read_bytes)
        self._write(Kind.PICTURE, msgspec.msgpack.encode(Picture(sha256=sha256, data=data)))

    async def _beat(self) -> None:
        while True:
            self._write(Kind.BEAT)
            await asyncio.sleep(BEAT_SECONDS)
            self._silent += BEAT_SECONDS
            bound = DEAD_SECONDS if self._loaded else LOADING_SECONDS
            if self._silent > bound:
                self.lose(f"did not answer for {bound:g} s")
