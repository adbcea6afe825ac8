"""The log in short, as people see it: who did what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from livedrag.server.document.protocol import (
    AddStroke,
    BaseReplaced,
    DocRecord,
    Edited,
    Ended,
    LogEntry,
    Seeked,
    Started,
    Stopping,
    WasReset,
    tag_of,
)

MAX_ENTRIES = 100


def latest_entries(records: Iterable[DocRecord]) -> list[LogEntry]:
    """The entries of the latest records, oldest first. ``records`` are newest first."""
    return list(islice(_entries(records), MAX_ENTRIES))[::-1]


def _entries(records: Iterable[DocRecord]) -> Iterator[LogEntry]:
    for record in records:
        match record:
            case Edited(seq=seq, by=by, op=op, op_id=op_id, undoes=undoes, redoes=redoes):
                erases = isinstance(op, AddStroke) and op.stroke.mode == "erase"
                kind = "erase" if erases else tag_of(op)
                yield LogEntry(seq=seq, by=by, type=kind, op_id=op_id, undoes=undoes, redoes=redoes)
            case Started(seq=seq, run=run):
                yield LogEntry(seq=seq, by=run.by, type="started", op_id=run.id)
            case Ended(seq=seq, run=run) if run.outcome is not None:
                yield LogEntry(seq=seq, by="", type=run.outcome)
            case Stopping() | WasReset() | Seeked() | BaseReplaced():
                yield LogEntry(seq=record.seq, by=record.by, type=tag_of(record), op_id=record.op_id)
