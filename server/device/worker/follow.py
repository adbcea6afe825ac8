"""The desired state of a room, as its session has it; `livedrag.editor.drag.following` applies it."""

from __future__ import annotations

import msgspec

from livedrag.editor import DragSession
from livedrag.server.device.messages import DesiredState, PlacedDrag


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
