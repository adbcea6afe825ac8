"""Following a desired state: the calls on a session that apply the difference to the one before."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from livedrag.editor.drag.session import DragSession
from livedrag.editor.errors import MaskError
from livedrag.editor.points import Drag, Point
from livedrag.editor.settings import Setting

XY = tuple[float, float]


class PlacedDrag(Protocol):
    """A drag, in pixels of the picture. ``handle_version`` grows each time its handle is placed."""

    @property
    def handle(self) -> XY:
        """Where its content is."""

    @property
    def target(self) -> XY:
        """Where that should go."""

    @property
    def handle_version(self) -> int:
        """How often the handle was placed."""


class DesiredState(Protocol):
    """What a session should have."""

    @property
    def drags(self) -> Mapping[str, PlacedDrag]:
        """By name."""

    @property
    def mask(self) -> bytes | None:
        """A PNG, white may change; None: everything may."""

    @property
    def pins(self) -> Mapping[str, XY]:
        """By name."""


def changes(
    session: DragSession, before: DesiredState, desired: DesiredState, settings: Mapping[str, Setting]
) -> Iterator[Callable[[], None]]:
    """The calls after which a session that followed ``before`` follows ``desired``; each may raise `EditorError`.

    Args:
        settings: those that differ, by name.
    """
    for id in session.drags.keys() - desired.drags.keys():
        yield partial(session.remove_drag, id)
    for id, drag in desired.drags.items():
        yield from _drag_changes(session, id, before.drags.get(id), drag)
    if desired.mask != before.mask:
        yield lambda: session.set_mask(read_mask(desired.mask))
    if desired.pins != before.pins:
        yield lambda: session.set_pins([Point(*place) for place in desired.pins.values()])
    if settings:
        yield partial(session.change, settings)


def _drag_changes(
    session: DragSession, id: str, old: PlacedDrag | None, new: PlacedDrag
) -> Iterator[Callable[[], None]]:
    drag = Drag(Point(*new.handle), Point(*new.target))
    if old is None or id not in session.drags:
        yield partial(session.add_drag, id, drag)
        return
    placed = (old.handle, old.handle_version) != (new.handle, new.handle_version)
    aimed = old.target != new.target
    if placed and aimed:  # one after the other, the handle could come to lie on the old target
        yield partial(session.remove_drag, id)
        yield partial(session.add_drag, id, drag)
    elif placed:
        yield partial(session.set_handle, id, drag.handle)
    elif aimed:
        yield partial(session.set_target, id, drag.target)


def read_mask(png: bytes | None) -> NDArray[np.uint8] | None:
    """``(H, W)``, nonzero may change. Raises `MaskError` where nothing may."""
    mask = None if png is None else np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    if mask is not None and not mask.any():
        raise MaskError("the mask lets nothing change: paint a region or clear the mask")
    return mask
