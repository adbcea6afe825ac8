"""The quick preview at full size: the uploaded picture warped from handles to targets, without a model."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from livedrag import geometry
from livedrag.server.document.protocol import Drag
from livedrag.server.images.encoding import encode_png
from livedrag.warp import warp_picture


def quick_preview(picture: Path, drags: Iterable[Drag], mask: bytes | None) -> bytes:
    """The same field as the page's, as a PNG of the picture's size.

    Args:
        picture: the uploaded picture.
        drags: in pixels of it.
        mask: a PNG of its size, white may change; None means everything may.

    Raises:
        OSError: the picture or the mask cannot be read.
    """
    with Image.open(picture) as opened:
        rgb = opened.convert("RGB")
    editable = None if mask is None else np.asarray(Image.open(io.BytesIO(mask)).convert("L")) > 0
    ends = [geometry.Drag(geometry.Point(*drag.handle), geometry.Point(*drag.target)) for drag in drags]
    return encode_png(warp_picture(rgb, ends, editable))
