"""A document that continues an edit, from what its result says about how it was made."""

from __future__ import annotations

from msgspec.structs import replace

from livedrag.edit_metadata import EditMetadata
from livedrag.server.document.checks import (
    Refused,
    check_drag,
    check_drag_count,
    check_operation,
    check_prompt,
    check_setting,
)
from livedrag.server.document.protocol import Document, Drag, ModelInfo, Picture, RoomLimits, SetPin, Setting


def restored_document(metadata: EditMetadata, picture: Picture, model: ModelInfo, limits: RoomLimits) -> Document:
    """The drags, prompt, settings and pins at the end of an edit, on a picture of the same size; not the mask, a file.

    Args:
        model: in use, which says what settings there are.

    Raises:
        Refused: a room could not have them.
    """
    last = metadata.last
    if (picture.width, picture.height) != (metadata.picture.width, metadata.picture.height):
        raise Refused(
            "invalid",
            f"the picture has {picture.width} x {picture.height} pixels, but its metadata are of one of "
            f"{metadata.picture.width} x {metadata.picture.height}",
        )
    check_prompt(metadata.prompt, limits)
    check_drag_count(len(last.drags), limits)
    for drag in last.drags.values():
        check_drag(picture, drag.handle, drag.target)
    settings: dict[str, Setting] = {**(last.settings if metadata.runs else metadata.settings)}
    if metadata.preset:
        settings["preset"] = metadata.preset
    if metadata.seed:
        settings["seed"] = metadata.seed
    for name, value in settings.items():
        check_setting(model, name, value)
    drags = enumerate(last.drags.values(), 1)
    document = Document(
        picture=picture,
        drags={f"d{index}": Drag(handle=drag.handle, target=drag.target) for index, drag in drags},
        prompt=metadata.prompt,
        settings=settings,
    )
    for index, place in enumerate(last.pins.values(), 1):
        check_operation(document, SetPin(id=f"p{index}", at=place), model, limits, running=False)
        document = replace(document, pins={**document.pins, f"p{index}": place})
    return document
