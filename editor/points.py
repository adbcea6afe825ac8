"""Points, drags, and the only conversions between picture pixels and feature cells.

Three rasters cover the same picture, each with its origin at the centre of its top left sample:

* the *picture* as uploaded, ``(x, y)`` in pixels, which all code outside the editor uses;
* the *working picture*, which the model sees;
* the *cells*, ``(row, column)`` at half the working resolution, on which DragDiffusion supervises and tracks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from livedrag.editor.errors import PointError


@dataclass(frozen=True)
class Point:
    """A point of the picture in pixels: ``x`` to the right, ``y`` down."""

    x: float
    y: float


@dataclass(frozen=True)
class Drag:
    """Move the content at ``handle`` to ``target``."""

    handle: Point
    target: Point


@dataclass(frozen=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


@dataclass(frozen=True)
class Cell:
    """A position on the half-resolution raster; fractions allowed."""

    row: float
    column: float

    def __add__(self, other: Cell) -> Cell:
        return Cell(self.row + other.row, self.column + other.column)

    def __sub__(self, other: Cell) -> Cell:
        return Cell(self.row - other.row, self.column - other.column)

    def rounded(self) -> Cell:
        """The nearest whole cell; halves go to the even neighbour, as in `torch.round`."""
        return Cell(float(round(self.row)), float(round(self.column)))


@dataclass(frozen=True)
class Rasters:
    """The sizes of one picture's rasters, and the conversions between them.

    Args:
        picture: the uploaded picture.
        working: the working picture; both sides even.
    """

    picture: Size
    working: Size

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return self.working.height // 2

    @property
    def columns(self) -> int:
        """Columns of cells."""
        return self.working.width // 2

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.rows, self.columns

    def to_cell(self, point: Point) -> Cell:
        """The (fractional) cell over a point of the picture."""
        return Cell(
            (point.y + 0.5) * self.rows / self.picture.height - 0.5,
            (point.x + 0.5) * self.columns / self.picture.width - 0.5,
        )

    def to_point(self, cell: Cell) -> Point:
        """The point of the picture under a (fractional) cell."""
        return Point(
            (cell.column + 0.5) * self.picture.width / self.columns - 0.5,
            (cell.row + 0.5) * self.picture.height / self.rows - 0.5,
        )

    def to_working(self, point: Point) -> Point:
        """The point of the working picture under a point of the picture."""
        return Point(
            (point.x + 0.5) * self.working.width / self.picture.width - 0.5,
            (point.y + 0.5) * self.working.height / self.picture.height - 0.5,
        )

    def nearest_cell(self, point: Point) -> Cell:
        """The whole cell nearest to a point of the picture, never outside the raster."""
        cell = self.to_cell(point).rounded()
        return Cell(min(max(cell.row, 0.0), self.rows - 1.0), min(max(cell.column, 0.0), self.columns - 1.0))

    def check_point(self, point: Point, what: str) -> None:
        """Raise `PointError` unless the point is inside the picture; ``what`` names it in the message."""
        width, height = self.picture.width, self.picture.height
        if not (0 <= point.x <= width - 1 and 0 <= point.y <= height - 1):
            raise PointError(
                f"{what} ({point.x:g}, {point.y:g}) is outside the picture of {self.picture} pixels: "
                f"x must be 0 to {width - 1}, y 0 to {height - 1}"
            )

    def check_drag(self, drag: Drag) -> None:
        """Raise `PointError` unless handle and target are two different points inside the picture."""
        self.check_point(drag.handle, "handle")
        self.check_point(drag.target, "target")
        if drag.handle == drag.target:
            point = f"({drag.handle.x:g}, {drag.handle.y:g})"
            raise PointError(f"handle and target are both at {point}: put the target where the content should go")


def moved_inside(point: Point, size: Size) -> Point:
    """The nearest point within the centres of a picture's outermost pixels."""
    return Point(min(max(point.x, 0.0), size.width - 1.0), min(max(point.y, 0.0), size.height - 1.0))


def distance(one: Point, other: Point) -> float:
    """Euclidean distance in pixels of the picture."""
    return math.hypot(one.x - other.x, one.y - other.y)
