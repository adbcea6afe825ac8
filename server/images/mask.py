"""Rasterising masks: layers in, a black and white picture out. White may change."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageChops, ImageDraw

from livedrag.pictures import threshold
from livedrag.server.document.protocol import XY, Grow, Invert, MaskLayer, Raster, Stroke
from livedrag.server.document.strokes import drawn_radius

DIRECTIONS = [eighth * math.pi / 4 for eighth in range(8)]


def rasterise(layers: Sequence[MaskLayer], size: tuple[int, int], load: Callable[[str], Image.Image]) -> Image.Image:
    """Draw the layers in their order.

    Args:
        layers: strokes and loaded masks; none means that everything may change.
        size: width and height of the uploaded picture in pixels.
        load: opens a loaded mask by its SHA-256.

    Returns:
        A picture in mode ``L`` of that size: 255 may change, 0 may not.
    """
    mask = Image.new("L", size, 255 if starts_white(layers) else 0)
    for layer in layers:
        match layer:
            case Raster(sha256=sha256):
                mask.paste(threshold(load(sha256)))
            case Stroke(fill=True):
                _fill(mask, layer.points, 255 if layer.mode == "paint" else 0)
            case Stroke():
                _draw(
                    ImageDraw.Draw(mask), layer.points, drawn_radius(layer, size), 255 if layer.mode == "paint" else 0
                )
            case Invert():
                mask = ImageChops.invert(mask)
            case Grow(pixels=pixels) if pixels >= 0:
                mask = _grown(mask, pixels)
            case Grow(pixels=pixels):
                mask = ImageChops.invert(_grown(ImageChops.invert(mask), -pixels))
    return mask


def starts_white(layers: Sequence[MaskLayer]) -> bool:
    """Whether the layers are drawn on white: if there are none, or the first one that paints erases."""
    first = next((layer for layer in layers if not isinstance(layer, Grow)), None)
    return first is None or (isinstance(first, Stroke) and first.mode == "erase")


def lets_nothing_change(mask: Image.Image) -> bool:
    """Whether a mask in mode ``L`` is all black."""
    return mask.getbbox() is None


def _draw(draw: ImageDraw.ImageDraw, points: Sequence[XY], radius: float, value: int) -> None:
    """One stroke with round caps and joints."""
    for segment in itertools.pairwise(points):  # one at a time, or other threads would wait for all of them
        draw.line(segment, fill=value, width=max(1, round(2 * radius)))
    for x, y in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)


def _fill(mask: Image.Image, points: Sequence[XY], value: int) -> None:
    """The inside of a polygon, even-odd."""
    if len(points) > 2:
        ImageDraw.Draw(mask).polygon(list(points), fill=value)


def _grown(mask: Image.Image, pixels: float) -> Image.Image:
    """White widened by ``pixels``: by a half of them, a quarter and so on, each time in eight directions."""
    step = pixels / 2
    while (radius := int(step + 0.5)) > 0:
        shifts = {(round(radius * math.cos(a)), round(radius * math.sin(a))) for a in DIRECTIONS}
        mask = functools.reduce(ImageChops.lighter, [_shifted(mask, shift) for shift in sorted(shifts)], mask)
        step /= 2
    return mask


def _shifted(mask: Image.Image, shift: tuple[int, int]) -> Image.Image:
    moved = Image.new("L", mask.size, 0)
    moved.paste(mask, shift)
    return moved
