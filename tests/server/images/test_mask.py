"""The rasteriser of masks: strokes, inversions and loaded masks."""

from __future__ import annotations

import math

import pytest
from PIL import Image, ImageChops

from livedrag.server.document.protocol import XY, Grow, Invert, Raster, Stroke
from livedrag.server.images.mask import rasterise


def no_rasters(sha256: str) -> Image.Image:
    raise AssertionError(sha256)


def test_without_layers_everything_is_editable() -> None:
    assert rasterise((), (8, 6), no_rasters).getextrema() == (255, 255)


def test_strokes_are_round_paint_adds_and_erase_removes() -> None:
    line = Stroke(id="a", mode="paint", radius=4, points=[(10, 20), (50, 20)])
    hole = Stroke(id="b", mode="erase", radius=2, points=[(30, 20)])
    mask = rasterise((line, hole), (64, 48), no_rasters)
    white = {place for place in ((10, 20), (7, 20), (25, 23), (53, 20)) if mask.getpixel(place) == 255}
    black = {place for place in ((30, 20), (10, 26), (4, 20), (57, 20), (6, 16)) if mask.getpixel(place) == 0}
    assert (len(white), len(black)) == (4, 5)


def test_a_first_stroke_that_erases_leaves_the_rest_editable() -> None:
    hole = Stroke(id="a", mode="erase", radius=4, points=[(10, 20)])
    mask = rasterise((hole,), (64, 48), no_rasters)
    assert (mask.getpixel((10, 20)), mask.getpixel((40, 20))) == (0, 255)


def test_an_inversion_swaps_the_areas_below_it() -> None:
    line = Stroke(id="a", mode="paint", radius=4, points=[(10, 20)])
    dot = Stroke(id="b", mode="paint", radius=2, points=[(10, 20)])
    mask = rasterise((line, Invert(id="i"), dot), (64, 48), no_rasters)
    assert [mask.getpixel(place) for place in ((10, 20), (13, 20), (40, 20))] == [255, 0, 255]


@pytest.mark.parametrize(("softness", "reach"), [(0.0, 8), (0.5, 6), (1.0, 4)])
def test_a_soft_brush_counts_where_it_is_half_on(softness: float, reach: int) -> None:
    dot = Stroke(id="a", mode="paint", radius=8, points=[(20, 20)], softness=softness)
    mask = rasterise((dot,), (64, 48), no_rasters)
    assert mask.getpixel((20 + reach, 20)) == 255
    assert mask.getpixel((20 + reach + 2, 20)) == 0


def test_a_loaded_mask_replaces_and_becomes_black_and_white() -> None:
    stroke = Stroke(id="a", mode="paint", radius=4, points=[(10, 20)])
    grey = Image.new("L", (64, 48), 127)
    grey.paste(128, (0, 0, 32, 48))
    mask = rasterise((stroke, Raster(id="m", sha256="f" * 64)), (64, 48), lambda _: grey)
    assert {mask.getpixel((40, 20)), mask.getpixel((31, 0))} == {0, 255}


RING: list[XY] = [
    (10, 8),
    (50, 8),
    (50, 40),
    (10, 40),
    (10, 8),
    (20, 16),
    (20, 32),
    (40, 32),
    (40, 16),
    (20, 16),
    (10, 8),
]


def test_a_filled_stroke_is_what_its_points_enclose_even_odd() -> None:
    ring = Stroke(id="a", mode="paint", radius=9, points=RING, fill=True)
    cut = Stroke(id="b", mode="erase", radius=9, points=[(30, 0), (60, 0), (60, 47), (30, 47)], fill=True)
    mask = rasterise((ring,), (64, 48), no_rasters)
    places = ((15, 24), (45, 24), (30, 24), (5, 24), (55, 24))
    assert [mask.getpixel(place) for place in places] == [255, 255, 0, 0, 0]
    mask = rasterise((ring, cut), (64, 48), no_rasters)
    assert [mask.getpixel(place) for place in places] == [255, 0, 0, 0, 0]


def test_a_line_encloses_nothing() -> None:
    line = Stroke(id="a", mode="paint", radius=9, points=[(10, 8), (50, 8)], fill=True)
    assert rasterise((line,), (64, 48), no_rasters).getextrema() == (0, 0)


@pytest.mark.parametrize("pixels", [1, 3, 8, 20])
def test_growing_is_even_in_all_directions_and_leaves_no_gap(pixels: int) -> None:
    dot = Stroke(id="a", mode="paint", radius=0.5, points=[(60, 60)])
    mask = rasterise((dot, Grow(id="g", pixels=pixels)), (120, 120), no_rasters)
    reach = 1 + pixels * 1.1
    for x in range(120):
        for y in range(120):
            away = math.dist((x, y), (60, 60))
            if away <= 0.7 * pixels:
                assert mask.getpixel((x, y)) == 255
            if away > reach + 1:
                assert mask.getpixel((x, y)) == 0


def test_shrinking_is_growing_of_the_rest() -> None:
    square = Stroke(id="a", mode="paint", radius=1, points=[(20, 20), (80, 20), (80, 80), (20, 80)], fill=True)
    smaller = rasterise((square, Grow(id="g", pixels=-10)), (100, 100), no_rasters)
    assert [smaller.getpixel(place) for place in ((50, 50), (31, 50), (28, 50), (50, 72))] == [255, 255, 0, 0]
    back = rasterise((square, Grow(id="g", pixels=-10), Grow(id="h", pixels=10)), (100, 100), no_rasters)
    assert ImageChops.subtract(back, rasterise((square,), (100, 100), no_rasters)).getbbox() is None


def test_growing_everything_leaves_everything() -> None:
    erase = Stroke(id="a", mode="erase", radius=4, points=[(10, 20)])
    assert rasterise((Grow(id="g", pixels=5),), (64, 48), no_rasters).getextrema() == (255, 255)
    assert rasterise((Grow(id="g", pixels=5), erase), (64, 48), no_rasters).getpixel((40, 20)) == 255
