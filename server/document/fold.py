"""The document after a record: one pure function, used by the server, its clients and a restart from disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from livedrag.server.document.protocol import (
    XY,
    AddDrag,
    AddStroke,
    BaseReplaced,
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
    MoveDrag,
    Operation,
    Picture,
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
    SetTitle,
    Started,
    Stopping,
    WasReset,
)

T = TypeVar("T")


def fold(document: Document, record: DocRecord) -> Document:
    """The document after one accepted record."""
    match record:
        case Edited(op=op):
            return _apply(document, op)
        case Started(run=run):
            drags = {id: replace(drag, lost=False) for id, drag in document.drags.items()}
            return replace(document, run=run, drags=drags)
        case Stopping():
            return document
        case Ended():
            drags = {
                id: replace(drag, tracked=record.tracked.get(id, drag.tracked), lost=id in record.lost)
                for id, drag in document.drags.items()
            }
            moment = document.moment if record.moment is None else record.moment
            return replace(document, run=record.run, drags=drags, result=record.result, moment=moment)
        case WasReset():
            drags = {id: replace(drag, tracked=None, lost=False) for id, drag in document.drags.items()}
            return replace(document, run=None, drags=drags, result=None, moment=None)
        case Seeked():
            drags = {
                id: replace(drag, tracked=record.tracked.get(id), lost=False) for id, drag in document.drags.items()
            }
            return replace(document, drags=drags, moment=record.moment)
        case BaseReplaced(picture=picture):
            return _rebased(document, picture)


def _rebased(document: Document, picture: Picture) -> Document:
    """The document of another picture, whose content no drag has moved yet."""
    fresh = replace(document, picture=picture, run=None, drags={}, result=None, moment=None, branches={})
    return fresh if same_size(picture, document.picture) else replace(fresh, mask=(), pins={})


def same_size(one: Picture, other: Picture) -> bool:
    """Whether a mask of one picture fits the other."""
    return (one.width, one.height) == (other.width, other.height)


def _apply(document: Document, op: Operation | Raster | Restore) -> Document:
    """The document after a checked operation. The last writer of a drag's property wins."""
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
        case GrowMask():
            return replace(document, mask=(*document.mask, Grow(id=op.id, pixels=op.pixels)))
        case Raster():
            return replace(document, mask=(op,))
        case ClearMask():
            return replace(document, mask=())
        case SetPrompt():
            return replace(document, prompt=op.prompt)
        case SetSettings():
            return replace(document, settings=_changed(document.settings, op.settings))
        case MarkBranch(moment=moment, mark=mark):
            return replace(document, branches=_changed(document.branches, {str(moment): mark}))
        case SetPin():
            return replace(document, pins=_changed(document.pins, {op.id: op.at}))
        case SetTitle():
            return replace(document, title=op.title)
        case SetModel():
            return replace(document, model=op.model)
        case Restore():
            document = replace(
                document,
                drags=_with_restored(document.drags, op.drags),
                settings=_changed(document.settings, op.settings),
                prompt=document.prompt if op.prompt is None else op.prompt,
                mask=document.mask if op.mask is None else op.mask,
                branches=_changed(document.branches, op.branches),
                pins=_changed(document.pins, op.pins),
                title=document.title if op.title is None else op.title,
                model=document.model if op.model is None else op.model,
            )
            return document if op.content is None else with_content(document, op.content)


def with_content(document: Document, content: Content) -> Document:
    """The document with this content of its picture; drags that it does not know have not been tracked."""
    drags = {
        id: replace(drag, handle=content.handles.get(id, drag.handle), tracked=content.tracked.get(id), lost=False)
        for id, drag in document.drags.items()
    }
    return replace(
        document,
        picture=content.picture,
        run=content.run,
        drags=drags,
        result=content.result,
        moment=content.moment,
    )


def _changed(values: Mapping[str, T], changes: Mapping[str, T | None]) -> dict[str, T]:
    """The values after changes, of which None removes one."""
    return {name: value for name, value in {**values, **changes}.items() if value is not None}


def _with_restored(drags: Mapping[str, Drag], changes: Mapping[str, RestoredDrag | None]) -> dict[str, Drag]:
    after = dict(drags)
    for id, restored in changes.items():
        if restored is None:
            after.pop(id, None)
        elif id in after:
            after[id] = _moved(after[id], restored.handle, restored.target)
        elif restored.handle is not None and restored.target is not None:
            after[id] = Drag(handle=restored.handle, target=restored.target)
    return after


def _moved(drag: Drag, handle: XY | None, target: XY | None) -> Drag:
    if handle is not None:
        drag = Drag(handle=handle, target=drag.target)  # a new handle: ``tracked`` no longer applies
    return drag if target is None else replace(drag, target=target, lost=False)
