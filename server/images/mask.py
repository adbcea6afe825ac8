"""The one rasteriser of masks: layers in, a black and white picture out. White may change."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from PIL import Image, ImageChops, ImageDraw

from livedrag.server.document.protocol import XY, Invert, MaskLayer, Raster, Stroke

THRESHOLD = 128
"""A loaded mask lets a pixel change from this grey value on."""


def rasterise(layers: Sequence[MaskLayer], size: tuple[int, int], load: Callable[[str], Image.Image]) -> Image.Image:
    """Draw the layers in their order.

    Args:
        layers: strokes and loaded masks; none at all mean that everything may change.
        size: width and height of the uploaded picture in pixels.
        load: opens a loaded mask by its sha256.

    Returns:
        A picture in mode ``L`` of that size: 255 may change, 0 may not.
    """
    mask = Image.new("L", size, 255 if begins_white(layers) else 0)
    for layer in layers:
        match layer:
            case Raster(sha256=sha256):
                mask.paste(threshold(load(sha256)))
            case Stroke():
                _draw(ImageDraw.Draw(mask), layer.points, half_on(layer), 255 if layer.mode == "paint" else 0)
            case Invert():
                mask = ImageChops.invert(mask)
    return mask


def half_on(stroke: Stroke) -> float:
    """How far from its middle a stroke is at least half on, in pixels; it fades over the soft part of its radius."""
    return stroke.radius * (1 - stroke.softness / 2)


def begins_white(layers: Sequence[MaskLayer]) -> bool:
    """Whether the layers are drawn on white: without any, and where the first takes something away."""
    return not layers or (isinstance(layers[0], Stroke) and layers[0].mode == "erase")


def lets_nothing_change(mask: Image.Image) -> bool:
    """Whether a mask in mode ``L`` is black all over."""
    return mask.getbbox() is None


def threshold(picture: Image.Image) -> Image.Image:
    """Black and white in mode ``L``, whatever the mode of the picture."""
    return picture.convert("L").point(lambda value: 255 if value >= THRESHOLD else 0)


def to_png(picture: Image.Image) -> bytes:
    """The picture as a PNG without metadata; quick rather than small."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _draw(draw: ImageDraw.ImageDraw, points: Sequence[XY], radius: float, value: int) -> None:
    """One stroke with round caps and joints."""
    if len(points) > 1:
        draw.line(points, fill=value, width=max(1, round(2 * radius)))
    for x, y in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)
