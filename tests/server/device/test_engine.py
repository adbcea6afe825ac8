"""The engines: the real worker in its own process, which is watched, on this machine and on a Ray cluster.

Over Ray these tests are `long`; `ray/test_cluster.py` has quick ones.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from livedrag.server.device.devices import devices
from livedrag.server.device.engine import DrainRefused, EngineError
from livedrag.server.device.local import LocalEngine
from livedrag.server.device.messages import (
    CommandFailed,
    Generate,
    PlacedDrag,
    PreparationProgress,
    Prepare,
    ReleaseSession,
    ResetSession,
    RunFinished,
    RunProgress,
    Seek,
    SeekCompleted,
    Start,
    Stop,
    UpdateRun,
    WorkerRestarted,
    WorkerRestarting,
)
from livedrag.server.device.pool import WorkerPool
from livedrag.server.document.protocol import Generation
from tests.server.device.engine_events import Listener, ends, iteration, kill, quietly, running, wait_until
from tests.server.device.engines import Engines, LocalEngines
from tests.server.device.workers import DESIRED, PICTURE, SHORT


class Clock:
    """The real one, which can be put forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def test_the_worker_runs_elsewhere_and_ends_with_the_engine(engines: Engines) -> None:
    async def story() -> None:
        engine = engines.builtin()
        async with running(engine) as listener:
            assert engine.state == "ready"
            assert engine.pid not in (None, os.getpid())
            if isinstance(engine, LocalEngine):
                assert psutil.Process(engine.pid).nice() > psutil.Process().nice(), "it steps back for this process"
            engine.submit(Start(run="r1", picture=PICTURE, desired=DESIRED))
            await listener.expect(RunFinished)
            engine.submit(Seek(moment=99, desired=DESIRED))
            await listener.expect(CommandFailed)  # and so the statistics, which come between the two
            (device,) = engine.stats().devices
            assert (device.state, device.restarts, device.sessions) == ("ready", 0, 1)
            assert device.steps["fitting"] == DESIRED.settings["lora_steps"]
            worker = engine.pid
        assert worker is not None
        await asyncio.to_thread(wait_until, lambda: not psutil.pid_exists(worker))

    asyncio.run(story())


@pytest.mark.long
def test_a_run_goes_on_when_its_worker_is_killed_and_ends_exactly_once(engines: Engines) -> None:
    async def story() -> None:
        engine = engines.builtin(checkpoint_every=2)
        desired = replace(DESIRED, settings={**SHORT, "max_iterations": 12})
        async with running(engine) as listener:
            engine.submit(Start(run="r1", picture=PICTURE, desired=desired))
            await listener.expect(RunProgress, lambda event: iteration(event, 5))
            kill(engine)
            restarting = await listener.expect(WorkerRestarting)
            assert (engines.killed in restarting.message, restarting.rooms) == (True, ("a",))
            state: str = engine.state
            assert state == "restarting"
            aimed = {"d1": PlacedDrag(handle=(30, 30), target=(30, 60))}
            engine.submit(UpdateRun(desired=replace(desired, seq=2, drags=aimed)))  # waits for the next worker
            listener.heard.clear()
            ended = await listener.expect(RunFinished)
            assert (ended.run, ended.outcome, ended.iterations, ended.seq) == ("r1", "exhausted", 12, 2)
            later = next(event for event in listener.heard if isinstance(event, RunProgress) and iteration(event))
            assert iteration(later, 5), "it went on from its fourth iteration or a later one"
            assert sum(isinstance(event, WorkerRestarted) for event in listener.heard) == 1
            engine.submit(Start(run="r2", picture=PICTURE, desired=replace(desired, seq=3, drags=aimed)))
            assert (await listener.expect(RunFinished)).run == "r2"
            assert [event.run for event in listener.heard if isinstance(event, RunFinished)] == ["r1", "r2"]
            assert (engine.state, engine.stats().devices[0].restarts) == ("ready", 1)

    asyncio.run(story())


@pytest.mark.long
def test_runs_end_exactly_once_whenever_their_worker_is_killed(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livedrag.server.device.supervisor.RESTART_PAUSES", (0.1,))

    async def story() -> None:
        engine = engines.builtin(checkpoint_every=3)
        desired = replace(DESIRED, settings={**SHORT, "lora_steps": 6, "max_iterations": 20, "preview_every": 1})
        moments = random.Random(0)
        async with running(engine) as listener:
            for number in range(engines.kills):
                room, run = f"room-{number}", f"run-{number}"
                engine.submit(Start(run=run, picture=PICTURE, desired=replace(desired, room=room)))
                for _ in range(moments.randint(1, 50)):
                    await listener.expect(RunProgress)
                kill(engine)
                await listener.expect(WorkerRestarting)
                ended = await listener.expect(RunFinished)
                assert (ended.run, ended.outcome, ended.iterations) == (run, "exhausted", 20)
                assert ended.picture is not None
            assert len([event for event in listener.heard if isinstance(event, RunFinished)]) == engines.kills

    asyncio.run(story())


async def hear_all(engine: WorkerPool, listener: Listener) -> None:
    """Wait for an answer that comes after everything that the first device's worker has sent or is about to send."""
    engine.submit(Seek(moment=99, desired=quietly("last")))
    await listener.expect(SeekCompleted, lambda event: event.room == "last")


async def hangs_in(engine: WorkerPool, clock: Clock, room: str, folder: Path) -> None:
    """Wait until the worker does nothing any more in this room, and let time pass."""
    await asyncio.to_thread(wait_until, (folder / room).exists)
    clock.ahead += 301
    engine.check_workers()


def test_a_worker_that_hangs_is_killed_and_the_run_goes_on(engines: Engines, tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock()
        engine = engines.quiet(clock, checkpoints_dir=str(tmp_path))
        async with running(engine) as listener:
            clock.ahead += 301
            engine.check_workers()  # it has nothing to do
            engine.submit(Start(run="r1", picture=PICTURE, desired=quietly("silent")))
            engine.check_workers()  # nothing to do until now
            await hangs_in(engine, clock, "silent", tmp_path)
            assert "did nothing for 300 s" in (await listener.expect(WorkerRestarting)).message
            ended = await listener.expect(RunFinished)
            assert (ended.run, ended.iterations) == ("r1", 5)
            assert engine.stats().devices[0].restarts == 1

    asyncio.run(story())


def test_a_generation_is_begun_anew_when_its_worker_dies_and_fails_where_it_dies_of_it(
    engines: Engines, tmp_path: Path
) -> None:
    async def story() -> None:
        generation = Generation(prompt="a cat", seed=1, guidance=5.0, ddim_steps=50, model="quiet")
        clock = Clock()
        engine = engines.quiet(clock, checkpoints_dir=str(tmp_path))
        async with running(engine) as listener:
            engine.submit(Generate(room="silent", generation=generation))
            await hangs_in(engine, clock, "silent", tmp_path)
            assert "did nothing for 300 s" in (await listener.expect(WorkerRestarting)).message
            ended = await listener.expect(RunFinished)
            assert (ended.room, ended.outcome, ended.picture is not None) == ("silent", "arrived", True)
            engine.submit(Generate(room="deadly", generation=generation))
            ended = await listener.expect(RunFinished)
            assert (ended.room, ended.run, ended.outcome, ended.picture) == ("deadly", "deadly", "failed", None)
            assert "twice" in (ended.message or "")

    asyncio.run(story())


def test_a_run_in_which_the_worker_dies_twice_has_failed_and_others_go_on(engines: Engines) -> None:
    async def story() -> None:
        engine = engines.quiet()
        async with running(engine) as listener:
            engine.submit(Start(run="r2", picture=PICTURE, desired=quietly("a", 50)))
            await listener.expect(RunProgress, iteration)
            engine.submit(Start(run="r1", picture=PICTURE, desired=quietly("deadly")))
            ended = await ends(listener, 2)
            outcomes = {room: (event.run, event.outcome, event.iterations) for room, event in ended.items()}
            assert outcomes == {"deadly": ("r1", "failed", 0), "a": ("r2", "exhausted", 50)}
            assert ("exit code 7" if engines.killed == "exit code -9" else "stopped") in (ended["deadly"].message or "")
            assert engine.stats().devices[0].restarts == 2
            await hear_all(engine, listener)
            assert len([event for event in listener.heard if isinstance(event, RunFinished)]) == 2

    asyncio.run(story())


def test_rooms_are_shared_among_the_devices_and_stay_where_they_are() -> None:
    async def story() -> None:
        engine = LocalEngines().quiet(workers=2)
        async with running(engine) as listener:
            for room in "abcd":
                engine.submit(Start(run=f"run-{room}", picture=PICTURE, desired=quietly(room, 40)))
            await listener.expect(RunProgress, iteration)
            kill(engine)
            restarting = await listener.expect(WorkerRestarting)
            assert (restarting.device, restarting.rooms) == ("cpu", ("a", "c"))
            assert engine.state == "ready", "the other device goes on"
            assert {event.outcome for event in (await ends(listener, 4)).values()} == {"exhausted"}
            assert (await listener.expect(WorkerRestarted, fresh=False)).rooms == ("a", "c")
            assert [device.restarts for device in engine.stats().devices] == [1, 0]
            for room in "abcd":
                engine.submit(ReleaseSession(room=room))
            for room in "ef":
                engine.submit(Start(run=f"run-{room}", picture=PICTURE, desired=quietly(room, 40)))
            await listener.expect(RunProgress, lambda event: event.room == "f")
            kill(engine)
            assert (await listener.expect(WorkerRestarting)).rooms == ("e",), (
                "f found a run on this one, and none on the other"
            )

    asyncio.run(story())


def test_a_stop_an_edit_and_a_seek_reach_the_next_worker(engines: Engines) -> None:
    async def story() -> None:
        engine = engines.quiet()
        async with running(engine) as listener:
            engine.submit(Start(run="r1", picture=PICTURE, desired=quietly("a", 10_000)))
            await listener.expect(RunProgress, iteration)
            kill(engine)
            engine.submit(UpdateRun(desired=quietly("a", 10_000, seq=5)))  # sent to one that is dead
            engine.submit(Seek(moment=3, desired=quietly("a", 10_000, seq=6)))
            await listener.expect(WorkerRestarting)
            engine.submit(Seek(moment=100, desired=quietly("b")))  # waits for the next one
            engine.submit(Stop(room="a", run="r1"))
            assert (await listener.expect(SeekCompleted)).moment == 3
            assert (await listener.expect(CommandFailed)).moment == 100
            ended = await listener.expect(RunFinished)
            assert (ended.outcome, ended.seq) == ("stopped", 6)
            kill(engine)
            await hear_all(engine, listener)
            assert [event.moment for event in listener.heard if isinstance(event, SeekCompleted)] == [3, 99], (
                "answered once"
            )

    asyncio.run(story())


def test_a_reset_and_a_wipe_reach_the_next_worker_once(engines: Engines, tmp_path: Path) -> None:
    async def story() -> None:
        engine = engines.quiet(checkpoints_dir=str(tmp_path))
        async with running(engine) as listener:
            kill(engine, signal.SIGSTOP)
            engine.submit(ResetSession(room="a"))
            engine.submit(ReleaseSession(room="b", wipe=True))
            engine.submit(Start(run="r1", picture=PICTURE, desired=quietly("a")))
            kill(engine)
            assert (await listener.expect(RunFinished)).run == "r1"
            engine.submit(Start(run="r2", picture=PICTURE, desired=quietly("a", 50)))
            await listener.expect(RunProgress, iteration)
            kill(engine)
            assert (await listener.expect(RunFinished)).run == "r2"
        assert sorted((tmp_path / "done").read_text().split("\n")) == ["", "reset a", "wiped b"]

    asyncio.run(story())


def test_a_worker_that_never_loads_again_is_killed(engines: Engines, tmp_path: Path) -> None:
    async def story() -> None:
        clock = Clock()
        engine = engines.quiet(clock, checkpoints_dir=str(tmp_path))
        async with running(engine) as listener:
            (tmp_path / "loads-for-ever").touch()
            kill(engine)
            await listener.expect(WorkerRestarting)
            await asyncio.to_thread(wait_until, lambda: not (tmp_path / "loads-for-ever").exists())
            clock.ahead += 599
            engine.check_workers()  # it may take its time
            clock.ahead += 2
            engine.check_workers()
            assert "did not load the model within 600 s" in (await listener.expect(WorkerRestarting)).message
            await listener.expect(WorkerRestarted)

    asyncio.run(story())


def test_a_released_room_keeps_its_place_until_its_session_has_left(engines: Engines) -> None:
    async def story() -> None:
        engine = engines.quiet(workers=2)
        async with running(engine) as listener:
            engine.submit(Start(run="r1", picture=PICTURE, desired=quietly("a", 50)))
            await listener.expect(RunProgress, iteration)
            engine.submit(Start(run="rb", picture=PICTURE, desired=quietly("b")))
            await listener.expect(RunFinished)
            kill(engine, signal.SIGSTOP)
            engine.submit(ReleaseSession(room="a"))
            engine.submit(Start(run="r2", picture=PICTURE, desired=quietly("c", 5)))  # finds the first one idle
            engine.submit(Start(run="r3", picture=PICTURE, desired=quietly("a")))
            kill(engine)
            assert "a" in (await listener.expect(WorkerRestarting)).rooms, (
                "the first worker might be writing checkpoints still"
            )

    asyncio.run(story())


def test_a_preparation_is_submitted_again_until_it_is_ready(engines: Engines) -> None:
    async def story() -> None:
        engine = engines.quiet()
        async with running(engine) as listener:
            kill(engine, signal.SIGSTOP)
            engine.submit(Prepare(picture=PICTURE, desired=quietly("a")))
            kill(engine)
            assert (await listener.expect(WorkerRestarting)).rooms == ("a",)
            await listener.expect(PreparationProgress)
            kill(engine)
            await hear_all(engine, listener)
            assert len([event for event in listener.heard if isinstance(event, PreparationProgress)]) == 1

    asyncio.run(story())


def test_the_worker_leaves_when_the_engine_is_killed() -> None:
    code = """
import asyncio
from livedrag.server.device.local import LocalEngine
from livedrag.server.device.worker_process import WorkerOptions

async def main():
    engine = LocalEngine(WorkerOptions(model="builtin"))
    await engine.start(print)
    print(engine.pid, flush=True)
    await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("wanted", "visible", "expected"),
    [
        ("", None, [""]),
        ("cuda:1", None, ["cuda:1"]),
        ("cuda:0, cuda:1", None, ["cuda:0", "cuda:1"]),
        ("all", "4,7", ["cuda:0", "cuda:1"]),
        ("all", None, ["cuda:0", "cuda:1", "cuda:2"]),
        ("all", "", [""]),
    ],
)
def test_devices_by_name(wanted: str, visible: str | None, expected: list[str], tmp_path: Path) -> None:
    for gpu in ("0000:01", "0000:02", "0000:03"):
        (tmp_path / gpu).mkdir()
    assert devices(wanted, visible, tmp_path) == expected


@pytest.mark.long
def test_an_unknown_model_is_named(engines: Engines) -> None:
    async def story() -> None:
        engine = engines.builtin(model="no-such-model")
        with pytest.raises(EngineError, match="'no-such-model'"):
            async with running(engine):
                pass

    asyncio.run(story())


def test_a_worker_that_dies_at_once_is_no_endless_wait(engines: Engines) -> None:
    async def story() -> None:
        engine = engines.builtin(worker="os:abort_is_not_here")
        with pytest.raises(EngineError, match=r"the worker stopped .*while loading the model"):
            async with running(engine):
                pass

    asyncio.run(story())


# Draining ------------------------------------------------------------------------------------------------------------


def test_a_drained_worker_gives_its_rooms_away_which_lose_no_iteration_and_ends(
    engines: Engines, tmp_path: Path
) -> None:
    async def story() -> None:
        engine = engines.quiet(workers=2, checkpoints_dir=str(tmp_path))
        async with running(engine) as listener:
            first, second = (worker.worker for worker in engine.workers())
            assert all(worker.node for worker in engine.workers())
            pid = engine.pid
            assert pid is not None
            engine.submit(Prepare(picture=PICTURE, desired=quietly("idle")))  # the first worker's
            await listener.expect(PreparationProgress)
            engine.submit(Start(run="r1", picture=PICTURE, desired=quietly("other")))  # the second's
            engine.submit(Start(run="r2", picture=PICTURE, desired=quietly("running", 50)))
            engine.drain(first)
            engine.drain(first)
            states = {worker.worker: worker.draining for worker in engine.workers()}
            assert states == {first: True, second: False}
            engine.submit(Start(run="r3", picture=PICTURE, desired=quietly("new")))
            finished = await ends(listener, 3)
            assert {event.outcome for event in finished.values()} == {"exhausted"}
            assert finished["running"].iterations == 50, "it has lost none"
            await asyncio.to_thread(wait_until, lambda: not psutil.pid_exists(pid))
            assert [worker.worker for worker in engine.workers()] == [second]
            assert engine.state == "ready"
            for room in ("idle", "running"):
                engine.submit(Start(run=f"{room} again", picture=PICTURE, desired=quietly(room)))
            assert len(await ends(listener, 2)) == 2
            with pytest.raises(DrainRefused, match=f"{second!r} is the only one that takes rooms"):
                engine.drain(second)

    asyncio.run(story())


def test_draining_the_only_worker_or_an_unknown_one_is_refused_by_name(engines: Engines) -> None:
    async def story() -> None:
        engine = engines.quiet()
        async with running(engine):
            (only,) = (worker.worker for worker in engine.workers())
            with pytest.raises(DrainRefused, match=f"{only!r} is the only one that takes rooms: it cannot be drained"):
                engine.drain(only)
            with pytest.raises(DrainRefused, match=f"'7:cpu' cannot be drained; the workers are {only!r}"):
                engine.drain("7:cpu")
            assert not engine.workers()[0].draining

    asyncio.run(story())
