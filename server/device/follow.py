"""Following a desired state: the calls on a session that apply the difference."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import msgspec
import numpy as np
from PIL import Image

from livedrag.editor import Drag, DragSession, MaskError, Point
from livedrag.server.device.engine import DesiredState, PlacedDrag
from livedrag.server.document.protocol import Setting


def changes(
    session: DragSession, before: DesiredState, desired: DesiredState, settings: Mapping[str, Setting]
) -> Iterator[Callable[[], None]]:
    """The calls after which a session that followed ``before`` follows ``desired``.

    Args:
        settings: the editor's settings that differ.
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


def placed_drags(session: DragSession, desired: DesiredState) -> dict[str, PlacedDrag]:
    """The session's drags as a desired state has them; handles that the room has too are the room's."""
    return {
        id: PlacedDrag(
            handle=desired.drags[id].handle if id in desired.drags else (drag.handle.x, drag.handle.y),
            target=(drag.target.x, drag.target.y),
            handle_version=desired.drags[id].handle_version if id in desired.drags else 0,
        )
        for id, drag in session.drags.items()
    }


def without_drags(desired: DesiredState) -> DesiredState:
    """What a new session follows, which has neither drags nor a mask nor pins yet."""
    return msgspec.structs.replace(desired, drags={}, mask=None, pins={})


def read_mask(png: bytes | None) -> np.ndarray | None:
    """``(H, W)``, nonzero may change. Raises `MaskError` where nothing may."""
    mask = None if png is None else np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    if mask is not None and not mask.any():
        raise MaskError("the mask lets nothing change: paint a region or clear the mask")
    return mask
