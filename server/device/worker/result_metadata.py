"""What a room's result says about how it was made."""

from __future__ import annotations

import io

from PIL import Image

from livedrag.edit_metadata import EditMetadata, EditRun, EditState, PlacedDrag, SourcePicture
from livedrag.editor import DragSession
from livedrag.picture_metadata import encode_mask
from livedrag.server.device.edit_log import EditLog, LoggedState
from livedrag.server.device.messages import DesiredState
from livedrag.server.device.worker.room_settings import ModelSettings, service_setting
from livedrag.software import software


def to_metadata(
    log: EditLog, session: DragSession, desired: DesiredState, settings: ModelSettings, picture: str
) -> EditMetadata:
    """How the session's result was made.

    Args:
        desired: that the session follows.
        settings: reads those of rooms.
        picture: SHA-256 of the stored PNG.
    """
    model, masks, states = session.model, dict[bytes, bytes](), log.states

    def to_state(state: LoggedState) -> EditState:
        if state.mask is not None and state.mask not in masks:
            masks[state.mask] = encode_mask(Image.open(io.BytesIO(state.mask)))
        return EditState(
            state.at,
            {name: PlacedDrag(drag.handle, drag.target, drag.handle_version) for name, drag in state.drags.items()},
            None if state.mask is None else masks[state.mask],
            state.pins,
            settings.differing(state.settings),
        )

    return EditMetadata(
        software=software(),
        picture=SourcePicture(session.picture_hash, picture, *session.picture.size),
        weights=tuple(origin.weights for origin in model.origins),
        preset=str(desired.settings.get("preset", "")),
        settings=settings.differing((states[0] if states else desired).settings),
        seed=service_setting(desired, "seed"),
        prompt=desired.prompt,
        runs=tuple(EditRun(tuple(map(to_state, run.states)), run.steps, run.done) for run in log.runs),
        final=tuple(map(to_state, log.pending)),
        preview_every=service_setting(desired, "preview_every"),
        device=model.kind_of_device,
        branch=session.timeline.current,
        room=desired.room,
        inexact=tuple(dict.fromkeys((*log.problems, *model.low_memory.problems))),
    )
