"""Stored values: a room with its log, its summary in a list, a session cookie."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from livedrag.server.document.fold import fold
from livedrag.server.document.members import Link, Member
from livedrag.server.document.protocol import DocRecord, Document, Raster

FileKind = Literal["picture", "mask", "result"]


@dataclass(frozen=True)
class CookieSession:
    """A session cookie's owner. ``digest`` is the SHA-256 of the cookie's value.

    ``password_verifier`` is a salted hash of the server password that its owner has given, or empty.
    """

    digest: str
    person: str
    made: float
    used: float
    password_verifier: str = ""


@dataclass(frozen=True)
class SavedRoom:
    """A stored room.

    Args:
        instance: identifies this life of the room: a log from an earlier life must not be resumed.
        records: the latest part of the log, oldest first.
        base: the document at ``base_seq``; the records after it lead to ``document``. Earlier records, which only data
            directories of schema 1 have, serve to recognise operations that are sent again.
        damage: the first thing in the log that cannot be read, or empty.
        complete: whether the document is the latest one in spite of it; else it is as it was before the damage.
    """

    instance: str
    created: float
    document: Document
    seq: int
    base: Document
    base_seq: int
    records: tuple[DocRecord, ...]
    links: tuple[Link, ...]
    members: tuple[Member, ...]
    damage: str = ""
    complete: bool = True


@dataclass(frozen=True)
class RoomSummary:
    """A room as a list shows it; times in seconds since the epoch."""

    id: str
    created: float
    used: float
    seq: int
    people: int
    title: str


def new_instance() -> str:
    return secrets.token_urlsafe(9)


def new_room(document: Document, links: Iterable[Link]) -> SavedRoom:
    """A room with an empty log."""
    return SavedRoom(new_instance(), time.time(), document, 0, document, 0, (), tuple(links), ())


def references(document: Document) -> set[tuple[FileKind, str]]:
    """The files that a document refers to, as (kind, SHA-256)."""
    files: set[tuple[FileKind, str]] = {("picture", document.picture.sha256)}
    files.update(("mask", layer.sha256) for layer in document.mask if isinstance(layer, Raster))
    if document.result is not None:
        files.add(("result", document.result.sha256))
    return files


def folded(saved: SavedRoom) -> Iterator[tuple[DocRecord, Document]]:
    """Each record since the base, with the document after it."""
    document = saved.base
    for record in saved.records:
        if record.seq > saved.base_seq:
            document = fold(document, record)
            yield record, document
