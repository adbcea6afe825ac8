"""The instant preview as the editor uses it: `livedrag.warp` with its arguments checked."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from livedrag import warp as unchecked
from livedrag.editor.picture import check_mask
from livedrag.editor.points import Drag, Rasters, Size


class WarpField(unchecked.WarpField):
    """The displacement field of a warp, see `livedrag.warp.WarpField`.

    Args:
        drags: the content at each handle shows at its target.
        mask: ``(H, W)``, nonzero may change; None means everything may.
        size: of the picture.

    Raises:
        MaskError: the mask is not of the picture's size.
    """

    def __init__(self, drags: Iterable[Drag], mask: NDArray[np.generic] | None, size: Size) -> None:
        super().__init__(drags, None if mask is None else check_mask(mask, size), size)


def warp(picture: Image.Image, drags: Iterable[Drag], mask: NDArray[np.generic] | None = None) -> Image.Image:
    """An estimate of an edit's result: the picture, smoothly warped from handles to targets within the mask.

    Args:
        picture: of any size; converted to RGB.
        drags: handles and targets, in pixels of the picture.
        mask: ``(H, W)``, nonzero may change; None means everything may. Outside, every pixel stays the same.

    Returns:
        A new RGB picture of the same size. Content from outside the picture repeats its border.

    Raises:
        PointError: a handle or target is outside the picture.
        MaskError: the mask is not of the picture's size.
    """
    size = Size(picture.width, picture.height)
    drags = list(drags)
    for drag in drags:
        Rasters(size, size).check_point(drag.handle, "handle")
        Rasters(size, size).check_point(drag.target, "target")
    checked = None if mask is None else check_mask(mask, size)
    return unchecked.warp_picture(picture.convert("RGB"), drags, checked)
