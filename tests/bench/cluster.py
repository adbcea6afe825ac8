"""``python -m tests.bench.cluster [--tiny]``: the engine on a Ray cluster beside the one on this machine, in one run.

The same worker, model and rooms take turns on both. Workers, cluster and this process share the machine: with two
cores, four workers say whether the time is shared fairly, and nothing about speed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from livedrag.server.device import supervisor
from livedrag.server.device.engine import (
    AnyEvent,
    DesiredState,
    PlacedDrag,
    PreviewReady,
    ReleaseSession,
    RunFinished,
    RunProgress,
    SessionReleased,
    Start,
    Stop,
    WorkerRestarting,
)
from livedrag.server.device.pool import WorkerPool
from livedrag.server.document.protocol import Points, Setting
from tests.bench import hop
from tests.conftest import ROOT
from tests.server.device.engines import Engines, LocalEngines, RayEngines, make_cluster
from tests.stored import stored

SETTINGS: dict[str, Setting] = {"warp_share": 0.0, "lora_steps": 2, "max_iterations": 10_000, "preview_every": 1}
AIMS = {"control": 0.010, "frame age": 0.050}
"""Seconds at p95 above those of the local engine."""
RECOVERY_AIM = 15.0


@dataclass(frozen=True)
class Extent:
    """How long: seconds of each measurement; how many stops and kills; with how many workers."""

    seconds: float = 10.0
    stops: int = 5
    kills: int = 10
    workers: tuple[int, ...] = (1, 2, 4)


TINY = Extent(seconds=2.0, stops=1, kills=2, workers=(1, 2))


class Heard:
    """The events of an engine with their times of arrival."""

    def __init__(self) -> None:
        self.iterations: dict[str, list[tuple[float, int]]] = {}
        self.ages: list[float] = []
        self.released: dict[str, asyncio.Future[float]] = {}
        self.finished: dict[str, list[RunFinished]] = {}
        self.deaths = 0
        self._changed = asyncio.Event()

    def __call__(self, event: AnyEvent) -> None:
        match event:
            case RunProgress(room=room, record=Points(iteration=iteration)):
                self.iterations.setdefault(room, []).append((time.perf_counter(), iteration))
            case PreviewReady(time=shown):
                self.ages.append(time.time() - shown)
            case SessionReleased(room=room) if room in self.released:
                self.released.pop(room).set_result(time.perf_counter())
            case WorkerRestarting():
                self.deaths += 1
            case RunFinished(room=room):
                self.finished.setdefault(room, []).append(event)
        self._changed.set()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(300):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def next_iteration(self, room: str) -> tuple[float, int]:
        """When the next iteration of a room was reported, and its number."""
        before = len(self.iterations.get(room, ()))
        await self.until(lambda: len(self.iterations.get(room, ())) > before)
        return self.iterations[room][before]


def desired(room: str) -> DesiredState:
    drags = {"arm": PlacedDrag(handle=(62.0, 150.0), target=(180.0, 60.0))}
    return DesiredState(room=room, seq=1, prompt="", settings=SETTINGS, drags=drags)


@asynccontextmanager
async def running(engine: WorkerPool, workers: int) -> AsyncIterator[Heard]:
    heard = Heard()
    try:
        await engine.start(heard)
        async with asyncio.timeout(300):
            while sum(worker.state == "ready" for worker in engine.workers()) < workers:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield heard
    finally:
        await engine.close()


async def measure(engines: Engines, extent: Extent) -> dict[str, list[float]]:
    """Seconds by what was measured; ``rate`` is in iterations a second, by number of workers."""
    found: dict[str, list[float]] = {}
    picture = stored((ROOT / "static" / "samples" / "bear.png").read_bytes())

    def start(engine: WorkerPool, room: str, run: str) -> None:
        engine.submit(Start(run=run, picture=picture, desired=desired(room)))

    engine = engines.builtin(workers=1, threads=1, log_level="error")
    async with running(engine, 1) as heard:
        start(engine, "a", "r0")
        await heard.next_iteration("a")
        heard.ages.clear()
        found["control"] = await _control(engine, heard, extent.seconds)
        found["frame age"] = list(heard.ages)
        _tell(found, "control", "frame age")
        found["stop to stopped"] = []
        for number in range(extent.stops):
            began = time.perf_counter()
            engine.submit(Stop(room="a", run=f"r{number}"))
            await heard.until(lambda number=number: len(heard.finished.get("a", ())) > number)
            found["stop to stopped"].append(time.perf_counter() - began)
            start(engine, "a", f"r{number + 1}")
            await heard.next_iteration("a")
        _tell(found, "stop to stopped")
        found["kill to the run going on"] = []
        found["lost iterations"] = []
        for number in range(extent.kills):
            for _ in range(12):  # past a checkpoint
                await heard.next_iteration("a")
            os.kill(_worker_of(engine, "a"), signal.SIGKILL)
            began = time.perf_counter()
            await heard.until(lambda number=number: heard.deaths > number)
            _, last = heard.iterations["a"][-1]
            went_on, first = await heard.next_iteration("a")
            found["kill to the run going on"].append(went_on - began)
            found["lost iterations"].append(max(0, last - first + 1))
        _tell(found, "kill to the run going on")
        ends = heard.finished["a"]
        assert len({end.run for end in ends}) == len(ends) == extent.stops, "exactly one terminal event a run"
    for workers in extent.workers:
        engine = engines.builtin(workers=workers, threads=1, log_level="error")
        async with running(engine, workers) as heard:
            rooms = [f"room-{number}" for number in range(workers)]
            for room in rooms:
                start(engine, room, room)
            await heard.until(lambda rooms=rooms: all(heard.iterations.get(room) for room in rooms))
            before = [len(heard.iterations[room]) for room in rooms]
            await asyncio.sleep(extent.seconds)
            done = [len(heard.iterations[room]) - count for room, count in zip(rooms, before, strict=True)]
            found[f"rate {workers}"] = [sum(done) / extent.seconds]
            found[f"fairness {workers}"] = [max(done) / max(1, min(done))]
            sys.stderr.write(f"{workers} workers: {found[f'rate {workers}'][0]:.3g} iterations a second\n")
    return found


def _tell(found: dict[str, list[float]], *names: str) -> None:
    """Show how far the measurement is."""
    sys.stderr.writelines(f"{name}: {spread(found[name])}\n" for name in names)


def _worker_of(engine: WorkerPool, room: str) -> int:
    pid = engine._places[room].pid
    assert pid is not None
    return pid


async def _control(engine: WorkerPool, heard: Heard, seconds: float) -> list[float]:
    """From submitting a command until its answer, 200 a second, while a run iterates."""
    times: list[float] = []

    async def call(number: int) -> None:
        room = f"none-{number}"
        heard.released[room] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        engine.submit(ReleaseSession(room=room))
        times.append(await heard.released[room] - began)

    began, calls = time.perf_counter(), []
    for number in range(round(seconds * hop.CALLS_PER_SECOND)):
        await asyncio.sleep(max(0.0, began + number / hop.CALLS_PER_SECOND - time.perf_counter()))
        calls.append(asyncio.create_task(call(number)))
    await asyncio.gather(*calls)
    return times


# The table -----------------------------------------------------------------------------------------------------------


def at(share: float, values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float]) -> str:
    return f"p50 {_ms(at(0.5, values))}, p95 {_ms(at(0.95, values))}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def to_markdown(
    local: dict[str, list[float]], ray: dict[str, list[float]], hops: dict[str, tuple[list[float], list[float]]]
) -> str:
    """Two tables: the engines, and the two ways between a worker and the server."""
    lines = [
        f"- machine: {psutil.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; workers of "
        "one thread, cluster and bench share it",
        "",
        "| | local | Ray | Aim |",
        "|--|--:|--:|--:|",
    ]
    for name, what in (
        ("control", "command to its answer, 200 a second while a run iterates"),
        ("frame age", "frame age when it arrives, meanwhile"),
        ("stop to stopped", "stop to stopped, its picture rendered"),
        ("kill to the run going on", "worker killed to the next new iteration, model loaded"),
    ):
        aim = f"p95 ≤ local + {_ms(AIMS[name])}" if name in AIMS else ""
        if name.startswith("kill"):
            aim = f"≤ {RECOVERY_AIM:g} s and the load"
        missed = name in AIMS and at(0.95, ray[name]) > at(0.95, local[name]) + AIMS[name]
        lines.append(
            f"| {what} | {spread(local[name])} | {spread(ray[name])}{' **missed**' if missed else ''} | {aim} |"
        )
    lines.append(f"| iterations done again after a kill | {_most(local)} | {_most(ray)} | < 10, a checkpoint's |")
    for name in (key for key in local if key.startswith("rate ")):
        workers = name.removeprefix("rate ")
        rates = " | ".join(
            f"{found[name][0]:.3g} (most by least {found[f'fairness {workers}'][0]:.2f})" for found in (local, ray)
        )
        lines.append(f"| iterations a second, {workers} workers with a room each | {rates} | |")
    lines += [
        "",
        "| between worker and server | event, from emitted to received | command to its answer |",
        "|--|--:|--:|",
    ]
    lines += [f"| {way} | {spread(ages)} | {spread(answers)} |" for way, (ages, answers) in hops.items()]
    return "\n".join(lines) + "\n"


def _most(found: dict[str, list[float]]) -> str:
    return f"at most {max(found['lost iterations']):g}"


def main() -> int:
    """Measure both and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cluster", description="Leave the machine alone.")
    parser.add_argument("--tiny", action="store_true", help="tests the benchmark itself")
    extent = TINY if parser.parse_args().tiny else Extent()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["PYTHONPATH"] = str(ROOT)
    # One run is killed again and again: each time counts as the first, without a longer pause or the run's failure.
    supervisor.SETTLED_SECONDS = 0.0
    local = asyncio.run(measure(LocalEngines(), extent))
    cluster = make_cluster()
    from ray import shutdown as disconnect  # not before the cluster has its token

    try:
        ray = asyncio.run(measure(RayEngines(cluster), extent))
        cluster.connect()
        hops = asyncio.run(hop.measure(extent.seconds))
    finally:
        disconnect()  # a cluster does not end under a client
        cluster.shutdown()
    sys.stdout.write(to_markdown(local, ray, hops))
    return 0


if __name__ == "__main__":
    sys.exit(main())
