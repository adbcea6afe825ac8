"""A disk that fills up under a running server: edits are refused by name, the room stays whole, and then it goes on."""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from livedrag.server.client import Client, OperationRejected, RequestFailed, create_room, request
from livedrag.server.document.protocol import AddDrag, MoveDrag, SetPrompt
from tests.conftest import ROOT, find_free_port, wait_until_healthy
from tests.quiet import png

SERVE = """
mount -t tmpfs -o size=3m tmpfs "$1" || exit
"$2" -m tests.traffic "$3" "$1/data" &
server=$!
read filled && head -c 9m /dev/zero > "$1/filler" 2>/dev/null
echo filled
read emptied && rm "$1/filler"
echo emptied
read over
kill $server && wait $server
"""


RESTART = """
mount -t tmpfs -o size=16m tmpfs "$1" || exit
"$2" -m tests.traffic "$3" "$1/data" &
server=$!
read filled
kill $server && wait $server
head -c 32m /dev/zero > "$1/filler" 2>/dev/null
"$2" -m tests.traffic "$3" "$1/data" &
server=$!
echo filled
read over
kill $server && wait $server
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a small file system of one's own")
def test_a_server_starts_read_only_on_a_full_disk_and_deleting_a_room_makes_space(tmp_path: Path) -> None:
    with small_disk(tmp_path, RESTART, "16m") as (address, tell, disk, log):
        room, large = create_room(address, png()), create_room(address, noise(1300))
        assert storage(address) == "ok"
        tell(b"filled\n")
        wait_until_healthy(address, disk, log)
        assert storage(address) == "read-only"

        async def story() -> None:
            async with Client.join(address, room.id, room.secret) as client:
                assert await client.get("picture")
                with pytest.raises(OperationRejected, match=r"the disk with .* is full"):
                    await client.edit(SetPrompt(prompt="more"))
                with pytest.raises(RequestFailed) as caught:
                    await asyncio.to_thread(create_room, address, png(color="red"))
                assert caught.value.status == 507
                headers = {"Authorization": f"Bearer {large.secret}"}
                await asyncio.to_thread(request, address, "DELETE", f"/api/rooms/{large.id}", None, headers)
                await asyncio.to_thread(wait_for_space, address)
                assert (await client.edit(SetPrompt(prompt="more"))).seq == 1

        asyncio.run(story())


def noise(side: int) -> bytes:
    """A PNG of about three bytes a pixel."""
    png = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side**2)).save(png, "PNG")
    return png.getvalue()


def storage(address: str) -> str:
    return str(json.loads(request(address, "GET", "/healthz"))["storage"])


def wait_for_space(address: str) -> None:
    deadline = time.monotonic() + 60
    while storage(address) != "ok":
        assert time.monotonic() < deadline, "the deleted room has left no space"
        time.sleep(0.05)


@contextmanager
def small_disk(
    tmp_path: Path, script: str, size: str
) -> Iterator[tuple[str, Callable[[bytes], None], subprocess.Popen[bytes], Path]]:
    """A server whose data directory is on a file system of its own; `tell` has the script go on."""
    mount = f"mount -t tmpfs -o size={size} tmpfs {tmp_path}"
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no file system of one's own here: {probe.stderr.strip()}")
    port, log = find_free_port(), tmp_path.parent / f"{tmp_path.name}.log"
    address = f"http://127.0.0.1:{port}"
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, str(port)]
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as disk,
    ):
        assert disk.stdin is not None
        assert disk.stdout is not None

        def tell(what: bytes) -> None:
            disk.stdin.write(b"\n")  # type: ignore[union-attr]
            disk.stdin.flush()  # type: ignore[union-attr]
            assert disk.stdout.readline() == what  # type: ignore[union-attr]

        try:
            wait_until_healthy(address, disk, log)
            yield address, tell, disk, log
        finally:
            disk.stdin.write(b"\n")
            disk.stdin.close()
            disk.wait(20)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a small file system of one's own")
def test_a_full_disk_refuses_edits_and_corrupts_no_room(tmp_path: Path) -> None:
    with small_disk(tmp_path, SERVE, "3m") as (address, tell, _, _):

        async def story() -> None:
            room = await asyncio.to_thread(create_room, address, png())
            async with Client.join(address, room.id, room.secret, name="Ada") as client:
                await client.edit(AddDrag(id="d1", handle=(1, 1), target=(9, 9)))
                await asyncio.to_thread(tell, b"filled\n")
                accepted, refused = 1, ""
                while not refused:  # until the pages that there are have been filled
                    try:
                        await client.edit(SetPrompt(prompt=f"{accepted} " + "x" * 900))
                        accepted += 1
                    except OperationRejected as rejected:
                        refused = str(rejected)
                assert re.search("nothing can be saved: the disk with .* is full", refused)
                with pytest.raises(RequestFailed) as caught:
                    await asyncio.to_thread(create_room, address, png(640, 480, "red"))
                assert caught.value.status == 507
                async with Client.join(address, room.id, room.secret, name="Bob") as late:
                    assert late.seq == accepted
                    assert late.document.drags == client.document.drags
                    assert late.document.prompt == (f"{accepted - 1} " + "x" * 900 if accepted > 1 else "")
                await asyncio.to_thread(tell, b"emptied\n")
                assert (await client.edit(MoveDrag(id="d1", target=(20, 20)))).seq == accepted + 1

        asyncio.run(story())
