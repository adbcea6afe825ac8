"""The heaviest mask that is accepted, beside other rooms and an end of the server."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from livedrag.server.client import Client, create_room
from livedrag.server.document.protocol import AddStroke, SetPrompt, Stroke
from livedrag.server.document.strokes import MAX_STROKE_WORK
from tests.conftest import find_free_port
from tests.quiet import png
from tests.server.images.test_rasteriser import LARGE, zigzag
from tests.traffic import serving_traffic


@pytest.mark.long
def test_a_heavy_mask_delays_no_other_room_and_no_end(tmp_path: Path) -> None:
    heavy = zigzag(int(MAX_STROKE_WORK / (2 * 5000 * 5000)), 10_000)
    port = find_free_port()
    address, times = f"http://127.0.0.1:{port}", []

    async def story() -> None:
        large = await asyncio.to_thread(create_room, address, png(*LARGE))
        other = await asyncio.to_thread(create_room, address, png())
        async with (
            Client.join(address, large.id, large.secret) as painter,
            Client.join(address, other.id, other.secret) as bystander,
        ):
            for index in range(6):
                layer = Stroke(id=f"z{index}", mode="paint", radius=10_000, points=heavy.points)
                await painter.edit(AddStroke(stroke=layer))
            asking = asyncio.create_task(painter.get("mask"))
            for index in range(40):
                began = time.monotonic()
                await bystander.edit(SetPrompt(prompt=f"{index}"))
                times.append(time.monotonic() - began)
                await asyncio.sleep(0.02)
            assert not asking.done(), "the mask is heavy"
            asking.cancel()

    with serving_traffic(tmp_path / "data", port) as process:
        asyncio.run(story())
        began = time.monotonic()
        process.terminate()
        process.wait(30)
        stopped = time.monotonic() - began
    p95 = statistics.quantiles(times, n=20)[18]
    assert p95 < 1.0, "0.1 on a quiet machine"
    assert stopped < 10
