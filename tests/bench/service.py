"""What the service promises, measured over loopback in one run: the real server, worker and built-in model."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from websockets.asyncio.client import connect

from livedrag.server.client import Client, NewRoom, create_room
from livedrag.server.client.replica import Replica
from livedrag.server.device.local import LocalEngine
from livedrag.server.device.worker_process import WorkerOptions
from livedrag.server.document.protocol import (
    VERSION,
    AddDrag,
    Frame,
    MoveDrag,
    People,
    Points,
    Presences,
    Progress,
    SetSettings,
    Setting,
    Snapshot,
    decode_server,
    encode,
)
from livedrag.server.settings import Rate, Settings
from tests.conftest import ROOT, find_free_port, wait_until_healthy
from tests.quiet import png, serving_in_thread

SAMPLE = ROOT / "static" / "samples" / "bear.png"
DRAG = AddDrag(id="arm", handle=(62.0, 150.0), target=(180.0, 60.0))
"""Far enough that no run arrives while it is watched."""
SETTINGS: dict[str, Setting | None] = {"warp_share": 0.0, "lora_steps": 4, "max_iterations": 5000, "preview_every": 1}
UNLIMITED = Rate(0, 0)
ADDRESS_LIMITS = ("rate_connections", "rate_entries", "rate_rooms", "rate_requests", "rate_messages")
"""Everybody here comes from one address, which would be too many; limits for each person stay as they are."""
MAX_SECONDS = 300.0
"""For one measurement."""
T = TypeVar("T")
MILLISECONDS, SECONDS, RATIO, KIB = "ms", "s", "", "KiB"


@dataclass(frozen=True)
class Extent:
    """How long to measure.

    Args:
        edits: of one person alone; and for how many seconds 20 people make 10 a second each.
        stops, joins: how many of each.
        share: seconds for which 8 rooms share the device.
        crowd: connections, and rooms, over which memory is measured.
    """

    edits: int = 200
    busy: float = 15.0
    watch: float = 15.0
    stops: int = 5
    joins: int = 10
    share: float = 40.0
    crowd: int = 100


FULL = Extent()
TINY = Extent(edits=5, busy=0.5, watch=1.0, stops=1, joins=1, share=10.0, crowd=4)


@dataclass(frozen=True)
class Promise:
    """One line of the table. ``judged`` is the number that the aim, its upper limit, is about."""

    what: str
    figures: dict[str, float]
    unit: str
    judged: str
    aim: float | None = None

    @property
    def kept(self) -> bool | None:
        return None if self.aim is None else self.figures[self.judged] <= self.aim


def measure(extent: Extent = FULL) -> list[Promise]:
    """Everything, one after the other."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as (address, process):
        promises = asyncio.run(_measure_server(address, process, extent))
    with tempfile.TemporaryDirectory() as folder, serving_here(Path(folder)) as (address, engine):
        promises.append(asyncio.run(_soon(_fairness(address, engine, extent))))
    return promises


def measure_run(extent: Extent) -> list[Promise]:
    """A room that runs, alone: frames, people who come late, and stops."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as (address, _):
        return asyncio.run(_soon(_run(address, extent)))


async def _measure_server(address: str, process: psutil.Process, extent: Extent) -> list[Promise]:
    idle = await _soon(_edits_of_one(address, extent))
    busy = await _soon(_edits_of_many(address, extent))
    presence = await _soon(_presence(address, extent))
    back = await _soon(_reconnect(address, extent))
    dead = await _soon(_dead_peer(address))
    memory = await _soon(_memory(address, process, extent))
    return [idle, busy, *await _soon(_run(address, extent)), presence, back, dead, *memory]


async def _soon(measuring: Coroutine[Any, Any, T]) -> T:
    """Rather fail, and name what was measured, than wait for ever."""
    async with asyncio.timeout(MAX_SECONDS):
        return await measuring


# Edits and presence --------------------------------------------------------------------------------------------------


async def _edits_of_one(address: str, extent: Extent) -> Promise:
    async with _seated(address) as client:
        times = [await _timed(client.edit(_somewhere(number))) for number in range(extent.edits)]
    return _spread("edit to acknowledged, one person alone", times, aim=100)


async def _edits_of_many(address: str, extent: Extent) -> Promise:
    """200 edits a second: 5 rooms with 4 people each who make 10 a second."""
    rooms = [await asyncio.to_thread(create_room, address, png(256, 256)) for _ in range(5)]
    times: list[float] = []

    async def person(room: NewRoom, number: int) -> None:
        async with Client.join(address, room.id, room.secret, name=f"P{number}", remember=50) as client:
            await client.edit(AddDrag(id=f"d{number}", handle=(1.0, 1.0), target=(50.0, 50.0)))
            began, edits = time.perf_counter(), []
            for edit in range(round(extent.busy * 10)):
                await asyncio.sleep(max(0.0, began + edit / 10 + number / 40 - time.perf_counter()))
                edits.append(asyncio.create_task(_timed(client.edit(_somewhere(edit, f"d{number}")))))
            times.extend(await asyncio.gather(*edits))

    await asyncio.gather(*(person(room, number) for room in rooms for number in range(4)))
    return _spread("the same with 200 edits a second, by 20 people in 5 rooms", times, aim=100)


async def _presence(address: str, extent: Extent) -> Promise:
    times = []
    async with _seated(address) as first, _join(address, first) as second:
        for number in range(extent.edits):
            place, seen = (float(number % 200), float(number // 200)), second.count
            began = time.perf_counter()
            await first.point(place, tool="points")

            def shows(message: Presences, place: tuple[float, float] = place) -> bool:
                return any(pointing and pointing.cursor == place for pointing in message.people.values())

            await second.wait(Presences, shows, since=seen)
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.05)
    return _spread("cursor to another person's client", times)


async def _reconnect(address: str, extent: Extent) -> Promise:
    """From connecting again until everything that happened meanwhile, 50 edits, is there."""
    times = []
    async with _seated(address) as client:
        for _ in range(extent.joins):
            replica = Replica()
            await _catch_up(client, replica, client.seq)
            for number in range(min(50, extent.edits)):
                await client.edit(_somewhere(number))
            times.append(await _timed(_catch_up(client, replica, client.seq)))
            assert replica.document == client.document
    return _spread("reconnected to current, 50 edits missed", times)


async def _catch_up(client: Client, replica: Replica, seq: int) -> None:
    url = f"ws{client.address.removeprefix('http')}/ws/{client.room}"
    # Without a limit of the queue, as what comes after that is not read, and a full queue holds up closing for 10 s.
    async with connect(url, subprotocols=[VERSION], compression=None, max_queue=None) as socket:
        await socket.send(encode(replica.hello(secret=client.secret)))
        while not (replica.connected and replica.seq >= seq):
            replica.receive(decode_server(await socket.recv()))
    replica.lose()


async def _dead_peer(address: str) -> Promise:
    """A client's network is gone without a close: how long the others still see it."""
    async with _seated(address) as client:
        gone = Client.join(address, client.room, client.secret, name="gone", reconnect=False)
        peer = await gone.__aenter__()

        def sees(message: People) -> bool:
            person = message.people.get(peer.welcome.person)
            return person is not None and person.here

        await client.wait(People, sees)
        seen, began = client.count, time.perf_counter()
        peer.socket.transport.pause_reading()
        await client.wait(People, lambda message: not sees(message), since=seen)
        took = time.perf_counter() - began
        await gone.__aexit__(None, None, None)
    return Promise("dead peer noticed", {"": took}, SECONDS, "", 10)


# Runs ----------------------------------------------------------------------------------------------------------------


async def _run(address: str, extent: Extent) -> list[Promise]:
    """Frames, people who come late, and stops, in a room that runs."""
    acknowledged, halted, ended, ages, joins = [], [], [], [], []
    async with _seated(address, SAMPLE.read_bytes()) as client:
        await client.edit(SetSettings(settings=SETTINGS))
        for number in range(extent.stops):
            run = (await client.run()).run.id
            await client.wait(Points, lambda points, run=run: points.run == run)  # type: ignore[misc]
            await client.wait(Frame, lambda frame, run=run: frame.run == run)  # type: ignore[misc]
            if number == 0:
                ages = await _frame_ages(client, extent)
                joins = [await _timed(_join_late(client)) for _ in range(extent.joins)]
            seen, began = client.count, time.perf_counter()
            await client.stop()
            acknowledged.append(time.perf_counter() - began)
            await client.wait(Progress, lambda progress: progress.stage == "rendering", since=seen)
            halted.append(time.perf_counter() - began)
            await client.end_of(run)
            ended.append(time.perf_counter() - began)
    return [
        _spread("frame age when it arrives, a preview every iteration", ages, aim=250),
        _spread("stop to acknowledged", acknowledged, judged="max", aim=50),
        _spread("stop to the last iteration's end", halted, judged="max"),
        _spread("stop to stopped, its picture rendered", ended, judged="max"),
        _spread("late joiner has picture, points and state", joins, judged="max", aim=500),
    ]


async def _frame_ages(client: Client, extent: Extent) -> list[float]:
    ages, until = [], time.monotonic() + extent.watch
    async for message in client.messages():
        if isinstance(message, Frame):
            ages.append(time.time() - message.time)
        if time.monotonic() > until and ages:
            break
    return ages


async def _join_late(client: Client) -> None:
    async with _join(client.address, client) as late:
        for kind in (Snapshot, Points, Frame):
            await late.wait(kind)
        await late.get("picture")


async def _fairness(address: str, engine: LocalEngine, extent: Extent) -> Promise:
    """Eight equal rooms share the device: the device time that each has had while all of them were dragging."""
    settings = {**SETTINGS, "lora_steps": 1, "ddim_steps": 10}
    clients: list[Client] = []

    async def dragging(ready: asyncio.Barrier, done: asyncio.Event) -> None:
        async with _seated(address, SAMPLE.read_bytes()) as client:
            clients.append(client)
            await client.edit(SetSettings(settings=settings))
            run = (await client.run()).run.id
            await client.wait(Points)
            await ready.wait()
            await done.wait()
            await client.stop()
            await client.end_of(run)

    ready, done = asyncio.Barrier(9), asyncio.Event()
    async with asyncio.TaskGroup() as rooms:
        for _ in range(8):
            rooms.create_task(dragging(ready, done))
        await ready.wait()
        before = _device_time(engine)
        await asyncio.sleep(extent.share)
        after = _device_time(engine)
        done.set()
    had = [after[client.room] - before[client.room] for client in clients]
    return Promise("fairness: most by least device time of 8 equal rooms", {"": max(had) / min(had)}, RATIO, "", 1.1)


def _device_time(engine: LocalEngine) -> dict[str, float]:
    return {room: seconds for device in engine.stats().devices for room, seconds in device.rooms.items()}


# Memory --------------------------------------------------------------------------------------------------------------


async def _memory(address: str, process: psutil.Process, extent: Extent) -> list[Promise]:
    """Resident memory of the serving process, over many connections in one room, and over as many rooms of one each."""
    crowd = []
    async with _seated(address) as first:
        before = process.memory_info().rss
        for _ in range(extent.crowd):
            crowd.append(_join(address, first, remember=5))
            await crowd[-1].__aenter__()
        connection = (process.memory_info().rss - before) / extent.crowd
        for joined in crowd:
            await joined.__aexit__(None, None, None)
    crowd.clear()
    before = process.memory_info().rss
    for _ in range(extent.crowd):
        crowd.append(_seated(address, remember=5))
        await crowd[-1].__aenter__()
    room = (process.memory_info().rss - before) / extent.crowd
    for joined in crowd:
        await joined.__aexit__(None, None, None)
    return [
        Promise("memory of a connection", {"": connection / 1024}, KIB, ""),
        Promise("memory of a room with one idle person in it", {"": room / 1024}, KIB, ""),
    ]


# Servers and people --------------------------------------------------------------------------------------------------


@contextmanager
def serving(data: Path) -> Iterator[tuple[str, psutil.Process]]:
    """``livedrag serve`` in a process of its own; gives its address and itself."""
    port = find_free_port()
    address = f"http://127.0.0.1:{port}"
    limits = {f"LIVEDRAG_{name.upper()}": "0/0" for name in ADDRESS_LIMITS}
    command = [sys.executable, "-m", "server", "serve", "--port", str(port), "--data-dir", str(data)]
    log = data.with_suffix(".log")
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, **limits}) as process,
    ):
        try:
            wait_until_healthy(address, process, log)
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def serving_here(data: Path) -> Iterator[tuple[str, LocalEngine]]:
    """The same in a thread of this process, so that its engine can be asked; its worker is a process still."""
    engine = LocalEngine(WorkerOptions(model="builtin", checkpoints_dir=str(data / "checkpoints"), log_level="warning"))
    settings = Settings(port=0, data_dir=data, **dict.fromkeys(ADDRESS_LIMITS, UNLIMITED))  # type: ignore[arg-type]
    with serving_in_thread(settings, engine, patience=120) as address:
        yield address, engine


@asynccontextmanager
async def _seated(address: str, picture: bytes | None = None, remember: int = 1000) -> AsyncIterator[Client]:
    """A client in a new room with one drag."""
    room = await asyncio.to_thread(create_room, address, picture or png(256, 256))
    async with Client.join(address, room.id, room.secret, remember=remember) as client:
        await client.edit(DRAG)
        yield client


def _join(address: str, other: Client, remember: int = 1000) -> Any:
    """Another person in the same room; without a name, each is a new one."""
    return Client.join(address, other.room, other.secret, name="", remember=remember)


def _somewhere(number: int, drag: str = DRAG.id) -> MoveDrag:
    return MoveDrag(id=drag, target=(100.0 + number % 100, 40.0 + number % 7))


async def _timed(doing: Any) -> float:
    began = time.perf_counter()
    await doing
    return time.perf_counter() - began


# The table -----------------------------------------------------------------------------------------------------------


def _spread(what: str, seconds: Sequence[float], *, judged: str = "p95", aim: float | None = None) -> Promise:
    """Percentiles in milliseconds."""
    ordered = sorted(second * 1000 for second in seconds)
    at: Callable[[float], float] = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]  # noqa: E731
    figures = {"p50": at(0.5), "p95": at(0.95), "max": ordered[-1]}
    shown = ("p50", "p95") if judged == "p95" else ("p50", "max")
    return Promise(what, {name: figures[name] for name in shown}, MILLISECONDS, judged, aim)


def to_markdown(promises: Sequence[Promise]) -> str:
    """The table, the aims beside the figures."""
    lines = [
        f"- machine: {psutil.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
        "server, worker and clients share it",
        "",
        "| | | Aim |",
        "|--|--:|--:|",
    ]
    for promise in promises:
        figures = ", ".join(f"{name} {_short(value)} {promise.unit}".strip() for name, value in promise.figures.items())
        aim = "" if promise.aim is None else f"{promise.judged} ≤ {_short(promise.aim)} {promise.unit}".strip()
        missed = " **missed**" if promise.kept is False else ""
        lines.append(f"| {promise.what} | {figures}{missed} | {aim} |")
    return "\n".join(lines) + "\n"


def to_json(promises: Sequence[Promise]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [{**asdict(promise), "kept": promise.kept} for promise in promises]


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
