"""The document of a room between acceptance and publication, and the latest part of its log."""

from __future__ import annotations

from collections import deque

from msgspec.structs import replace

from livedrag.server.document.document import RoomDocument
from livedrag.server.document.memory import MAX_KNOWN, strokes_of
from livedrag.server.document.protocol import DocRecord, Document, Edited
from livedrag.server.rooms.services import Services
from livedrag.server.storage import SavedRoom

MAX_RESUMED = 1000
MAX_RESUMED_POINTS = 100_000
"""Records, and points of their strokes, that a client which reconnects is sent at most; else it gets a snapshot."""


class DocumentLog:
    """The document of a room.

    Attributes:
        draft: the document with all accepted edits, of which the latest may not be saved yet.
        document: the document at ``seq``, saved and published.
        records: the latest published records, up to ``seq``.
    """

    def __init__(self, draft: RoomDocument, saved: SavedRoom) -> None:
        self.instance = saved.instance
        self.draft = draft
        self.document, self.seq = draft.document, draft.seq
        self.records: deque[DocRecord] = deque(
            (record for record in saved.records if record.seq > max(saved.base_seq, draft.horizon)), maxlen=MAX_KNOWN
        )

    @property
    def editors(self) -> set[str]:
        """The people with an edit in `records`."""
        return {record.by for record in self.records if isinstance(record, Edited)}

    def publish(self, record: DocRecord, document: Document) -> None:
        """A record is on disk; it led to this document."""
        self.document, self.seq = document, record.seq
        self.records.append(record)
        while self.records and self.records[0].seq <= self.draft.horizon:
            self.records.popleft()

    def published(self, op_id: str) -> DocRecord | None:
        """The record of an operation that is saved and published."""
        record = self.draft.known(op_id)
        return record if record is not None and record.seq <= self.seq else None

    def missed(self, since: int) -> list[DocRecord] | None:
        """The records after ``since``; None if only a snapshot helps."""
        run = self.document.run
        oldest = self.seq - len(self.records)
        if not oldest <= since <= self.seq or self.seq - since > MAX_RESUMED:
            return None
        if run is not None and run.interrupted:
            return None  # no record says that a run was interrupted
        records = [record for record in self.records if record.seq > since]
        points = sum(len(stroke.points) for record in records for stroke in strokes_of(record))
        return records if points <= MAX_RESUMED_POINTS else None

    def revert(self, saved: RoomDocument) -> None:
        """Return to what is on disk after a record could not be saved."""
        last = self.document.run
        # A run whose start was published continues, unless its end was the record that could not be saved.
        started = last is not None and last.outcome is None and not last.interrupted
        if self.draft.running and started:
            set_interrupted(saved, False)
        self.draft, self.document, self.seq = saved, saved.document, saved.seq


def open_draft(room: str, saved: SavedRoom, services: Services) -> RoomDocument:
    """The document as it is on disk. A run without an outcome was interrupted by the end of the server."""
    draft = RoomDocument(
        room,
        saved.base,
        services.model,
        seq=saved.base_seq,
        records=saved.records,
        limits=services.room_limits,
        models=services.models,
    )
    set_interrupted(draft, True)
    return draft


def damage_text(saved: SavedRoom) -> str:
    """The message to people in a damaged room."""
    return (
        f"this room is damaged: {saved.damage}. It is shown as it was before, after record {saved.seq}, and cannot be "
        "edited. Export it and import the export, or restore a backup"
    )


def set_interrupted(draft: RoomDocument, interrupted: bool) -> None:
    """Mark a run without an outcome."""
    run = draft.document.run
    if run is not None and run.outcome is None:
        draft.document = replace(draft.document, run=replace(run, interrupted=interrupted))
