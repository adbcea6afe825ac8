"""Quotas: bytes a room, bytes in all, rooms a day from one address; each is refused clearly, and shown as a metric."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from livedrag.server.access.rate_limits import DAY, RateLimited, RateLimits
from livedrag.server.client import Client, OperationRejected, RequestFailed, create_room, request
from livedrag.server.document.protocol import AddDrag, SetPrompt
from livedrag.server.settings import MIB, Rate, Settings
from livedrag.server.storage import Store
from livedrag.server.storage.errors import DiskFull
from tests.quiet import png, quiet_server
from tests.server.storage.test_archive import make
from tests.server.storage.test_full_disk import noise
from tests.server.storage.test_store import load
from tests.server.test_metrics import samples


def metric(address: str, name: str) -> float:
    return samples(request(address, "GET", "/metrics").decode())[name]


def test_a_room_that_is_full_takes_no_more_edits_and_can_be_exported_and_deleted(tmp_path: Path) -> None:
    picture = noise(200)
    with quiet_server(tmp_path, max_room_bytes=len(picture) + 5000) as (address, _):
        room, other = create_room(address, picture), create_room(address, png())

        async def story() -> None:
            async with Client.join(address, room.id, room.secret) as client:
                await client.edit(AddDrag(id="d1", handle=(1, 1), target=(9, 9)))
                await client.load_mask(png(200, 200, "white", mode="L"))
                refused = await edit_until_refused(client)
                assert re.match(r"this room uses 0\.2 MiB on the server, the limit is 0\.1 MiB: export it", refused)
                with pytest.raises(OperationRejected, match="this room uses"):
                    await client.run()
                with pytest.raises(RequestFailed, match="this room uses") as caught:
                    await client.load_mask(png(200, 200, "white", mode="L"))
                assert caught.value.status == 422
                assert await client.get("export")
                size = metric(address, "livedrag_largest_room_bytes")
                assert len(picture) + 5000 < size < len(picture) + 100_000
                async with Client.join(address, other.id, other.secret) as elsewhere:
                    await elsewhere.edit(SetPrompt(prompt="others are not held up"))
                await client.delete_room()

        asyncio.run(story())


async def edit_until_refused(client: Client) -> str:
    for _ in range(100):
        try:
            await client.edit(SetPrompt(prompt="x" * 900))
        except OperationRejected as rejected:
            return str(rejected)
    raise AssertionError("nothing was refused")


def test_beyond_the_disk_quota_only_deletions_are_saved(tmp_path: Path) -> None:
    with quiet_server(tmp_path, max_disk=MIB) as (address, _):
        large = create_room(address, noise(450))
        with pytest.raises(RequestFailed, match=r"limit is 1\.0 MiB \(LIVEDRAG_MAX_DISK\)\. Delete") as caught:
            create_room(address, noise(449))
        assert (caught.value.status, caught.value.reason) == (507, "not_saved")
        assert metric(address, "livedrag_disk_bytes") > MIB / 2
        headers = {"Authorization": f"Bearer {large.secret}"}
        request(address, "DELETE", f"/api/rooms/{large.id}", None, headers)
        wait_for_space(address)
        create_room(address, noise(449))


def wait_for_space(address: str) -> None:
    deadline = time.monotonic() + 60
    while metric(address, "livedrag_disk_bytes") > MIB / 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_size_of_a_data_directory_is_that_of_everything_in_it(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        make(store)
        (tmp_path / "checkpoints" / "r").mkdir(parents=True)
        (tmp_path / "checkpoints" / "r" / "latent").write_bytes(bytes(2 * MIB))
    with Store(tmp_path, max_bytes=MIB) as store:
        store.space.measure()
        assert 2 * MIB < store.disk_bytes() < 3 * MIB
        with pytest.raises(DiskFull, match="LIVEDRAG_MAX_DISK"):
            store.put_picture(png())
        with pytest.raises(DiskFull, match="LIVEDRAG_MAX_DISK"):
            store.create("s", load(store).document, ()).result(5)
        assert store.delete("r").result(5)


def test_so_many_rooms_a_day_come_from_one_address() -> None:
    now = [0.0]
    limits = RateLimits(Settings(rate_rooms=Rate(0, 0), rooms_per_day=3), lambda: now[0])
    for _ in range(3):
        limits.check_address("203.0.113.5", "create")
    with pytest.raises(RateLimited, match="too many new rooms from one address: 3 a day are allowed; try") as caught:
        limits.check_address("203.0.113.5", "create")
    assert caught.value.setting == "rooms_per_day"
    assert caught.value.seconds == pytest.approx(DAY / 3)
    limits.check_address("203.0.113.6", "create")
    limits.check_address("203.0.113.5", "enter")
    now[0] += DAY / 3 + 1
    limits.check_address("203.0.113.5", "create")


def test_no_quota_of_rooms_is_none() -> None:
    limits = RateLimits(Settings(rate_rooms=Rate(0, 0), rooms_per_day=0), lambda: 0.0)
    for _ in range(5000):
        limits.check_address("203.0.113.5", "create")


def test_the_quota_of_rooms_is_refused_and_counted(tmp_path: Path) -> None:
    with quiet_server(tmp_path, rooms_per_day=2) as (address, _):
        for _ in range(2):
            create_room(address, png())
        with pytest.raises(RequestFailed, match="2 a day are allowed") as caught:
            create_room(address, png())
        assert (caught.value.status, caught.value.reason) == (429, "slow_down")
        assert metric(address, 'livedrag_rejects_total{reason="rooms_per_day"}') == 1


def test_a_loaded_mask_counts_as_an_edit(tmp_path: Path) -> None:
    with quiet_server(tmp_path, rate_edits=Rate(0.001, 2)) as (address, _):
        room = create_room(address, png())

        async def story() -> None:
            async with Client.join(address, room.id, room.secret) as client:
                await client.load_mask(png(color="white", mode="L"))
                await client.edit(SetPrompt(prompt="one more"))
                with pytest.raises(RequestFailed, match="too many edits") as caught:
                    await client.load_mask(png(color="white", mode="L"))
                assert caught.value.status == 429

        asyncio.run(story())
