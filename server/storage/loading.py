"""Reading a stored room, as far as it can be read: one damaged record does not make a room unreadable."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import msgspec

from livedrag.server.document.fold import fold
from livedrag.server.document.members import Link, Member
from livedrag.server.document.protocol import DocRecord, Document, Stroke
from livedrag.server.storage.errors import Damaged, is_corrupt
from livedrag.server.storage.queries import LINK, MEMBER
from livedrag.server.storage.saved import SavedRoom
from livedrag.server.storage.strokes import unpack_document, unpack_record, unpack_stroke

UNREADABLE = (msgspec.MsgspecError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Replay:
    """The log from a stored document on, up to its end or its first damage."""

    base: Document
    base_seq: int
    document: Document
    seq: int
    records: tuple[DocRecord, ...]
    damage: str


def load_room(database: sqlite3.Connection, room: str) -> SavedRoom | None:
    """A room; None if it does not exist. Raises `Damaged` if nothing of its document can be read."""
    columns = "instance, created, seq, base_seq, base, next_seq, next"
    row = database.execute(f"SELECT {columns} FROM rooms WHERE id = ?", (room,)).fetchone()
    if row is None:
        return None
    instance, created, seq, *documents = row
    replay, damage = _replay_best(database, room, seq, documents)
    links = database.execute(f"SELECT {LINK} FROM links WHERE room = ? ORDER BY made, id", (room,))
    members = database.execute(f"SELECT {MEMBER} FROM members WHERE room = ? ORDER BY seen, person", (room,))
    return SavedRoom(
        instance,
        created,
        replay.document,
        replay.seq,
        replay.base,
        replay.base_seq,
        replay.records,
        tuple(Link(*link) for link in links),
        tuple(Member(*member) for member in members),
        damage=damage,
        complete=replay.seq == seq,
    )


def _replay_best(database: sqlite3.Connection, room: str, seq: int, documents: list[object]) -> tuple[Replay, str]:
    """Replay the log from the base or, if it is damaged before ``next``, from there; returns the damage too."""
    base_seq, base, next_seq, next = documents
    strokes = _readable_strokes(database, room)
    rows = _readable(database, "SELECT seq, record FROM records WHERE room = ? ORDER BY seq", room)
    replay = _replay(base_seq, base, rows, seq, strokes)
    if replay is not None and not replay.damage:
        return replay, ""
    damage = replay.damage if replay is not None else f"the document at record {base_seq} cannot be read"
    later = _replay(next_seq, next, rows, seq, strokes)
    if later is not None and (replay is None or later.seq > replay.seq):
        replay = later
    if replay is None:
        raise Damaged(f"room {room!r} is damaged: its document cannot be read. Restore it from a backup")
    return replay, damage


def _replay(
    base_seq: object, packed: object, rows: list[tuple[int, bytes]], last: int, strokes: dict[bytes, Stroke]
) -> Replay | None:
    assert isinstance(base_seq, int)
    assert isinstance(packed, bytes)
    try:
        base = document = unpack_document(packed, strokes)
    except UNREADABLE:
        return None
    records: list[DocRecord] = []
    reached, damage = base_seq, ""
    for seq, data in rows:
        if seq > reached + 1:
            break
        try:
            record = unpack_record(data, strokes)
            document = fold(document, record) if seq > base_seq else document
        except UNREADABLE as error:
            if seq <= base_seq:
                continue  # of an old log, and not needed
            damage = f"record {seq} cannot be read: {error}"
            break
        records.append(record)
        reached = max(reached, seq)
    if reached < last and not damage:
        damage = f"record {reached + 1} is missing"
    return Replay(base, base_seq, document, reached, tuple(records), damage)


def _readable_strokes(database: sqlite3.Connection, room: str) -> dict[bytes, Stroke]:
    strokes = {}
    for sha256, packed in _readable(database, "SELECT sha256, stroke FROM strokes WHERE room = ?", room):
        try:
            strokes[sha256] = unpack_stroke(packed)
        except UNREADABLE:
            continue  # a record that needs it is named
    return strokes


def _readable(database: sqlite3.Connection, statement: str, room: str) -> list[tuple[Any, bytes]]:
    """The rows up to the first damaged page of the database."""
    rows: list[tuple[Any, bytes]] = []
    try:
        rows.extend(database.execute(statement, (room,)))
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
    return rows
