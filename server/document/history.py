"""History: what each person did last, and what of it can still be taken back. No I/O.

An edit is kept as the properties that it wrote, with their values before it. Undo puts these back, but for properties
that somebody else has written since; redo does the same with what the undo wrote. A property is one of

* ``("drag", id)``: that the drag is there, and where. Whatever touches a drag touches this too.
* ``("handle", id)`` and ``("target", id)``: its ends. Somebody who removes the drag writes these too.
* ``("layer", id)``: that the layer is in the mask, and above how many others.
* ``("setting", name)`` and ``("prompt", "")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from livedrag.server.document.protocol import (
    XY,
    AddDrag,
    AddStroke,
    ClearMask,
    Document,
    Drag,
    Edited,
    Invert,
    InvertMask,
    MaskLayer,
    MoveDrag,
    Operation,
    Raster,
    RemoveDrag,
    RemoveStroke,
    Restore,
    RestoredDrag,
    SetPrompt,
    SetSettings,
    Setting,
    Stroke,
)

MOST_EDITS = 500
"""Edits of one person that can be taken back."""
SPARE = 1000
"""Properties that may be remembered for nothing before those are looked for."""

Property = tuple[str, str]


@dataclass(frozen=True)
class Layer:
    """A layer of a mask, above so many others."""

    above: int
    layer: MaskLayer


Value = Drag | XY | Layer | Setting | None


@dataclass(frozen=True)
class Change:
    """What an edit wrote; ``op_id`` and ``type`` are those of the edit, however often it was undone and done again."""

    op_id: str
    type: str
    seq: int
    before: Mapping[Property, Value]


class History:
    """Everybody's edits of one document, as far back as it was told of them."""

    def __init__(self, since: int = 0) -> None:
        """Begin without edits; ``since`` is the ``seq`` of the document that they begin at."""
        self._since = since
        self._written: dict[Property, dict[str, int]] = {}  # by whom, and when last
        self._most_written = SPARE
        self._done: dict[str, list[Change]] = {}
        self._undone: dict[str, list[Change]] = {}
        self._heights: tuple[tuple[MaskLayer, ...], Mapping[str, int]] = ((), {})
        self._overwritten: set[tuple[str, bool]] = set()  # who had edits (or undos) that others have changed since

    def note(self, record: Edited, before: Document) -> None:
        """An edit was accepted; ``before`` is the document that it met."""
        names = properties(record.op, before)
        for name in names:
            for written in _written_with(name):
                self._written.setdefault(written, {})[record.by] = record.seq
        values = {name: value(before, name, self._heights_of(before)) for name in names}
        done, undone = self._done.setdefault(record.by, []), self._undone.setdefault(record.by, [])
        if record.undoes is not None:
            undone.append(Change(record.undoes, _take(done, record.undoes), record.seq, values))
        elif record.redoes is not None:
            done.append(Change(record.redoes, _take(undone, record.redoes), record.seq, values))
        else:
            undone.clear()
            self._overwritten.discard((record.by, True))
            done.append(Change(record.op_id, str(type(record.op).__struct_config__.tag), record.seq, values))
        del done[:-MOST_EDITS]
        if len(self._written) > self._most_written:
            self._forget_unneeded(before)

    def last(self, by: str, document: Document, *, redo: bool = False) -> tuple[Change, Restore] | None:
        """The latest edit of a person of which something can be taken back (or done again), and what would do that."""
        changes = (self._undone if redo else self._done).get(by, [])
        for index in range(len(changes) - 1, -1, -1):
            change = changes[index]
            free = {name: old for name, old in change.before.items() if not self._by_others(by, name, change.seq)}
            if not free:  # and never will be: it need not be looked at again
                del changes[index]
                self._overwritten.add((by, redo))
                continue
            restore = put_back(document, free, self._heights_of(document))
            if restore is not None:
                return change, restore
        return None

    def has_any(self, by: str, *, redo: bool = False) -> bool:
        """Whether a person has done anything here, or taken anything back."""
        return bool((self._undone if redo else self._done).get(by)) or (by, redo) in self._overwritten

    def stale(self, by: str, op: Operation, base: int, document: Document) -> Property | None:
        """A property that an operation would write and somebody else has written since ``base``, if there is one."""
        for name in properties(op, document):
            forgotten = base < self._since and value(document, name, self._heights_of(document)) is not None
            if forgotten or self._by_others(by, name, base):
                return name
        return None

    def _forget_unneeded(self, document: Document) -> None:
        """Forget who has written what is gone, where no edit that can be taken back is about it."""
        changes = (change for lists in (self._done, self._undone) for them in lists.values() for change in them)
        needed = {written for change in changes for name in change.before for written in _written_with(name)}
        layers = self._heights_of(document)
        self._written = {
            name: by
            for name, by in self._written.items()
            if name in needed or name[0] in ("setting", "prompt") or value(document, name, layers) is not None
        }
        self._most_written = 2 * len(self._written) + SPARE

    def _heights_of(self, document: Document) -> Mapping[str, int]:
        """Above how many others each layer of the mask is; found once for a mask, since it may have very many."""
        if self._heights[0] is not document.mask:
            self._heights = (document.mask, heights(document.mask))
        return self._heights[1]

    def _by_others(self, by: str, name: Property, since: int) -> bool:
        return any(person != by and seq > since for person, seq in self._written.get(name, {}).items())


def properties(op: Operation | Raster | Restore, before: Document) -> list[Property]:
    """What an operation writes."""
    layers = [("layer", layer.id) for layer in before.mask]
    match op:
        case AddDrag(id=id) | RemoveDrag(id=id):
            return [("drag", id)]
        case MoveDrag(id=id, handle=handle, target=target):
            return _ends(id, handle, target)
        case AddStroke(stroke=Stroke(id=id)) | RemoveStroke(id=id) | InvertMask(id=id):
            return [("layer", id)]
        case ClearMask():
            return layers
        case Raster(id=id):
            return [*layers, ("layer", id)]
        case SetPrompt():
            return [("prompt", "")]
        case SetSettings(settings=settings):
            return [("setting", name) for name in settings]
        case Restore():
            return [
                *_restored_drags(op.drags, before.drags),
                *(("setting", name) for name in op.settings),
                *([] if op.prompt is None else [("prompt", "")]),
                *([] if op.mask is None else _exchanged(before.mask, op.mask)),
            ]


def heights(mask: tuple[MaskLayer, ...]) -> dict[str, int]:
    """Above how many others each layer is."""
    return {layer.id: above for above, layer in enumerate(mask)}


def value(document: Document, name: Property, layers: Mapping[str, int]) -> Value:
    """What a property is; None where there is no such thing. A handle is where its content has gone to.

    Args:
        layers: the `heights` of the document's mask.
    """
    kind, id = name
    match kind:
        case "setting":
            return document.settings.get(id)
        case "prompt":
            return document.prompt
        case "layer":
            return Layer(layers[id], document.mask[layers[id]]) if id in layers else None
    drag = document.drags.get(id)
    if drag is None or kind == "drag":
        return drag
    return drag.target if kind == "target" else content(drag)


def content(drag: Drag) -> XY:
    """Where the content of a drag is."""
    return drag.tracked or drag.handle


def put_back(document: Document, values: Mapping[Property, Value], heights: Mapping[str, int]) -> Restore | None:
    """What gives these properties these values; None if nothing would change. ``heights`` are those of the mask."""
    drags: dict[str, RestoredDrag | None] = {}
    settings: dict[str, Setting | None] = {}
    prompt: str | None = None
    layers: dict[str, Layer | None] = {}
    for (kind, id), old in values.items():
        now = value(document, (kind, id), heights)
        if now == old or (kind == "layer" and (now is None) == (old is None)):
            continue
        match kind, old:
            case "setting", None | bool() | int() | float() | str():
                settings[id] = old
            case "prompt", str():
                prompt = old
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
    if not drags and not settings and prompt is None and mask == document.mask:
        return None
    return Restore(drags=drags, settings=settings, prompt=prompt, mask=None if mask == document.mask else mask)


def shortest(document: Document, restore: Restore) -> Operation | Restore:
    """The same, where all it does is to take a layer from the mask or to put one on top, without the whole mask."""
    if restore.mask is None or restore.drags or restore.settings or restore.prompt is not None:
        return restore
    before, after = document.mask, restore.mask
    if after[:-1] == before:
        top = after[-1]
        if isinstance(top, Stroke):
            return AddStroke(stroke=top)
        return InvertMask(id=top.id) if isinstance(top, Invert) else restore
    gone = [layer for layer in before if layer not in after]
    if len(gone) == 1 and after == tuple(layer for layer in before if layer.id != gone[0].id):
        return RemoveStroke(id=gone[0].id)
    return restore


def _with_layers(mask: tuple[MaskLayer, ...], changes: Mapping[str, Layer | None]) -> tuple[MaskLayer, ...]:
    """The mask without the layers that were not there, and with those that were, in their places."""
    layers = [layer for layer in mask if layer.id not in changes]
    back = [place for place in changes.values() if place is not None]
    for place in sorted(back, key=lambda place: place.above):
        layers.insert(place.above, place.layer)
    return tuple(layers)


def _ends(id: str, handle: XY | None, target: XY | None) -> list[Property]:
    return [(kind, id) for kind, end in (("handle", handle), ("target", target)) if end is not None]


def _restored_drags(drags: Mapping[str, RestoredDrag | None], before: Mapping[str, Drag]) -> Iterable[Property]:
    for id, back in drags.items():
        if back is None or id not in before:
            yield ("drag", id)
        else:
            yield from _ends(id, back.handle, back.target)


def _exchanged(before: tuple[MaskLayer, ...], after: tuple[MaskLayer, ...]) -> list[Property]:
    """The layers that come or go."""
    old, new = {layer.id for layer in before}, {layer.id for layer in after}
    return [("layer", layer.id) for layer in (*before, *after) if (layer.id in old) != (layer.id in new)]


def _written_with(name: Property) -> Iterable[Property]:
    """The property, and what else is written with it."""
    kind, id = name
    yield name
    if kind in ("handle", "target"):
        yield ("drag", id)
    elif kind == "drag":
        yield from (("handle", id), ("target", id))


def _take(changes: list[Change], op_id: str) -> str:
    """Forget a change, and those after it, of which nothing was left to put back; returns its type."""
    index = max((index for index, change in enumerate(changes) if change.op_id == op_id), default=len(changes))
    taken = changes[index].type if index < len(changes) else ""
    del changes[index:]
    return taken
