"""The real server and the real worker are killed: what people in the room see, and what is left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image

from livedrag.server.client import Client, NewRoom, create_room
from livedrag.server.document.protocol import (
    AddDrag,
    Ended,
    EngineReport,
    Frame,
    Moments,
    MoveDrag,
    Points,
    Prepared,
    Progress,
    SetSettings,
    Snapshot,
)
from tests.conftest import find_free_port
from tests.quiet import png
from tests.server.device.engines import with_ray
from tests.server.web.test_serve import descendants, is_alive, server

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9")

ITERATIONS = 24
SHORT = SetSettings(
    settings={
        "warp_share": 0.0,
        "lora_steps": 2,
        "ddim_steps": 4,
        "max_iterations": ITERATIONS,
        "preview_every": 2,
        "preview_side": 64,
    }
)


def worker_of(process: subprocess.Popen[bytes]) -> int:
    """The process id of a server's worker, of either engine."""
    children = psutil.Process(process.pid).children(recursive=True)
    (worker,) = (
        child.pid for child in children if any("spawn_main" in w or "ray::WorkerActor" in w for w in words_of(child))
    )
    return worker


def words_of(process: psutil.Process) -> list[str]:
    """The command of a process; empty if it has ended, as some of Ray's do at any time."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def listening_elsewhere(process: subprocess.Popen[bytes]) -> list[str]:
    """The addresses other than loopback at which a server or one of its processes listens."""
    found = []
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [at.laddr.ip for at in each.net_connections("tcp") if at.status == psutil.CONN_LISTEN]
    return [address for address in found if address.removeprefix("::ffff:") not in ("127.0.0.1", "::1")]


async def place_drag(client: Client) -> None:
    """Add a drag, with settings for a run that is short, but long enough to be killed in."""
    await client.edit(SHORT)
    await client.edit(AddDrag(id="d1", handle=(30, 30), target=(80, 50)))
    await client.wait(Prepared, lambda prepared: prepared.stage == "ready")


async def the_worker_is_killed(process: subprocess.Popen[bytes], address: str, room: NewRoom) -> None:
    async with (
        Client.join(address, room.id, room.secret, name="Ada") as client,
        Client.join(address, room.id, room.secret, name="Bo") as other,
    ):
        await place_drag(client)
        started = await client.run()
        await client.wait(Points, lambda points: points.iteration >= 12)
        seen = client.count
        os.kill(worker_of(process), signal.SIGKILL)
        away = await other.wait(EngineReport, lambda report: report.state == "restarting")
        assert "stopped" in (away.message or "")
        again = await client.wait(Points, since=seen)
        assert again.iteration > 10, "it goes on from its checkpoint"
        async with Client.join(address, room.id, room.secret, name="Cy") as late:
            for kind in (Snapshot, Points, Frame):
                await late.wait(kind)
        await other.edit(MoveDrag(id="d1", target=(90, 60)))
        back = await other.seek(5)
        assert back.tracked.keys() == {"d1"}
        branched = await client.wait(Points, since=client.count)
        assert branched.iteration > again.iteration, "a branch counts on"
        await other.stop()
        ended = await client.end_of(started.run.id)
        assert (ended.run.id, ended.run.outcome) == (started.run.id, "stopped")
        stages = {message.stage for message in client.received if isinstance(message, Progress)}
        assert "fitting" not in stages, "the preparation before Drag was stored"
        assert other.welcome.room == room.id
        await other.end_of(started.run.id)
        assert len([m for m in client.received if isinstance(m, Ended)]) == 1


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def press_drag(address: str, room: NewRoom) -> str:
    async with Client.join(address, room.id, room.secret) as client:
        started = await client.run()
        await client.wait(Points, lambda points: points.iteration >= 12)
        return started.run.id


async def the_server_was_killed(address: str, room: NewRoom, run: str) -> None:
    async with Client.join(address, room.id, room.secret) as client:
        moments = await client.wait(Moments)
        assert len(moments.moments) > 20
        shown = next(moment.id for moment in moments.moments[::-1] if moment.thumbnail)
        assert Image.open(io.BytesIO(await client.get(f"moments/{shown}"))).format == "WEBP"
        trajectory = Image.open(io.BytesIO(await client.get("trajectory.webp")))
        assert getattr(trajectory, "n_frames", 1) > 3
        assert client.document.run is not None
        assert client.document.run.interrupted
        ended = await client.drag()
        assert ended.run.id == run
        # How far the run before it came, on a busy machine, decides whether the drag is over before its iterations are.
        assert ended.run.outcome in ("arrived", "exhausted")
        assert 10 < ended.run.iterations <= ITERATIONS
        points = [message for message in client.received if isinstance(message, Points)]
        assert points[0].iteration > 10, "it goes on from its checkpoint"
        assert not [m for m in client.received if isinstance(m, Progress) and m.stage in ("fitting", "inverting")]


@pytest.mark.parametrize(
    ("engine", "elsewhere"),
    [
        ("local", False),
        pytest.param("local", True, marks=pytest.mark.long, id="checkpoints at a URL"),
        pytest.param("ray", False, marks=[pytest.mark.long, with_ray]),
    ],
)
def test_what_was_under_way_goes_on(engine: str, elsewhere: bool, tmp_path: Path) -> None:
    data, port, shared = tmp_path / "data", find_free_port(), tmp_path / "shared"
    options = ["--engine", engine, *(["--checkpoints-url", shared.as_uri()] if elsewhere else [])]
    address = f"http://127.0.0.1:{port}"
    with server(data, port, *options) as process:
        room = create_room(address, png(96, 64))
        asyncio.run(the_worker_is_killed(process, address, room))
        assert listening_elsewhere(process) == []
        run = asyncio.run(press_drag(address, room))
        worker, started = worker_of(process), descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not is_alive(worker), seconds=30)
        wait_until(lambda: not any(map(is_alive, started)), seconds=180)  # what else Ray has started
    with server(data, port, *options):
        asyncio.run(the_server_was_killed(address, room, run))
    assert (shared / room.id).is_dir() == elsewhere
    assert (data / "checkpoints" / room.id).is_dir() != elsewhere
