"""The glide: content is warped a share of its way, a cell an iteration, before motion supervision takes over.

What a latent shows is warped, its noise stays: FastDrag (arXiv 2405.15769) does so in one step. DragDiffusion does not;
there, `DragSettings.warp_share` is 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editor.handles import Handle, Handles, place
from editor.points import Drag, Point, Rasters, distance
from editor.warp import WarpField, warp

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
    ends = ((handle.warp.handle, handle.warp.target) for handle in handles.values())
    return warp(working, [Drag(*(_at_working_size(end, rasters) for end in both)) for both in ends], mask)


def came_from(point: Point, handles: Handles, mask: NDArray[np.bool_] | None, rasters: Rasters) -> Point:
    """Where in the unedited picture the content was that the warp has put at a point; both in pixels of the picture.

    Args:
        mask: ``(H, W)`` at the picture's size.
    """
    if all(handle.warp.handle == handle.warp.target for handle in handles.values()):
        return point
    field = WarpField([handle.warp for handle in handles.values()], mask, rasters.picture)
    dx, dy = field.at(np.array(float(point.x)), np.array(float(point.y)))
    width, height = rasters.picture.width, rasters.picture.height
    return Point(min(max(point.x + float(dx), 0.0), width - 1.0), min(max(point.y + float(dy), 0.0), height - 1.0))


def _way(handle: Handle, share: float) -> float:
    """Pixels that content is still to be warped."""
    whole = distance(handle.warp.handle, handle.target)
    return distance(handle.warp.target, handle.target) - (1 - share) * whole if share > 0 else 0.0


def _moved(handle: Handle, step: float, rasters: Rasters) -> Handle:
    now, content = handle.warp.target, place(handle, rasters)
    part = step / distance(now, handle.target)
    dx, dy = part * (handle.target.x - now.x), part * (handle.target.y - now.y)
    content = Point(content.x + dx, content.y + dy)
    cell = rasters.nearest_cell(content)
    return replace(
        handle,
        cell=cell,
        offset=rasters.to_cell(content) - cell,
        warp=Drag(handle.warp.handle, Point(now.x + dx, now.y + dy)),
    )


def _at_working_size(point: Point, rasters: Rasters) -> Point:
    def along(place: float, picture: int, working: int) -> float:
        return min(max((place + 0.5) * working / picture - 0.5, 0.0), working - 1.0)

    return Point(
        along(point.x, rasters.picture.width, rasters.working.width),
        along(point.y, rasters.picture.height, rasters.working.height),
    )
