"""Encoding of pictures: PNG for results, small WebP or JPEG files for previews."""

from __future__ import annotations

import io
from typing import Literal

from PIL import Image

from livedrag.edit_metadata import EditMetadata
from livedrag.picture_metadata import save_png

PREVIEW_QUALITY = 80
"""Of WebP and JPEG, out of 100."""


def encode_png(picture: Image.Image, metadata: EditMetadata | None = None) -> bytes:
    """The picture as a PNG, encoded for speed rather than size; with how it was made, if that is given."""
    buffer = io.BytesIO()
    save_png(picture, buffer, metadata, compress_level=1)
    return buffer.getvalue()


def encode_preview(picture: Image.Image, format: Literal["webp", "jpeg"]) -> bytes:
    """The picture in a lossy format, with the settings that are fastest to encode."""
    buffer = io.BytesIO()
    if format == "webp":
        picture.save(buffer, "WEBP", quality=PREVIEW_QUALITY, method=0)
    else:
        picture.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return buffer.getvalue()


def shrink(picture: Image.Image, longest_side: int) -> Image.Image:
    """The picture itself if its longest side is at most so many pixels, else a smaller copy of the same shape."""
    if max(picture.size) <= longest_side:
        return picture
    small = picture.copy()
    small.thumbnail((longest_side, longest_side), reducing_gap=2.0)
    return small
