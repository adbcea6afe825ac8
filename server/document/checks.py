"""What a room accepts: pure checks of operations against the document, the model and the limits."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from livedrag.limits import MAX_ASPECT, MIN_SIDE
from livedrag.server.document.protocol import (
    MAX_SEED,
    XY,
    AddDrag,
    AddStroke,
    ClearMask,
    Document,
    Drag,
    GrowMask,
    InvertMask,
    MarkBranch,
    MaskLayer,
    ModelChoice,
    ModelInfo,
    MoveDrag,
    Operation,
    Picture,
    Reason,
    RemoveDrag,
    RemoveStroke,
    Restore,
    RoomLimits,
    Run,
    SetModel,
    SetPin,
    SetPrompt,
    SetSettings,
    Setting,
    SetTitle,
    Stroke,
)
from livedrag.server.document.strokes import is_too_much_work
from livedrag.server.errors import ServiceError

MAX_MASK_POINTS = 100_000
"""Points of all strokes of a mask together."""
MAX_LAYERS = 2000
"""Layers of a mask."""
MAX_BRANCH_MARKS = 500
"""Branches of the timeline with a name, or removed."""
MAX_MOMENT_DIGITS = 19
MAX_RUN_MESSAGE = 10_000
"""Characters of what a run that failed says."""
ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
MIN_DISTANCE = 1.0
"""Between a handle and its target, in pixels."""
DEFAULT_RANGE = (0, MAX_SEED)
"""Range of a numeric setting for which the model gives none."""


class Refused(ServiceError):
    """An operation that the room does not accept, or not now."""

    reason: Reason

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(409 if reason in ("busy", "stale") else 422, reason, message)


def check_operation(document: Document, op: Operation, model: ModelInfo, limits: RoomLimits, *, running: bool) -> None:
    """Raise `Refused` if the operation does not fit the document, the model, the limits or a run under way."""
    match op:
        case AddDrag():
            if op.id in document.drags:
                raise Refused("invalid", f"drag {op.id!r} already exists: move it, or choose another id")
            check_drag_count(len(document.drags) + 1, limits)
            check_drag(document.picture, op.handle, op.target)
        case MoveDrag():
            _check_move(document, op)
        case RemoveDrag():
            _existing_drag(document, op.id)
        case AddStroke():
            _check_mask_points(_points_in(document.mask) + len(op.stroke.points))
            _check_new_layer(document, op.stroke.id)
            _check_stroke_work(document.picture, op.stroke)
        case RemoveStroke():
            if op.id not in {layer.id for layer in document.mask}:
                raise Refused("unknown", f"the mask has no layer {op.id!r}: it may have been removed or replaced")
        case InvertMask() | GrowMask():
            _check_new_layer(document, op.id)
        case SetPrompt() if running:
            raise Refused("busy", "the prompt cannot change during a run: press Stop first")
        case SetPrompt(prompt=prompt):
            check_prompt(prompt, limits)
        case SetSettings():
            for name, value in op.settings.items():
                check_setting(model, name, value)
                if running and name not in model.live:
                    raise Refused(
                        "busy",
                        f"{name} cannot change during a run: press Stop first. "
                        f"These settings can: {', '.join(sorted(model.live))}",
                    )
        case MarkBranch(moment=moment):
            _check_branch_count(document.branches.keys() | {str(moment)})
        case SetPin(at=None):
            if op.id not in document.pins:
                raise Refused("unknown", f"there is no pin {op.id!r}: there are {', '.join(document.pins) or 'none'}")
        case SetPin(id=id, at=(x, y)):
            check_point(document.picture, "pin", (x, y))
            _check_pin_count(document.pins.keys() | {id}, limits)
        case SetModel() if running:
            raise Refused("busy", "the model cannot change during a run: press Stop first")
        case SetModel(model=chosen):
            check_choice(chosen)
        case ClearMask() | SetTitle():
            pass


def check_restore(document: Document, restore: Restore, model: ModelInfo, limits: RoomLimits, *, running: bool) -> None:
    """Raise `Refused` if an undo or redo does not fit the limits or a run under way."""
    if running and restore.content is not None:
        raise Refused("busy", "a run is under way: press Stop first")
    fixed = sorted(restore.settings.keys() - {*model.live})
    if running and (fixed or restore.prompt is not None or restore.model is not None):
        what = "the model" if restore.model is not None else "the prompt" if restore.prompt is not None else fixed[0]
        raise Refused("busy", f"{what} cannot change back during a run: press Stop first")
    restored = {id for id, ends in restore.drags.items() if ends is not None}
    if restored - document.drags.keys():
        check_drag_count(len(document.drags.keys() | restored), limits)
    if restore.mask is not None:
        _check_mask(restore.mask)
    back = {id for id, place in restore.pins.items() if place is not None}
    if back - document.pins.keys():
        _check_pin_count(document.pins.keys() | back, limits)
    marked = {moment for moment, mark in restore.branches.items() if mark is not None}
    if marked - document.branches.keys():
        _check_branch_count(document.branches.keys() | marked)


def check_choice(choice: ModelChoice) -> None:
    """Raise `Refused` for a model with one LoRA twice, or a weight that is no number."""
    names = Counter(lora.name for lora in choice.loras)
    if len(names) < len(choice.loras):
        raise Refused("invalid", f"the LoRA {names.most_common(1)[0][0]!r} is there twice: change its weight instead")
    for lora in choice.loras:
        if not math.isfinite(lora.weight):
            raise Refused("invalid", f"the LoRA {lora.name!r} has the weight {lora.weight}: it must be -10 to 10")


def check_document(document: Document, model: ModelInfo, limits: RoomLimits) -> None:
    """Raise `Refused` unless a room could have this document: for what does not come from a room of this server."""
    check_picture_size(document.picture, limits)
    check_drag_count(len(document.drags), limits)
    for id, drag in document.drags.items():
        _check_id("drag", id)
        check_point(document.picture, "handle", drag.handle)
        check_point(document.picture, "target", drag.target)
    for id, place in document.pins.items():
        _check_id("pin", id)
        check_point(document.picture, "pin", place)
    _check_pin_count(document.pins.keys(), limits)
    _check_mask(document.mask)
    check_prompt(document.prompt, limits)
    check_choice(document.model)
    for name, value in document.settings.items():
        check_setting(model, name, value)
    if document.run is not None:
        _check_run(document.run)
    if document.result is not None:
        _check_id("run of a result", document.result.run)
    _check_not_negative("moment", document.moment or 0)
    _check_branch_count(document.branches.keys())
    for moment in document.branches:
        if not (moment.isascii() and moment.isdecimal() and len(moment) <= MAX_MOMENT_DIGITS):
            raise Refused("invalid", f"{moment[:100]!r} is not a moment of the timeline: use decimal digits")


def check_picture_size(picture: Picture, limits: RoomLimits) -> None:
    """Raise `Refused` for a picture that cannot be edited."""
    short, long = sorted((picture.width, picture.height))
    size = f"the picture has {picture.width} x {picture.height} pixels"
    if short < MIN_SIDE:
        raise Refused("invalid", f"{size}: each side must have at least {MIN_SIDE}")
    if long > MAX_ASPECT * short:
        raise Refused("invalid", f"{size}, too long and narrow to edit: at most {MAX_ASPECT} to 1")
    if short * long > limits.pixels:
        raise Refused("invalid", f"{size}: this server accepts up to {limits.pixels / 1e6:g} megapixels")


def check_drag_count(drags: int, limits: RoomLimits) -> None:
    """Raise `Refused` for more drags than a room may have."""
    if drags > limits.drags:
        raise Refused("too_many", f"that would be {drags} drags, the limit is {limits.drags}: remove one first")


def _check_pin_count(pins: Collection[str], limits: RoomLimits) -> None:
    if len(pins) > limits.drags:
        raise Refused("too_many", f"that would be {len(pins)} pins, the limit is {limits.drags}: remove one first")


def _check_branch_count(moments: Collection[str]) -> None:
    if len(moments) > MAX_BRANCH_MARKS:
        raise Refused(
            "too_many",
            f"that would be {len(moments)} branches with a name or removed, the limit is {MAX_BRANCH_MARKS}: "
            "clear the name of one, or restore one, first",
        )


def check_prompt(prompt: str, limits: RoomLimits) -> None:
    """Raise `Refused` for a prompt that is too long."""
    if len(prompt) > limits.prompt:
        raise Refused("invalid", f"the prompt has {len(prompt)} characters, the limit is {limits.prompt}")


def check_drag(picture: Picture, handle: XY, target: XY) -> None:
    """Raise `Refused` unless both points lie in the picture, apart from each other."""
    check_point(picture, "handle", handle)
    check_point(picture, "target", target)
    _check_apart(handle, target)


def check_point(picture: Picture, name: str, point: XY) -> None:
    """Raise `Refused` unless the point lies in the picture."""
    x, y = point
    if not (0 <= x <= picture.width - 1 and 0 <= y <= picture.height - 1):
        raise Refused(
            "invalid",
            f"the {name} ({x:g}, {y:g}) lies outside the picture of {picture.width} x {picture.height} pixels: "
            f"x goes from 0 to {picture.width - 1}, y from 0 to {picture.height - 1}",
        )


def check_setting(model: ModelInfo, name: str, value: Setting | None) -> None:
    """Raise `Refused` unless the model has this setting and the value fits it. None restores the default."""
    if name not in model.settings:
        raise Refused("invalid", f"unknown setting {name!r}: choose one of {', '.join(sorted(model.settings))}")
    if value is None:
        return
    _check_type(name, value, type(model.settings[name]))
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = model.ranges.get(name, DEFAULT_RANGE)
        if not low <= value <= high:
            raise Refused("invalid", f"{name} is {value!r}, but must be between {low:.10g} and {high:.10g}")
    if name in model.words and isinstance(value, str) and not _consists_of(value, model.words[name]):
        words = ", ".join(model.words[name])
        raise Refused("invalid", f"{name} is {value!r}, but must be one or more of {words}, separated by spaces")
    if name in model.choices and value not in model.choices[name]:
        raise Refused("invalid", f"{name} is {value!r}, but must be {' or '.join(model.choices[name])}")
    if name == "preset" and value not in ("", *model.presets):
        raise Refused("invalid", f"unknown preset {value!r}: choose one of {', '.join(model.presets)}")


def _check_type(name: str, value: Setting, wanted: type) -> None:
    if wanted is bool and not isinstance(value, bool):
        raise Refused("invalid", f"{name} must be true or false, not {value!r}")
    if wanted is str and not isinstance(value, str):
        raise Refused("invalid", f"{name} must be text, not {value!r}")
    if wanted is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise Refused("invalid", f"{name} must be a whole number, not {value!r}")
    if wanted is float and (isinstance(value, bool | str) or not math.isfinite(value)):
        raise Refused("invalid", f"{name} must be a number, not {value!r}")


def _consists_of(text: str, words: Sequence[str]) -> bool:
    return bool(text.split()) and {*text.split()} <= {*words}


def _check_move(document: Document, op: MoveDrag) -> None:
    drag = _existing_drag(document, op.id)
    if op.handle is None and op.target is None:
        raise Refused("invalid", f"moving drag {op.id!r} needs a handle, a target, or both")
    content = op.handle or drag.tracked or drag.handle
    for name, point in (("handle", op.handle), ("target", op.target)):
        if point is not None:
            check_point(document.picture, name, point)
    _check_apart(content, op.target or drag.target)


def _check_apart(handle: XY, target: XY) -> None:
    if math.dist(handle, target) < MIN_DISTANCE:
        raise Refused(
            "invalid",
            f"the handle ({handle[0]:g}, {handle[1]:g}) lies on its target ({target[0]:g}, {target[1]:g}): "
            "put the target where the content should go",
        )


def _check_mask(mask: Sequence[MaskLayer]) -> None:
    _check_mask_points(_points_in(mask))
    if len(mask) > MAX_LAYERS:
        raise Refused("too_many", f"the mask would have {len(mask)} layers, the limit is {MAX_LAYERS}")
    ids = Counter(layer.id for layer in mask)
    if len(ids) < len(mask):
        raise Refused("invalid", f"the mask would have two layers {ids.most_common(1)[0][0]!r}")


def _check_run(run: Run) -> None:
    _check_id("run", run.id)
    _check_id("person", run.by)
    _check_not_negative("iterations", run.iterations)
    if run.message is not None and len(run.message) > MAX_RUN_MESSAGE:
        raise Refused("invalid", f"a run's message has {len(run.message)} characters, the limit is {MAX_RUN_MESSAGE}")


def _check_id(what: str, id: str) -> None:
    if ID.fullmatch(id) is None:
        raise Refused("invalid", f"{id[:100]!r} is not the id of a {what}: use 1 to 64 letters, digits or _.:-")


def _check_not_negative(name: str, number: int) -> None:
    if number < 0:
        raise Refused("invalid", f"{name} is {number}, but must be 0 or more")


def _points_in(mask: Iterable[MaskLayer]) -> int:
    return sum(len(layer.points) for layer in mask if isinstance(layer, Stroke))


def _check_mask_points(points: int) -> None:
    if points > MAX_MASK_POINTS:
        raise Refused(
            "too_many",
            f"the strokes of the mask would have {points} points, the limit is {MAX_MASK_POINTS}: "
            "download the mask and upload it again, then continue painting",
        )


def _check_stroke_work(picture: Picture, stroke: Stroke) -> None:
    if is_too_much_work(stroke, (picture.width, picture.height)):
        raise Refused(
            "too_many",
            f"a brush with radius {stroke.radius:g} covers too much at {len(stroke.points)} points: "
            "use a smaller brush, or a shorter stroke",
        )


def _check_new_layer(document: Document, id: str) -> None:
    if id in {layer.id for layer in document.mask}:
        raise Refused("invalid", f"the mask already has a layer {id!r}: choose another id")
    if len(document.mask) >= MAX_LAYERS:
        raise Refused(
            "too_many",
            f"the mask has {len(document.mask)} layers, which is the limit: "
            "download the mask and upload it again, then continue painting",
        )


def _existing_drag(document: Document, id: str) -> Drag:
    if id not in document.drags:
        raise Refused("unknown", f"there is no drag {id!r}: there are {', '.join(document.drags) or 'none'}")
    return document.drags[id]
