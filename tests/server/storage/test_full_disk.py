"""A disk that fills up under a running server: edits are refused by name, the room stays whole, and then it goes on."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from livedrag.server.client import Client, OperationRejected, RequestFailed, create_room
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


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a small file system of one's own")
def test_a_full_disk_refuses_edits_and_corrupts_no_room(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=3m tmpfs {tmp_path}"
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no file system of one's own here: {probe.stderr.strip()}")
    port, log = find_free_port(), tmp_path.parent / "full-disk.log"
    address = f"http://127.0.0.1:{port}"
    command = ["unshare", "-rm", "sh", "-c", SERVE, "sh", str(tmp_path), sys.executable, str(port)]
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
                assert "Is the disk full?" in refused
                with pytest.raises(RequestFailed) as caught:
                    await asyncio.to_thread(create_room, address, png(640, 480, "red"))
                assert caught.value.status == 507
                async with Client.join(address, room.id, room.secret, name="Bob") as late:
                    assert late.seq == accepted
                    assert late.document.drags == client.document.drags
                    assert late.document.prompt == (f"{accepted - 1} " + "x" * 900 if accepted > 1 else "")
                await asyncio.to_thread(tell, b"emptied\n")
                assert (await client.edit(MoveDrag(id="d1", target=(20, 20)))).seq == accepted + 1

        try:
            wait_until_healthy(address, disk, log)
            asyncio.run(story())
        finally:
            disk.stdin.write(b"\n")
            disk.stdin.close()
            disk.wait(20)
