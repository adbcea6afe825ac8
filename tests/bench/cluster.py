"""``python -m tests.bench.cluster [--tiny]``: the engine on a Ray cluster beside the one on this machine, in one run.

The same worker, model and rooms take turns on both; each row is printed as soon as it is measured. Workers, cluster and
this process share the machine: with two cores, four workers say whether the time is shared fairly, and nothing about
speed. It takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import platform
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from livedrag.server.device import supervisor
from livedrag.server.device.messages import (
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

SETTINGS: dict[str, Setting] = {
    "warp_share": 0.0,
    "lora_steps": 2,
    "max_iterations": 10_000,
    "preview_every": 1,
    "latent_lr": 1e-6,  # nothing moves, so no run arrives while it is measured
}
AIMS = {"control": 0.010, "frame age": 0.050}
"""Seconds at p95 above those of the local engine."""
RECOVERY_AIM = 15.0
CHECKPOINT_EVERY = 10

Times = dict[str, list[float]]
"""Seconds by what was measured; ``iterations`` and ``again`` are iterations."""


@dataclass(frozen=True)
class Extent:
    """How long: seconds of each measurement, and how many in turns of those that differ by milliseconds; how many stops
    and kills; with how many rooms that have a worker each."""

    seconds: float = 8.0
    turns: int = 5
    stops: int = 8
    kills: int = 5
    workers: tuple[int, ...] = (1, 2, 4)


TINY = Extent(seconds=2.0, turns=2, stops=1, kills=1, workers=(1, 2))


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


class Subject:
    """An engine that is measured."""

    def __init__(self, engine: WorkerPool) -> None:
        self.engine, self.heard = engine, Heard()
        self._picture = stored((ROOT / "static" / "samples" / "bear.png").read_bytes())
        self._runs = 0

    def start(self, room: str) -> str:
        """Start a run; returns its id."""
        self._runs += 1
        self.engine.submit(Start(run=f"run-{self._runs}", picture=self._picture, desired=desired(room)))
        return f"run-{self._runs}"

    async def iterates(self, *rooms: str) -> None:
        """Wait until the runs of these rooms, which have begun just now, have done an iteration."""
        before = {room: len(self.heard.iterations.get(room, ())) for room in rooms}
        await self.heard.until(
            lambda: all(len(self.heard.iterations.get(room, ())) > count for room, count in before.items())
        )

    async def stop(self, room: str, run: str) -> RunFinished:
        """Stop a run; returns its end, with the picture rendered."""
        before = len(self.heard.finished.get(room, ()))
        self.engine.submit(Stop(room=room, run=run))
        await self.heard.until(lambda: len(self.heard.finished.get(room, ())) > before)
        return self.heard.finished[room][-1]


@asynccontextmanager
async def running(engine: WorkerPool, workers: int) -> AsyncIterator[Subject]:
    subject = Subject(engine)
    try:
        await engine.start(subject.heard)
        async with asyncio.timeout(300):
            while sum(worker.state == "ready" for worker in engine.workers()) < workers:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield subject
    finally:
        await engine.close()


async def control(subject: Subject, extent: Extent) -> Times:
    """Calls and frames while a run iterates."""
    run = subject.start("a")
    await subject.iterates("a")
    subject.heard.ages.clear()
    answers = await _control(subject.engine, subject.heard, extent.seconds)
    found = {"control": answers, "frame age": list(subject.heard.ages)}
    await subject.stop("a", run)
    return found


async def stops(subject: Subject, extent: Extent) -> Times:
    """From Stop to the end of the run."""
    found = []
    for _ in range(extent.stops):
        run = subject.start("a")
        await subject.iterates("a")
        began = time.perf_counter()
        await subject.stop("a", run)
        found.append(time.perf_counter() - began)
    return {"stop": found}


async def kills(subject: Subject, extent: Extent) -> Times:
    """The only worker is killed in a run, again and again."""
    heard, run = subject.heard, subject.start("a")
    found, again, ends = list[float](), list[float](), len(heard.finished["a"])
    for _ in range(extent.kills):
        for _ in range(CHECKPOINT_EVERY + 2):
            await heard.next_iteration("a")
        deaths = heard.deaths
        os.kill(_worker_of(subject.engine, "a"), signal.SIGKILL)
        began = time.perf_counter()
        await heard.until(lambda deaths=deaths: heard.deaths > deaths)
        _, last = heard.iterations["a"][-1]
        went_on, first = await heard.next_iteration("a")
        found.append(went_on - began)
        again.append(max(0, last - first + 1))
    await subject.stop("a", run)
    assert [end.run for end in heard.finished["a"][ends:]] == [run], "exactly one terminal event a run"
    return {"kill": found, "again": again}


async def rates(subject: Subject, rooms: int, seconds: float) -> list[float]:
    """Iterations a second of so many rooms, each with a worker of its own."""
    names = [f"room-{number}" for number in range(rooms)]
    runs = {room: subject.start(room) for room in names}
    await subject.iterates(*names)
    assert len({subject.engine._places[room].worker for room in names}) == rooms
    before = [len(subject.heard.iterations[room]) for room in names]
    await asyncio.sleep(seconds)
    done = [len(subject.heard.iterations[room]) - count for room, count in zip(names, before, strict=True)]
    for room, run in runs.items():
        await subject.stop(room, run)
    return [count / seconds for count in done]


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


def _tell(*lines: str) -> None:
    """Print lines at once: a run that is cut short leaves what it has measured."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _row(what: str, local: Sequence[float], ray: Sequence[float], aim: float | None = None) -> str:
    missed = aim is not None and at(0.95, ray) > at(0.95, local) + aim
    text = "" if aim is None else f"p95 ≤ local + {_ms(aim)}"
    return f"| {what} | {spread(local)} | {spread(ray)}{' **missed**' if missed else ''} | {text} |"


def _rate(found: Sequence[float]) -> str:
    """Of all rooms together, and how evenly they share it."""
    least = min(found)
    fairness = f" (most by least {max(found) / least:.2f})" if len(found) > 1 and least else ""
    return f"{sum(found):.3g}{fairness}"


async def compare(engines: dict[str, Engines], extent: Extent) -> None:
    """Measure one thing after the other, each on both engines, and print its row."""
    _tell(
        f"- machine: {psutil.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; workers of "
        "one thread, cluster and bench share it",
        "",
        "| | local | Ray | Aim |",
        "|--|--:|--:|--:|",
    )
    async with AsyncExitStack() as stack:
        local, ray = [await stack.enter_async_context(running(_engine(kind, 1), 1)) for kind in engines.values()]
        # In turns: from one minute to the next, a step takes longer by more than the engines differ by.
        turns = [(await control(local, extent), await control(ray, extent)) for _ in range(extent.turns)]
        for name, what in (
            ("control", "command to its answer, 200 a second while a run iterates"),
            ("frame age", "age of a frame when it arrives, meanwhile"),
        ):
            of_each = [list(itertools.chain(*(times[name] for times in engine))) for engine in zip(*turns, strict=True)]
            _tell(_row(what, of_each[0], of_each[1], AIMS[name]))
        ours, theirs = await stops(local, extent), await stops(ray, extent)
        _tell(_row("stop to stopped, its picture rendered", ours["stop"], theirs["stop"]))
        ours, theirs = await kills(local, extent), await kills(ray, extent)
        late = " **missed**" if max(theirs["kill"]) > RECOVERY_AIM + max(ours["kill"]) else ""
        _tell(
            f"| the only worker killed to the next iteration, model loaded ({extent.kills} kills) | "
            f"{spread(ours['kill'])} | {spread(theirs['kill'])}{late} | ≤ {RECOVERY_AIM:g} s and the load |",
            f"| iterations done again after a kill, at most | {max(ours['again']):g} | {max(theirs['again']):g} | "
            f"≤ {CHECKPOINT_EVERY}, a checkpoint's |",
        )
    async with AsyncExitStack() as stack:
        most = max(extent.workers)
        local, ray = [await stack.enter_async_context(running(_engine(kind, most), most)) for kind in engines.values()]
        for rooms in extent.workers:
            of_each = [await rates(subject, rooms, extent.seconds) for subject in (local, ray)]
            what = (
                f"iterations a second, {rooms} rooms on a worker each" if rooms > 1 else "iterations a second, one room"
            )
            _tell(f"| {what} | {_rate(of_each[0])} | {_rate(of_each[1])} | |")


def _engine(engines: Engines, workers: int) -> WorkerPool:
    return engines.builtin(workers=workers, threads=1, log_level="error", checkpoint_every=CHECKPOINT_EVERY)


async def compare_hops(seconds: float) -> None:
    """The two ways between a worker and the server. Ray is initialised."""
    _tell("", "| between worker and server | event, from emitted to received | command to its answer |", "|--|--:|--:|")
    for name, way in (("a generator through Ray", hop.through_ray), ("TCP, as livedrag does", hop.over_tcp)):
        ages, answers = await way(seconds)
        _tell(f"| {name} | {spread(ages)} | {spread(answers)} |")


def main() -> int:
    """Measure both and print two tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cluster", description="Leave the machine alone.")
    parser.add_argument("--tiny", action="store_true", help="tests the benchmark itself")
    extent = TINY if parser.parse_args().tiny else Extent()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["PYTHONPATH"] = str(ROOT)
    # One run is killed again and again: each time counts as the first, without a longer pause or the run's failure.
    supervisor.SETTLED_SECONDS = 0.0
    cluster = make_cluster()
    from ray import shutdown as disconnect  # not before the cluster has its token

    try:
        asyncio.run(compare({"local": LocalEngines(), "ray": RayEngines(cluster)}, extent))
        cluster.connect()
        asyncio.run(compare_hops(extent.seconds))
    finally:
        disconnect()  # a cluster does not end under a client
        cluster.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
