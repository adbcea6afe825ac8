"""Store: what outlives the process. One SQLite file for the rooms' logs, and pictures named by content beside it.

A single thread writes; all that waits for it is committed together, so that one `fsync` pays for many edits. The future
of a job is done when its transaction is on disk, and not before. Files are on disk before the record that names them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from server.protocol import DocRecord, Document
from server.room import Role, fold

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE rooms (
    id TEXT PRIMARY KEY,
    created REAL NOT NULL,
    links BLOB NOT NULL,
    seq INTEGER NOT NULL,
    checkpoint_seq INTEGER NOT NULL,
    checkpoint BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE records (
    room TEXT NOT NULL REFERENCES rooms (id),
    seq INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (room, seq)
) WITHOUT ROWID;
"""
SCHEMA_VERSION = 1
CHECKPOINT_EVERY = 64
"""Records between two checkpoints of a document."""
REMEMBERED = 1000
"""Latest records of a room whose ``op_id`` is still known after a restart."""
GROUP = 256
"""Most jobs in one transaction."""

T = TypeVar("T")
_Job = tuple[Callable[[sqlite3.Connection], object], "Future[object]"]


class StoreError(Exception):
    """The disk did not do what it should; the text names the place and says what would work."""


@dataclass(frozen=True)
class Saved:
    """A room as it lies on disk; ``records`` are the latest, oldest first."""

    document: Document
    seq: int
    links: Mapping[str, Role]
    records: tuple[DocRecord, ...]


class Store:
    """The rooms in one data directory, which one store at a time may have open."""

    def __init__(self, folder: Path) -> None:
        """Open or make a data directory.

        Raises:
            StoreError: it cannot be written, is in use by another process, or comes from a newer livedrag.
        """
        self.folder = folder
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        try:
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            self._database = _open(folder / "livedrag.sqlite3")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(_complaint(folder, error)) from error
        self._writer = threading.Thread(target=self._write, name="store", daemon=True)
        self._writer.start()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish what was asked for, then close."""
        self._jobs.put(None)
        self._writer.join()

    def create(self, room: str, document: Document, links: Mapping[str, Role]) -> Future[None]:
        """Keep a new room."""
        row = (room, time.time(), msgspec.json.encode(dict(links)), 0, 0, msgspec.msgpack.encode(document))
        return self._submit(lambda database: _run(database, "INSERT INTO rooms VALUES (?, ?, ?, ?, ?, ?)", row))

    def append(self, room: str, record: DocRecord, document: Document) -> Future[None]:
        """Keep one record of a room's log, and now and then the document it led to.

        The future fails with StoreError if the record before it was not kept.
        """
        packed = msgspec.msgpack.encode(record)
        checkpoint = msgspec.msgpack.encode(document) if record.seq % CHECKPOINT_EVERY == 0 else None

        def job(database: sqlite3.Connection) -> None:
            moved = database.execute(
                "UPDATE rooms SET seq = ? WHERE id = ? AND seq = ?", (record.seq, room, record.seq - 1)
            )
            if moved.rowcount != 1:
                raise StoreError(f"record {record.seq} of room {room!r} does not follow what is on disk")
            database.execute("INSERT INTO records VALUES (?, ?, ?)", (room, record.seq, packed))
            if checkpoint is not None:
                database.execute(
                    "UPDATE rooms SET checkpoint_seq = ?, checkpoint = ? WHERE id = ?", (record.seq, checkpoint, room)
                )

        return self._submit(job)

    def load(self, room: str) -> Future[Saved | None]:
        """Read a room; None if there is none by that name."""
        return self._submit(lambda database: _load(database, room))

    def barrier(self) -> Future[None]:
        """Done when all that was asked for before is on disk."""
        return self._submit(lambda database: None)

    def put_picture(self, png: bytes) -> str:
        """Keep a PNG (blocking); returns its sha256, by which it is found again.

        Raises:
            StoreError: it could not be written.
        """
        sha256 = hashlib.sha256(png).hexdigest()
        path = self.picture_path(sha256)
        try:
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                draft = path.with_suffix(f".{threading.get_ident()}.draft")
                with draft.open("wb") as file:
                    file.write(png)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(path)
                _sync_folder(path.parent)
        except OSError as error:
            raise StoreError(_complaint(self.folder, error)) from error
        return sha256

    def picture_path(self, sha256: str) -> Path:
        """Where a kept picture lies."""
        return self.folder / "pictures" / sha256[:2] / f"{sha256}.png"

    def get_picture(self, sha256: str) -> bytes:
        """Read a kept picture (blocking)."""
        return self.picture_path(sha256).read_bytes()

    def _submit(self, job: Callable[[sqlite3.Connection], T]) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put((job, future))  # type: ignore[arg-type]
        return future

    def _write(self) -> None:
        """The writer thread: commit in groups until told to stop."""
        open_for_more = True
        while open_for_more:
            group = [self._jobs.get()]
            while group[-1] is not None and len(group) < GROUP and not self._jobs.empty():
                group.append(self._jobs.get())
            open_for_more = group[-1] is not None
            try:
                _commit(self._database, [job for job in group if job is not None])
            except Exception:
                log.exception("the store's writer went on after an unexpected error")
        self._database.close()


def _commit(database: sqlite3.Connection, group: Iterable[_Job]) -> None:
    """Do a group of jobs in one transaction; a job that fails leaves the others alone."""
    done: list[tuple[Future[object], object]] = []
    pending = [future for _, future in group]
    try:
        database.execute("BEGIN IMMEDIATE")
        for job, future in group:
            database.execute("SAVEPOINT job")
            try:
                done.append((future, job(database)))
            except (StoreError, sqlite3.IntegrityError, msgspec.MsgspecError) as error:
                database.execute("ROLLBACK TO job")
                pending.remove(future)
                future.set_exception(error)
            database.execute("RELEASE job")
        database.execute("COMMIT")
    except Exception as error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        for future in pending:
            future.set_exception(StoreError(f"nothing could be saved: {error}. Is the disk full?"))
    else:
        for future, answer in done:
            future.set_result(answer)


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")  # held until closed, also against other processes
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN EXCLUSIVE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in filter(str.strip, SCHEMA.split(";")):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"schema {version} is from a newer livedrag, this one knows {SCHEMA_VERSION}")
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _load(database: sqlite3.Connection, room: str) -> Saved | None:
    row = database.execute("SELECT links, seq, checkpoint_seq, checkpoint FROM rooms WHERE id = ?", (room,)).fetchone()
    if row is None:
        return None
    links, seq, checkpoint_seq, checkpoint = row
    first = min(checkpoint_seq, seq - REMEMBERED)
    rows = database.execute("SELECT record FROM records WHERE room = ? AND seq > ? ORDER BY seq", (room, first))
    records = tuple(msgspec.msgpack.decode(packed, type=DocRecord) for (packed,) in rows)
    document = msgspec.msgpack.decode(checkpoint, type=Document)
    for record in records:
        if record.seq > checkpoint_seq:
            document = fold(document, record)
    return Saved(document, seq, msgspec.json.decode(links, type=dict[str, Role]), records)


def _run(database: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> None:
    database.execute(statement, values)


def _complaint(folder: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    if "locked" in reason:
        return f"the data directory {str(folder)!r} is in use by another livedrag: stop it, or choose with --data-dir"
    return f"cannot write in the data directory {str(folder)!r}: {reason}. Choose another with --data-dir"


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system has a way to."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
