"""Masks that take long to draw delay no one."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path

import psutil
import pytest
from PIL import Image

from livedrag.server.client import Client, OperationRejected, create_room
from livedrag.server.document.protocol import AddStroke, Invert, MaskLayer, Raster, Stroke
from livedrag.server.document.strokes import max_rasterising_work, max_stroke_work, stroke_work
from livedrag.server.errors import ServiceError
from livedrag.server.images import rasteriser
from livedrag.server.images.mask import rasterise
from livedrag.server.images.rasteriser import THREAD_WORK, Rasteriser
from tests.quiet import png, quiet_server

LARGE = (5000, 5000)


def zigzag(points: int, radius: float, size: tuple[int, int] = LARGE) -> Stroke:
    """A stroke from corner to corner and back."""
    ends = [(0.0, 0.0), (size[0] - 1.0, size[1] - 1.0)]
    return Stroke(id="z", mode="paint", radius=radius, points=[ends[index % 2] for index in range(points)])


def no_file(sha256: str) -> Path:
    raise AssertionError(sha256)


@pytest.mark.parametrize(
    "stroke",
    [
        Stroke(id="a", mode="paint", radius=12, points=[(10, 10), (80, 40), (30, 60)]),
        Stroke(id="b", mode="paint", radius=10_000, points=[(1, 1), (2, 2)]),
        Stroke(id="c", mode="paint", radius=7, points=[(-500, 20), (900, 30)]),
        Stroke(id="d", mode="paint", radius=3, points=[(-90, -90)], softness=0.5),
    ],
)
def test_the_work_of_a_stroke_is_at_least_what_it_draws(stroke: Stroke) -> None:
    mask = rasterise((stroke,), (100, 80), lambda _: Image.new("L", (1, 1)))
    assert mask.histogram()[255] <= stroke_work(stroke, (100, 80)) + 100
    assert stroke_work(stroke, (100, 80)) <= max_stroke_work(stroke, (100, 80))


def test_work_is_bounded_by_the_picture() -> None:
    assert stroke_work(zigzag(2000, 10_000), LARGE) <= 2 * 2000 * 5000 * 5000
    assert stroke_work(Stroke(id="o", mode="paint", radius=5, points=[(-99, -99)]), LARGE) == 0
    assert max_rasterising_work((Invert(id="i"), Raster(id="r", sha256="0" * 64)), (10, 10)) == 200


def test_a_mask_is_the_same_from_the_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loaded.png").write_bytes(png(100, 80, "white", "L"))
    layers: tuple[MaskLayer, ...] = (
        Raster(id="r", sha256="0" * 64),
        Stroke(id="s", mode="erase", radius=20, points=[(50, 40), (70, 40)]),
        Invert(id="i"),
    )

    async def both() -> list[bytes]:
        masks = []
        for work in (THREAD_WORK, 0.0):
            monkeypatch.setattr(rasteriser, "THREAD_WORK", work)
            mask = await Rasteriser().rasterise(layers, (100, 80), lambda _: tmp_path / "loaded.png")
            assert not mask.frozen
            masks.append(mask.png)
        return masks

    here, there = asyncio.run(both())
    assert here == there
    assert Image.open(io.BytesIO(here)).getpixel((60, 40)) == 255


def test_a_mask_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasteriser, "SECONDS", 0.5)

    async def story() -> None:
        before = {child.pid for child in psutil.Process().children()}
        with pytest.raises(ServiceError, match=r"more than 0\.5 s to draw: undo the last stroke"):
            await Rasteriser().rasterise((zigzag(2000, 10_000),), LARGE, no_file)
        assert {child.pid for child in psutil.Process().children()} <= before, "its process has ended"

    asyncio.run(story())


@pytest.mark.skipif(os.name != "posix", reason="sessions of processes")
def test_ctrl_c_does_not_reach_the_other_process() -> None:
    with rasteriser._start_process() as process:
        try:
            assert os.getsid(process.pid) != os.getsid(0)
        finally:
            process.kill()


def test_a_stroke_that_covers_too_much_is_refused(tmp_path: Path) -> None:
    async def story(address: str) -> None:
        room = await asyncio.to_thread(create_room, address, png(1300, 1000))
        async with Client.join(address, room.id, room.secret) as client:
            with pytest.raises(OperationRejected, match="radius 10000 covers too much at 2000 points: use a smaller"):
                await client.edit(AddStroke(stroke=zigzag(2000, 10_000, (1300, 1000))))
            await client.edit(AddStroke(stroke=zigzag(2000, 20, (1300, 1000))))

    with quiet_server(tmp_path) as (address, _):
        asyncio.run(story(address))
