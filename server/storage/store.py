"""Store: what outlives the process. One SQLite file for the rooms' logs, and pictures named by content beside it.

A single thread writes; all that waits for it is committed together, so that one `fsync` pays for many edits. The future
of a job is done when its transaction is on disk, and not before. Files are on disk before the record that names them,
and leave it after the last record that did, in a thread of their own, for which no edit waits.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import queue
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import msgspec

from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.document.document import fold
from livedrag.server.document.members import Link, Member
from livedrag.server.document.protocol import DocRecord, Document, Edited, Ended, Raster, Role

log = logging.getLogger(__name__)

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
    next BLOB NOT NULL
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
    passed TEXT NOT NULL
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
SCHEMA_VERSION = 2
IF_ROOM = "WHERE EXISTS (SELECT 1 FROM rooms WHERE id = ?)"
REMEMBERED = 1000
"""Latest records of a room that are kept at least: what undo, resuming and sent-again operations can go back to."""
GROUP = 256
"""Most jobs in one transaction."""
FRESH = 3600.0
"""Seconds for which a file that was just put here stays, whether a room names it by then or not."""
SHA256 = re.compile(r"[0-9a-f]{64}")
"""All of what a file may be named by."""

T = TypeVar("T")
FileKind = Literal["picture", "mask", "result"]
_Job = tuple[Callable[[sqlite3.Connection], object], Callable[[Any], None] | None, "Future[object]"]


class StoreError(Exception):
    """The disk did not do what it should; the text names the place and says what would work."""


@dataclass(frozen=True)
class CookieSession:
    """Who holds a cookie. ``digest`` is of the cookie's value; ``passed`` names the server password it has passed."""

    digest: str
    person: str
    made: float
    used: float
    passed: str = ""


@dataclass(frozen=True)
class SavedRoom:
    """A room as it lies on disk.

    Args:
        instance: names this life of the room: a log from another life must not be trusted.
        records: the latest of the log, oldest first.
        base: the document at ``base_seq``; the records after it lead to ``document``. Earlier ones, which a data
            directory from before schema 2 may have, are only good for recognising operations that are sent again.
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


@dataclass(frozen=True)
class RoomSummary:
    """A room as a list shows it; times in seconds since the epoch."""

    id: str
    created: float
    used: float
    seq: int
    people: int


def new_instance() -> str:
    """A name for one life of a room."""
    return secrets.token_urlsafe(9)


def new_room(document: Document, links: Iterable[Link]) -> SavedRoom:
    """A room at the beginning of its log."""
    return SavedRoom(new_instance(), time.time(), document, 0, document, 0, (), tuple(links), ())


def references(document: Document) -> set[tuple[FileKind, str]]:
    """The files that a document names, each with what it is to it."""
    named: set[tuple[FileKind, str]] = {("picture", document.picture.sha256)}
    named.update(("mask", layer.sha256) for layer in document.mask if isinstance(layer, Raster))
    if document.result is not None:
        named.add(("result", document.result.sha256))
    return named


def folded(saved: SavedRoom) -> Iterator[tuple[DocRecord, Document]]:
    """Each record since the base, with the document that it led to."""
    document = saved.base
    for record in saved.records:
        if record.seq > saved.base_seq:
            document = fold(document, record)
            yield record, document


class Store:
    """The rooms in one data directory, which one store at a time may have open."""

    def __init__(self, folder: Path) -> None:
        """Open or make a data directory; one from an earlier livedrag is brought up to this one's schema.

        Raises:
            StoreError: it cannot be written, is in use by another process, or comes from a newer livedrag.
        """
        self.folder = folder
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._fresh: dict[str, float] = {}
        self._files = threading.Lock()
        self._loaded: dict[str, float] = {}  # when; the writer's alone
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._clearing = ThreadPoolExecutor(1, "store-clearing")
        try:
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            self._database = _open(folder / "livedrag.sqlite3")
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
            raise StoreError(_complaint(folder, error)) from error
        self._writer = threading.Thread(target=self._write, name="store", daemon=True)
        self._writer.start()
        self.sweep()

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
        self._clearing.shutdown()

    # Rooms -----------------------------------------------------------------------------------------------------------

    def create(self, room: str, document: Document, links: Iterable[Link]) -> Future[str]:
        """Keep a new room; gives its instance."""
        return self.adopt(room, new_room(document, links))

    def adopt(self, room: str, saved: SavedRoom) -> Future[str]:
        """Keep a room with all of its log, under an id that is not taken; gives its instance."""
        base, records = msgspec.msgpack.encode(saved.base), [msgspec.msgpack.encode(r) for r in saved.records]
        named = dict.fromkeys(references(saved.base), saved.base_seq)
        for record, document in folded(saved):
            for file in references(document):
                named.setdefault(file, record.seq)

        def job(database: sqlite3.Connection) -> str:
            row = (room, saved.instance, saved.created, time.time(), saved.seq, saved.base_seq, base)
            database.execute("INSERT INTO rooms VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, saved.base_seq, base))
            rows = [(room, record.seq, packed) for record, packed in zip(saved.records, records, strict=True)]
            database.executemany("INSERT INTO records VALUES (?, ?, ?)", rows)
            files = [(room, kind, sha256, seq) for (kind, sha256), seq in named.items()]
            database.executemany("INSERT INTO files VALUES (?, ?, ?, ?)", files)
            for link in saved.links:
                _put_link(database, room, link)
            for member in saved.members:
                _put_member(database, room, member)
            return saved.instance

        return self._submit(job)

    def append(self, room: str, record: DocRecord, document: Document) -> Future[None]:
        """Keep one record of a room's log, and now and then the document it led to.

        The future fails with StoreError if the record before it was not kept.
        """
        packed, named = msgspec.msgpack.encode(record), references(document)

        def job(database: sqlite3.Connection) -> set[str]:
            moved = database.execute(
                "UPDATE rooms SET seq = ?, used = ? WHERE id = ? AND seq = ? RETURNING next_seq",
                (record.seq, time.time(), room, record.seq - 1),
            ).fetchall()
            if len(moved) != 1:
                raise StoreError(f"record {record.seq} of room {room!r} does not follow what is on disk")
            database.execute("INSERT INTO records VALUES (?, ?, ?)", (room, record.seq, packed))
            rows = [(room, kind, sha256, record.seq) for kind, sha256 in named]
            database.executemany("INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?)", rows)
            if record.seq - moved[0][0] >= REMEMBERED:
                _advance(database, room, record.seq, document)
            return _replaced_results(database, room, document) if isinstance(record, Ended) else set()

        return self._submit(job, self._clear)  # type: ignore[arg-type]

    def load(self, room: str) -> Future[SavedRoom | None]:
        """Read a room, which counts as using it; None if there is none by that name."""

        def job(database: sqlite3.Connection) -> SavedRoom | None:
            saved = _load(database, room)
            if saved is not None:
                self._loaded[room] = time.time()
            return saved

        return self._submit(job)

    def rooms(self) -> Future[list[RoomSummary]]:
        """All rooms, the one used last first."""
        statement = (
            "SELECT id, created, used, seq, (SELECT count(*) FROM members WHERE room = id) FROM rooms"
            " ORDER BY used DESC, id"
        )
        return self._submit(lambda database: [RoomSummary(*row) for row in database.execute(statement)])

    def delete(self, room: str) -> Future[bool]:
        """Delete a room with its log, its links, its checkpoints, and the files that no other room names.

        The future tells whether there was such a room; its files go a little later.
        """

        def job(database: sqlite3.Connection) -> dict[str, set[str]]:
            return {room: _delete(database, room)} if _exists(database, room) else {}

        return _then(self._submit(job, self._clear_away), bool)

    def expire(self, before: float, inside: Collection[str] = ()) -> Future[list[str]]:
        """Delete the rooms that nobody has used since ``before``, in seconds since the epoch; gives their ids.

        Args:
            inside: rooms that somebody is in, which stay and count as used now.
        """

        def job(database: sqlite3.Connection) -> dict[str, set[str]]:
            self._note_use(database, inside)
            old = database.execute("SELECT id FROM rooms WHERE used < ?", (before,)).fetchall()
            return {room: _delete(database, room) for (room,) in old if room not in inside}

        return _then(self._submit(job, self._clear_away), list)

    def barrier(self) -> Future[None]:
        """Done when all that was asked for before is on disk."""
        return self._submit(lambda database: None)

    # Links, people and cookies ---------------------------------------------------------------------------------------

    def save_link(self, room: str, link: Link) -> Future[None]:
        """Keep a link of a room, in place of the one with that id; nothing where the room was deleted meanwhile."""
        return self._submit(lambda database: _put_link(database, room, link))

    def remove_link(self, room: str, id: str) -> Future[None]:
        """Revoke a link."""
        return self._submit(lambda database: _run(database, "DELETE FROM links WHERE room = ? AND id = ?", (room, id)))

    def save_member(self, room: str, member: Member) -> Future[None]:
        """Keep who somebody is in a room, in place of what was known; nothing where it was deleted meanwhile."""
        return self._submit(lambda database: _put_member(database, room, member))

    def save_session(self, session: CookieSession) -> Future[None]:
        """Keep who holds a cookie, in place of what was known."""
        row = (session.digest, session.person, session.made, session.used, session.passed)
        statement = "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)"
        return self._submit(lambda database: _run(database, statement, row))

    def find_session(self, digest: str) -> Future[CookieSession | None]:
        """Who holds the cookie with this digest; None if nobody does."""

        def job(database: sqlite3.Connection) -> CookieSession | None:
            row = database.execute("SELECT * FROM sessions WHERE digest = ?", (digest,)).fetchone()
            return None if row is None else CookieSession(*row)

        return self._submit(job)

    def expire_sessions(self, before: float) -> Future[None]:
        """Forget the cookies that nobody has used since ``before``, in seconds since the epoch."""
        return self._submit(lambda database: _run(database, "DELETE FROM sessions WHERE used < ?", (before,)))

    # Files -----------------------------------------------------------------------------------------------------------

    def put_picture(self, png: bytes) -> str:
        """Keep a PNG (blocking); returns its sha256, by which it is found again.

        Raises:
            StoreError: it could not be written.
        """
        sha256 = hashlib.sha256(png).hexdigest()
        path = self.picture_path(sha256)
        with self._files:  # from here on nobody takes it for garbage, though no room names it yet
            self._fresh[sha256] = time.monotonic()
        draft = path.with_suffix(f".{threading.get_ident()}.draft")
        try:
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                with draft.open("wb") as file:
                    file.write(png)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(path)
                _sync_folder(path.parent)
                _sync_folder(path.parent.parent)  # the folder may be new
        except OSError as error:
            _remove(draft)
            raise StoreError(_complaint(self.folder, error)) from error
        return sha256

    def picture_path(self, sha256: str) -> Path:
        """Where a kept picture lies. Raises `StoreError` for what names none, and might lead elsewhere."""
        if SHA256.fullmatch(sha256) is None:
            raise StoreError(f"{sha256[:100]!r} names no picture: 64 hexadecimal digits do")
        return self.folder / "pictures" / sha256[:2] / f"{sha256}.png"

    def get_picture(self, sha256: str) -> bytes:
        """Read a kept picture (blocking)."""
        return self.picture_path(sha256).read_bytes()

    def sweep(self) -> Future[None]:
        """Remove the files and checkpoints that no room names: what a crash left between a file and its record."""

        def job(database: sqlite3.Connection) -> tuple[set[str], list[Path]]:
            named = {sha256 for (sha256,) in database.execute("SELECT DISTINCT sha256 FROM files")}
            rooms = [room for (room,) in database.execute("SELECT id FROM rooms")]
            files = {path.stem for path in (self.folder / "pictures").glob("*/*.png")}
            return files - named, self._checkpoints.others(rooms)

        return _then(self._submit(job, self._sweep_away), lambda _: None)

    # What comes after a transaction; in the writer's thread, but for what it gives to the other.

    def _sweep_away(self, unnamed: tuple[set[str], list[Path]]) -> None:
        files, checkpoints = unnamed
        self._checkpoints.set_aside(checkpoints)
        self._clearing.submit(_logged, self._checkpoints.clear)
        self._clearing.submit(_logged, self._remove_drafts)
        self._clear(files)

    def _clear_away(self, deleted: Mapping[str, set[str]]) -> None:
        """What is left of deleted rooms, which the disk no longer knows.

        Their checkpoints are only renamed here, before a next room of that name can have some.
        """
        for room, files in deleted.items():
            self._loaded.pop(room, None)
            self._clear(files)
        self._checkpoints.set_aside(self._checkpoints.folders(deleted))
        self._clearing.submit(_logged, self._checkpoints.clear)

    def _clear(self, unnamed: set[str]) -> None:
        if unnamed:
            self._clearing.submit(_logged, lambda: self._remove_files(unnamed))

    def _remove_drafts(self) -> None:
        for draft in (self.folder / "pictures").glob("*/*.draft"):
            with contextlib.suppress(FileNotFoundError):  # it was being written, and has its name now
                if time.time() - draft.stat().st_mtime > FRESH:
                    _remove(draft)

    def _remove_files(self, unnamed: set[str]) -> None:
        """Remove files that no room names, unless somebody has just put them here for one that will."""
        with self._files:
            now = time.monotonic()
            self._fresh = {sha256: put for sha256, put in self._fresh.items() if now - put < FRESH}
            for sha256 in filter(SHA256.fullmatch, unnamed - self._fresh.keys()):  # others are no files of ours
                _remove(self.picture_path(sha256))

    def _note_use(self, database: sqlite3.Connection, inside: Collection[str]) -> None:
        """Write down which rooms were used without anything being edited."""
        uses = {**self._loaded, **dict.fromkeys(inside, time.time())}
        rows = [(when, room) for room, when in uses.items()]
        database.executemany("UPDATE rooms SET used = max(used, ?) WHERE id = ?", rows)

    # The writer ------------------------------------------------------------------------------------------------------

    def _submit(self, job: Callable[[sqlite3.Connection], T], after: Callable[[T], None] | None = None) -> Future[T]:
        """Do a job in the next transaction, also where its future is cancelled: what follows builds on it.

        Args:
            after: takes its result in the writer's thread, once it is on disk and everybody has been told; not to be
                long, since the next transaction waits for it.
        """
        future: Future[T] = Future()
        self._jobs.put((job, after, future))  # type: ignore[arg-type]
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


def _commit(database: sqlite3.Connection, jobs: Iterable[_Job]) -> None:
    """Do a group of jobs in one transaction; a job that fails leaves the others alone."""
    group = [(job, after, _running(future)) for job, after, future in jobs]
    done: list[tuple[Future[object], Callable[[Any], None] | None, object]] = []
    pending = [future for _, _, future in group]
    try:
        database.execute("BEGIN IMMEDIATE")
        for job, after, future in group:
            database.execute("SAVEPOINT job")
            try:
                done.append((future, after, job(database)))
            except Exception as error:
                if _is_of_the_disk(error):
                    raise
                database.execute("ROLLBACK TO job")
                pending.remove(future)
                future.set_exception(error)
            database.execute("RELEASE job")
        database.execute("COMMIT")
    except Exception as error:
        with contextlib.suppress(sqlite3.Error):  # it may have been rolled back already
            database.execute("ROLLBACK")
        perhaps = " Is the disk full?" if isinstance(error, sqlite3.OperationalError) else ""
        for future in pending:
            future.set_exception(StoreError(f"nothing could be saved: {error}.{perhaps}"))
        return
    for future, _, answer in done:
        future.set_result(answer)
    for _, after, answer in done:
        if after is not None:
            _logged(functools.partial(after, answer))


def _running(future: Future[object]) -> Future[object]:
    """The future, which cannot be cancelled from now on; or one that nobody has, in place of a cancelled one."""
    return future if future.set_running_or_notify_cancel() else Future()


def _is_of_the_disk(error: Exception) -> bool:
    """Whether an error of a job says something about all of its group: no room, no access, a damaged database."""
    own = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.NotSupportedError)
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, own)


def _logged(clear: Callable[[], None]) -> None:
    """Clear away what a saved change leaves behind, for which nobody waits."""
    try:
        clear()
    except Exception:
        log.exception("what a saved change leaves behind was not cleared away")


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")  # held until closed, also against other processes
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN EXCLUSIVE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"schema {version} is from a newer livedrag, this one knows {SCHEMA_VERSION}")
        if version == 0:
            _make(database, SCHEMA)
        for before in range(max(version, 1), SCHEMA_VERSION) if version else ():
            log.info("bringing %s from schema %d to %d", path, before, before + 1)
            MIGRATIONS[before](database)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _make(database: sqlite3.Connection, schema: str) -> None:
    for statement in filter(str.strip, schema.split(";")):
        database.execute(statement)


def _from_1_to_2(database: sqlite3.Connection) -> None:
    """Links get ids, rooms an instance, and files the rooms that name them."""
    database.execute("ALTER TABLE rooms RENAME TO rooms_1")
    database.execute("ALTER TABLE records RENAME TO records_1")
    _make(database, SCHEMA)
    database.execute("INSERT INTO records SELECT room, seq, record FROM records_1")
    rows = database.execute("SELECT id, created, links, seq, checkpoint_seq, checkpoint FROM rooms_1").fetchall()
    for room, created, links, seq, base_seq, base in rows:
        row = (room, new_instance(), created, time.time(), seq, base_seq, base, base_seq, base)
        database.execute("INSERT INTO rooms VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        for digest, role in msgspec.json.decode(links, type=dict[str, Role]).items():
            _put_link(database, room, Link(secrets.token_urlsafe(6), digest, role, created))
        saved = _load(database, room)
        assert saved is not None
        named = references(saved.base) | references(saved.document)
        for record in saved.records:
            match record:
                case Edited(op=Raster(sha256=sha256)):
                    named.add(("mask", sha256))
                case Ended(result=result) if result is not None:
                    named.add(("result", result.sha256))
        files = [(room, kind, sha256, base_seq) for kind, sha256 in named]
        database.executemany("INSERT INTO files VALUES (?, ?, ?, ?)", files)
    database.execute("DROP TABLE records_1")
    database.execute("DROP TABLE rooms_1")


MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {1: _from_1_to_2}
"""What leads from a schema to the next."""


def _exists(database: sqlite3.Connection, room: str) -> bool:
    return database.execute("SELECT 1 FROM rooms WHERE id = ?", (room,)).fetchone() is not None


def _load(database: sqlite3.Connection, room: str) -> SavedRoom | None:
    columns = "instance, created, seq, base_seq, base"
    row = database.execute(f"SELECT {columns} FROM rooms WHERE id = ?", (room,)).fetchone()
    if row is None:
        return None
    instance, created, seq, base_seq, packed_base = row
    rows = database.execute("SELECT record FROM records WHERE room = ? ORDER BY seq", (room,))
    records = tuple(_record.decode(packed) for (packed,) in rows)
    base = document = msgspec.msgpack.decode(packed_base, type=Document)
    for record in records:
        if record.seq > base_seq:
            document = fold(document, record)
    links = database.execute("SELECT id, digest, role, made, used FROM links WHERE room = ? ORDER BY made, id", (room,))
    shown = "person, name, colour, role, link, seen"
    members = database.execute(f"SELECT {shown} FROM members WHERE room = ? ORDER BY seen, person", (room,))
    return SavedRoom(
        instance,
        created,
        document,
        seq,
        base,
        base_seq,
        records,
        tuple(Link(*link) for link in links),
        tuple(Member(*member) for member in members),
    )


def _advance(database: sqlite3.Connection, room: str, seq: int, document: Document) -> None:
    """The document kept last becomes the base, this one is kept, and what lies before the base is forgotten."""
    database.execute(
        "UPDATE rooms SET base_seq = next_seq, base = next, next_seq = ?, next = ? WHERE id = ?",
        (seq, msgspec.msgpack.encode(document), room),
    )
    statement = "DELETE FROM records WHERE room = ? AND seq <= (SELECT base_seq FROM rooms WHERE id = ?)"
    database.execute(statement, (room, room))


def _replaced_results(database: sqlite3.Connection, room: str, document: Document) -> set[str]:
    """Forget all results but the latest and the one before, which somebody may be fetching; returns files to remove."""
    current = document.result.sha256 if document.result else ""
    old = database.execute(
        "SELECT sha256 FROM files WHERE room = ? AND kind = 'result' AND sha256 != ?"
        " ORDER BY seq DESC LIMIT -1 OFFSET 1",
        (room, current),
    ).fetchall()
    for (sha256,) in old:
        _run(database, "DELETE FROM files WHERE room = ? AND kind = 'result' AND sha256 = ?", (room, sha256))
    return _unnamed(database, {sha256 for (sha256,) in old})


def _delete(database: sqlite3.Connection, room: str) -> set[str]:
    """Delete all rows of a room; returns the files that no other room names."""
    named = {sha256 for (sha256,) in database.execute("SELECT sha256 FROM files WHERE room = ?", (room,))}
    for table in ("records", "links", "members", "files"):
        _run(database, f"DELETE FROM {table} WHERE room = ?", (room,))
    _run(database, "DELETE FROM rooms WHERE id = ?", (room,))
    return _unnamed(database, named)


def _unnamed(database: sqlite3.Connection, files: set[str]) -> set[str]:
    """Those of the files that no room names."""
    statement = "SELECT 1 FROM files WHERE sha256 = ? LIMIT 1"
    return {sha256 for sha256 in files if database.execute(statement, (sha256,)).fetchone() is None}


def _put_link(database: sqlite3.Connection, room: str, link: Link) -> None:
    row = (room, link.id, link.digest, link.role, link.made, link.used)
    _run(database, f"INSERT OR REPLACE INTO links SELECT ?, ?, ?, ?, ?, ? {IF_ROOM}", (*row, room))


def _put_member(database: sqlite3.Connection, room: str, member: Member) -> None:
    row = (room, member.person, member.name, member.colour, member.role, member.link, member.seen)
    _run(database, f"INSERT OR REPLACE INTO members SELECT ?, ?, ?, ?, ?, ?, ? {IF_ROOM}", (*row, room))


def _run(database: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> None:
    database.execute(statement, values)


def _then(future: Future[T], change: Callable[[T], Any]) -> Future[Any]:
    """A future of something made of another one's result."""
    changed: Future[Any] = Future()

    def done(future: Future[T]) -> None:
        if not changed.set_running_or_notify_cancel():
            return
        error = future.exception()
        if error is not None:
            changed.set_exception(error)
        else:
            changed.set_result(change(future.result()))

    future.add_done_callback(done)
    return changed


def _complaint(folder: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    if "locked" in reason:
        return f"the data directory {str(folder)!r} is in use by another livedrag: stop it, or choose with --data-dir"
    return f"cannot write in the data directory {str(folder)!r}: {reason}. Choose another with --data-dir"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s could not be removed: %s", path, error)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system has a way to."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_record: msgspec.msgpack.Decoder[DocRecord] = msgspec.msgpack.Decoder(DocRecord)
