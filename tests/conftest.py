"""Fixtures that several tests share. Nothing heavy is imported before a fixture needs it."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
# Tests, server, worker and browser share few cores: threads of one must not spin while others wait for theirs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from livedrag.editor import Diffusion
    from livedrag.server.client import NewRoom
    from livedrag.server.device.checkpoints import Checkpoints
    from tests.quiet import QuietEngine
    from tests.server.device.workers import Events

THREADS = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
"""Of torch in this process: the cores are shared among pytest's workers."""
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))

ROOT = Path(__file__).resolve().parent.parent
# How long one example takes says more about the machine than about the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

START_SECONDS = 300.0
"""On a machine that does much else, importing torch alone takes more than a minute."""


@pytest.fixture(scope="session")
def model() -> Diffusion:
    """The built-in model, loaded once; tests must leave it as they found it."""
    import torch

    from livedrag.editor import Diffusion

    torch.set_num_threads(THREADS)
    return Diffusion.load("builtin")


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of composed sample pictures and masks."""
    folder = ROOT / "static" / "samples"
    assert folder.is_dir(), "no samples yet: `make install` composes them"
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline with random weights on disk, for tests in which it does not matter what moves."""
    from tests.pipelines import write_pipeline

    return write_pipeline(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Diffusion:
    """That pipeline, loaded once; tests must leave it as they found it."""
    from livedrag.editor import Diffusion

    return Diffusion.load(str(tiny_folder), device="cpu")


@pytest.fixture(scope="session")
def small(tiny: Diffusion) -> Diffusion:
    """The same by another name."""
    return tiny


@pytest.fixture
def events() -> Events:
    """The events of a worker."""
    from tests.server.device.workers import Events

    return Events()


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """A folder of checkpoints, empty."""
    from livedrag.server.device.checkpoints import Checkpoints

    return Checkpoints(tmp_path / "checkpoints")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, QuietEngine]]:
    """The address and the engine of a server whose sessions do nothing, and which soon notices a lost connection."""
    from tests.quiet import quiet_server

    with quiet_server(tmp_path_factory.mktemp("rooms"), heartbeat=0.2, deadline=1.0) as served:
        yield served


@pytest.fixture
def address(served: tuple[str, QuietEngine]) -> str:
    """The address of that server."""
    return served[0]


@pytest.fixture
def engine(served: tuple[str, QuietEngine]) -> QuietEngine:
    """The engine of that server."""
    return served[1]


@pytest.fixture
def room(address: str) -> NewRoom:
    """A room on that server, with a small picture."""
    from livedrag.server.client import create_room
    from tests.quiet import png

    return create_room(address, png())


@pytest.fixture
def free_port() -> int:
    """A free TCP port."""
    return find_free_port()


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(data: Path, *arguments: str) -> Iterator[str]:
    """Run ``livedrag serve`` with the data directory ``data``; yields its address once it answers."""
    port = find_free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "livedrag.server",
        "serve",
        "--port",
        str(port),
        "--data-dir",
        str(data),
        *arguments,
    ]
    log = data.parent / f"{data.name}.log"
    with log.open("wb") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as server:
        try:
            wait_until_healthy(address, server, log)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()
                raise


def wait_until_healthy(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until ``/healthz`` answers ok. Raises AssertionError with the server's log if it does not."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/healthz", timeout=5) as answer:
                if json.load(answer)["status"] == "ok":
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.1)
    raise AssertionError(f"livedrag serve did not answer at {address}:\n{log.read_text(errors='replace')}")


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server with the built-in model and its own data directory."""
    with serving(tmp_path_factory.mktemp("server") / "data") as address:
        yield address


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The Chromium executable."""
    from tests.chromium import find

    found = find()
    assert found is not None, "no Chromium: `python -m tests.chromium` installs one"
    return found


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    """A headless Chromium, driven by Playwright; its event loop must end before other tests start theirs."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox needs user namespaces, which root and containers lack.
        started = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        yield started
        started.close()
