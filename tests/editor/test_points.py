from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedrag.editor import Drag, PictureError, Point, PointError
from livedrag.editor.points import Cell, Rasters, Size, distance

sides = st.integers(16, 4000)


@given(sides, sides, st.floats(0, 1), st.floats(0, 1))
def test_cells_and_points_are_inverse(width: int, height: int, across: float, down: float) -> None:
    rasters = Rasters(Size(width, height), Size(256, 512))
    point = Point(across * (width - 1), down * (height - 1))
    back = rasters.to_point(rasters.to_cell(point))
    assert distance(point, back) < 1e-6


def test_rasters_lie_over_each_other_edge_to_edge() -> None:
    rasters = Rasters(Size(1000, 500), Size(64, 32))
    assert (rasters.rows, rasters.columns) == (16, 32)
    assert rasters.to_cell(Point(-0.5, -0.5)) == Cell(-0.5, -0.5)
    corner = rasters.to_cell(Point(999.5, 499.5))
    assert (corner.row, corner.column) == pytest.approx((15.5, 31.5))


@given(st.integers(1, 6000), st.integers(1, 6000), st.sampled_from([256, 512, 768]))
def test_the_working_picture_keeps_aspect_and_area(width: int, height: int, native_side: int) -> None:
    picture = Size(width, height)
    if max(width, height) > 8 * min(width, height):
        with pytest.raises(PictureError, match=f"{width} x {height}"):
            Rasters.fit(picture, native_side, 8)
        return
    rasters = Rasters.fit(picture, native_side, 8)
    covered, working = rasters.covered, rasters.working
    assert working.width % 8 == working.height % 8 == 0
    assert 0.85 < working.width * working.height / native_side**2 < 1.17
    assert 0 <= rasters.margin.width <= 0.02 * width + 0.5
    assert 0 <= rasters.margin.height <= 0.02 * height + 0.5
    across, down = covered.width / working.width, covered.height / working.height
    rounding = 0.5 / min(width, height)
    assert abs(across / down - 1) < 0.01 + rounding


@pytest.mark.parametrize(("width", "height"), [(1693, 800), (4000, 3000), (3000, 2000), (1080, 1920), (1024, 1000)])
def test_photographs_are_not_stretched(width: int, height: int) -> None:
    for native_side in (256, 512, 768):
        rasters = Rasters.fit(Size(width, height), native_side, 8)
        across = rasters.covered.width / rasters.working.width
        assert across == pytest.approx(rasters.covered.height / rasters.working.height, rel=0.002)


def test_squares_have_the_native_size() -> None:
    assert Rasters.fit(Size(1000, 1000), 512, 8) == Rasters(Size(1000, 1000), Size(512, 512))


@given(sides, sides, st.floats(0, 1), st.floats(0, 1))
def test_the_nearest_cell_is_whole_and_inside(width: int, height: int, across: float, down: float) -> None:
    rasters = Rasters(Size(width, height), Size(96, 64))
    cell = rasters.nearest_cell(Point(across * (width - 1), down * (height - 1)))
    assert cell == cell.rounded()
    assert 0 <= cell.row < rasters.rows
    assert 0 <= cell.column < rasters.columns


@pytest.mark.parametrize(
    ("drag", "words"),
    [
        (Drag(Point(100, 5), Point(1, 1)), ["handle", "(100, 5)", "100 x 50", "0 to 99"]),
        (Drag(Point(1, 1), Point(5, -0.5)), ["target", "(5, -0.5)", "0 to 49"]),
        (Drag(Point(3, 4), Point(3, 4)), ["(3, 4)", "put the target"]),
        (Drag(Point(float("nan"), 4), Point(3, 4)), ["nan"]),
    ],
)
def test_drags_that_cannot_be_are_refused_with_their_values(drag: Drag, words: list[str]) -> None:
    with pytest.raises(PointError) as refused:
        Rasters(Size(100, 50), Size(64, 32)).check_drag(drag)
    assert all(word in str(refused.value) for word in words), refused.value
