"""The instant guess: exact at targets, nothing outside the mask, no fold; and the same function as the front end's.

``python -m tests.editor.drag.test_warp`` records ``tests/warp.json`` anew: displacements of several cases
at given places, which the front end's tests read too.
"""

from __future__ import annotations

import json
import math
from typing import TypedDict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from livedrag.editor import Drag, MaskError, Point, PointError
from livedrag.editor.drag.warp import WarpField, warp
from livedrag.editor.points import Size
from livedrag.warp import Floats, grid_size, open_cells
from tests.conftest import ROOT

RECORDED = ROOT / "tests" / "warp.json"

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels; right and bottom excluded."""


class Case(TypedDict):
    """``mask`` is a union of rectangles that may change, or null; ``places`` and ``displacements`` are (x, y)."""

    name: str
    picture: tuple[int, int]
    mask: list[Rectangle] | None
    drags: list[tuple[tuple[float, float], tuple[float, float]]]
    places: list[tuple[float, float]]
    displacements: list[tuple[float, float]]


def rasterised(rectangles: list[Rectangle] | None, size: Size) -> NDArray[np.bool_] | None:
    if rectangles is None:
        return None
    mask = np.zeros((size.height, size.width), dtype=bool)
    for left, top, right, bottom in rectangles:
        mask[top:bottom, left:right] = True
    return mask


def drag(handle: tuple[float, float], target: tuple[float, float]) -> Drag:
    return Drag(Point(*handle), Point(*target))


def displacements(case: Case) -> Floats:
    size = Size(*case["picture"])
    field = WarpField([drag(*ends) for ends in case["drags"]], rasterised(case["mask"], size), size)
    x, y = np.array(case["places"], dtype=np.float64).T
    return np.stack(field.at(x, y), axis=1)


def case(
    name: str,
    picture: tuple[int, int],
    drags: list[tuple[tuple[float, float], tuple[float, float]]],
    mask: list[Rectangle] | None = None,
) -> Case:
    width, height = picture
    grid = [((column + 0.37) * width / 9, (row + 0.41) * height / 9) for row in range(9) for column in range(9)]
    on_the_way = [
        (handle[0] + part * (target[0] - handle[0]), handle[1] + part * (target[1] - handle[1]))
        for handle, target in drags
        for part in (-0.5, -0.2, 0.0, 0.3, 0.6, 0.9, 1.0, 1.1, 1.4)
    ]
    places = [
        (round(x, 3), round(y, 3)) for x, y in [*grid, *on_the_way] if 0 <= x <= width - 1 and 0 <= y <= height - 1
    ]
    made = Case(name=name, picture=picture, mask=mask, drags=drags, places=places, displacements=[])
    made["displacements"] = [(round(float(x), 6), round(float(y), 6)) for x, y in displacements(made)]
    return made


def recorded() -> list[Case]:
    crossing: list[Rectangle] = [(70, 40, 330, 150), (150, 20, 260, 250)]
    return [
        case("one drag", (256, 256), [((62, 150), (40, 110))]),
        case("one short drag at the border", (256, 256), [((3.25, 128), (8.5, 127))]),
        case("two drags that meet", (512, 512), [((200, 250), (240, 200.5)), ((300, 260), (290.25, 330))]),
        case(
            "three drags, one that holds its place",
            (300, 300),
            [((90, 90), (90, 90)), ((40, 200), (90, 210)), ((250, 60), (200, 99))],
        ),
        case("wide, a mask", (400, 267), [((150, 90), (210, 110))], crossing),
        case("tall, a mask that ends behind the handle", (267, 800), [((130, 300), (140, 160))], [(60, 80, 211, 340)]),
        case(
            "two drags, one target outside the mask",
            (400, 267),
            [((150, 90), (210, 110)), ((200, 200), (300, 220))],
            crossing,
        ),
        case("larger than its grid's cells, a mask", (1500, 1000), [((700, 500), (900, 420))], [(431, 207, 1203, 811)]),
        case("smaller than the grid, a mask", (60, 40), [((20, 20), (31, 22.5))], [(8, 6, 52, 37)]),
        case("a mask of everything", (128, 96), [((20, 20), (60, 40))], [(0, 0, 128, 96)]),
    ]


@pytest.mark.parametrize(
    "known", json.loads(RECORDED.read_text()) if RECORDED.exists() else [], ids=lambda c: c["name"]
)
def test_the_field_is_as_recorded(known: Case) -> None:
    assert np.abs(displacements(known) - np.array(known["displacements"])).max() < 1e-3


def test_what_is_recorded_is_what_would_be_recorded_now() -> None:
    assert [known["name"] for known in json.loads(RECORDED.read_text())] == [made["name"] for made in recorded()]


SIZE = Size(160, 120)
x_of, y_of = st.floats(0, SIZE.width - 1), st.floats(0, SIZE.height - 1)
drag_of = st.builds(Drag, st.builds(Point, x_of, y_of), st.builds(Point, x_of, y_of))


def length(one: Drag) -> float:
    return math.hypot(one.handle.x - one.target.x, one.handle.y - one.target.y)


def smooth_picture(size: Size = SIZE) -> Image.Image:
    y, x = np.mgrid[: size.height, : size.width]
    levels = np.stack([x * 200 / size.width, y * 200 / size.height, 100 + 50 * np.sin(x / 9 + y / 7)], axis=2)
    return Image.fromarray(levels.astype(np.uint8))


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def least_jacobian(field: WarpField, size: Size = SIZE) -> float:
    """The smallest determinant of p -> p + d(p) over the picture, by differences of half a pixel."""
    y, x = np.mgrid[0 : size.height - 0.5 : 0.5, 0 : size.width - 0.5 : 0.5].astype(np.float64)
    dx, dy = field.at(x, y)
    (dx_dy, dx_dx), (dy_dy, dy_dx) = np.gradient(dx, 0.5), np.gradient(dy, 0.5)
    return float(((1 + dx_dx) * (1 + dy_dy) - dx_dy * dy_dx).min())


def test_no_drags_change_nothing() -> None:
    picture = smooth_picture()
    assert same(warp(picture, []), picture)
    assert same(warp(picture, [drag((10, 10), (10, 10))]), picture)


@given(st.lists(drag_of, min_size=1, max_size=4))
@settings(deadline=None)
def test_each_target_leads_to_its_handle(drags: list[Drag]) -> None:
    targets = [one.target for one in drags]
    apart = [math.hypot(a.x - b.x, a.y - b.y) for i, a in enumerate(targets) for b in targets[:i]]
    assume(min(apart, default=1.0) > 0.5)
    dx, dy = WarpField(drags, None, SIZE).at(np.array([t.x for t in targets]), np.array([t.y for t in targets]))
    assert dx == pytest.approx([one.handle.x - one.target.x for one in drags], abs=1e-3)
    assert dy == pytest.approx([one.handle.y - one.target.y for one in drags], abs=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_the_target_shows_what_was_at_the_handle(masked: bool) -> None:
    picture = smooth_picture()
    mask = rasterised([(20, 20, 140, 100)], SIZE) if masked else None
    warped = warp(picture, [drag((60, 50), (90, 70)), drag((120, 40), (110, 30))], mask)
    assert warped.size == picture.size
    assert warped.getpixel((90, 70)) == picture.getpixel((60, 50))
    assert warped.getpixel((110, 30)) == picture.getpixel((120, 40))
    assert warped.getpixel((90, 70)) != picture.getpixel((90, 70))


@given(drag_of)
@settings(deadline=None)
def test_one_drag_never_folds_the_picture(one: Drag) -> None:
    assert least_jacobian(WarpField([one], None, SIZE)) > 0


turn_of = st.floats(0, 2 * math.pi)


def drag_to(x: float, y: float, far: float, turn: float) -> Drag:
    return drag((x + far * math.cos(turn), y + far * math.sin(turn)), (x, y))


# Up to about 0.22 of the distance; two opposite drags of a quarter of it, end to end, do fold the picture.
@given(turn_of, st.floats(4, 60), st.tuples(st.floats(0, 0.2), turn_of), st.tuples(st.floats(0, 0.2), turn_of))
@settings(deadline=None)
def test_two_drags_five_lengths_apart_do_not_fold_the_picture(
    turn: float, apart: float, one: tuple[float, float], other: tuple[float, float]
) -> None:
    x, y = 80 + apart * math.cos(turn) / 2, 60 + apart * math.sin(turn) / 2
    pair = [
        drag_to(x, y, one[0] * apart, one[1]),
        drag_to(160 - x, 120 - y, other[0] * apart, other[1]),
    ]
    assert least_jacobian(WarpField(pair, None, SIZE)) > 0


@given(st.floats(35, 125), st.floats(30, 90), st.floats(0, 1), turn_of)
@settings(deadline=None)
def test_a_drag_within_its_mask_does_not_fold_the_picture(x: float, y: float, part: float, turn: float) -> None:
    """As long as it is no longer than a third of the way from its target to the edge of the mask."""
    left, top, right, bottom = 20, 15, 140, 105
    edge = min(x - left, right - 1 - x, y - top, bottom - 1 - y)
    one = drag_to(x, y, part * edge / 3, turn)
    assert least_jacobian(WarpField([one], rasterised([(left, top, right, bottom)], SIZE), SIZE)) > 0


def test_with_a_mask_content_moves_along_as_far_as_the_mask_goes() -> None:
    one, large = drag((80, 60), (90, 60)), Size(320, 240)
    places = np.array([[70.0, 60.0], [105.0, 60.0], [90.0, 75.0], [80.0, 60.0]]).T
    small, wide = (
        WarpField([one], rasterised([rectangle], large), large).at(*places)[0]
        for rectangle in ((75, 45, 105, 75), (50, 20, 130, 100))
    )
    assert (np.abs(wide) > np.abs(small)).all()
    assert abs(wide[3]) > 0.7 * 10, "what is at the handle keeps its shape"


def test_a_long_drag_leaves_what_lies_beside_it() -> None:
    """Across, it reaches a quarter of the picture at most; near its target, what it moves keeps its shape."""
    one, large = drag((62, 150), (20, 60)), Size(256, 256)
    far = one.target.x - one.handle.x, one.target.y - one.handle.y
    along = far[0] / length(one), far[1] / length(one)
    beside = np.array([(20 - side * along[1], 60 + side * along[0]) for side in (66.0, 120.0, 16.0)]).T
    dx, dy = WarpField([one], None, large).at(*beside)
    moved = np.hypot(dx, dy) / length(one)
    assert moved[:2].max() < 1e-9
    assert moved[2] > 0.98


@given(st.lists(drag_of, min_size=1, max_size=3))
@settings(deadline=None)
def test_nothing_moves_outside_the_bounds(drags: list[Drag]) -> None:
    field = WarpField(drags, None, SIZE)
    left, top, right, bottom = field.bounds()
    row, column = np.mgrid[: SIZE.height, : SIZE.width].astype(np.float64)
    moves = np.hypot(*field.at(column, row)) > 1e-9
    moves[top:bottom, left:right] = False
    assert not moves.any()


@given(st.lists(drag_of, max_size=3), x_of.map(int), y_of.map(int), st.integers(1, 160), st.integers(1, 120))
@settings(deadline=None)
def test_nothing_moves_outside_the_mask(drags: list[Drag], x: int, y: int, width: int, height: int) -> None:
    mask = rasterised([(x, y, x + width, y + height)], SIZE)
    assert mask is not None
    row, column = np.mgrid[: SIZE.height, : SIZE.width].astype(np.float64)
    dx, dy = WarpField(drags, mask, SIZE).at(column, row)
    assert not dx[~mask].any()
    assert not dy[~mask].any()
    picture = smooth_picture()
    warped = np.asarray(warp(picture, drags, mask))
    assert np.array_equal(warped[~mask], np.asarray(picture)[~mask])


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_a_cell_is_open_where_all_it_touches_may_change(width: int, height: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((height, width)) > random.choice([0.0, 0.001, 0.01])
    opened = open_cells(mask)
    grid = grid_size(Size(width, height))
    assert opened.shape == (grid.height, grid.width)
    row, column = random.integers(grid.height), random.integers(grid.width)
    rows = slice(math.floor(row * height / grid.height), math.ceil((row + 1) * height / grid.height))
    columns = slice(math.floor(column * width / grid.width), math.ceil((column + 1) * width / grid.width))
    assert opened[row, column] == mask[rows, columns].all()


def test_what_does_not_fit_the_picture_is_refused_with_its_value() -> None:
    with pytest.raises(PointError, match=r"target \(160, 3\) is outside the picture of 160 x 120 pixels"):
        warp(smooth_picture(), [drag((10, 10), (160, 3))])
    with pytest.raises(MaskError, match="10 x 20"):
        warp(smooth_picture(), [], np.ones((20, 10), dtype=bool))


if __name__ == "__main__":
    RECORDED.write_text("[\n" + ",\n".join(json.dumps(made) for made in recorded()) + "\n]\n")
