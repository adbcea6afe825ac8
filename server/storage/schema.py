"""The tables of the database, and the migrations that bring an older one up to date."""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from livedrag.server.document.members import Link
from livedrag.server.document.protocol import Edited, Ended, Raster, Role
from livedrag.server.storage.errors import Damaged, StoreError
from livedrag.server.storage.loading import load_room
from livedrag.server.storage.queries import put_link
from livedrag.server.storage.saved import new_instance, references

log = logging.getLogger(__name__)

SCHEMA_VERSION = 5
STROKES = """
CREATE TABLE strokes (
    room TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    stroke BLOB NOT NULL,
    PRIMARY KEY (room, sha256)
) WITHOUT ROWID;
CREATE TABLE stroke_uses (
    room TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (room, sha256)
) WITHOUT ROWID;
"""
"""``seq`` is of the last record or document that contains the stroke; apart from it, since it changes often."""
SCHEMA = """
CREATE TABLE rooms (
    id TEXT PRIMARY KEY,
    instance TEXT NOT NULL,
    created REAL NOT NULL,
    used REAL NOT NULL,
    seq INTEGER NOT NULL,
    base_seq INTEGER NOT NULL,
    base BLOB NOT NULL,
    next_seq INTEGER NOT NULL,
    next BLOB NOT NULL,
    log_bytes INTEGER NOT NULL DEFAULT 0,
    title TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE records (
    room TEXT NOT NULL,
    seq INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (room, seq)
) WITHOUT ROWID;
CREATE TABLE links (
    room TEXT NOT NULL,
    id TEXT NOT NULL,
    digest TEXT NOT NULL,
    role TEXT NOT NULL,
    made REAL NOT NULL,
    used REAL,
    PRIMARY KEY (room, id),
    UNIQUE (room, digest)
) WITHOUT ROWID;
CREATE TABLE members (
    room TEXT NOT NULL,
    person TEXT NOT NULL,
    name TEXT NOT NULL,
    colour TEXT NOT NULL,
    role TEXT,
    link TEXT NOT NULL,
    seen REAL NOT NULL,
    PRIMARY KEY (room, person)
) WITHOUT ROWID;
CREATE TABLE sessions (
    digest TEXT PRIMARY KEY,
    person TEXT NOT NULL,
    made REAL NOT NULL,
    used REAL NOT NULL,
    password_verifier TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE files (
    room TEXT NOT NULL,
    kind TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (room, kind, sha256)
) WITHOUT ROWID;
CREATE INDEX files_by_content ON files (sha256);
"""


def open_database(path: Path, *, create: bool = True, exclusive: bool = False) -> sqlite3.Connection:
    """Open the database and bring it up to date.

    Args:
        create: whether to create it if there is none.
        exclusive: keep other processes, such as backups, from reading it; it then needs no shared memory file.

    Raises:
        StoreError: there is none, or an empty one, and ``create`` is false.
        sqlite3.Error, msgspec.MsgspecError: it is in use, damaged, or from a newer livedrag; it is left as it was.
    """
    if not create and not (path.exists() and path.stat().st_size):
        raise _no_database(path)
    database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        if exclusive:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN EXCLUSIVE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"schema {version} is from a newer livedrag, this one knows {SCHEMA_VERSION}")
        if version == 0 and not create:
            raise _no_database(path)
        if version == 0:
            _create_tables(database)
        elif version < SCHEMA_VERSION:
            log.info("migrating %s from schema %d to %d", path, version, SCHEMA_VERSION)
            MIGRATIONS[version](database)
        if version < SCHEMA_VERSION:  # a full disk does not prevent opening
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _no_database(path: Path) -> StoreError:
    return StoreError(
        f"{str(path.parent)!r} has pictures or checkpoints of rooms, but {path.name} is missing or empty: restore it "
        "from a backup. To start without rooms, move the folders 'pictures' and 'checkpoints' away"
    )


def _create_tables(database: sqlite3.Connection) -> None:
    _execute_all(database, SCHEMA + STROKES)


def _execute_all(database: sqlite3.Connection, statements: str) -> None:
    """Unlike `executescript`, this stays inside the transaction."""
    for statement in filter(str.strip, statements.split(";")):
        database.execute(statement)


def _from_1(database: sqlite3.Connection) -> None:
    """Links get ids, rooms an instance, and files the rooms that refer to them."""
    database.execute("ALTER TABLE rooms RENAME TO rooms_1")
    database.execute("ALTER TABLE records RENAME TO records_1")
    _create_tables(database)
    database.execute("INSERT INTO records SELECT room, seq, record FROM records_1")
    rows = database.execute("SELECT id, created, links, seq, checkpoint_seq, checkpoint FROM rooms_1").fetchall()
    for room, created, links, seq, base_seq, base in rows:
        row = (room, new_instance(), created, time.time(), seq, base_seq, base, base_seq, base)
        database.execute("INSERT INTO rooms VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '')", row)
        for digest, role in msgspec.json.decode(links, type=dict[str, Role]).items():
            put_link(database, room, Link(secrets.token_urlsafe(6), digest, role, created))
    database.execute("DROP TABLE records_1")
    database.execute("DROP TABLE rooms_1")
    _rename_stored_fields(database)
    for room, *_, base_seq, _ in rows:
        _register_files(database, room, base_seq)
    _fill_titles(database)


def _register_files(database: sqlite3.Connection, room: str, base_seq: int) -> None:
    saved = load_room(database, room)
    assert saved is not None
    files = references(saved.base) | references(saved.document)
    for record in saved.records:
        match record:
            case Edited(op=Raster(sha256=sha256)):
                files.add(("mask", sha256))
            case Ended(result=result) if result is not None:
                files.add(("result", result.sha256))
    values = [(room, kind, sha256, base_seq) for kind, sha256 in files]
    database.executemany("INSERT INTO files VALUES (?, ?, ?, ?)", values)


def _from_2(database: sqlite3.Connection) -> None:
    """The protocol's new names: ``picture.generation`` and ``seeked``; a cookie's ``password_verifier``."""
    database.execute("ALTER TABLE sessions RENAME COLUMN passed TO password_verifier")
    _rename_stored_fields(database)
    _from_3(database)


def _from_3(database: sqlite3.Connection) -> None:
    """Long strokes are stored once, and the log is bounded in bytes."""
    database.execute("ALTER TABLE rooms ADD COLUMN log_bytes INTEGER NOT NULL DEFAULT 0")
    _execute_all(database, STROKES)
    _from_4(database)


def _from_4(database: sqlite3.Connection) -> None:
    """The titles of rooms, for lists of them."""
    database.execute("ALTER TABLE rooms ADD COLUMN title TEXT NOT NULL DEFAULT ''")
    _fill_titles(database)


def _fill_titles(database: sqlite3.Connection) -> None:
    """That of a room which cannot be read stays empty."""
    for (room,) in database.execute("SELECT id FROM rooms").fetchall():
        with contextlib.suppress(Damaged):
            saved = load_room(database, room)
            title = saved.document.title if saved is not None else ""
            database.execute("UPDATE rooms SET title = ? WHERE id = ?", (title, room))


def _rename_stored_fields(database: sqlite3.Connection) -> None:
    for room, *documents in database.execute("SELECT id, base, next FROM rooms").fetchall():
        base, next = (_repacked(packed, rename_document_fields) for packed in documents)
        database.execute("UPDATE rooms SET base = ?, next = ? WHERE id = ?", (base, next, room))
    seeks = "SELECT room, seq, record FROM records WHERE instr(record, CAST('sought' AS BLOB))"
    for room, seq, packed in database.execute(seeks).fetchall():
        record = _repacked(packed, rename_record_tag)
        database.execute("UPDATE records SET record = ? WHERE room = ? AND seq = ?", (record, room, seq))


def _repacked(packed: bytes, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    return msgspec.msgpack.encode(change(msgspec.msgpack.decode(packed, type=dict[str, Any])))


def rename_document_fields(document: dict[str, Any]) -> dict[str, Any]:
    """A document as it was stored before schema 3, with the names of today."""
    picture = document.get("picture")
    if not isinstance(picture, dict) or "drawn" not in picture:
        return document
    renamed = {"generation" if name == "drawn" else name: value for name, value in picture.items()}
    return {**document, "picture": renamed}


def rename_record_tag(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it was stored before schema 3, with the tag of today."""
    return {**record, "type": "seeked"} if record.get("type") == "sought" else record


MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4}
"""From each older schema to the current one."""
