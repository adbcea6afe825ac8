"""The operations of an edit, and what the server makes of an undo."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from livedrag.server.document.protocol.base import XY, Count, Growth, Id, Record, Setting, Title
from livedrag.server.document.protocol.model import BranchMark, Content, MaskLayer, ModelChoice, Stroke
from livedrag.server.settings import MAX_PROMPT_LENGTH


class AddDrag(Record, frozen=True, kw_only=True, tag="add_drag"):
    """Add a handle and its target, under an ``id`` of the client's choice."""

    id: Id
    handle: XY
    target: XY


class MoveDrag(Record, frozen=True, kw_only=True, tag="move_drag"):
    """Move the ``target``, the ``handle`` or both. During a run it takes effect at the next iteration."""

    id: Id
    handle: XY | None = None
    target: XY | None = None


class RemoveDrag(Record, frozen=True, kw_only=True, tag="remove_drag"):
    """Remove a handle and its target."""

    id: Id


class AddStroke(Record, frozen=True, kw_only=True, tag="add_stroke"):
    """Paint or erase the mask."""

    stroke: Stroke


class RemoveStroke(Record, frozen=True, kw_only=True, tag="remove_stroke"):
    """Remove one layer of the mask: a stroke, an inversion or a loaded mask."""

    id: Id


class InvertMask(Record, frozen=True, kw_only=True, tag="invert_mask"):
    """Swap editable and protected areas; ``id`` names the new layer."""

    id: Id


class GrowMask(Record, frozen=True, kw_only=True, tag="grow_mask"):
    """Move the border of the editable area outwards by ``pixels``, inwards if negative; ``id`` names the new layer."""

    id: Id
    pixels: Growth


class ClearMask(Record, frozen=True, kw_only=True, tag="clear_mask"):
    """Remove all layers of the mask, so that the whole picture is editable."""


class SetPrompt(Record, frozen=True, kw_only=True, tag="set_prompt"):
    """Describe the picture. Not during a run; the picture is then prepared again."""

    prompt: Annotated[str, Meta(max_length=MAX_PROMPT_LENGTH)]


class SetSettings(Record, frozen=True, kw_only=True, tag="set_settings"):
    """Change settings by name; null restores the model's default."""

    settings: dict[Id, Setting | None]


class MarkBranch(Record, frozen=True, kw_only=True, tag="mark_branch"):
    """Name the branch of the timeline that ``moment`` is on, or remove it from the list; null clears the mark.

    ``moment`` is the branch's last one, or the one that already has a mark.
    """

    moment: Count
    mark: BranchMark | None = None


class SetPin(Record, frozen=True, kw_only=True, tag="set_pin"):
    """Add or move a pin, whose place is held still while something is dragged; null removes it."""

    id: Id
    at: XY | None = None


class SetTitle(Record, frozen=True, kw_only=True, tag="set_title"):
    """Name the room; an empty title is none."""

    title: Title


class SetModel(Record, frozen=True, kw_only=True, tag="set_model"):
    """Edit with another model, other LoRAs or another autoencoder. Not during a run.

    The answer comes when the model is loaded, which may take a minute; ``prepared`` with the stage ``loading`` says how
    far it is. A model that cannot be loaded is refused, and the room keeps its own. The picture is then prepared again.
    """

    model: ModelChoice


Operation = (
    AddDrag
    | MoveDrag
    | RemoveDrag
    | AddStroke
    | RemoveStroke
    | InvertMask
    | GrowMask
    | ClearMask
    | SetPrompt
    | SetSettings
    | MarkBranch
    | SetPin
    | SetTitle
    | SetModel
)


class RestoredDrag(Struct, frozen=True, kw_only=True):
    """The end points of a drag that change back; both if the drag itself comes back."""

    handle: XY | None = None
    target: XY | None = None


class Restore(Record, frozen=True, kw_only=True, tag="restore"):
    """What an undo or a redo changes; made by the server only. Properties that are null or absent stay as they are.

    ``drags``, ``pins``: null removes it. ``settings``: null restores the default. ``mask``: all of its layers.
    ``branches``: null clears the mark. ``content``: undoes a run, a jump, a reset or a change of the base picture; it
    applies after ``drags``, whose other content has not been tracked.
    """

    drags: dict[str, RestoredDrag | None] = field(default_factory=dict)
    settings: dict[str, Setting | None] = field(default_factory=dict)
    prompt: str | None = None
    mask: tuple[MaskLayer, ...] | None = None
    content: Content | None = None
    branches: dict[str, BranchMark | None] = field(default_factory=dict)
    pins: dict[str, XY | None] = field(default_factory=dict)
    title: str | None = None
    model: ModelChoice | None = None
