"""Undo and redo per person.

An edit is stored as the properties that it wrote, with their values before it. Undo restores these values, except for
properties that other people have written since; redo does the same with what the undo wrote. A property is one of

* ``("drag", id)``: whether the drag exists, and where. Every change of a drag writes this too.
* ``("handle", id)`` and ``("target", id)``: its end points. Removing the drag writes these too.
* ``("layer", id)``: whether the layer is in the mask, and above how many others.
* ``("pin", id)``: whether the pin exists, and where.
* ``("setting", name)``, ``("prompt", "")``, ``("title", "")`` and ``("model", "")``.
* ``("branch", moment)``: the name of a branch of the timeline, and whether it is removed.
* ``("content", "")``: what the picture shows, and where each drag's content is. Runs, jumps, resets and changes of the
  base picture write it, and so does every edit, because what was edited since was meant for the picture as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from livedrag.server.document.fold import with_content
from livedrag.server.document.protocol import (
    XY,
    AddDrag,
    AddStroke,
    BaseReplaced,
    BranchMark,
    ClearMask,
    Content,
    DocRecord,
    Document,
    Drag,
    Edited,
    Ended,
    Grow,
    GrowMask,
    Invert,
    InvertMask,
    MarkBranch,
    MaskLayer,
    ModelChoice,
    MoveDrag,
    Operation,
    Raster,
    RemoveDrag,
    RemoveStroke,
    Restore,
    RestoredDrag,
    Seeked,
    SetModel,
    SetPin,
    SetPrompt,
    SetSettings,
    Setting,
    SetTitle,
    Started,
    Stroke,
    WasReset,
)

MAX_EDITS = 500
"""Edits of one person that can be undone."""
SPARE_PROPERTIES = 1000
"""Properties that may be remembered without need before they are cleaned up."""

Property = tuple[str, str]
CONTENT: Property = ("content", "")
LASTING = ("setting", "prompt", "title", "model", "content")
"""Kinds of properties of which there are only a few."""


@dataclass(frozen=True)
class Layer:
    """A layer of a mask, above ``above`` others."""

    above: int
    layer: MaskLayer


Value = Drag | XY | Layer | Setting | Content | BranchMark | ModelChoice | None


@dataclass(frozen=True)
class Change:
    """What an edit wrote; ``op_id`` and ``type`` stay those of the edit through undo and redo."""

    op_id: str
    type: str
    seq: int
    before: Mapping[Property, Value]

    @property
    def strokes(self) -> list[Stroke]:
        """The strokes that this holds in memory."""
        layers = (old.layer for old in self.before.values() if isinstance(old, Layer))
        return [layer for layer in layers if isinstance(layer, Stroke)]


class History:
    """The edits of one document by each person, after a given ``seq``."""

    def __init__(self, since: int = 0) -> None:
        """Start without edits, at the ``seq`` ``since`` of the document."""
        self._since = since
        self._written: dict[Property, dict[str, int]] = {}  # the last seq by person
        self._max_written = SPARE_PROPERTIES
        self._done: dict[str, list[Change]] = {}
        self._undone: dict[str, list[Change]] = {}
        self._heights: tuple[tuple[MaskLayer, ...], Mapping[str, int]] = ((), {})
        self._overwritten: set[tuple[str, bool]] = set()  # (person, redo) with nothing left to restore
        self._run_began: tuple[str, Content] | None = None  # the run under way, and the content before it

    def note(self, record: DocRecord, before: Document, after: Document) -> None:
        """Take in an accepted record, which led from one document to the next."""
        match record:
            case Edited():
                self._note_edit(record, before)
            case Started(run=run):
                if self._run_began is None or self._run_began[0] != run.id:  # else it was interrupted
                    self._run_began = (run.id, content_of(before))
            case Ended(run=run):
                began, self._run_began = self._run_began, None
                if began is not None and began[0] == run.id and not same_content(began[1], content_of(after)):
                    self._done_to_content(run.by, run.id, "run", record.seq, {CONTENT: began[1]})
                self._write(CONTENT, run.by, record.seq)
            case Seeked(op_id=op_id, by=by) if is_running(before):  # undone with the run
                self._write(CONTENT, by, record.seq)
            case WasReset(op_id=op_id, by=by) | Seeked(op_id=op_id, by=by):
                kind = "reset" if isinstance(record, WasReset) else "seek"
                self._done_to_content(by, op_id, kind, record.seq, {CONTENT: content_of(before)})
            case BaseReplaced(op_id=op_id, by=by, picture=picture):
                further = before.result is not None and before.result.sha256 == picture.sha256
                kind = "edit_further" if further else "replace_picture"
                self._done_to_content(by, op_id, kind, record.seq, self._cleared(before, after))

    def _cleared(self, before: Document, after: Document) -> Mapping[Property, Value]:
        """What a change of the base picture has removed."""
        layers = self._heights_of(before)
        names: list[Property] = [
            CONTENT,
            *(("drag", id) for id in before.drags),
            *(("branch", moment) for moment in before.branches),
            *(("layer", layer.id) for layer in before.mask if not after.mask),
            *(("pin", id) for id in before.pins if not after.pins),
        ]
        return {name: value(before, name, layers) for name in names}

    def _done_to_content(self, by: str, op_id: str, kind: str, seq: int, before: Mapping[Property, Value]) -> None:
        for name in before:
            for written in _written_with(name):
                self._write(written, by, seq)
        self._do(by, Change(op_id, kind, seq, before))

    def _do(self, by: str, change: Change) -> None:
        done = self._done.setdefault(by, [])
        self._undone.setdefault(by, []).clear()
        self._overwritten.discard((by, True))
        done.append(change)
        del done[:-MAX_EDITS]

    def _write(self, name: Property, by: str, seq: int) -> None:
        self._written.setdefault(name, {})[by] = seq

    def _note_edit(self, record: Edited, before: Document) -> None:
        names = properties(record.op, before)
        self._write(CONTENT, record.by, record.seq)
        for name in names:
            for written in _written_with(name):
                self._write(written, record.by, record.seq)
        values = {name: value(before, name, self._heights_of(before)) for name in names}
        done, undone = self._done.setdefault(record.by, []), self._undone.setdefault(record.by, [])
        if record.undoes is not None:
            undone.append(Change(record.undoes, _pop_from(done, record.undoes), record.seq, values))
        elif record.redoes is not None:
            done.append(Change(record.redoes, _pop_from(undone, record.redoes), record.seq, values))
        else:
            self._do(record.by, Change(record.op_id, str(type(record.op).__struct_config__.tag), record.seq, values))
        if len(self._written) > self._max_written:
            self._forget_unneeded(before)

    def changes(self) -> Iterable[Change]:
        """Everything that can be undone or redone."""
        by_person = (*self._done.values(), *self._undone.values())
        return (change for changes in by_person for change in changes)

    def forget(self, seq: int) -> None:
        """Drop the edits up to ``seq``, which can no longer be undone or redone."""
        for by_person in (self._done, self._undone):
            for person, changes in by_person.items():
                by_person[person] = [change for change in changes if change.seq > seq]

    def drop(self, by: str, change: Change, *, redo: bool = False) -> None:
        """Forget a change."""
        (self._undone if redo else self._done).get(by, []).remove(change)

    def last(self, by: str, document: Document, *, redo: bool = False) -> tuple[Change, Restore | None] | None:
        """A person's latest edit of which anything can be undone (or redone), and the operation that does it.

        Without an operation, it is a run, a jump, a reset or a change of the base picture, and stale.
        """
        changes = (self._undone if redo else self._done).get(by, [])
        for index in range(len(changes) - 1, -1, -1):
            change = changes[index]
            free = {name: old for name, old in change.before.items() if not self._by_others(by, name, change.seq)}
            if CONTENT in change.before and CONTENT not in free:
                return change, None
            if not free:  # and never will be
                del changes[index]
                self._overwritten.add((by, redo))
                continue
            restore = restoring(document, free, self._heights_of(document))
            if restore is not None:
                return change, restore
        return None

    def has_any(self, by: str, *, redo: bool = False) -> bool:
        """Whether a person has edited (or undone) anything."""
        return bool((self._undone if redo else self._done).get(by)) or (by, redo) in self._overwritten

    def stale(self, by: str, op: Operation, base: int, document: Document) -> Property | None:
        """A property that an operation would write and another person has written since ``base``, if there is one."""
        for name in properties(op, document):
            unknown = base < self._since and value(document, name, self._heights_of(document)) is not None
            if unknown or self._by_others(by, name, base):
                return name
        return None

    def _forget_unneeded(self, document: Document) -> None:
        """Forget the writers of properties that are gone and that no undo or redo needs."""
        needed = {written for change in self.changes() for name in change.before for written in _written_with(name)}
        layers = self._heights_of(document)
        self._written = {
            name: by
            for name, by in self._written.items()
            if name in needed or name[0] in LASTING or value(document, name, layers) is not None
        }
        self._max_written = 2 * len(self._written) + SPARE_PROPERTIES

    def _heights_of(self, document: Document) -> Mapping[str, int]:
        """`heights`, computed once for a mask, since it may have very many layers."""
        if self._heights[0] is not document.mask:
            self._heights = (document.mask, heights(document.mask))
        return self._heights[1]

    def _by_others(self, by: str, name: Property, since: int) -> bool:
        return any(person != by and seq > since for person, seq in self._written.get(name, {}).items())


def properties(op: Operation | Raster | Restore, before: Document) -> list[Property]:
    """The properties that an operation writes."""
    layers = [("layer", layer.id) for layer in before.mask]
    match op:
        case AddDrag(id=id) | RemoveDrag(id=id):
            return [("drag", id)]
        case MoveDrag(id=id, handle=handle, target=target):
            return _ends(id, handle, target)
        case AddStroke(stroke=Stroke(id=id)) | RemoveStroke(id=id) | InvertMask(id=id) | GrowMask(id=id):
            return [("layer", id)]
        case ClearMask():
            return layers
        case Raster(id=id):
            return [*layers, ("layer", id)]
        case SetPrompt():
            return [("prompt", "")]
        case SetSettings(settings=settings):
            return [("setting", name) for name in settings]
        case MarkBranch(moment=moment):
            return [("branch", str(moment))]
        case SetPin(id=id):
            return [("pin", id)]
        case SetTitle():
            return [("title", "")]
        case SetModel():
            return [("model", "")]
        case Restore():
            return [
                *_restored_drags(op.drags, before.drags),
                *(("setting", name) for name in op.settings),
                *([] if op.prompt is None else [("prompt", "")]),
                *([] if op.mask is None else _added_or_removed(before.mask, op.mask)),
                *([] if op.content is None else [CONTENT]),
                *(("branch", moment) for moment in op.branches),
                *(("pin", id) for id in op.pins),
                *([] if op.title is None else [("title", "")]),
                *([] if op.model is None else [("model", "")]),
            ]


def heights(mask: tuple[MaskLayer, ...]) -> dict[str, int]:
    """Above how many others each layer of a mask is."""
    return {layer.id: above for above, layer in enumerate(mask)}


def value(document: Document, name: Property, layers: Mapping[str, int]) -> Value:
    """The value of a property, None if it does not exist. The value of a handle is where its content is now.

    Args:
        layers: the `heights` of the document's mask.
    """
    kind, id = name
    match kind:
        case "setting":
            return document.settings.get(id)
        case "prompt":
            return document.prompt
        case "branch":
            return document.branches.get(id)
        case "content":
            return content_of(document)
        case "pin":
            return document.pins.get(id)
        case "title":
            return document.title
        case "model":
            return document.model
        case "layer":
            return Layer(layers[id], document.mask[layers[id]]) if id in layers else None
    drag = document.drags.get(id)
    if drag is None or kind == "drag":
        return drag
    return drag.target if kind == "target" else content(drag)


def content(drag: Drag) -> XY:
    """Where the content of a drag is."""
    return drag.tracked or drag.handle


def content_of(document: Document) -> Content:
    """What the picture of a document shows."""
    run = document.run
    return Content(
        picture=document.picture,
        run=run if run is not None and run.outcome is not None else None,
        result=document.result,
        moment=document.moment,
        handles={id: drag.handle for id, drag in document.drags.items()},
        tracked={id: drag.tracked for id, drag in document.drags.items() if drag.tracked is not None},
    )


def same_content(one: Content, other: Content) -> bool:
    """Whether two contents look alike; handles that were only placed meanwhile do not count."""
    return (one.picture, one.result, one.moment, one.tracked) == (
        other.picture,
        other.result,
        other.moment,
        other.tracked,
    )


def is_running(document: Document) -> bool:
    """Whether a run has started and not ended; one that was interrupted has not ended either."""
    return document.run is not None and document.run.outcome is None


def restoring(document: Document, values: Mapping[Property, Value], heights: Mapping[str, int]) -> Restore | None:
    """The operation that gives these properties these values; None if it would change nothing."""
    drags: dict[str, RestoredDrag | None] = {}
    settings: dict[str, Setting | None] = {}
    prompt: str | None = None
    marks: dict[str, BranchMark | None] = {}
    title: str | None = None
    model: ModelChoice | None = None
    pins: dict[str, XY | None] = {}
    layers: dict[str, Layer | None] = {}
    shown: Content | None = None
    for (kind, id), old in values.items():
        now = value(document, (kind, id), heights)
        if now == old or (kind == "layer" and (now is None) == (old is None)):
            continue
        match kind, old:
            case "content", Content():
                shown = old
            case "setting", None | bool() | int() | float() | str():
                settings[id] = old
            case "branch", None | BranchMark():
                marks[id] = old
            case "prompt", str():
                prompt = old
            case "title", str():
                title = old
            case "model", ModelChoice():
                model = old
            case "pin", None | (float() | int(), float() | int()):
                pins[id] = old
            case "layer", None | Layer():
                layers[id] = old
            case "drag", None:
                drags[id] = None
            case "drag", Drag() if id not in document.drags:
                drags[id] = RestoredDrag(handle=content(old), target=old.target)
            case (("handle" | "target"), (float() | int(), float() | int())) if id in document.drags:
                ends = drags.get(id) or RestoredDrag()
                drags[id] = RestoredDrag(
                    handle=old if kind == "handle" else ends.handle,
                    target=old if kind == "target" else ends.target,
                )
    mask = _with_layers(document.mask, layers)
    if shown is not None and replace(with_content(document, shown), run=document.run) == document:
        shown = None
    new_mask = None if mask == document.mask else mask
    restore = Restore(
        drags=drags,
        settings=settings,
        prompt=prompt,
        mask=new_mask,
        content=shown,
        branches=marks,
        pins=pins,
        title=title,
        model=model,
    )
    return None if restore == Restore() else restore


def shortest(document: Document, restore: Restore) -> Operation | Restore:
    """The same as a smaller operation, if all it does is to remove one layer of the mask or to add one on top."""
    before, after = document.mask, restore.mask
    if after is None or restore != Restore(mask=after):
        return restore
    if after[:-1] == before:
        top = after[-1]
        if isinstance(top, Stroke):
            return AddStroke(stroke=top)
        if isinstance(top, Grow):
            return GrowMask(id=top.id, pixels=top.pixels)
        return InvertMask(id=top.id) if isinstance(top, Invert) else restore
    removed = [layer for layer in before if layer not in after]
    if len(removed) == 1 and after == tuple(layer for layer in before if layer.id != removed[0].id):
        return RemoveStroke(id=removed[0].id)
    return restore


def _with_layers(mask: tuple[MaskLayer, ...], changes: Mapping[str, Layer | None]) -> tuple[MaskLayer, ...]:
    """The mask with layers removed (None) or put in their places."""
    layers = [layer for layer in mask if layer.id not in changes]
    added = [place for place in changes.values() if place is not None]
    for place in sorted(added, key=lambda place: place.above):
        layers.insert(place.above, place.layer)
    return tuple(layers)


def _ends(id: str, handle: XY | None, target: XY | None) -> list[Property]:
    return [(kind, id) for kind, end in (("handle", handle), ("target", target)) if end is not None]


def _restored_drags(drags: Mapping[str, RestoredDrag | None], before: Mapping[str, Drag]) -> Iterable[Property]:
    for id, ends in drags.items():
        if ends is None or id not in before:
            yield ("drag", id)
        else:
            yield from _ends(id, ends.handle, ends.target)


def _added_or_removed(before: tuple[MaskLayer, ...], after: tuple[MaskLayer, ...]) -> list[Property]:
    """The layers that only one of the masks has."""
    old, new = {layer.id for layer in before}, {layer.id for layer in after}
    return [("layer", layer.id) for layer in (*before, *after) if (layer.id in old) != (layer.id in new)]


def _written_with(name: Property) -> Iterable[Property]:
    """A property, and the others that are written with it."""
    kind, id = name
    yield name
    if kind in ("handle", "target"):
        yield ("drag", id)
    elif kind == "drag":
        yield from (("handle", id), ("target", id))


def _pop_from(changes: list[Change], op_id: str) -> str:
    """Drop a change and those after it, which cannot be restored any more; returns its type."""
    index = max((index for index, change in enumerate(changes) if change.op_id == op_id), default=len(changes))
    taken = changes[index].type if index < len(changes) else ""
    del changes[index:]
    return taken
