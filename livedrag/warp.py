"""The instant preview: a picture warped from handles to targets by a smooth displacement field, without a model.

The front end's ``warp.ts`` is the same function; ``tests/warp.json`` has test cases for both.

The field maps backwards: the warped picture shows at a point ``p`` what the picture has at ``p + d(p)``. At a target,
``d`` leads exactly to its handle; around it, ``d`` fades out over four quarters, each blunter across the drag than an
ellipse, slowly at first, so that what is near the handle keeps its shape. Without a mask they reach as far as the drag
is long, or somewhat further, but across a long drag no further than a share of the picture; with one, as far as it
goes, within limits: who paints what may change says what moves together. The quarters on the handle's side are never
so short that the picture folds over itself; within that limit, they end before the mask does.
Where several drags meet, the nearest weighs most (modified Shepard weights: compact, and exact at every target).

The idea of warping pixels backwards instead of using a model is Inpaint4Drag's (arXiv 2509.04582) and FastDrag's
(arXiv 2405.15769); the field is our own. It stands beside the editor so that the web process can use it without torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from livedrag.geometry import Drag, Size

Floats = NDArray[np.float64]

GRID = 128
"""Most cells along the picture's longest side in which the mask's depth is computed."""
MIN_REACH = 1 / 8
"""Smallest reach of a drag around its target, however short it is, as a share of the picture's longest side."""
FRONT, SIDE, BACK = 1.0, 1.25, 2.0
"""Reach in lengths of the drag: beyond the target, across, and towards the handle."""
MIN_BACK = 1.6
"""The same towards the handle if the mask or the picture ends early; below pi / 2, the steepest fall of the strength,
the picture would fold."""
WIDEST, WIDEST_SHARE = 3.0, 1 / 4
"""Reach at most where a mask says how far content may move along: in lengths of the drag, and as a share of the
picture's longest side. Further off, a long drag would pull along what merely lies beside the thing that moves, so the
share limits the reach across without a mask too."""
ROWS = 256
"""Rows of the picture that are warped at once, to limit memory."""


@dataclass(frozen=True)
class _Pull:
    """One drag as the field sees it; pixels of the picture.

    ``(x, y)`` is the target, ``(dx, dy)`` leads from there to the handle, in the direction of the unit vector
    ``(ux, uy)``. ``depth`` is how deep in the mask the drag has its full strength. Across the drag, the strength falls
    with the square of the share of the reach where the drag is ``blunt``: what is as wide as the reach keeps its shape.
    """

    x: float
    y: float
    dx: float
    dy: float
    ux: float
    uy: float
    front: float
    back: float
    left: float
    right: float
    depth: float
    blunt: bool


class WarpField:
    """The displacement field of a warp.

    Args:
        drags: the content at each handle shows at its target. A drag of no length keeps its content in place.
        mask: ``(H, W)`` at the size of the picture, True may change; None means everything may. The field is zero
            outside and falls to zero towards its edge. Content reaches its target only if that is about two cells (of
            `GRID`) inside; the picture surely doesn't fold if it is three times as far inside as its drag is long.
        size: of the picture.
    """

    def __init__(self, drags: Iterable[Drag], mask: NDArray[np.bool_] | None, size: Size) -> None:
        self._size = size
        grid = grid_size(size)
        self._cell = (size.width / grid.width, size.height / grid.height)
        self._depths = None if mask is None else _depths(open_cells(mask), self._cell)
        self._pulls = [self._pull(drag) for drag in drags]

    def at(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """The displacement ``(dx, dy)`` at points ``(x, y)``, all in pixels of the picture; arrays of one shape.

        It follows the backward mapping of Inpaint4Drag (arXiv 2509.04582) and the one-step warp of FastDrag
        (arXiv 2405.15769) in idea; the weights are our own.
        """
        depth = None if self._depths is None else self._depth_at(self._depths, x, y)
        total, dx, dy = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
        for pull in self._pulls:
            along = (x - pull.x) * pull.ux + (y - pull.y) * pull.uy
            across = (y - pull.y) * pull.ux - (x - pull.x) * pull.uy
            lengthwise, sideways = (
                np.where(along > 0, pull.back, pull.front),
                np.where(across > 0, pull.left, pull.right),
            )
            lengthwise, sideways = (along / lengthwise) ** 2, (across / sideways) ** 2
            strength = _fall(np.sqrt(lengthwise + (sideways**2 if pull.blunt else sideways)))
            if depth is not None:
                strength = strength * _rise(depth / pull.depth)
            weight = strength / np.maximum(lengthwise + sideways, 1e-12)
            total += weight
            dx += weight * strength * pull.dx
            dy += weight * strength * pull.dy
        total[total == 0] = 1
        return dx / total, dy / total

    def bounds(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what the field can move, in whole pixels; right and bottom excluded."""
        reach = [
            (pull.x, pull.y, math.hypot(max(pull.front, pull.back), max(pull.left, pull.right))) for pull in self._pulls
        ]
        if not reach:
            return (0, 0, 0, 0)
        return (
            max(0, math.floor(min(x - r for x, _, r in reach))),
            max(0, math.floor(min(y - r for _, y, r in reach))),
            min(self._size.width, math.ceil(max(x + r for x, _, r in reach)) + 1),
            min(self._size.height, math.ceil(max(y + r for _, y, r in reach)) + 1),
        )

    def _pull(self, drag: Drag) -> _Pull:
        x, y = drag.target.x, drag.target.y
        dx, dy = drag.handle.x - x, drag.handle.y - y
        length = math.hypot(dx, dy)
        least = MIN_REACH * max(self._size.width, self._size.height)
        # Content that stays in place, up to rounding, does so alike in every direction.
        moves = length > 1e-6
        ux, uy = (dx / length, dy / length) if moves else (1.0, 0.0)

        def reach(base: float, ux: float, uy: float) -> float:
            """In a direction, at least so far."""
            base = max(base, least)
            if self._depths is None or not moves:
                return base
            return max(base, self._room(x, y, ux, uy, self._widest(length)))

        back = least
        if moves:
            most = BACK * length if self._depths is None else max(BACK * length, self._widest(length))
            back = self._room(x, y, ux, uy, max(most, least))
        across = min(SIDE * length, WIDEST_SHARE * max(self._size.width, self._size.height))
        left, right = reach(across, -uy, ux), reach(across, uy, -ux)
        side = min(left, right)
        depth = side if self._depths is None else min(self._one_depth(x, y), side)
        return _Pull(
            x=x,
            y=y,
            dx=dx,
            dy=dy,
            ux=ux,
            uy=uy,
            front=reach(FRONT * length, -ux, -uy),
            back=max(MIN_BACK * length, back),
            left=left,
            right=right,
            depth=max(depth, math.hypot(*self._cell)),
            blunt=moves,
        )

    def _widest(self, length: float) -> float:
        """The furthest reach of a drag of this length within a mask."""
        return min(WIDEST * length, WIDEST_SHARE * max(self._size.width, self._size.height))

    def _room(self, x: float, y: float, ux: float, uy: float, most: float) -> float:
        """How far from (x, y) one can go in the direction (ux, uy) within picture and mask; at most ``most``."""
        for at, step, last in ((x, ux, self._size.width - 1), (y, uy, self._size.height - 1)):
            if step != 0:
                most = min(most, max(0.0, ((last if step > 0 else 0) - at) / step))
        if self._depths is None:
            return most
        stride = max(self._size.width, self._size.height) / GRID
        gone, depth = 0.0, self._one_depth(x, y)
        while depth > 0 and gone < most:
            further = min(gone + stride, most)
            next_depth = self._one_depth(x + ux * further, y + uy * further)
            if next_depth <= 0:
                return gone + (further - gone) * depth / (depth - next_depth)
            gone, depth = further, next_depth
        return gone

    def _one_depth(self, x: float, y: float) -> float:
        assert self._depths is not None
        return float(self._depth_at(self._depths, np.array(x), np.array(y)))

    def _depth_at(self, depths: Floats, x: Floats, y: Floats) -> Floats:
        """Bilinear between the centres of the cells."""
        rows, columns = depths.shape
        column = np.clip((x + 0.5) / self._cell[0] - 0.5, 0, columns - 1)
        row = np.clip((y + 0.5) / self._cell[1] - 0.5, 0, rows - 1)
        left, top = np.floor(column).astype(int), np.floor(row).astype(int)
        right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
        upper = depths[top, left] + (column - left) * (depths[top, right] - depths[top, left])
        lower = depths[bottom, left] + (column - left) * (depths[bottom, right] - depths[bottom, left])
        found: Floats = upper + (row - top) * (lower - upper)
        return found


def warp_picture(picture: Image.Image, drags: Iterable[Drag], mask: NDArray[np.bool_] | None) -> Image.Image:
    """The picture, smoothly warped from handles to targets within the mask.

    Args:
        picture: RGB, of any size.
        drags: handles and targets inside it, in its pixels.
        mask: ``(H, W)``, True may change; None means everything may. Outside, every pixel stays the same.

    Returns:
        A new RGB picture of the same size. Content from outside the picture repeats its border.
    """
    source = np.asarray(picture)
    field = WarpField(drags, mask, Size(picture.width, picture.height))
    warped = source.copy()
    left, first, right, last = field.bounds()
    for top in range(first, last, ROWS):
        bottom = min(top + ROWS, last)
        y, x = np.mgrid[top:bottom, left:right].astype(np.float64)
        dx, dy = field.at(x, y)
        warped[top:bottom, left:right] = _sample(source, x + dx, y + dy)
    return Image.fromarray(warped)


def grid_size(picture: Size) -> Size:
    """Columns and rows of the cells in which the mask's depth is computed."""
    longest = max(picture.width, picture.height)

    def side(length: int) -> int:
        return min(length, max(1, math.floor(length * GRID / longest + 0.5)))

    return Size(side(picture.width), side(picture.height))


def open_cells(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask ``(H, W)`` on its grid, ``(rows, columns)``: a cell is open where every pixel it touches may change."""
    height, width = mask.shape
    grid = grid_size(Size(width, height))
    closed = np.zeros((height + 1, width + 1), dtype=np.int64)
    closed[1:, 1:] = (~mask).cumsum(0).cumsum(1)

    def spans(cells: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        index = np.arange(cells)
        return index * length // cells, -((index + 1) * length // -cells)

    left, right = spans(grid.width, width)
    top, bottom = spans(grid.height, height)
    inside = closed[np.ix_(bottom, right)] - closed[np.ix_(top, right)]
    inside -= closed[np.ix_(bottom, left)] - closed[np.ix_(top, left)]
    opened: NDArray[np.bool_] = inside == 0
    return opened


def _depths(opened: NDArray[np.bool_], cell: tuple[float, float]) -> Floats | None:
    """Depth of each cell in the mask, in pixels: distance to the nearest closed cell's centre, minus a cell's diagonal.

    Because of the diagonal, the interpolated depth is never positive in a closed cell. None if no cell is closed.
    """
    if opened.all():
        return None
    rows, columns = opened.shape
    vertical = np.where(opened, np.inf, 0.0)
    for row in range(1, rows):
        vertical[row] = np.minimum(vertical[row], vertical[row - 1] + cell[1])
    for row in range(rows - 2, -1, -1):
        vertical[row] = np.minimum(vertical[row], vertical[row + 1] + cell[1])
    horizontal = (np.arange(columns)[:, None] - np.arange(columns)[None, :]) * cell[0]
    squared = (horizontal[None] ** 2 + vertical[:, None, :] ** 2).min(2)
    depths: Floats = np.sqrt(squared) - math.hypot(*cell)
    return depths


def _fall(away: Floats) -> Floats:
    """From 1 at 0 to 0 at 1 and beyond, once differentiable, nowhere steeper than pi / 2."""
    fallen: Floats = np.cos(np.minimum(away, 1) * (math.pi / 2)) ** 2
    return fallen


def _rise(part: Floats) -> Floats:
    """From 0 at 0 and below to 1 at 1 and above, once differentiable."""
    part = np.clip(part, 0, 1)
    return part * part * (3 - 2 * part)


def _sample(source: NDArray[np.uint8], x: Floats, y: Floats) -> NDArray[np.uint8]:
    """``(h, w, 3)``: the source ``(H, W, 3)`` at places ``(h, w)``, bilinear, its border repeated."""
    height, width = source.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    h, v = (x - left)[..., None], (y - top)[..., None]
    upper = source[top, left] * (1 - h) + source[top, right] * h
    lower = source[bottom, left] * (1 - h) + source[bottom, right] * h
    levels: NDArray[np.uint8] = np.round(upper * (1 - v) + lower * v).astype(np.uint8)
    return levels
