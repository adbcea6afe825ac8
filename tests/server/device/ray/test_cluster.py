"""RayEngine on a real cluster of two nodes: what is not in the tests of all engines, and quick ones of what is."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec.structs import replace

from livedrag.server.device.engine import EngineError
from livedrag.server.device.messages import (
    Prepare,
    RunFinished,
    RunProgress,
    Seek,
    SeekCompleted,
    SessionReleased,
    Start,
    Stop,
    UpdateRun,
    WorkerRestarted,
    WorkerRestarting,
)
from livedrag.server.device.pool import WorkerPool
from livedrag.server.device.ray.cluster import ENVIRONMENT, STORE_BYTES
from livedrag.server.device.ray.engine import RayEngine
from livedrag.server.device.ray.hub import Hub
from livedrag.server.device.ray.wire import DEAD_SECONDS, LEASE_SECONDS
from livedrag.server.device.worker_process import WorkerOptions
from livedrag.server.document.protocol import Points
from tests.conftest import ROOT
from tests.server.device.engine_events import Listener, ends, iteration, kill, quietly, running, wait_until
from tests.server.device.engines import QUIET, RayEngines, with_ray
from tests.server.device.workers import DESIRED, PICTURE, SHORT
from tests.server.web.test_serve import is_alive

pytestmark = with_ray


def iterations(listener: Listener, room: str) -> list[int]:
    """Those of a room's run that were reported."""
    records = [event.record for event in listener.heard if isinstance(event, RunProgress) and event.room == room]
    return [record.iteration for record in records if isinstance(record, Points)]


def worker_of(engine: WorkerPool, room: str) -> str:
    return engine._places[room].worker


def test_a_run_continues_on_another_node_when_its_worker_is_killed_and_ends_exactly_once(
    ray_engines: RayEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its successor would take the time of the run.
    monkeypatch.setattr("livedrag.server.device.supervisor.RESTART_PAUSES", (60.0,))

    async def story() -> None:
        engine = ray_engines.builtin(workers=2, checkpoint_every=2)
        desired = replace(DESIRED, settings={**SHORT, "max_iterations": 20})
        async with running(engine) as listener:
            first, second = engine.workers()
            assert first.node != second.node
            engine.submit(Start(run="r1", picture=PICTURE, desired=desired))
            await listener.expect(RunProgress, lambda event: iteration(event, 5))
            assert worker_of(engine, "a") == first.worker
            kill(engine)
            assert (await listener.expect(WorkerRestarting)).rooms == ("a",)
            last = iterations(listener, "a")[-1]
            listener.heard.clear()
            assert (await listener.expect(WorkerRestarted)).rooms == ("a",)
            assert worker_of(engine, "a") == second.worker
            ended = await listener.expect(RunFinished)
            assert (ended.run, ended.outcome, ended.iterations) == ("r1", "exhausted", 20)
            assert iterations(listener, "a")[0] > last - 2, "from its last checkpoint"
            await asyncio.sleep(0.5)
            later = [listener.events.get_nowait() for _ in range(listener.events.qsize())]
            assert not [event for event in later if isinstance(event, RunFinished)], "exactly one end"

    asyncio.run(story())


@pytest.mark.long
def test_a_run_on_a_node_that_drains_continues_elsewhere_and_loses_no_iteration(ray_engines: RayEngines) -> None:
    async def story() -> None:
        engine = ray_engines.builtin(workers=2, checkpoint_every=100)
        desired = replace(DESIRED, settings={**SHORT, "max_iterations": 30})
        async with running(engine) as listener:
            engine.submit(Start(run="r1", picture=PICTURE, desired=desired))
            await listener.expect(RunProgress, lambda event: iteration(event, 5))
            drained = worker_of(engine, "a")
            engine.drain(drained)
            ended = await listener.expect(RunFinished)
            assert (ended.run, ended.outcome, ended.iterations) == ("r1", "exhausted", 30)
            reported = iterations(listener, "a")
            assert set(reported) == set(range(reported[0], 31)), "none is lost"
            assert reported == sorted(reported), "none is done again"
            assert drained not in {worker.worker for worker in engine.workers()}
            assert not [event for event in listener.heard if isinstance(event, WorkerRestarting)]

    asyncio.run(story())


def test_rooms_share_the_nodes_and_a_stop_an_edit_a_seek_and_a_drain_arrive(
    ray_engines: RayEngines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def story() -> None:
        engine = ray_engines.quiet(workers=2)
        async with running(engine) as listener:
            for one in engine.workers():
                assert f"worker {one.worker} is ready on node {one.node}, process " in caplog.text
            for room in "ab":
                engine.submit(Start(run=room, picture=PICTURE, desired=quietly(room, 10_000)))
            await listener.expect(RunProgress, iteration)
            drained = worker_of(engine, "a")
            assert drained != worker_of(engine, "b")
            engine.submit(UpdateRun(desired=quietly("a", 10_000, seq=5)))
            engine.submit(Seek(moment=3, desired=quietly("a", 10_000, seq=6)))
            assert (await listener.expect(SeekCompleted)).moment == 3
            engine.drain(drained)
            await asyncio.to_thread(wait_until, lambda: len(engine.workers()) == 1)
            assert worker_of(engine, "a") == worker_of(engine, "b")
            for room in "ab":
                engine.submit(Stop(room=room, run=room))
            ended = await ends(listener, 2)
            assert {event.outcome for event in ended.values()} == {"stopped"}
            assert ended["a"].seq == 6
            assert iterations(listener, "a") == sorted(set(iterations(listener, "a")))

    asyncio.run(story())


@pytest.mark.long
def test_an_actor_that_is_stopped_is_noticed_killed_and_its_run_goes_on(
    ray_engines: RayEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livedrag.server.device.ray.hub.DEAD_SECONDS", DEAD_SECONDS)

    async def story() -> None:
        engine = ray_engines.quiet(workers=2)
        async with running(engine) as listener:
            engine.submit(Start(run="r1", picture=PICTURE, desired=quietly("a", 200)))
            await listener.expect(RunProgress, iteration)
            pid = engine.pid
            assert pid is not None
            kill(engine, signal.SIGSTOP)
            assert "did not answer for 5 s" in (await listener.expect(WorkerRestarting)).message
            assert not is_alive(pid), "its rooms are given to another worker once it cannot write any more"
            ended = await listener.expect(RunFinished)
            assert (ended.iterations, len([e for e in listener.heard if isinstance(e, RunFinished)])) == (200, 1)

    asyncio.run(story())


@contextmanager
def started_by_hand(address: str, cpus: int) -> Iterator[psutil.Process]:
    """A node that joins, as people let it; yields the process above its raylet."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--address", address]
    command += ["--num-cpus", str(cpus), "--object-store-memory", str(STORE_BYTES)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        try:
            yield psutil.Process(node.pid)
        finally:
            node.terminate()


@contextmanager
def added(cluster: Any, **resources: int) -> Iterator[None]:
    """A further node of the cluster of the tests, as long as it is needed."""
    node = cluster.add_node(object_store_memory=STORE_BYTES, **resources)
    try:
        yield
    finally:
        cluster.remove_node(node, allow_graceful=False)


@pytest.mark.long
def test_a_node_that_joins_gets_rooms_and_one_whose_raylet_is_killed_loses_them(ray_engines: RayEngines) -> None:
    async def story() -> None:
        engine = ray_engines.quiet(workers=2)
        async with running(engine) as listener:
            for room in "ab":
                engine.submit(Start(run=room, picture=PICTURE, desired=quietly(room, 10_000)))
            await listener.expect(RunProgress, iteration)
            with started_by_hand(ray_engines.cluster.address, 4) as node:
                await asyncio.to_thread(wait_until, lambda: [one.state for one in engine.workers()] == ["ready"] * 3)
                engine.submit(Start(run="c", picture=PICTURE, desired=quietly("c", 10_000)))
                await listener.expect(RunProgress, lambda event: event.room == "c")
                joined = engine.workers()[2].worker
                assert worker_of(engine, "c") == joined
                (raylet,) = (child for child in node.children() if child.name() == "raylet")
                raylet.kill()
                assert "c" in (await listener.expect(WorkerRestarting)).rooms
                await listener.expect(RunProgress, lambda event: event.room == "c")
                assert worker_of(engine, "c") != joined
                await asyncio.to_thread(wait_until, lambda: joined not in {one.worker for one in engine.workers()})
            for room in "abc":
                engine.submit(Stop(room=room, run=room))
            assert {event.outcome for event in (await ends(listener, 3)).values()} == {"stopped"}

    asyncio.run(story())


@pytest.mark.long
def test_workers_are_on_the_gpus_and_leave_a_node_that_ray_drains(ray_engines: RayEngines) -> None:
    cluster, address = ray_engines.cluster, ray_engines.cluster.address

    async def story() -> None:
        engine = RayEngine(WorkerOptions(model="quiet"), address=address, worker=QUIET)
        async with running(engine) as listener:
            await asyncio.to_thread(wait_until, lambda: [one.state for one in engine.workers()] == ["ready"] * 3)
            assert {one.device for one in engine.workers()} == {"cuda"}
            assert sorted(Counter(one.node for one in engine.workers()).values()) == [1, 2]
            for room in "abc":
                engine.submit(Start(run=room, picture=PICTURE, desired=quietly(room, 10_000)))
            await asyncio.to_thread(wait_until, lambda: len(set(map(engine._places.get, "abc"))) == 3)
            (alone,) = (node for node, workers in Counter(one.node for one in engine.workers()).items() if workers == 1)
            slot = next(slot for slot in engine._slots.values() if slot.node.name == alone)
            await asyncio.to_thread(drain_node, address, slot.node.id)
            await asyncio.to_thread(wait_until, lambda: alone not in {one.node for one in engine.workers()})
            assert len(engine.workers()) == 2
            for room in "abc":
                engine.submit(Stop(room=room, run=room))
            assert {event.outcome for event in (await ends(listener, 3)).values()} == {"stopped"}
            assert not [event for event in listener.heard if isinstance(event, WorkerRestarting)]

    with added(cluster, num_cpus=1, num_gpus=2), added(cluster, num_cpus=1, num_gpus=1):
        asyncio.run(story())


def drain_node(address: str, id: str) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", address, "--node-id", id]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test"]
    subprocess.run([*command, "--deadline-remaining-seconds", "300"], check=True, capture_output=True)


@pytest.mark.long
def test_an_idle_room_moves_to_a_worker_with_less_to_do(ray_engines: RayEngines, tmp_path: Path) -> None:
    async def story() -> None:
        engine = ray_engines.quiet(workers=2, checkpoints_dir=str(tmp_path))
        async with running(engine) as listener:
            for room in ("idle", "other", "running"):
                engine.submit(Prepare(picture=PICTURE, desired=quietly(room)))
                engine.submit(
                    Start(run=room, picture=PICTURE, desired=quietly(room, 3 if room != "running" else 10_000))
                )
            await ends(listener, 2)
            first = worker_of(engine, "running")
            for room in ("idle", "other"):
                engine._places[room] = engine._places["running"]
            await listener.expect(SessionReleased)
            assert worker_of(engine, "idle") != first
            engine.submit(Stop(room="running", run="running"))
            await listener.expect(RunFinished)

    asyncio.run(story())


def test_a_node_that_cannot_load_the_model_is_named_and_takes_no_rooms(ray_engines: RayEngines, tmp_path: Path) -> None:
    async def story() -> None:
        engine = ray_engines.engine(
            WorkerOptions(model="builtin", checkpoints_dir=str(tmp_path)), "tests.picky_worker:serve", 2
        )
        listener = Listener()
        try:
            await engine.start(listener.events.put_nowait)
            await asyncio.to_thread(wait_until, lambda: any(worker.error for worker in engine.workers()))
            errors = {worker.worker: worker.error for worker in engine.workers()}
            (bad,) = (worker for worker, error in errors.items() if error)
            assert errors[bad] == "no model is here"
            for room in "abc":
                engine.submit(Start(run=room, picture=PICTURE, desired=quietly(room)))
            await ends(listener, 3)
            assert all(worker_of(engine, room) != bad for room in "abc")
        finally:
            await engine.close()

    asyncio.run(story())


SERVER = """
import asyncio, sys
from livedrag.server.device.ray.engine import RayEngine
from livedrag.server.device.worker_process import WorkerOptions

async def main():
    address, worker = sys.argv[1:]
    engine = RayEngine(WorkerOptions(model="quiet", device="cpu"), address=address, cpus=4, worker=worker)
    await engine.start(lambda event: None)
    while not all(worker.state == "ready" for worker in engine.workers()):
        await asyncio.sleep(0.1)
    print(*(one.pid for one in engine._supervisors), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "how",
    [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, id="silent", marks=pytest.mark.long)],
)
def test_devices_are_free_within_30_s_of_the_server_s_death(ray_engines: RayEngines, how: signal.Signals) -> None:
    command = [sys.executable, "-c", SERVER, ray_engines.cluster.address, QUIET]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        workers = [int(pid) for pid in server.stdout.readline().split()]
        assert len(workers) == 2
        server.send_signal(how)
        began = time.monotonic()
        try:
            wait_until(lambda: not any(map(is_alive, workers)), 30)
            assert how == signal.SIGKILL or time.monotonic() - began > LEASE_SECONDS / 2, "it may come back"
        finally:
            server.kill()


@pytest.mark.long
def test_devices_are_free_when_the_head_has_died_and_runs_go_on_when_there_is_a_cluster_again(tmp_path: Path) -> None:
    async def story() -> None:
        os.environ.update(ENVIRONMENT)
        options = WorkerOptions(model="quiet", device="cpu", checkpoints_dir=str(tmp_path))
        engine = RayEngine(options, worker=QUIET)
        others = gcs_servers()
        async with running(engine) as listener:
            engine.submit(Start(run="r1", picture=PICTURE, desired=quietly("a", 10_000)))
            await listener.expect(RunProgress, iteration)
            pid = engine.pid
            assert pid is not None
            (head,) = gcs_servers() - others
            os.kill(head, signal.SIGKILL)
            await asyncio.to_thread(wait_until, lambda: not is_alive(pid), 30)
            assert "head does not answer" in (await listener.expect(WorkerRestarting)).message
            assert (await listener.expect(WorkerRestarted)).rooms == ("a",)
            await listener.expect(RunProgress, iteration)
            engine.submit(Stop(room="a", run="r1"))
            assert (await listener.expect(RunFinished)).outcome == "stopped"

    asyncio.run(story())


def gcs_servers() -> set[int]:
    """The heads' processes that this process has started."""
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if child.name() == "gcs_server" and is_alive(child.pid)}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:10001", "--ray-address 'ray://127.0.0.1:10001' must be HOST:PORT as `ray start` prints it"),
        ("nonsense", "--ray-address 'nonsense' must be HOST:PORT"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: start one with `ray start --head`"),
    ],
)
def test_an_address_where_no_ray_is_found_is_named(address: str, message: str) -> None:
    async def story() -> None:
        engine = RayEngine(WorkerOptions(model="quiet"), address=address)
        try:
            with pytest.raises(EngineError, match=message):
                await engine.start(print)
        finally:
            await engine.close()

    asyncio.run(story())


def refused(folder: Path, address: str, *arguments: str) -> str:
    """The one line with which the command ends."""
    command = [sys.executable, "-m", "livedrag.server", "serve", "--port", "0", "--log-level", "error"]
    command += ["--data-dir", str(folder / "data"), "--engine", "ray", "--ray-address", address, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    return line


def test_the_command_ends_with_one_line_and_an_exit_code(tmp_path: Path) -> None:
    line = refused(tmp_path, "127.0.0.1:1")
    assert line.startswith("livedrag: no Ray cluster answers at 127.0.0.1:1: start one with `ray start --head`")


def test_the_command_names_a_missing_gpu_a_place_for_checkpoints_and_another_version_of_ray(
    ray_engines: RayEngines, tmp_path: Path
) -> None:
    address = ray_engines.cluster.address
    text = f"--device cuda: the Ray cluster at {address} has no GPU; use --device cpu, or join a node that has one"
    assert refused(tmp_path, address, "--device", "cuda") == f"livedrag: {text}"
    line = refused(tmp_path, address, "--checkpoints-url", "file:///proc/nowhere")
    assert re.fullmatch(
        r"livedrag: checkpoints cannot be stored at '/proc/nowhere': .+\. Choose another --checkpoints-url", line
    )
    with other_version(address, "2.9.0"):
        line = refused(tmp_path, address)
    assert re.fullmatch(
        rf"livedrag: the cluster at {address} has Ray 2\.9\.0 and Python \S+, this server Ray 2\.6\S+ and Python \S+: "
        "install the same versions on all machines",
        line,
    )


@contextmanager
def other_version(address: str, ray: str) -> Iterator[None]:
    """Let a cluster say that it has this version of Ray."""
    client = importlib.import_module("ray._raylet").GcsClient(address=address)
    key, namespace = b"CLUSTER_METADATA", b"cluster"
    about = client.internal_kv_get(key, namespace=namespace, timeout=30)
    other = json.dumps({**json.loads(about), "ray_version": ray}).encode()
    client.internal_kv_put(key, other, True, namespace=namespace, timeout=30)
    try:
        yield
    finally:
        client.internal_kv_put(key, about, True, namespace=namespace, timeout=30)


@pytest.mark.long
def test_something_else_that_listens_is_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedrag.server.device.ray.cluster.PROBE_SECONDS", 8.0)  # it never answers

    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            engine = RayEngine(WorkerOptions(model="quiet"), address=address)
            try:
                with pytest.raises(EngineError, match=f"no Ray cluster answers at {address}"):
                    await engine.start(print)
            finally:
                await engine.close()

    asyncio.run(story())


def test_without_the_extra_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    async def story() -> None:
        engine = RayEngine(WorkerOptions(model="quiet"))
        try:
            with pytest.raises(EngineError, match=r"pip install 'livedrag\[ray\]'"):
                await engine.start(print)
        finally:
            await engine.close()

    asyncio.run(story())


def test_a_worker_that_cannot_reach_the_server_says_so(
    ray_engines: RayEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "expect", lambda self, worker, expect=Hub.expect: replace(expect(self, worker), port=1))

    async def story() -> None:
        engine = ray_engines.quiet()
        with pytest.raises(EngineError, match=r"cannot connect to the server at .*:1 \(--ray-host, --ray-port\)"):
            async with running(engine):
                pass

    asyncio.run(story())
