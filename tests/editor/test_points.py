from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedrag.editor import Drag, Point, PointError
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
