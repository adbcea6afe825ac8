"""The glide: content is warped a share of its way, a cell an iteration, before motion supervision takes over.

What a latent shows is warped, its noise stays: FastDrag (arXiv 2405.15769) does so in one step. DragDiffusion does not;
there, `DragSettings.warp_share` is 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from livedrag.editor.drag.handles import Handle, Handles, cell_and_offset, place
from livedrag.editor.drag.warp import WarpField, warp
from livedrag.editor.points import Drag, Point, Rasters, distance, moved_inside

SHORTEST = 0.01
"""Pixels of the picture that are no way to go."""


def has_way(handle: Handle, share: float) -> bool:
    """Whether content has not been warped yet as far as it should be."""
    return _way(handle, share) > SHORTEST


def glide(handles: Handles, share: float, rasters: Rasters) -> dict[str, Handle]:
    """The handles one step further: by one cell, the step of motion supervision, or by what is left of their way.

    Args:
        handles: where the content is.
        share: of the way from where content came from to its target, 0 to 1.
        rasters: of the picture.
    """
    pace = rasters.picture.width / rasters.columns
    return {
        name: _moved(handle, min(pace, _way(handle, share)), rasters) if has_way(handle, share) else handle
        for name, handle in handles.items()
    }


def warped(working: Image.Image, handles: Handles, mask: NDArray[np.bool_] | None, rasters: Rasters) -> Image.Image:
    """The picture with its content where the handles have been warped to.

    Args:
        working: the unedited picture, RGB, at the working size.
        handles: each with its `Handle.warp`.
        mask: at the working size, True may change; None: everything may.
        rasters: of the picture.
    """
    if mask is not None and not mask.any():  # what may change is smaller than a pixel here
        return working

    def at(point: Point) -> Point:
        return moved_inside(rasters.to_working(point), rasters.working)

    return warp(working, [Drag(at(handle.warp.handle), at(handle.warp.target)) for handle in handles.values()], mask)


def came_from(point: Point, handles: Handles, mask: NDArray[np.bool_] | None, rasters: Rasters) -> Point:
    """Where in the unedited picture the content was that the warp has put at a point; both in pixels of the picture.

    Args:
        mask: ``(H, W)`` at the picture's size.
    """
    if all(handle.warp.handle == handle.warp.target for handle in handles.values()):
        return point
    field = WarpField([handle.warp for handle in handles.values()], mask, rasters.picture)
    dx, dy = field.at(np.array(float(point.x)), np.array(float(point.y)))
    return moved_inside(Point(point.x + float(dx), point.y + float(dy)), rasters.picture)


def _way(handle: Handle, share: float) -> float:
    """Pixels that content is still to be warped."""
    whole = distance(handle.warp.handle, handle.target)
    return distance(handle.warp.target, handle.target) - (1 - share) * whole if share > 0 else 0.0


def _moved(handle: Handle, step: float, rasters: Rasters) -> Handle:
    now, content = handle.warp.target, place(handle, rasters)
    part = step / distance(now, handle.target)
    dx, dy = part * (handle.target.x - now.x), part * (handle.target.y - now.y)
    content = Point(content.x + dx, content.y + dy)
    cell, offset = cell_and_offset(content, rasters)
    return replace(handle, cell=cell, offset=offset, warp=Drag(handle.warp.handle, Point(now.x + dx, now.y + dy)))
