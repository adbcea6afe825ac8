"""Edits over HTTP alone, as docs/api.md shows them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from livedrag.run_log import LogRow
from livedrag.server.client import Client, RequestFailed, create_room, request
from livedrag.server.device.local import LocalEngine
from livedrag.server.device.messages import AnyCommand, RunFinished, RunProgress, Start
from livedrag.server.device.worker_process import WorkerOptions
from livedrag.server.document.protocol import CatalogEntry, Points, Progress
from livedrag.server.settings import Settings
from tests.conftest import ROOT
from tests.quiet import MODEL, QuietEngine, png, serving_in_thread
from tests.server.web.browser import opened

DRAGS = '[{"handle": [10, 10], "target": [30, 10]}]'


CATALOG = (
    CatalogEntry(
        name="checkpoints/dream.safetensors",
        kind="model",
        info=replace(MODEL, name="dream", ranges={**MODEL.ranges, "max_iterations": (1, 7)}),
    ),
    CatalogEntry(name="checkpoints/bare.safetensors", kind="model", info=MODEL, needs_vae=True),
    CatalogEntry(name="vae/ft.safetensors", kind="vae"),
)


class QuickEngine(QuietEngine):
    """Its runs end after a step and a preview; with the prompt ``wait`` they don't, with ``fail`` they fail."""

    catalog = CATALOG

    def submit(self, command: AnyCommand) -> None:
        super().submit(command)
        if isinstance(command, Start) and command.desired.prompt != "wait":
            threading.Thread(target=self._run, args=(command,)).start()

    def _run(self, start: Start) -> None:
        room, run = start.desired.room, start.run
        self.tell(RunProgress(room=room, record=Progress(run=run, stage="dragging", step=1, steps=2, seconds=1.0)))
        points = Points(run=run, iteration=1, handles={"d1": (20.0, 10.0)}, distances={"d1": 10.0}, loss=0.5)
        self.tell(RunProgress(room=room, record=points))
        self.show(room, run, 1, size=10)
        time.sleep(0.2)
        failed = start.desired.prompt == "fail"
        self.tell(
            RunFinished(
                room=room,
                run=run,
                outcome="failed" if failed else "arrived",
                iterations=1,
                seq=start.desired.seq,
                tracked={"d1": (30.0, 10.0)},
                picture=None if failed else png(64, 48, "coral"),
                message="no memory left" if failed else None,
            )
        )


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(port=0, data_dir=tmp_path_factory.mktemp("edits"))
    with serving_in_thread(settings, QuickEngine(), patience=60) as address:
        yield address


def form(**fields: str | bytes) -> tuple[bytes, dict[str, str]]:
    parts = b"".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"{"; filename=a.png" if isinstance(value, bytes) else ""}'
        f"\r\n\r\n".encode()
        + (value if isinstance(value, bytes) else value.encode())
        + b"\r\n"
        for name, value in fields.items()
    )
    return parts + b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def edit(address: str, accept: str = "image/png", query: str = "", **fields: str | bytes) -> bytes:
    body, headers = form(**{"picture": png(), "drags": DRAGS, **fields})
    return request(address, "POST", f"/api/edits{query}", body, {**headers, "Accept": accept})


def events(text: bytes) -> list[tuple[str, Any]]:
    blocks = [block.split("\n") for block in text.decode().split("\n\n") if not block.startswith(":") and block]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def rooms_of(address: str) -> int:
    return sum(
        int(float(line.split()[-1]))
        for line in request(address, "GET", "/metrics").decode().splitlines()
        if line.startswith("livedrag_rooms_open ")
    )


def test_a_picture_comes_back(quick: str) -> None:
    assert opened(edit(quick, settings='{"max_iterations": 5}', prompt="a cat")).getpixel((0, 0)) == (255, 127, 80)


def test_the_way_there_as_events(quick: str) -> None:
    seen = events(edit(quick, "text/event-stream"))
    assert seen[0][0] == "room"
    assert {"progress", "points", "preview"} <= {name for name, _ in seen}
    name, result = seen[-1]
    assert (name, result["outcome"], result["iterations"]) == ("result", "arrived", 1)
    secret = {"Authorization": f"Bearer {seen[0][1]['secret']}"}
    assert opened(request(quick, "GET", result["result"], headers=secret)).size == (64, 48)
    preview = next(data for name, data in seen if name == "preview")
    assert preview["picture"].startswith("data:image/webp;base64,")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"drags": "[]"}, "bad_drags"),
        ({"drags": "x"}, "bad_drags"),
        ({"settings": '{"evil": 1}'}, "bad_settings"),
        ({"settings": '{"latent_lr": 1e9}'}, "bad_settings"),
        ({"settings": "[]"}, "bad_settings"),
        ({"picture": b"no picture"}, "not_a_picture"),
        ({"prompt": "a" * 2000}, "prompt_too_long"),
        ({"prompt": "fail"}, "not_edited"),
        ({"query": "?metadata=some"}, "bad_query"),
    ],
)
def test_what_is_refused(quick: str, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestFailed) as refused:
        edit(quick, **fields)
    assert refused.value.reason == reason


@pytest.mark.parametrize("post", [edit, lambda address, **fields: create_room(address, png(), **fields)])
def test_settings_and_autoencoder_are_those_of_the_chosen_model(quick: str, post: Callable[..., object]) -> None:
    """Of which one allows fewer iterations than the server's own, and one has no autoencoder."""
    post(quick, settings='{"max_iterations": 8}')
    for fields, reason, message in (
        ({"model": "dream", "settings": '{"max_iterations": 8}'}, "bad_settings", "must be between 1 and 7"),
        ({"model": "bare"}, "bad_model", "has no autoencoder (VAE) inside: choose a VAE with it"),
    ):
        with pytest.raises(RequestFailed) as refused:
            post(quick, **fields)
        assert (refused.value.status, refused.value.reason) == (422, reason)
        assert message in str(refused.value)
    post(quick, model="dream", settings='{"max_iterations": 7}')
    post(quick, model="bare", vae="ft")


def test_a_failure_as_an_event(quick: str) -> None:
    assert events(edit(quick, "text/event-stream", prompt="fail"))[-1] == ("failed", {"message": "no memory left"})


def test_a_client_that_goes_away_leaves_no_room(quick: str) -> None:
    body, headers = form(picture=png(), drags=DRAGS, prompt="wait")
    host, port = quick.removeprefix("http://").split(":")
    before = rooms_of(quick)
    with socket.create_connection((host, int(port))) as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "Content-Length": str(len(body))}.items())
        connection.sendall(f"POST /api/edits HTTP/1.1\r\nHost: {host}:{port}\r\n{head}\r\n".encode() + body)
        until(lambda: rooms_of(quick) > before)
    until(lambda: rooms_of(quick) <= before)


def until(fine: Any) -> None:
    end = time.monotonic() + 30
    while not fine():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_numbers_for_the_client(quick: str) -> None:
    room = create_room(quick, png(), drags=DRAGS)

    async def story() -> list[LogRow]:
        async with Client.join(quick, room.id, room.secret) as client:
            return client.log((await client.drag()).run.id)

    assert asyncio.run(story()) == [LogRow(1, "d1", 20.0, 10.0, 10.0, None, 0.5, False)]


def curl_lines() -> list[str]:
    text = (ROOT / "docs" / "api.md").read_text()
    blocks = re.findall(r"^```\n(curl .*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in re.split(r"\n(?=curl )", block.strip())]


def run_curl_lines(address: str, folder: Path) -> None:
    lines = curl_lines()
    assert len(lines) >= 3
    (folder / "photo.png").write_bytes(png(256, 256))
    (folder / "mask.png").write_bytes(png(256, 256, "white", "L"))
    for line in lines:
        here = line.replace("http://127.0.0.1:8000", address)
        done = subprocess.run(
            ["bash", "-ec", here], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, (here, done.stderr)
        if "event-stream" in line:
            assert events(done.stdout.encode())[-1][0] == "result"
    assert opened((folder / "result.png").read_bytes()).mode == "RGB"


with_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@with_curl
def test_the_lines_of_the_documentation(quick: str, tmp_path: Path) -> None:
    run_curl_lines(quick, tmp_path)


@with_curl
@pytest.mark.long
def test_the_lines_of_the_documentation_with_a_model(tiny_folder: Path, tmp_path: Path) -> None:
    engine = LocalEngine(WorkerOptions(model=str(tiny_folder), device="cpu"))
    with serving_in_thread(Settings(port=0, data_dir=tmp_path / "data"), engine, patience=300) as address:
        run_curl_lines(address, tmp_path)
