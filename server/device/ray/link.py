"""WorkerLink: a worker's end of its connection to the server. It has the methods of a pipe that the worker uses.

A thread sends, so that neither a slow network delays a step nor a step delays a sign of life. The worker's own thread
for commands receives: each further thread that a command passes through interrupts the step under way.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import socket
import ssl
import struct
import threading
from collections import deque

import msgspec
from msgspec import Struct

from livedrag.server.device.messages import AnyCommand, Prepare, Start, room_of
from livedrag.server.device.ray.picture_cache import PictureCache
from livedrag.server.device.ray.process import start_of
from livedrag.server.device.ray.stream import Stream, TlsStream
from livedrag.server.device.ray.wire import (
    BATCH_BYTES,
    BEAT_SECONDS,
    HANDSHAKE_SECONDS,
    HEADER,
    LEASE_SECONDS,
    NONCE_BYTES,
    Endpoint,
    Kind,
    Picture,
    ProcessInfo,
    frame,
    proof,
)

STEP_SECONDS = 0.1
"""That a step waits at most until the server has been sent that it begins."""


class _Head(Struct):
    """Of an event: what it is, and of which room."""

    type: str
    room: str = ""


class WorkerLink:
    """The connection of one worker, which ends it when the server says so or is gone.

    Commands that name a picture are held back, and with them later ones of the same room, until the picture is on
    this machine; their reference then has the path of the cached file.
    """

    def __init__(self, stream: Stream, pictures: PictureCache) -> None:
        self._stream, self._pictures = stream, pictures
        self._commands: deque[bytes] = deque()  # to be returned
        self._ended = False
        self._held: dict[str, list[AnyCommand]] = {}
        self._outgoing: deque[tuple[str, bytes]] = deque()  # the room of a preview, else nothing; a frame
        self._changed = threading.Condition()
        self._sending = self._broken = False
        self._decoder = msgspec.msgpack.Decoder(AnyCommand)
        self._head = msgspec.msgpack.Decoder(_Head)

    @classmethod
    def connect(cls, endpoint: Endpoint, pictures: PictureCache) -> WorkerLink:
        """Connect to the server and start the thread that sends.

        Raises:
            OSError: the server is not there, or does not know the secret of this start.
        """
        stream = _greet(endpoint)
        link = cls(stream, pictures)
        pid = os.getpid()
        link._put("", frame(Kind.PROCESS, msgspec.msgpack.encode(ProcessInfo(pid=pid, started=start_of(pid) or 0))))
        threading.Thread(target=link._send, name="link-sender", daemon=True).start()
        return link

    # What the worker uses --------------------------------------------------------------------------------------------

    def recv_bytes(self) -> bytes:
        """The next command; empty: the worker has to end, since the server says so, or is gone or silent.

        The connection stays open then: its end tells the server that the worker writes no more checkpoints.
        """
        with contextlib.suppress(OSError):
            while not self._commands and not self._ended:
                self._receive()
            if self._commands:
                return self._commands.popleft()
        self._ended = True
        return b""

    def send_bytes(self, event: bytes) -> None:
        """Send an event. A preview that waits still is replaced by a newer one of its room."""
        head = self._head.decode(event)
        self._put(head.room if head.type == "PreviewReady" else "", frame(Kind.EVENT, event))
        if head.type == "StepStarted":  # it names the suspect if this process dies in the step
            self._flush(STEP_SECONDS)

    def close(self) -> None:
        """Send what waits still, for a few seconds at most, and close the connection."""
        self._flush(HANDSHAKE_SECONDS)
        self._stream.close()

    def _flush(self, seconds: float) -> None:
        """Wait until all is sent, for so many seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._broken or not (self._outgoing or self._sending), timeout=seconds)

    # Sending and receiving -------------------------------------------------------------------------------------------

    def _put(self, preview_of: str, packed: bytes) -> None:
        with self._changed:
            if preview_of:
                for index, (room, _) in enumerate(self._outgoing):
                    if room == preview_of:
                        del self._outgoing[index]
                        break
            self._outgoing.append((preview_of, packed))
            self._changed.notify_all()

    def _batch(self) -> bytes:
        """The frames to send next; a beat if none comes in time."""
        with self._changed:
            self._sending = False
            self._changed.notify_all()
            if not self._outgoing:
                self._changed.wait(BEAT_SECONDS)
            frames: list[bytes] = []
            size = 0
            while self._outgoing and (not frames or size + len(self._outgoing[0][1]) <= BATCH_BYTES):
                frames.append(self._outgoing.popleft()[1])
                size += len(frames[-1])
            self._sending = True
        return b"".join(frames) or frame(Kind.BEAT)

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # the receiver notices it too
            while True:
                self._stream.send(self._batch())
        with self._changed:
            self._broken = True
            self._changed.notify_all()

    def _receive(self) -> None:
        """Take a frame. Raises `OSError`."""
        kind, size = HEADER.unpack(self._stream.receive(HEADER.size))
        payload = self._stream.receive(size)
        match kind:
            case Kind.COMMAND:
                self._accept(self._decoder.decode(payload))
            case Kind.PICTURE:
                self._store(msgspec.msgpack.decode(payload, type=Picture))
            case Kind.END:
                self._ended = True

    def _accept(self, command: AnyCommand) -> None:
        held = self._held.get(room_of(command))
        if held is not None:
            held.append(command)
        elif isinstance(command, Start | Prepare) and self._pictures.find(command.picture.sha256) is None:
            self._held[room_of(command)] = [command]
            self._put("", frame(Kind.PICTURE, command.picture.sha256.encode()))
        else:
            self._pass_on(command)

    def _store(self, picture: Picture) -> None:
        if picture.data is not None:
            with contextlib.suppress(OSError):  # the disk is full: the command says that its picture cannot be read
                self._pictures.add(picture.sha256, picture.data)
        for room, commands in list(self._held.items()):
            first = commands[0]
            if isinstance(first, Start | Prepare) and first.picture.sha256 == picture.sha256:
                del self._held[room]
                self._pass_on(first)
                for command in commands[1:]:
                    self._accept(command)

    def _pass_on(self, command: AnyCommand) -> None:
        if isinstance(command, Start | Prepare):
            path = str(self._pictures.path(command.picture.sha256))
            picture = msgspec.structs.replace(command.picture, path=path)
            command = msgspec.structs.replace(command, picture=picture)
        self._commands.append(msgspec.msgpack.encode(command))


def _greet(endpoint: Endpoint) -> Stream:
    """Connect, and shake hands. Raises `OSError`."""
    connection = socket.create_connection((endpoint.host, endpoint.port), timeout=HANDSHAKE_SECONDS)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = _stream_over(connection, endpoint.certificate)
        server_nonce, worker_nonce = stream.receive(NONCE_BYTES), secrets.token_bytes(NONCE_BYTES)
        name = endpoint.worker.encode()
        shown = proof(endpoint.secret, "worker", server_nonce, worker_nonce)
        stream.send(struct.pack("!B", len(name)) + name + worker_nonce + shown)
        expected = proof(endpoint.secret, "server", server_nonce, worker_nonce)
        if not hmac.compare_digest(stream.receive(len(expected)), expected):
            raise ConnectionRefusedError(f"what listens at {endpoint.host}:{endpoint.port} is not this worker's server")
    except OSError:
        connection.close()
        raise
    stream.set_timeout(LEASE_SECONDS)
    return stream


def _stream_over(connection: socket.socket, certificate: str) -> Stream:
    """With TLS where there is a certificate. Raises `OSError`."""
    if not certificate:
        return Stream(connection, HANDSHAKE_SECONDS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificate)
    context.check_hostname = False  # it is this certificate and no other
    return TlsStream(context.wrap_socket(connection), HANDSHAKE_SECONDS)
