"""A worker's connection to the server: both ends, without Ray."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from livedrag.server.device.engine import EngineError
from livedrag.server.device.messages import (
    AnyCommand,
    AnyEvent,
    Prepare,
    PreviewReady,
    Ready,
    RunProgress,
    Start,
    StepStarted,
    Stop,
    room_of,
)
from livedrag.server.device.ray import hub as hub_module
from livedrag.server.device.ray.hub import Connection, Hub, Tls
from livedrag.server.device.ray.link import WorkerLink
from livedrag.server.device.ray.picture_cache import PictureCache
from livedrag.server.device.ray.stream import Stream
from livedrag.server.device.ray.wire import BATCH_BYTES, HEADER, MAX_PAYLOAD, Endpoint, Kind, frame
from livedrag.server.document.protocol import Points
from tests.quiet import MODEL, png
from tests.server.device.engine_events import Listener, quietly
from tests.stored import contents, stored

PICTURE = stored(png(96, 64))


def certificate(folder: Path) -> Tls:
    """A certificate, signed by itself, and its key; made with what the extra 'ray' installs."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "livedrag")])
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    tls = Tls(folder / "certificate.pem", folder / "key.pem")
    tls.certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    tls.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return tls


class Pair:
    """Both ends of a worker's connection."""

    def __init__(self, hub: Hub, connection: Connection, link: WorkerLink) -> None:
        self.hub, self.connection, self.link = hub, connection, link
        self.listener = Listener()
        self.lost: asyncio.Queue[str] = asyncio.Queue()
        connection.serve(self.listener.events.put_nowait, self.lost.put_nowait)

    def emit(self, event: AnyEvent) -> None:
        self.link.send_bytes(msgspec.msgpack.encode(event))

    async def command(self) -> AnyCommand:
        packed = await asyncio.to_thread(self.link.recv_bytes)
        command: AnyCommand = msgspec.msgpack.decode(packed, type=AnyCommand)
        return command


@asynccontextmanager
async def connected(folder: Path, tls: Tls | None = None) -> AsyncIterator[Pair]:
    hub = Hub("127.0.0.1", tls=tls)
    await hub.start()
    endpoint = hub.expect("one")
    link = await asyncio.to_thread(WorkerLink.connect, endpoint, PictureCache(folder))
    pair = Pair(hub, await hub.connection("one"), link)
    try:
        yield pair
    finally:
        await asyncio.to_thread(link.close)
        await pair.connection.end(5)
        hub.close()


def preview(room: str, number: int, size: int = 10) -> PreviewReady:
    return PreviewReady(
        room=room,
        run="r",
        stage="dragging",
        iteration=number,
        format="webp",
        width=1,
        height=1,
        time=0.0,
        data=bytes(size),
    )


def points(room: str, number: int) -> RunProgress:
    record = Points(run="r", iteration=number, handles={}, distances={}, loss=0.0)
    return RunProgress(room=room, record=record)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_commands_and_events_cross_in_order_both_ways_at_once(tmp_path: Path, tls: bool) -> None:
    async def story() -> None:
        async with connected(tmp_path, certificate(tmp_path / "tls") if tls else None) as pair:
            count = 300

            def emit() -> None:
                for number in range(count):
                    pair.emit(points("a", number))

            emitting = threading.Thread(target=emit)
            emitting.start()
            for number in range(count):
                pair.connection.send(Stop(room="a", run=f"{number}"))
            taken = [await pair.command() for _ in range(count)]
            assert [command.run for command in taken if isinstance(command, Stop)] == [f"{n}" for n in range(count)]
            heard = [await pair.listener.expect(RunProgress) for _ in range(count)]
            assert [event.record.iteration for event in heard if isinstance(event.record, Points)] == list(range(count))
            emitting.join()
            assert pair.connection.process is not None

    asyncio.run(story())


def test_a_preview_that_waits_is_replaced_by_a_newer_one_of_its_room() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link = WorkerLink(Stream(ours, 15), PictureCache(Path()))
        for number in range(3):
            link.send_bytes(msgspec.msgpack.encode(preview("a", number)))
            link.send_bytes(msgspec.msgpack.encode(points("a", number)))
            link.send_bytes(msgspec.msgpack.encode(preview("b", number)))
        sent = frames_of(link._batch())
        named = [(type(event).__name__, event.room) for event in sent if isinstance(event, PreviewReady | RunProgress)]
        assert named == [
            *[("RunProgress", "a")] * 2,
            ("PreviewReady", "a"),
            ("RunProgress", "a"),
            ("PreviewReady", "b"),
        ]
        assert [event.iteration for event in sent if isinstance(event, PreviewReady)] == [2, 2]


def test_that_a_step_begins_is_sent_before_it_does() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link = WorkerLink(Stream(ours, 15), PictureCache(Path()))
        threading.Thread(target=link._send, daemon=True).start()
        event = msgspec.msgpack.encode(StepStarted(room="a", run="r"))
        link.send_bytes(event)  # this process may end in the step
        theirs.setblocking(False)
        assert theirs.recv(1000) == frame(Kind.EVENT, event)
        link.close()


def test_frames_are_sent_together_up_to_a_size() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link = WorkerLink(Stream(ours, 15), PictureCache(Path()))
        for room in range(20):
            link.send_bytes(msgspec.msgpack.encode(preview(f"{room}", 0, 20_000)))
        batches = [link._batch() for _ in range(5)]
        assert [len(frames_of(batch)) for batch in batches] == [5, 5, 5, 5, 0]
        assert all(len(batch) <= BATCH_BYTES for batch in batches)
        assert batches[-1] == frame(Kind.BEAT), "a sign of life where there is nothing to send"


def frames_of(batch: bytes) -> list[AnyEvent]:
    events = []
    while batch:
        kind, size = HEADER.unpack(batch[: HEADER.size])
        payload, batch = batch[HEADER.size : HEADER.size + size], batch[HEADER.size + size :]
        if kind == Kind.EVENT:
            events.append(msgspec.msgpack.decode(payload, type=AnyEvent))
    return events


def test_a_picture_is_asked_for_once_and_what_follows_in_its_room_waits_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with connected(tmp_path) as pair:
            pair.connection.send(Prepare(picture=PICTURE, desired=quietly("a")))
            pair.connection.send(Stop(room="a", run="r"))
            taken = [await pair.command() for _ in range(2)]
            assert [type(command) for command in taken] == [Prepare, Stop]
            cached = PictureCache(tmp_path).find(PICTURE.sha256)
            assert cached is not None
            assert isinstance(taken[0], Prepare)
            assert (taken[0].picture.path, cached.read_bytes()) == (str(cached), contents(PICTURE))
            pair.connection.send(Start(run="r", picture=replace(PICTURE, path="nowhere"), desired=quietly("b")))
            started = await pair.command()
            assert isinstance(started, Start)
            assert started.picture.path == str(cached), "it is asked for no more"

    asyncio.run(story())


def test_a_missing_picture_holds_up_no_other_room_and_only_named_files_are_sent(tmp_path: Path) -> None:
    async def story() -> None:
        async with connected(tmp_path) as pair:
            gone = replace(PICTURE, sha256="0" * 64, path=str(tmp_path / "gone"))
            pair.connection.send(Start(run="r", picture=gone, desired=quietly("a")))
            pair.connection.send(Stop(room="b", run="r"))
            rooms = {room_of(await pair.command()) for _ in range(2)}
            assert rooms == {"a", "b"}, "the worker reports that the picture cannot be read"
            secret = tmp_path / "secret"
            secret.write_bytes(b"secret")
            pair.link._put("", frame(Kind.PICTURE, str(secret).encode()))
            pair.connection.send(Stop(room="c", run="r"))
            await pair.command()

    asyncio.run(story())
    assert not [path for path in tmp_path.iterdir() if path.name != "secret" and path.read_bytes() == b"secret"]


def test_what_does_not_know_the_secret_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        hub = Hub("127.0.0.1")
        await hub.start()
        try:
            endpoint = hub.expect("one")

            async def connect(endpoint: Endpoint) -> WorkerLink:
                return await asyncio.to_thread(WorkerLink.connect, endpoint, PictureCache(tmp_path))

            for wrong in (replace(endpoint, secret=b"x" * 32), replace(endpoint, worker="other")):
                with pytest.raises(OSError, match="closed the connection"):
                    await connect(wrong)
            link = await connect(endpoint)
            with pytest.raises(OSError, match="closed the connection"):
                await connect(endpoint)  # it is in use
            connection = await hub.connection("one")
            connection.serve(print, print)
            connection.lose("was refused")
            await asyncio.to_thread(link.close)
            assert "x" * 8 not in repr(replace(endpoint, secret=b"x" * 32)), "no secret in logs"
        finally:
            hub.close()

    asyncio.run(story())


def test_a_worker_refuses_a_server_with_another_certificate_or_without_the_secret(tmp_path: Path) -> None:
    async def story() -> None:
        own, other = certificate(tmp_path / "own"), certificate(tmp_path / "other")
        plain, tls = Hub("127.0.0.1"), Hub("127.0.0.1", tls=own)
        for hub in (plain, tls):
            await hub.start()
        false = await asyncio.start_server(impostor, "127.0.0.1", 0)
        port: int = false.sockets[0].getsockname()[1]
        try:
            for endpoint, error in (
                (replace(plain.expect("one"), certificate=own.certificate.read_text()), OSError),
                (replace(tls.expect("one"), certificate=other.certificate.read_text()), ssl.SSLError),
                (replace(plain.expect("two"), port=port), ConnectionRefusedError),
            ):
                with pytest.raises(error):
                    await asyncio.to_thread(WorkerLink.connect, endpoint, PictureCache(tmp_path))
        finally:
            for server in (plain, tls, false):
                server.close()

    asyncio.run(story())


async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers like a server that does not know the secret."""
    writer.write(bytes(32))
    await reader.read(1000)
    writer.write(bytes(32))
    writer.close()


def test_a_connection_that_ends_and_one_that_falls_silent_are_lost_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "DEAD_SECONDS", 0.3)
    monkeypatch.setattr(hub_module, "BEAT_SECONDS", 0.05)

    async def story() -> None:
        async with connected(tmp_path) as pair:
            pair.link._stream.close()
            assert await pair.lost.get() == "stopped"
        async with connected(tmp_path) as pair:
            pair.emit(Ready(model=MODEL))  # the worker says that it lives once a second, which is too seldom here
            assert await pair.lost.get() == "did not answer for 0.3 s"
            await asyncio.sleep(0.1)
            assert pair.lost.empty()

    asyncio.run(story())


def test_time_in_which_the_server_stood_still_is_no_silence_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "DEAD_SECONDS", 0.3)
    monkeypatch.setattr(hub_module, "BEAT_SECONDS", 0.1)

    async def story() -> None:
        async with connected(tmp_path) as pair:
            connection = pair.connection
            connection._loaded = True
            for _ in range(2):  # of the four beats that it would take
                beats = connection._silent
                time.sleep(1.0)  # noqa: ASYNC251 - the event loop stands still
                while connection._silent == beats:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            assert pair.lost.empty()
            assert await pair.lost.get() == "did not answer for 0.3 s", "now it is the worker that is silent"

    asyncio.run(story())


def test_what_is_no_worker_s_frame_is_reported_and_ends_the_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        for sent, problem in (
            (HEADER.pack(Kind.EVENT, MAX_PAYLOAD + 1), f"a frame of {MAX_PAYLOAD + 1} bytes"),
            (frame(Kind.EVENT, b"nonsense"), "a worker has sent what cannot be read"),
        ):
            async with connected(tmp_path) as pair:
                pair.link._put("", sent)
                assert await pair.lost.get() == "sent what cannot be read"
                assert problem in caplog.text

    asyncio.run(story())


def test_a_worker_ends_when_the_server_says_so_or_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with connected(tmp_path) as pair:
            ending = asyncio.create_task(pair.connection.end(60))
            assert await asyncio.to_thread(pair.link.recv_bytes) == b""
            pair.emit(points("a", 1))
            await asyncio.sleep(0.1)
            assert not ending.done(), "it may write its checkpoints first"
            await asyncio.to_thread(pair.link.close)
            await ending
            assert pair.lost.empty()
            assert pair.listener.events.empty()
        monkeypatch.setattr("livedrag.server.device.ray.link.LEASE_SECONDS", 0.3)
        async with connected(tmp_path) as pair:
            pair.connection._tasks[1].cancel()  # no sign of life from the server
            assert await asyncio.to_thread(pair.link.recv_bytes) == b""

    asyncio.run(story())


def test_a_port_that_is_taken_and_a_certificate_that_is_missing_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=f"cannot listen for workers at 127.0.0.1, port {port}: .*--ray-port"):
            asyncio.run(Hub("127.0.0.1", port).start())
    with pytest.raises(EngineError, match=r"certificate for workers cannot be read from .*missing\.pem"):
        asyncio.run(Hub("127.0.0.1", tls=Tls(tmp_path / "missing.pem", tmp_path / "key.pem")).start())
