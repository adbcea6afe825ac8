"""Rasterising masks: layers in, a black and white picture out. White may change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from PIL import Image, ImageChops, ImageDraw

from livedrag.pictures import threshold
from livedrag.server.document.protocol import XY, Invert, MaskLayer, Raster, Stroke
from livedrag.server.document.strokes import drawn_radius


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
            case Stroke():
                _draw(
                    ImageDraw.Draw(mask), layer.points, drawn_radius(layer, size), 255 if layer.mode == "paint" else 0
                )
            case Invert():
                mask = ImageChops.invert(mask)
    return mask


def starts_white(layers: Sequence[MaskLayer]) -> bool:
    """Whether the layers are drawn on white: if there are none, or the first one erases."""
    return not layers or (isinstance(layers[0], Stroke) and layers[0].mode == "erase")


def lets_nothing_change(mask: Image.Image) -> bool:
    """Whether a mask in mode ``L`` is all black."""
    return mask.getbbox() is None


def _draw(draw: ImageDraw.ImageDraw, points: Sequence[XY], radius: float, value: int) -> None:
    """One stroke with round caps and joints."""
    for segment in itertools.pairwise(points):  # one at a time, or other threads would wait for all of them
        draw.line(segment, fill=value, width=max(1, round(2 * radius)))
    for x, y in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)
