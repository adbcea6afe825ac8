"""Points, drags, and the only conversions between picture pixels and feature cells.

Three rasters cover the same picture, each with its origin at the centre of its top left sample:

* the *picture* as uploaded, ``(x, y)`` in pixels, which all code outside the editor uses;
* the *working picture*, which the model sees;
* the *cells*, ``(row, column)`` at half the working resolution, on which DragDiffusion supervises and tracks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from livedrag.editor.errors import PictureError, PointError
from livedrag.geometry import Drag, Point, Size
from livedrag.limits import MAX_ASPECT

__all__ = ["Cell", "Drag", "Point", "Rasters", "Size", "check_aspect", "distance", "moved_inside", "working_size"]

NO_MARGIN = Size(0, 0)

AREA_COST = 0.1
"""How much a working picture of another area than the native one counts, against one of another aspect."""


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
        margin: what the working picture shows beyond the right and the lower border, in pixels of the picture.
    """

    picture: Size
    working: Size
    margin: Size = NO_MARGIN

    @classmethod
    def fit(cls, picture: Size, native_side: int, stride: int) -> Rasters:
        """The rasters of a picture, without stretching it: about the model's native area, sides multiples of
        ``stride``, and a margin of at most 2 % that makes up for it.

        Args:
            picture: the uploaded picture.
            native_side: side in pixels of the square pictures that the model was trained on.
            stride: pixels of the working picture per latent cell, along a side.

        Raises:
            PictureError: the picture is too narrow.
        """
        working = working_size(picture, native_side, stride)
        scale = max(picture.width / working.width, picture.height / working.height)
        covered = Size(round(working.width * scale), round(working.height * scale))
        return cls(picture, working, Size(covered.width - picture.width, covered.height - picture.height))

    @property
    def covered(self) -> Size:
        """The picture with its margin, which is what the working picture shows."""
        return Size(self.picture.width + self.margin.width, self.picture.height + self.margin.height)

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
            (point.y + 0.5) * self.rows / self.covered.height - 0.5,
            (point.x + 0.5) * self.columns / self.covered.width - 0.5,
        )

    def to_point(self, cell: Cell) -> Point:
        """The point of the picture under a (fractional) cell."""
        return Point(
            (cell.column + 0.5) * self.covered.width / self.columns - 0.5,
            (cell.row + 0.5) * self.covered.height / self.rows - 0.5,
        )

    def to_working(self, point: Point) -> Point:
        """The point of the working picture under a point of the picture."""
        return Point(
            (point.x + 0.5) * self.working.width / self.covered.width - 0.5,
            (point.y + 0.5) * self.working.height / self.covered.height - 0.5,
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


def check_aspect(picture: Size) -> None:
    """Raise `PictureError` if a picture is empty, or narrower than `livedrag.limits.MAX_ASPECT` to 1."""
    short, long = sorted((picture.width, picture.height))
    if short < 1 or long > MAX_ASPECT * short:
        raise PictureError(
            f"a picture of {picture} pixels is too narrow to edit: its sides must be at most {MAX_ASPECT} to 1"
        )


def working_size(picture: Size, native_side: int, stride: int) -> Size:
    """The size of the working picture: sides that are multiples of ``stride``, about the model's native area, and as
    nearly the picture's aspect as such sides have it.

    Args:
        picture: the uploaded picture.
        native_side: side in pixels of the square pictures that the model was trained on.
        stride: pixels of the working picture per latent cell, along a side.

    Raises:
        PictureError: the picture is too narrow.
    """
    check_aspect(picture)
    aspect = picture.width / picture.height
    ideal = native_side / math.sqrt(aspect)

    def cost(size: Size) -> float:
        stretch = abs(math.log(size.width / size.height / aspect))
        return stretch + AREA_COST * abs(math.log(size.width * size.height / native_side**2))

    heights = range(max(1, math.floor(0.9 * ideal / stride)), math.ceil(1.1 * ideal / stride) + 1)
    sizes = [Size(max(1, round(rows * aspect)) * stride, rows * stride) for rows in heights]
    return min(sizes, key=cost)


def moved_inside(point: Point, size: Size) -> Point:
    """The nearest point within the centres of a picture's outermost pixels."""
    return Point(min(max(point.x, 0.0), size.width - 1.0), min(max(point.y, 0.0), size.height - 1.0))


def distance(one: Point, other: Point) -> float:
    """Euclidean distance in pixels of the picture."""
    return math.hypot(one.x - other.x, one.y - other.y)
