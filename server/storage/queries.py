"""The SQL statements on rooms, their logs, links, members and files. Each runs inside the caller's transaction."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from livedrag.server.document.members import Link, Member
from livedrag.server.document.protocol import DocRecord, Document
from livedrag.server.settings import MIB
from livedrag.server.storage.saved import CookieSession, RoomSummary, SavedRoom, folded, references
from livedrag.server.storage.strokes import (
    Packed,
    pack_document,
    pack_record,
    pack_stroke,
)

IF_ROOM = "WHERE EXISTS (SELECT 1 FROM rooms WHERE id = ?)"
LINK = "id, digest, role, made, used"
RESULTS_STORED = 20
"""Of a room, with the current one."""
RESULT_BYTES_STORED = 64 * MIB
"""Of the earlier results of a room."""
MEMBER = "person, name, colour, role, link, seen"


@dataclass(frozen=True)
class LogSize:
    """How much of a room's log came after ``next``, and the files that its last record was the first to refer to.

    A record counts with all its strokes.
    """

    records: int
    bytes: int
    new_files: list[str]


def room_exists(database: sqlite3.Connection, room: str) -> bool:
    return database.execute("SELECT 1 FROM rooms WHERE id = ?", (room,)).fetchone() is not None


def insert_room(database: sqlite3.Connection, room: str, saved: SavedRoom) -> list[str]:
    """Add a room; returns the files that it refers to."""
    base = put_strokes(database, room, saved.base_seq, pack_document(saved.base))
    base_seq, title = saved.base_seq, saved.document.title
    row = (room, saved.instance, saved.created, time.time(), saved.seq, base_seq, base, base_seq, base, title)
    database.execute("INSERT INTO rooms VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)", row)
    for record in saved.records:
        put_record(database, room, record)
    named = dict.fromkeys(references(saved.base), saved.base_seq)
    for record, document in folded(saved):
        for file in references(document):
            named.setdefault(file, record.seq)
    files = [(room, kind, sha256, seq) for (kind, sha256), seq in named.items()]
    database.executemany("INSERT INTO files VALUES (?, ?, ?, ?)", files)
    for link in saved.links:
        put_link(database, room, link)
    for member in saved.members:
        put_member(database, room, member)
    return [sha256 for _, sha256 in named]


def append_record(database: sqlite3.Connection, room: str, record: DocRecord, document: Document) -> LogSize | None:
    """Add a record to a room's log; None if it does not follow the last one, else how much came after ``next``."""
    updated = database.execute(
        "UPDATE rooms SET seq = ?, used = ?, title = ? WHERE id = ? AND seq = ?",
        (record.seq, time.time(), document.title, room, record.seq - 1),
    )
    if updated.rowcount != 1:
        return None
    size = put_record(database, room, record)
    insert = "INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?)"
    new_files = [
        sha256
        for kind, sha256 in references(document)
        if database.execute(insert, (room, kind, sha256, record.seq)).rowcount
    ]
    statement = "UPDATE rooms SET log_bytes = log_bytes + ? WHERE id = ? RETURNING seq - next_seq, log_bytes"
    ((records, log_bytes),) = database.execute(statement, (size, room)).fetchall()
    return LogSize(records, log_bytes, new_files)


def put_record(database: sqlite3.Connection, room: str, record: DocRecord) -> int:
    """Insert a record; returns its size in bytes with all its strokes."""
    packed = pack_record(record)
    data = put_strokes(database, room, record.seq, packed)
    database.execute("INSERT INTO records VALUES (?, ?, ?)", (room, record.seq, data))
    return packed.size


def put_strokes(database: sqlite3.Connection, room: str, seq: int, packed: Packed) -> bytes:
    """Store the strokes of a record or a document at ``seq`` unless they are there already; returns the rest."""
    if packed.strokes:
        stored = {sha256 for (sha256,) in database.execute("SELECT sha256 FROM stroke_uses WHERE room = ?", (room,))}
        new = [(room, sha256, pack_stroke(packed.strokes[sha256])) for sha256 in packed.strokes.keys() - stored]
        database.executemany("INSERT INTO strokes VALUES (?, ?, ?)", new)
        uses = [(room, sha256, seq) for sha256 in packed.strokes]
        statement = "INSERT INTO stroke_uses VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)"
        database.executemany(statement, uses)
    return packed.data


def compact_log(database: sqlite3.Connection, room: str, seq: int, document: Document) -> None:
    """``next`` becomes the base and ``document`` becomes ``next``; the records up to the base are deleted."""
    packed = put_strokes(database, room, seq, pack_document(document))
    database.execute(
        "UPDATE rooms SET base_seq = next_seq, base = next, next_seq = ?, next = ?, log_bytes = 0 WHERE id = ?",
        (seq, packed, room),
    )
    base_seq = "(SELECT base_seq FROM rooms WHERE id = ?)"
    database.execute(f"DELETE FROM records WHERE room = ? AND seq <= {base_seq}", (room, room))
    database.execute(f"DELETE FROM stroke_uses WHERE room = ? AND seq < {base_seq}", (room, room))
    used = "(SELECT sha256 FROM stroke_uses WHERE room = ?)"
    database.execute(f"DELETE FROM strokes WHERE room = ? AND sha256 NOT IN {used}", (room, room))


def list_rooms(database: sqlite3.Connection) -> list[RoomSummary]:
    """All rooms, the most recently used first."""
    people = "(SELECT count(*) FROM members WHERE room = id)"
    rows = database.execute(f"SELECT id, created, used, seq, {people}, title FROM rooms ORDER BY used DESC, id")
    return [RoomSummary(*row) for row in rows]


def delete_room(database: sqlite3.Connection, room: str) -> set[str]:
    """Delete all rows of a room; returns the files that no other room refers to."""
    files = {sha256 for (sha256,) in database.execute("SELECT sha256 FROM files WHERE room = ?", (room,))}
    for table in ("records", "strokes", "stroke_uses", "links", "members", "files"):
        database.execute(f"DELETE FROM {table} WHERE room = ?", (room,))
    database.execute("DELETE FROM rooms WHERE id = ?", (room,))
    return unreferenced(database, files)


def drop_old_results(
    database: sqlite3.Connection, room: str, document: Document, size: Callable[[str], int]
) -> set[str]:
    """Forget all results but the latest, to which one can still go back by undo.

    The current result and the one before stay; up to `RESULTS_STORED` stay if together they are small enough.

    Args:
        size: of a file, in bytes.

    Returns:
        The files that no room refers to any more.
    """
    current = document.result.sha256 if document.result else ""
    statement = "SELECT sha256 FROM files WHERE room = ? AND kind = 'result' AND sha256 != ? ORDER BY seq DESC"
    earlier = [sha256 for (sha256,) in database.execute(statement, (room, current))]
    sums = accumulate(map(size, earlier))
    small_enough = sum(total <= RESULT_BYTES_STORED for total in sums)
    old = earlier[max(1, min(small_enough, RESULTS_STORED - 1)) :]
    for sha256 in old:
        database.execute("DELETE FROM files WHERE room = ? AND kind = 'result' AND sha256 = ?", (room, sha256))
    return unreferenced(database, set(old))


def referenced(database: sqlite3.Connection) -> tuple[set[str], list[str]]:
    """All files that rooms refer to, and the rooms."""
    files = {sha256 for (sha256,) in database.execute("SELECT DISTINCT sha256 FROM files")}
    return files, [room for (room,) in database.execute("SELECT id FROM rooms")]


def unreferenced(database: sqlite3.Connection, files: set[str]) -> set[str]:
    """Those of the files that no room refers to."""
    statement = "SELECT 1 FROM files WHERE sha256 = ? LIMIT 1"
    return {sha256 for sha256 in files if database.execute(statement, (sha256,)).fetchone() is None}


def put_link(database: sqlite3.Connection, room: str, link: Link) -> None:
    row = (room, link.id, link.digest, link.role, link.made, link.used)
    database.execute(f"INSERT OR REPLACE INTO links SELECT ?, ?, ?, ?, ?, ? {IF_ROOM}", (*row, room))


def put_member(database: sqlite3.Connection, room: str, member: Member) -> None:
    row = (room, member.person, member.name, member.colour, member.role, member.link, member.seen)
    database.execute(f"INSERT OR REPLACE INTO members SELECT ?, ?, ?, ?, ?, ?, ? {IF_ROOM}", (*row, room))


def put_session(database: sqlite3.Connection, session: CookieSession) -> None:
    row = (session.digest, session.person, session.made, session.used, session.password_verifier)
    database.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", row)


def find_session(database: sqlite3.Connection, digest: str) -> CookieSession | None:
    row = database.execute("SELECT * FROM sessions WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else CookieSession(*row)


def identify(database: sqlite3.Connection) -> str:
    """The random id of a database, which is given to it at the first call; SQLite has a field for it."""
    (id,) = database.execute("PRAGMA application_id").fetchone()
    if not id:
        id = secrets.randbelow(2**31 - 1) + 1
        database.execute(f"PRAGMA application_id = {id}")
    return f"{id:08x}"
