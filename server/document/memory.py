"""How much of its past a room remembers: bounded by the strokes that the document, the log and the history hold."""

from __future__ import annotations

from collections.abc import Iterable

from livedrag.server.document.protocol import AddStroke, DocRecord, Edited, MaskLayer, Restore, Stroke

MAX_KNOWN = 2000
"""Accepted operations of a room that are recognised when they are sent again."""
MAX_HELD_POINTS = 300_000
"""Points of all strokes that a room holds, three times those that a mask may have."""
POINT_BYTES = 112
"""Memory of a point."""
TARGET_POINTS = 250_000
"""Points that are left after the oldest part of the past was forgotten, so that this is rare."""


def horizon(mask: Iterable[MaskLayer], past: Iterable[tuple[int, Iterable[Stroke]]], max_points: int) -> int:
    """The ``seq`` up to which the past must be forgotten so that all strokes together have few enough points.

    Args:
        mask: the current one, which stays.
        past: the strokes that records and undo hold, by ``seq``, in any order. A stroke counts once.
    """
    seen = {id(layer) for layer in mask}
    points = sum(len(layer.points) for layer in mask if isinstance(layer, Stroke))
    for seq, strokes in sorted(past, key=lambda entry: entry[0], reverse=True):
        new = {id(stroke): len(stroke.points) for stroke in strokes if id(stroke) not in seen}
        seen.update(new)
        points += sum(new.values())
        if points > max_points:
            return seq
    return 0


def strokes_of(record: DocRecord) -> Iterable[Stroke]:
    """The strokes that a record contains."""
    match record:
        case Edited(op=AddStroke(stroke=stroke)):
            return (stroke,)
        case Edited(op=Restore(mask=tuple(mask))):
            return [layer for layer in mask if isinstance(layer, Stroke)]
    return ()
