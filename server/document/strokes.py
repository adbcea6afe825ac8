"""What the strokes of a mask cost to rasterise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from livedrag.server.document.protocol import XY, Grow, MaskLayer, Stroke

MAX_STROKE_WORK = 5e9
"""Pixels that rasterising one stroke may write: about 3 seconds."""


def effective_radius(stroke: Stroke) -> float:
    """The distance from its middle, in pixels, within which a soft stroke has at least half its strength."""
    return stroke.radius * (1 - stroke.softness / 2)


def drawn_radius(stroke: Stroke, size: tuple[int, int]) -> float:
    """The radius in pixels to draw a stroke with: beyond twice the diagonal a larger one shows no difference."""
    return min(effective_radius(stroke), 2 * math.hypot(*size))


def stroke_work(stroke: Stroke, size: tuple[int, int]) -> float:
    """Pixels that drawing a stroke writes, estimated: a disc for each point and a bar for each segment."""
    if stroke.fill:
        return size[0] * size[1]
    radius = drawn_radius(stroke, size)
    discs = sum(_covered(point, point, radius, size) for point in stroke.points)
    return discs + sum(_covered(start, end, radius, size) for start, end in itertools.pairwise(stroke.points))


def max_stroke_work(stroke: Stroke, size: tuple[int, int]) -> float:
    """What `stroke_work` is at most, found ten times as fast: only strokes beyond the picture's edges differ much."""
    points, area = stroke.points, size[0] * size[1]
    if stroke.fill:
        return area
    width = 2 * (drawn_radius(stroke, size) + 1)
    length = sum(map(math.dist, points, points[1:]))
    discs = min(len(points) * area, len(points) * width**2)
    return discs + min((len(points) - 1) * area, width * (length + (len(points) - 1) * width))


def is_too_much_work(stroke: Stroke, size: tuple[int, int]) -> bool:
    """Whether drawing a stroke writes more than `MAX_STROKE_WORK`."""
    return max_stroke_work(stroke, size) > MAX_STROKE_WORK and stroke_work(stroke, size) > MAX_STROKE_WORK


def max_rasterising_work(layers: Sequence[MaskLayer], size: tuple[int, int]) -> float:
    """Pixels that rasterising layers writes, at most."""
    area = size[0] * size[1]
    return sum(_layer_work(layer, size, area) for layer in layers)


def _layer_work(layer: MaskLayer, size: tuple[int, int], area: float) -> float:
    if isinstance(layer, Stroke):
        return max_stroke_work(layer, size)
    if isinstance(layer, Grow):  # eight copies for each halving
        return 8 * area * math.log2(2 + abs(layer.pixels))
    return area


def _covered(start: XY, end: XY, radius: float, size: tuple[int, int]) -> float:
    """The area that a bar around a segment covers, at most: what its bounding box has of the picture, or its own."""
    (x0, y0), (x1, y1) = start, end
    width = min(max(x0, x1) + radius, size[0]) - max(min(x0, x1) - radius, 0)
    height = min(max(y0, y1) + radius, size[1]) - max(min(y0, y1) - radius, 0)
    bar = 2 * (radius + 1) * (math.hypot(x1 - x0, y1 - y0) + 2 * radius + 1)
    return min(max(width, 0) * max(height, 0), bar)
