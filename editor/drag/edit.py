"""The user's edit: handle and target points, and the mask. May change between any two iterations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from livedrag.editor.drag.handles import Handle, Handles, current_position, new_handle
from livedrag.editor.drag.latent_warp import find_origin
from livedrag.editor.errors import PointError
from livedrag.editor.picture import check_mask, mask_to_latent, resize_mask, with_margin
from livedrag.editor.points import Drag, Point, Rasters


class Edit:
    """The drags and the mask of one picture.

    Args:
        rasters: of the picture.
        clean: the picture's latent, ``(1, 4, H/8, W/8)``; the latent mask has its size, dtype and device.

    Attributes:
        rasters: of the picture.
        handles: by the name of their drag.
        pins: places that hold still, in pixels of the picture.
        mask: ``(H, W)`` of the picture's size, True may change; None: everything may.
        latent_mask: the same at the latent's size, ``(1, 1, H/8, W/8)`` of 0 and 1.
        working_mask: the same at the size of the working picture.
    """

    def __init__(self, rasters: Rasters, clean: Tensor) -> None:
        self.rasters = rasters
        self._clean = clean
        self.handles: dict[str, Handle] = {}
        self.pins: tuple[Point, ...] = ()
        self.mask: NDArray[np.bool_] | None = None
        self.latent_mask: Tensor | None = None
        self.working_mask: NDArray[np.bool_] | None = None

    @property
    def drags(self) -> dict[str, Drag]:
        """By name: where the content is now, and its target, in pixels of the picture."""
        return {
            name: Drag(current_position(handle, self.rasters), handle.target) for name, handle in self.handles.items()
        }

    @property
    def moved(self) -> list[Drag]:
        """From where content was in the unedited picture to where it is, in pixels of the picture."""
        return [Drag(handle.warp.handle, current_position(handle, self.rasters)) for handle in self.handles.values()]

    @property
    def aimed(self) -> list[Drag]:
        """From where content was in the unedited picture to where it is to go, in pixels of the picture."""
        return [Drag(handle.warp.handle, handle.target) for handle in self.handles.values()]

    def add_drag(self, name: str, drag: Drag, *, edited: bool = False) -> None:
        """Place a handle and its target, on the unedited picture or on an ``edited`` one. Raises `PointError`."""
        self.rasters.check_drag(drag)
        self.handles[name] = new_handle(drag, self.rasters, origin=self._origin(drag), original=not edited)

    def set_target(self, name: str, target: Point) -> None:
        """Give a drag another target. Raises `PointError`."""
        self.rasters.check_point(target, "target")
        self.handles[name] = replace(self._handle(name), target=target, held=0, confirmed=False, lost=False, tries=0)

    def set_handle(self, name: str, handle: Point, *, edited: bool) -> None:
        """Place a drag's handle elsewhere; on an ``edited`` picture, a reset still goes back to the first place.

        Raises:
            PointError: there is no such drag, or the point is outside the picture or on the target.
        """
        before = self._handle(name)
        drag = Drag(handle, before.target)
        self.rasters.check_drag(drag)
        self.handles[name] = new_handle(
            drag,
            self.rasters,
            start=before.start if edited else None,
            origin=self._origin(drag),
            original=not edited,
        )

    def remove_drag(self, name: str) -> None:
        """Remove a drag. Raises `PointError` if there is none of this name."""
        self._handle(name)
        del self.handles[name]

    def reset(self) -> None:
        """All handles back to where they were placed."""
        self.handles = {
            name: new_handle(Drag(handle.start.handle, handle.target), self.rasters)
            for name, handle in self.handles.items()
        }

    def positions(self, handles: Handles) -> dict[str, Point]:
        """Where the content of each handle is, in pixels of the picture."""
        return {name: current_position(handle, self.rasters) for name, handle in handles.items()}

    def set_mask(self, mask: NDArray[np.generic] | None) -> None:
        """Set the editable area.

        Args:
            mask: ``(H, W)`` of the picture's size, nonzero may change; None: everything may.

        Raises:
            MaskError: it has another size, or nothing may change.
        """
        self.mask = self.latent_mask = self.working_mask = None
        if mask is not None:
            self.mask = check_mask(mask, self.rasters.picture)
            covered = with_margin(self.mask, self.rasters)
            self.latent_mask = mask_to_latent(covered, *self._clean.shape[-2:]).to(self._clean)
            self.working_mask = resize_mask(covered, self.rasters.working)

    def set_pins(self, pins: Iterable[Point]) -> None:
        """Set the places that hold still. Raises `PointError` for one outside the picture."""
        new = tuple(pins)
        for pin in new:
            self.rasters.check_point(pin, "pin")
        self.pins = new

    def require_drags(self) -> None:
        """Raise `PointError` if there is nothing to drag."""
        if not self.handles:
            raise PointError(
                "there is nothing to drag: place a handle on what should move and a target where it should go"
            )

    def _origin(self, drag: Drag) -> Point:
        """Where in the unedited picture the content at its handle comes from."""
        return find_origin(drag.handle, self.handles, self.mask, self.rasters, self.pins)

    def _handle(self, name: str) -> Handle:
        if name not in self.handles:
            names = ", ".join(map(repr, self.handles)) or "none"
            raise PointError(f"there is no drag {name!r}; there are: {names}")
        return self.handles[name]
