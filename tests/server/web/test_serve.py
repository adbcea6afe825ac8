"""``livedrag serve`` as people start it: a process of its own, the real model, the whole story; and how it refuses."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from PIL import Image

from livedrag.server.client import Client, NewRoom, RequestFailed, create_room
from livedrag.server.document.protocol import AddDrag, Ended, Frame, MoveDrag, Points, Progress, SetPrompt, SetSettings
from livedrag.server.web.serve import ListenError, listen
from tests.conftest import ROOT, find_free_port, wait_until_healthy
from tests.quiet import png, quiet_server
from tests.traffic import serving_traffic

SHORT = SetSettings(
    settings={
        "warp_share": 0.0,
        "lora_steps": 2,
        "ddim_steps": 4,
        "max_iterations": 4,
        "preview_every": 1,
        "preview_side": 96,
    }
)
COMMAND = (sys.executable, "-m", "livedrag.server", "serve")


@contextmanager
def server(data: Path, port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that may be killed meanwhile."""
    log = data.with_suffix(".log")
    command = [*COMMAND, "--port", str(port), "--data-dir", str(data), *arguments]
    with log.open("ab") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process:
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", process, log)
            yield process
        finally:
            process.terminate()
            process.wait(60)


def descendants(pid: int) -> set[int]:
    """Processes that a process has started, and those that these have."""
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def is_alive(pid: int) -> bool:
    """Whether a process is running, not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def drag_stop_and_go_on(address: str, room: NewRoom) -> None:
    async with Client.join(address, room.id, room.secret, name="Ada") as client:
        await client.edit(AddDrag(id="d1", handle=(30, 30), target=(70, 40)))
        await client.edit(SHORT)
        await client.run()
        await client.wait(Points)
        moved = await client.edit(MoveDrag(id="d1", target=(80, 60)))
        await client.wait(Points, lambda points: points.distances["d1"] > 50)
        assert moved.seq == 4
        await client.stop()
        ended = await client.wait(Ended)
        assert ended.run.outcome == "stopped"
        assert ended.result is not None
        first = await client.get("result")
        seen = len(client.received)
        await client.run()
        ended = await client.wait(Ended, since=seen)
        assert ended.run.outcome == "exhausted"
        second = await client.get("result")
        assert Image.open(io.BytesIO(second)).size == (96, 64)
        assert second != first
        stages = {message.stage for message in client.received if isinstance(message, Progress)}
        assert stages >= {"loading", "fitting", "inverting", "dragging", "rendering"}
        assert not [m for m in client.received[seen:] if isinstance(m, Progress) and m.stage == "fitting"]
        frames = [message for message in client.received if isinstance(message, Frame)]
        assert len({frame.data for frame in frames}) >= 3
        assert Image.open(io.BytesIO(frames[-1].data)).size == (96, 64)
        assert sum(isinstance(message, Ended) for message in client.received) == 2


async def press_drag(address: str, room: NewRoom) -> str:
    async with Client.join(address, room.id, room.secret) as client:
        started = await client.run()
        await client.wait(Progress)
        return started.run.id


async def go_on_after_the_kill(address: str, room: NewRoom, run: str) -> None:
    async with Client.join(address, room.id, room.secret) as client:
        assert client.document.run is not None
        assert client.document.run.interrupted
        assert client.document.drags["d1"].target == (80, 60)
        assert client.document.result is not None
        assert await client.get("result")
        await client.edit(SetPrompt(prompt="a teal field"))
        ended = await client.drag()
        assert (ended.run.id, ended.run.outcome) == (run, "exhausted")


@pytest.mark.skipif(os.name != "posix", reason="ps, /proc and kill -9")
def test_the_whole_story(tmp_path: Path) -> None:
    data, port = tmp_path / "data", find_free_port()
    address = f"http://127.0.0.1:{port}"
    with server(data, port) as process:
        room = create_room(address, png(96, 64))
        maps = Path(f"/proc/{process.pid}/maps")
        if maps.exists():
            assert "libtorch" not in maps.read_text(), "the serving process has loaded torch"
        asyncio.run(drag_stop_and_go_on(address, room))
        run = asyncio.run(press_drag(address, room))
        children = descendants(process.pid)
        assert children
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until_gone(children)
    with server(data, port) as process:
        asyncio.run(go_on_after_the_kill(address, room, run))
        process.terminate()
        assert process.wait(20) == 0
    assert f"livedrag is at {address}\n" in data.with_suffix(".log").read_text()
    assert "Traceback" not in data.with_suffix(".log").read_text()


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 60
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "the worker has outlived its parent"
        time.sleep(0.05)


def test_the_serving_process_never_imports_torch_or_the_editor() -> None:
    code = (
        "import sys, livedrag.server.__main__, livedrag.server.web.app, livedrag.server.rooms.registry, "
        "livedrag.server.device.local, livedrag.server.client.client;"
        "heavy = ('torch', 'livedrag.editor', 'numpy', 'livedrag.server.device.worker');"
        "print([name for name in heavy if name in sys.modules])"
    )
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert imported.stdout == "[]\n"


def refused(*arguments: str) -> str:
    """What ``livedrag serve`` says on stderr when it cannot serve; it must be one line."""
    return stderr_of(*arguments)[0]


def stderr_of(*arguments: str, **environment: str) -> tuple[str, str]:
    """Why ``livedrag serve`` ends, and all of its stderr."""
    process = subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    lines = [line for line in process.stderr.splitlines() if line.startswith("livedrag: ")]
    assert len(lines) == 1, process.stderr
    assert "Traceback" not in process.stderr
    return lines[0], process.stderr


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message, stderr = stderr_of("--port", str(port), "--data-dir", str(tmp_path), LIVEDRAG_PASWORD="sesame")
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use. Choose" in message
    assert "--port" in message
    assert "WARNING LIVEDRAG_PASWORD is not a setting and has no effect: did you mean LIVEDRAG_PASSWORD?" in stderr
    assert "sesame" not in stderr


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_every_network_includes_both_families() -> None:
    listeners = listen("::", 0)
    try:
        port = listeners[0].getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, port), timeout=5):
                pass
        with pytest.raises(ListenError, match="Address already in use"):
            listen("127.0.0.1", port)
    finally:
        for listener in listeners:
            listener.close()


def test_trusting_every_proxy_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with quiet_server(tmp_path / "one", trusted_proxies=("127.0.0.1",)):
        pass
    assert not caplog.records
    with quiet_server(tmp_path / "two", trusted_proxies=("*",)):
        pass
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "TRUSTED_PROXIES=* believes every client's X-Forwarded-For: anyone can pretend" in warning


def test_an_unwritable_data_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refused("--port", "0", "--data-dir", str(tmp_path / "file" / "rooms"))
    assert f"{tmp_path / 'file' / 'rooms'}" in message
    assert "--data-dir" in message


def test_an_unknown_model_is_named(tmp_path: Path) -> None:
    message = refused("--port", "0", "--data-dir", str(tmp_path), "--model", "no/such-model")
    assert "unknown model 'no/such-model'" in message
    assert "builtin" in message


def test_a_setting_that_cannot_be_is_named() -> None:
    assert "port is 99999" in refused("--port", "99999")


def test_the_version_is_printed() -> None:
    command = [sys.executable, "-m", "livedrag.server", "--version"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("livedrag ")


def test_no_command_shows_the_help() -> None:
    from livedrag.server.__main__ import main

    assert main([]) == 2


def test_requests_cut_off_by_the_end_are_answered(tmp_path: Path) -> None:
    """More large uploads than the server decodes before it has to end."""
    port, answers, first = find_free_port(), Counter[int](), threading.Event()
    picture = png(5000, 5000)

    def upload(_: int) -> None:
        try:
            create_room(f"http://127.0.0.1:{port}", picture)
            first.set()
        except RequestFailed as error:
            answers[error.status] += 1
        except OSError:
            answers[0] += 1  # it had not been read yet

    with serving_traffic(tmp_path / "data", port) as server, ThreadPoolExecutor(40) as people:
        uploads = people.map(upload, range(40))
        assert first.wait(60)
        server.terminate()
        server.wait(20)
        assert list(uploads)
    assert answers[503] > 0
    assert "Traceback" not in (tmp_path / "data.log").read_text()
