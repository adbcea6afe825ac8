"""The latent warp: content is warped a share of its way, one cell per iteration, before motion supervision takes over.

The clean latent is warped, its noise stays. FastDrag (arXiv 2405.15769) does this in one step; DragDiffusion does not:
there, `DragSettings.warp_share` is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from livedrag.editor.drag.handles import Handle, Handles, cell_and_offset, current_position
from livedrag.editor.drag.warp import WarpField, warp
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.picture import to_picture, to_tensor, to_working_tensor
from livedrag.editor.points import Drag, Point, Rasters, distance, moved_inside

MIN_DISTANCE = 0.01
"""A remaining distance below this, in pixels of the picture, counts as none."""


def needs_warp(handle: Handle, share: float) -> bool:
    """Whether content has not been warped yet as far as it should be."""
    return _distance_left(handle, share) > MIN_DISTANCE


def is_where_warped(handle: Handle, share: float, rasters: Rasters) -> bool:
    """Whether content has been warped as far as it should be, and its handle is still where the warp has put it."""
    warp = handle.warp
    if share == 0 or warp.handle == warp.target or needs_warp(handle, share):
        return False
    return distance(current_position(handle, rasters), warp.target) < MIN_DISTANCE


def is_warped_to_targets(handles: Handles) -> bool:
    """Whether the warp has put all content where it should go."""
    return all(distance(handle.warp.target, handle.target) < MIN_DISTANCE for handle in handles.values())


def advance(handles: Handles, share: float, rasters: Rasters) -> dict[str, Handle]:
    """The handles one warp step further: by one cell, as with motion supervision, or by the distance left.

    Args:
        handles: where the content is.
        share: of the way from where content came from to its target, 0 to 1.
        rasters: of the picture.
    """
    cell = rasters.picture.width / rasters.columns
    return {
        name: _moved(handle, min(cell, _distance_left(handle, share)), rasters) if needs_warp(handle, share) else handle
        for name, handle in handles.items()
    }


def warp_picture(
    working: Image.Image,
    handles: Handles,
    mask: NDArray[np.bool_] | None,
    rasters: Rasters,
    pins: Iterable[Point] = (),
) -> Image.Image:
    """The picture with its content where the handles have been warped to.

    Args:
        working: the unedited picture, RGB, at the working size.
        handles: each with its `Handle.warp`.
        mask: at the working size, True may change; None: everything may.
        rasters: of the picture.
        pins: places that hold still, in pixels of the picture.
    """
    if mask is not None and not mask.any():  # the editable area is smaller than a pixel here
        return working
    return warp(working, working_drags(handles, rasters, pins), mask)


def working_drags(handles: Handles, rasters: Rasters, pins: Iterable[Point] = ()) -> list[Drag]:
    """Where content came from and where it has been moved to, in pixels of the working picture; pins stay."""

    def at(point: Point) -> Point:
        return moved_inside(rasters.to_working(point), rasters.working)

    moved = [Drag(at(handle.warp.handle), at(handle.warp.target)) for handle in handles.values()]
    return [*moved, *(Drag(at(pin), at(pin)) for pin in pins)]


def find_origin(
    point: Point, handles: Handles, mask: NDArray[np.bool_] | None, rasters: Rasters, pins: Iterable[Point] = ()
) -> Point:
    """Where in the unedited picture the content was that the warp has moved to a point; both in pixels of the picture.

    Args:
        point: in the warped picture.
        handles: that were warped.
        mask: ``(H, W)`` of the picture's size, True may change; None: everything may.
        rasters: of the picture.
        pins: that held still.
    """
    if all(handle.warp.handle == handle.warp.target for handle in handles.values()):
        return point
    held = [Drag(pin, pin) for pin in pins]
    field = WarpField([*(handle.warp for handle in handles.values()), *held], mask, rasters.picture)
    dx, dy = field.at(np.array(float(point.x)), np.array(float(point.y)))
    return moved_inside(Point(point.x + float(dx), point.y + float(dy)), rasters.picture)


class LatentWarp:
    """Warps the unedited picture and encodes the outcome, for one session.

    Args:
        model: encodes.
        picture: that is edited, RGB.
        rasters: of the picture.
    """

    def __init__(self, model: Diffusion, picture: Image.Image, rasters: Rasters) -> None:
        self._model, self._picture, self._rasters = model, picture, rasters
        self._encoded: tuple[Image.Image, Tensor] | None = None

    @cached_property
    def working(self) -> Image.Image:
        """The unedited picture at the working size."""
        return to_picture(to_working_tensor(self._picture, self._rasters))

    def change(
        self, before: Handles, after: Handles, mask: NDArray[np.bool_] | None, pins: Sequence[Point] = ()
    ) -> Tensor:
        """How the clean latent changes from one warp to the next, ``(1, 4, H/8, W/8)``; see `warp_picture`."""
        old, new = (
            self._encode(warp_picture(self.working, handles, mask, self._rasters, pins)) for handles in (before, after)
        )
        return new - old

    def _encode(self, working: Image.Image) -> Tensor:
        """The clean latent of a picture; the last one is cached, since the next step begins with it."""
        if self._encoded is None or self._encoded[0] != working:
            self._encoded = working, self._model.encode(to_tensor(working, self._rasters.working))
        return self._encoded[1]


def _distance_left(handle: Handle, share: float) -> float:
    """Pixels that content is still to be warped."""
    whole = distance(handle.warp.handle, handle.target)
    return distance(handle.warp.target, handle.target) - (1 - share) * whole if share > 0 else 0.0


def _moved(handle: Handle, step: float, rasters: Rasters) -> Handle:
    warped, content = handle.warp.target, current_position(handle, rasters)
    part = step / distance(warped, handle.target)
    dx, dy = part * (handle.target.x - warped.x), part * (handle.target.y - warped.y)
    content = Point(content.x + dx, content.y + dy)
    cell, offset = cell_and_offset(content, rasters)
    end = Point(warped.x + dx, warped.y + dy)
    return replace(handle, cell=cell, offset=offset, warp=Drag(handle.warp.handle, end))
