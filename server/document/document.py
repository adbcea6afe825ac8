"""Room: the shared document of one picture, the order of its edits, and who may do what. No I/O.

A room is the fold of its log: `fold` takes a document and one accepted record to the next document. The server, its
clients and a restart from disk all use this one function.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from livedrag.server.document.history import Change, History, Property, shortest
from livedrag.server.document.protocol import (
    LIVE_SETTINGS,
    XY,
    AddDrag,
    AddStroke,
    ClearMask,
    DocRecord,
    Document,
    Drag,
    Edit,
    Edited,
    Ended,
    Invert,
    InvertMask,
    ModelInfo,
    MoveDrag,
    Operation,
    Outcome,
    Picture,
    Raster,
    Reason,
    Redo,
    RemoveDrag,
    RemoveStroke,
    Reset,
    Restore,
    RestoredDrag,
    Result,
    RoomLimits,
    Run,
    Seeked,
    SeekMoment,
    SetPrompt,
    SetSettings,
    Setting,
    Started,
    StartRun,
    Stopping,
    StopRun,
    Stroke,
    Undo,
    WasReset,
)

DocRecordT = TypeVar("DocRecordT", bound=DocRecord)

MAX_MASK_POINTS = 100_000
"""Of all strokes of a room together."""
MAX_KNOWN = 2000
"""Accepted operations of a room that are recognised when they are sent again."""
MAX_LAYERS = 2000
"""Of a mask."""
MIN_DISTANCE = 1.0
"""Between a handle and its target, in pixels."""
ANY_NUMBER = (0, 2**31 - 1)
"""Range of a setting of which the model names none."""


class Refused(Exception):
    """An operation that was not done. Its text says why, quotes the value, and says what would work."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


class RoomDocument:
    """One picture being edited by any number of people.

    Methods that change the room return the record that changed it, already folded into `document` and numbered; whoever
    calls makes it durable and tells everybody. They raise `Refused` and then leave the room as it was.
    """

    def __init__(
        self,
        id: str,
        document: Document,
        model: ModelInfo,
        *,
        seq: int = 0,
        records: Iterable[DocRecord] = (),
        most: RoomLimits | None = None,
    ) -> None:
        """Open a room.

        Args:
            document: the document at ``seq``.
            model: the model in use: which settings there are.
            records: the log, oldest first. What is after ``seq`` is folded into the document, and can be undone by
                whoever did it; what is before is known, so that sending it again is harmless.
            most: what is too much; by default the usual.
        """
        self.id = id
        self.document = document
        self.model = model
        self.most = most or RoomLimits()
        self.seq = seq
        self._history = History(seq)
        self._known: dict[str, DocRecord] = {}
        self._grabbed: dict[str, int] = {}
        for record in records:
            if record.seq <= seq:
                self._remember(record)
            else:
                self._accept(record)

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        run = self.document.run
        return run is not None and run.outcome is None and not run.interrupted

    def runs(self, run: str) -> bool:
        """Whether it is this run that is under way."""
        return self.running and self.document.run is not None and self.document.run.id == run

    def known(self, op_id: str) -> DocRecord | None:
        """The record that an operation was accepted with before."""
        return self._known.get(op_id)

    def grabbed(self, drag: str) -> int:
        """``seq`` at which a drag's handle was last put down, 0 if no known operation did."""
        return self._grabbed.get(drag, 0)

    def edit(self, by: str, edit: Edit) -> Edited:
        """Accept an operation on the document."""
        if edit.offline:
            name = self._history.stale(by, edit.op, edit.base, self.document)
            if name is not None:
                text = f"{named(name)} was changed by others while you were offline: look at it, then do it again"
                raise Refused("stale", text)
        check(self.document, edit.op, self.model, self.most, running=self.running)
        return self._accept(Edited(seq=self.seq + 1, op_id=edit.op_id, by=by, op=edit.op))

    def undo(self, by: str, message: Undo) -> Edited:
        """Take a person's last edit back, but for what others have changed since."""
        change, op = self._back(by, redo=False)
        return self._accept(Edited(seq=self.seq + 1, op_id=message.op_id, by=by, op=op, undoes=change.op_id))

    def redo(self, by: str, message: Redo) -> Edited:
        """Do again what a person's last undo took back, but for what others have changed since."""
        change, op = self._back(by, redo=True)
        return self._accept(Edited(seq=self.seq + 1, op_id=message.op_id, by=by, op=op, redoes=change.op_id))

    def _back(self, by: str, *, redo: bool) -> tuple[Change, Operation | Restore]:
        found = self._history.last(by, self.document, redo=redo)
        if found is None:
            did = "took back" if redo else "did"
            if self._history.has_any(by, redo=redo):
                raise Refused("nothing", f"others have changed since all that you {did}: it stays as it is")
            raise Refused("nothing", f"there is nothing that you {did} here")
        change, restore = found
        check_restore(self.document, restore, self.most, running=self.running)
        return change, shortest(self.document, restore)

    def history(self, by: str) -> tuple[str | None, str | None]:
        """The types of the edits that a person's undo and redo would be about now."""
        undo, redo = (self._history.last(by, self.document, redo=redo) for redo in (False, True))
        return undo and undo[0].type, redo and redo[0].type

    def load_mask(self, by: str, op_id: str, raster: Raster) -> Edited:
        """Replace the mask by a loaded one, whose size has been checked."""
        return self._accept(Edited(seq=self.seq + 1, op_id=op_id, by=by, op=raster))

    def start(self, by: str, message: StartRun, run: str, *, frozen: bool = False) -> Started:
        """Press Drag.

        Args:
            run: id of a new run, not used where an interrupted one is begun again.
            frozen: the mask is black all over.
        """
        if self.running:
            raise Refused("busy", "a run is under way already: press Stop first")
        if not self.document.drags:
            raise Refused("invalid", "there is nothing to drag: put down a handle and its target first")
        if frozen:
            raise Refused("invalid", "the mask lets nothing change: paint a region or clear the mask")
        last = self.document.run
        begun = replace(last, by=by, interrupted=False) if last and last.interrupted else Run(id=run, by=by)
        return self._accept(Started(seq=self.seq + 1, op_id=message.op_id, run=begun))

    def stop(self, by: str, message: StopRun) -> Stopping:
        """Press Stop."""
        if not self.running:
            raise Refused("invalid", "nothing is running")
        return self._accept(Stopping(seq=self.seq + 1, op_id=message.op_id, by=by))

    def reset(self, by: str, message: Reset) -> WasReset:
        """Go back to the uploaded picture."""
        if self.running:
            raise Refused("busy", "a run is under way: press Stop before going back to the uploaded picture")
        return self._accept(WasReset(seq=self.seq + 1, op_id=message.op_id, by=by))

    def seek(self, by: str, message: SeekMoment, tracked: Mapping[str, XY]) -> Seeked:
        """The content has gone to a moment of the timeline, and is ``tracked`` there."""
        there = {id: place for id, place in tracked.items() if id in self.document.drags}
        return self._accept(Seeked(seq=self.seq + 1, op_id=message.op_id, by=by, moment=message.moment, tracked=there))

    def end(
        self,
        outcome: Outcome,
        *,
        iterations: int = 0,
        tracked: Mapping[str, XY] | None = None,
        seen: int | None = None,
        sha256: str | None = None,
        message: str | None = None,
    ) -> Ended:
        """End the run.

        Args:
            tracked: where the content of each drag is now.
            seen: the last ``seq`` that the run knew of; handles put down after it stay where they are.
            sha256: of the picture, if the run left a new one.
            message: what went wrong, if something did.
        """
        run = self.document.run
        assert run is not None
        assert self.running
        latest = self.seq if seen is None else seen
        return self._accept(
            Ended(
                seq=self.seq + 1,
                run=replace(run, outcome=outcome, iterations=iterations, message=message),
                tracked={
                    id: place
                    for id, place in (tracked or {}).items()
                    if id in self.document.drags and self.grabbed(id) <= latest
                },
                result=Result(sha256=sha256, run=run.id) if sha256 else self.document.result,
            )
        )

    def _accept(self, record: DocRecordT) -> DocRecordT:
        if isinstance(record, Edited):
            self._history.note(record, self.document)
        self.document = fold(self.document, record)
        self.seq = record.seq
        self._remember(record)
        return record

    def _remember(self, record: DocRecord) -> None:
        if not isinstance(record, Ended):
            self._known[record.op_id] = record
            if len(self._known) > MAX_KNOWN:
                del self._known[next(iter(self._known))]
        match record:
            case Edited(op=AddDrag(id=id)) | Edited(op=MoveDrag(id=id, handle=(_, _))):
                self._grabbed[id] = record.seq
            case Edited(op=Restore(drags=drags)):
                self._grabbed |= {id: record.seq for id, back in drags.items() if back is not None and back.handle}
        if len(self._grabbed) > len(self.document.drags):  # whoever brings one back puts it down anew
            self._grabbed = {id: seq for id, seq in self._grabbed.items() if id in self.document.drags}


def fold(document: Document, record: DocRecord) -> Document:
    """The document after one accepted record."""
    match record:
        case Edited(op=op):
            return _apply(document, op)
        case Started(run=run):
            return replace(document, run=run)
        case Stopping():
            return document
        case Ended():
            drags = {
                id: replace(drag, tracked=record.tracked.get(id, drag.tracked)) for id, drag in document.drags.items()
            }
            return replace(document, run=record.run, drags=drags, result=record.result)
        case WasReset():
            drags = {id: replace(drag, tracked=None) for id, drag in document.drags.items()}
            return replace(document, run=None, drags=drags, result=None, moment=None)
        case Seeked():
            drags = {id: replace(drag, tracked=record.tracked.get(id)) for id, drag in document.drags.items()}
            return replace(document, drags=drags, moment=record.moment)


def _apply(document: Document, op: Operation | Raster | Restore) -> Document:
    """The document after an operation that `check` let pass. The last writer of a drag's property wins."""
    match op:
        case AddDrag():
            return replace(document, drags={**document.drags, op.id: Drag(handle=op.handle, target=op.target)})
        case MoveDrag():
            drag = document.drags[op.id]
            return replace(document, drags={**document.drags, op.id: _moved(drag, op.handle, op.target)})
        case RemoveDrag():
            return replace(document, drags={id: drag for id, drag in document.drags.items() if id != op.id})
        case AddStroke():
            return replace(document, mask=(*document.mask, op.stroke))
        case RemoveStroke():
            return replace(document, mask=tuple(layer for layer in document.mask if layer.id != op.id))
        case InvertMask():
            return replace(document, mask=(*document.mask, Invert(id=op.id)))
        case Raster():
            return replace(document, mask=(op,))
        case ClearMask():
            return replace(document, mask=())
        case SetPrompt():
            return replace(document, prompt=op.prompt)
        case SetSettings():
            return replace(document, settings=_set(document.settings, op.settings))
        case Restore():
            return replace(
                document,
                drags=_put_back(document.drags, op.drags),
                settings=_set(document.settings, op.settings),
                prompt=document.prompt if op.prompt is None else op.prompt,
                mask=document.mask if op.mask is None else op.mask,
            )


def _set(settings: Mapping[str, Setting], changes: Mapping[str, Setting | None]) -> dict[str, Setting]:
    return {name: value for name, value in {**settings, **changes}.items() if value is not None}


def _put_back(drags: Mapping[str, Drag], changes: Mapping[str, RestoredDrag | None]) -> dict[str, Drag]:
    after = dict(drags)
    for id, back in changes.items():
        if back is None:
            after.pop(id, None)
        elif id in after:
            after[id] = _moved(after[id], back.handle, back.target)
        elif back.handle is not None and back.target is not None:
            after[id] = Drag(handle=back.handle, target=back.target)
    return after


def _moved(drag: Drag, handle: XY | None, target: XY | None) -> Drag:
    if handle is not None:
        drag = Drag(handle=handle, target=drag.target)  # grabbed anew: where the content had gone is past
    return drag if target is None else replace(drag, target=target)


def check(document: Document, op: Operation, model: ModelInfo, most: RoomLimits, *, running: bool) -> None:
    """Raise `Refused` unless the operation fits the document, the model and the moment, and is not too much."""
    match op:
        case AddDrag():
            if op.id in document.drags:
                raise Refused("invalid", f"there is a drag {op.id!r} already: move that one, or choose another id")
            check_count(len(document.drags) + 1, most)
            check_drag(document.picture, op.handle, op.target)
        case MoveDrag():
            drag = _drag(document, op.id)
            if op.handle is None and op.target is None:
                raise Refused("invalid", f"moving drag {op.id!r} needs a handle, a target, or both")
            content = op.handle or drag.tracked or drag.handle
            for what, place in (("handle", op.handle), ("target", op.target)):
                if place is not None:
                    check_place(document.picture, what, place)
            check_apart(content, op.target or drag.target)
        case RemoveDrag():
            _drag(document, op.id)
        case AddStroke():
            painted = sum(len(layer.points) for layer in document.mask if isinstance(layer, Stroke))
            if painted + len(op.stroke.points) > MAX_MASK_POINTS:
                raise Refused(
                    "too_many",
                    f"the mask's strokes have {painted} points, at most {MAX_MASK_POINTS} are kept: "
                    "download the mask and load it again, then go on painting",
                )
            _check_new_layer(document, op.stroke.id)
        case RemoveStroke():
            if op.id not in {layer.id for layer in document.mask}:
                raise Refused(
                    "unknown", f"the mask has no layer {op.id!r}: it may have been removed or replaced already"
                )
        case InvertMask():
            _check_new_layer(document, op.id)
        case SetPrompt() if running:
            raise Refused("busy", "the prompt cannot change during a run: press Stop first")
        case SetPrompt(prompt=prompt):
            check_prompt(prompt, most)
        case SetSettings():
            for name, value in op.settings.items():
                check_setting(model, name, value)
                if running and name not in LIVE_SETTINGS:
                    live = ", ".join(sorted(LIVE_SETTINGS))
                    raise Refused("busy", f"{name} cannot change during a run: press Stop first. These can: {live}")
        case ClearMask():
            pass


def check_restore(document: Document, restore: Restore, most: RoomLimits, *, running: bool) -> None:
    """Raise `Refused` unless properties may be put back now."""
    fixed = sorted(restore.settings.keys() - LIVE_SETTINGS)
    if running and (fixed or restore.prompt is not None):
        what = "the prompt" if restore.prompt is not None else fixed[0]
        raise Refused("busy", f"{what} cannot change back during a run: press Stop first")
    back = {id for id, ends in restore.drags.items() if ends is not None}
    if back - document.drags.keys():
        check_count(len(document.drags.keys() | back), most)
    painted = sum(len(layer.points) for layer in restore.mask or () if isinstance(layer, Stroke))
    if painted > MAX_MASK_POINTS:
        raise Refused(
            "too_many", f"the mask's strokes would have {painted} points, at most {MAX_MASK_POINTS} are kept: clear it"
        )


def named(name: Property) -> str:
    """A property as people call it."""
    kind, id = name
    match kind:
        case "prompt":
            return "the prompt"
        case "setting":
            return f"the setting {id!r}"
        case "layer":
            return f"the mask's layer {id!r}"
        case "drag":
            return f"drag {id!r}"
    return f"the {kind} of drag {id!r}"


def check_count(drags: int, most: RoomLimits) -> None:
    """Raise `Refused` unless a room may have so many drags."""
    if drags > most.drags:
        raise Refused("too_many", f"there would be {drags} drags: at most {most.drags} work, remove one first")


def check_prompt(prompt: str, most: RoomLimits) -> None:
    """Raise `Refused` unless a prompt may be so long."""
    if len(prompt) > most.prompt:
        raise Refused("invalid", f"the prompt has {len(prompt)} characters: at most {most.prompt} work")


def check_drag(picture: Picture, handle: XY, target: XY) -> None:
    """Raise `Refused` unless both ends lie in the picture, apart from each other."""
    check_place(picture, "handle", handle)
    check_place(picture, "target", target)
    check_apart(handle, target)


def check_place(picture: Picture, what: str, place: XY) -> None:
    """Raise `Refused` unless the place lies in the picture."""
    x, y = place
    if not (0 <= x <= picture.width - 1 and 0 <= y <= picture.height - 1):
        raise Refused(
            "invalid",
            f"the {what} ({x:g}, {y:g}) lies outside the picture of {picture.width} x {picture.height} pixels: "
            f"x goes from 0 to {picture.width - 1}, y from 0 to {picture.height - 1}",
        )


def check_apart(handle: XY, target: XY) -> None:
    """Raise `Refused` unless there is some way from the handle, where the content is now, to its target."""
    if math.dist(handle, target) < MIN_DISTANCE:
        raise Refused(
            "invalid",
            f"the handle ({handle[0]:g}, {handle[1]:g}) lies on its target ({target[0]:g}, {target[1]:g}): "
            "put the target where the content should go",
        )


def check_setting(model: ModelInfo, name: str, value: Setting | None) -> None:
    """Raise `Refused` unless there is such a setting, with such values."""
    if name not in model.settings:
        raise Refused("invalid", f"there is no setting {name!r}: there are {', '.join(sorted(model.settings))}")
    if value is None:
        return
    kind = type(model.settings[name])
    if kind is bool and not isinstance(value, bool):
        raise Refused("invalid", f"{name} is either true or false, not {value!r}")
    if kind is str and not isinstance(value, str):
        raise Refused("invalid", f"{name} is a text, not {value!r}")
    if kind is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise Refused("invalid", f"{name} is a whole number, not {value!r}")
    if kind is float and (isinstance(value, bool | str) or not math.isfinite(value)):
        raise Refused("invalid", f"{name} is a number, not {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = model.ranges.get(name, ANY_NUMBER)
        if not low <= value <= high:
            raise Refused("invalid", f"{name} is {value!r}: {low:.10g} to {high:.10g} works")
    if name in model.words and isinstance(value, str) and not _consists_of(value, model.words[name]):
        choice = f"one or more of {', '.join(model.words[name])}, separated by blanks, work"
        raise Refused("invalid", f"{name} is {value!r}: {choice}")
    if name == "preset" and value not in ("", *model.presets):
        raise Refused("invalid", f"there is no preset {value!r}: there are {', '.join(model.presets)}")


def _consists_of(text: str, words: Sequence[str]) -> bool:
    return bool(text.split()) and {*text.split()} <= {*words}


def _check_new_layer(document: Document, id: str) -> None:
    if id in {layer.id for layer in document.mask}:
        raise Refused("invalid", f"the mask has a layer {id!r} already: choose another id")
    if len(document.mask) >= MAX_LAYERS:
        raise Refused(
            "too_many",
            f"the mask has {len(document.mask)} layers, the most there can be: "
            "download the mask and load it again, then go on painting",
        )


def _drag(document: Document, id: str) -> Drag:
    if id not in document.drags:
        raise Refused("unknown", f"there is no drag {id!r}: there are {', '.join(document.drags) or 'none'}")
    return document.drags[id]
