"""Store: one data directory, with a SQLite database of the rooms' logs and their pictures beside it.

Methods that return a future do their work in the writer's thread; the future is done once the change is on disk.
Pictures are on disk before the record that refers to them, and are removed after the last record that did.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

import livedrag.server.storage.queries as queries
from livedrag.server.device.checkpoint_files import open_files
from livedrag.server.device.checkpoints import Checkpoints, folder_of
from livedrag.server.document.members import Link, Member
from livedrag.server.document.protocol import DocRecord, Document, Ended
from livedrag.server.settings import MIB
from livedrag.server.storage.cleaner import Cleaner
from livedrag.server.storage.disk import DirectoryLock, DiskSpace
from livedrag.server.storage.errors import DiskFull, StoreError, directory_error, is_corrupt, is_full
from livedrag.server.storage.loading import load_room
from livedrag.server.storage.pictures import Pictures
from livedrag.server.storage.room_sizes import RoomSizes
from livedrag.server.storage.saved import CookieSession, RoomSummary, SavedRoom, new_room
from livedrag.server.storage.schema import open_database
from livedrag.server.storage.writer import Writer, then

log = logging.getLogger(__name__)

T = TypeVar("T")
DATABASE = "livedrag.sqlite3"
MIN_RECORDS = 1000
"""Latest records of a room that stay at least, unless they are large."""
MAX_LOG_BYTES = 4 * MIB
"""How much of a room's log may follow its last stored document; at most twice as much is stored."""


class Store:
    """The rooms in one data directory, which one process at a time may have open."""

    def __init__(self, folder: Path, *, max_bytes: int = 0, checkpoints_url: str = "") -> None:
        """Open or create a data directory; an older one is migrated.

        Args:
            max_bytes: of the data directory, beyond which only deletions are saved; 0: no limit.
            checkpoints_url: where the rooms' checkpoints are; empty: in the data directory.

        Raises:
            CheckpointsUrlError: no checkpoints can be stored there.
            StoreError: it cannot be written, is in use by another process, or comes from a newer livedrag.
        """
        self.folder = folder
        self.pictures = Pictures(folder / "pictures")
        self.checkpoints = Checkpoints(open_files(checkpoints_url) if checkpoints_url else folder / "checkpoints")
        self._elsewhere = bool(checkpoints_url)
        self.sizes = RoomSizes(self.pictures)
        self._loaded: dict[str, float] = {}  # when each room was last read; only used in the writer's thread
        try:
            self.pictures.folder.mkdir(parents=True, exist_ok=True)
            self._lock = DirectoryLock(folder)
        except OSError as error:
            raise directory_error(folder, error) from error
        try:
            self.space = DiskSpace(folder, max_bytes)
            self._cleaner = Cleaner(folder, self.pictures, self.checkpoints, self.space)
            self._writer = Writer(self._open_database())
            self.id = self._identify()
            if self._elsewhere:
                self.checkpoints.files.claim(self.id)
                if unused := Checkpoints(folder / "checkpoints").folders():
                    text = "the checkpoints of %d rooms in %s are not used, because others are at %s: copy them there"
                    log.warning(text, len(unused), folder / "checkpoints", self.checkpoints.files.where)
            self._cleaner.return_quarantined(*self.referenced().result())
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
            self._lock.release()
            raise directory_error(folder, error) from error
        except BaseException:
            self._lock.release()
            raise
        if problem := self.space.problem():
            log.error("%s: this server is read-only until then", problem)
        self.sweep()

    def _open_database(self) -> sqlite3.Connection:
        """Open or create the database; never create one beside files that it would not know."""
        path = self.folder / DATABASE
        create = not self.pictures.names() and (self._elsewhere or not self.checkpoints.folders())
        try:
            return open_database(path, create=create)
        except sqlite3.OperationalError as error:
            if not is_full(error):
                raise
            self.space.give_up_reserve()
            return open_database(path, create=create, exclusive=True)

    def _identify(self) -> str:
        """An id of this directory's rooms, which moves and backups keep: it tells the servers of one host apart."""
        try:
            return self._writer.submit(queries.identify).result()
        except StoreError:  # the disk is full, and the directory has no id yet
            return hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:8]

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish what was submitted, then close."""
        self._writer.close()
        self._cleaner.close()
        self._lock.release()

    # Rooms -----------------------------------------------------------------------------------------------------------

    def create(self, room: str, document: Document, links: Iterable[Link]) -> Future[str]:
        """Add a new room; gives its instance."""
        return self.add(room, new_room(document, links))

    def add(self, room: str, saved: SavedRoom) -> Future[str]:
        """Add a room with its whole log, under an unused id; gives its instance."""

        def job(database: sqlite3.Connection) -> list[str]:
            return queries.insert_room(database, room, saved)

        return then(self._write(job, self._cleaner.settle_pictures), lambda _: saved.instance)

    def append(self, room: str, record: DocRecord, document: Document) -> Future[None]:
        """Add a record to a room's log; ``document`` is the one after it.

        The future fails with StoreError if the record before it was not saved.
        """

        def job(database: sqlite3.Connection) -> tuple[list[str], set[str]]:
            size = queries.append_record(database, room, record, document)
            if size is None:
                raise StoreError(f"record {record.seq} of room {room!r} does not follow the last one on disk")
            if size.records >= MIN_RECORDS or size.bytes >= MAX_LOG_BYTES:
                queries.compact_log(database, room, record.seq, document)
            removed: set[str] = set()
            if isinstance(record, Ended):
                removed = queries.drop_old_results(database, room, document, self.pictures.size)
            self.sizes.note(database, room, record)
            return size.new_files, removed

        def after(files: tuple[list[str], set[str]]) -> None:
            new, removed = files
            self._cleaner.settle_pictures(new)
            self._cleaner.remove_pictures(removed)

        return then(self._write(job, after), lambda _: None)

    def load(self, room: str) -> Future[SavedRoom | None]:
        """Read a room, which counts as using it; None if it does not exist."""

        def job(database: sqlite3.Connection) -> SavedRoom | None:
            saved = load_room(database, room)
            if saved is not None:
                self._loaded[room] = time.time()
                self.sizes.measure(database, room)
            return saved

        return self._writer.submit(job)

    def rooms(self) -> Future[list[RoomSummary]]:
        """All rooms, the most recently used first."""
        return self._writer.submit(queries.list_rooms)

    def count_rooms(self) -> Future[int]:
        """How many rooms there are."""
        return self._writer.submit(lambda database: int(database.execute("SELECT count(*) FROM rooms").fetchone()[0]))

    def delete(self, room: str) -> Future[bool]:
        """Delete a room with its log, links, checkpoints and the pictures that no other room refers to.

        The future gives whether the room existed; its files are removed a little later.
        """

        def job(database: sqlite3.Connection) -> dict[str, set[str]]:
            self._loaded.pop(room, None)
            self.sizes.forget(room)
            exists = queries.room_exists(database, room)
            return {room: queries.delete_room(database, room)} if exists else {}

        return then(self._delete(job, [room]), bool)

    def expire(self, before: float, occupied: Collection[str] = ()) -> Future[list[str]]:
        """Delete the rooms unused since ``before``, in seconds since the epoch; gives their ids.

        Args:
            occupied: rooms with people in them, which stay and count as used now.
        """

        def job(database: sqlite3.Connection) -> dict[str, set[str]]:
            used = {**self._loaded, **dict.fromkeys(occupied, time.time())}
            rows = [(when, room) for room, when in used.items()]
            database.executemany("UPDATE rooms SET used = max(used, ?) WHERE id = ?", rows)
            self._loaded.clear()
            unused = database.execute("SELECT id FROM rooms WHERE used < ?", (before,)).fetchall()
            return {room: queries.delete_room(database, room) for (room,) in unused if room not in occupied}

        return then(self._delete(job, ()), list)

    def barrier(self) -> Future[None]:
        """Done when everything submitted before is on disk."""
        return self._writer.submit(lambda database: None)

    def referenced(self) -> Future[tuple[set[str], list[str]]]:
        """The pictures that rooms refer to, and the rooms."""
        return self._writer.submit(queries.referenced)

    def check_database(self) -> Future[list[str]]:
        """What SQLite finds wrong with the database file; takes long if it is large."""

        def job(database: sqlite3.Connection) -> list[str]:
            try:
                return [verdict for (verdict,) in database.execute("PRAGMA quick_check") if verdict != "ok"]
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    raise
                return [str(error)]

        return self._writer.submit(job)

    # Links, members and session cookies ------------------------------------------------------------------------------

    def save_link(self, room: str, link: Link) -> Future[None]:
        """Add or replace a link; does nothing if the room was deleted meanwhile."""
        return self._write(lambda database: queries.put_link(database, room, link))

    def remove_link(self, room: str, id: str) -> Future[None]:
        """Revoke a link."""
        return self._execute("DELETE FROM links WHERE room = ? AND id = ?", room, id)

    def save_member(self, room: str, member: Member) -> Future[None]:
        """Add or replace a member; does nothing if the room was deleted meanwhile."""
        return self._write(lambda database: queries.put_member(database, room, member))

    def save_session(self, session: CookieSession) -> Future[None]:
        """Add or replace a session cookie."""
        return self._write(lambda database: queries.put_session(database, session))

    def find_session(self, digest: str) -> Future[CookieSession | None]:
        """The session cookie with this digest, if there is one."""
        return self._writer.submit(lambda database: queries.find_session(database, digest))

    def expire_sessions(self, before: float) -> Future[None]:
        """Delete the session cookies unused since ``before``, in seconds since the epoch."""
        return self._execute("DELETE FROM sessions WHERE used < ?", before)

    # How changes are made --------------------------------------------------------------------------------------------

    def _write(self, job: Callable[[sqlite3.Connection], T], after: Callable[[T], None] | None = None) -> Future[T]:
        """Submit a job that needs space on the disk."""

        def checked(database: sqlite3.Connection) -> T:
            self.disk_bytes()
            self.space.check()
            return job(database)

        return self._writer.submit(checked, after)

    def _delete(
        self, job: Callable[[sqlite3.Connection], dict[str, set[str]]], rooms: Iterable[str]
    ) -> Future[dict[str, set[str]]]:
        """Submit a job that deletes rooms; on a full disk give up the reserve, and the rooms' checkpoints, for it."""
        deleted: Future[dict[str, set[str]]] = Future()
        deleted.set_running_or_notify_cancel()

        def done(tried: Future[dict[str, set[str]]]) -> None:
            if isinstance(tried.exception(), DiskFull) and first is tried:
                self.space.give_up_reserve()
                for room in () if self._elsewhere else rooms:
                    self.checkpoints.wipe(room)
                self._writer.submit(job, self._cleaner.remove_rooms).add_done_callback(done)
            elif (error := tried.exception()) is not None:
                deleted.set_exception(error)
            else:
                deleted.set_result(tried.result())

        first = self._writer.submit(job, self._cleaner.remove_rooms)
        first.add_done_callback(done)
        return deleted

    def _execute(self, statement: str, *values: object) -> Future[None]:
        return then(self._writer.submit(lambda database: database.execute(statement, values)), lambda _: None)

    def disk_bytes(self) -> int:
        """Size of the data directory, measured in the background now and then."""
        if self.space.needs_measuring():
            self._cleaner.submit(self.space.measure)
        return self.space.used_bytes

    # Pictures --------------------------------------------------------------------------------------------------------

    def put_picture(self, png: bytes) -> str:
        """Store a PNG (blocking); returns its SHA-256. Raises `StoreError`."""
        self.space.check(len(png))
        sha256 = self.pictures.put(png)
        self.space.used_bytes += len(png)
        return sha256

    def picture_path(self, sha256: str) -> Path:
        """Where a picture lies. Raises `Damaged` if it is missing."""
        return self.pictures.existing(sha256)

    # Cleaning up -----------------------------------------------------------------------------------------------------

    def sweep(self) -> Future[None]:
        """Move the pictures and checkpoints that no room refers to into quarantine.

        A crash between writing a file and its record leaves some; so does a database that is not the right one.
        """
        try:
            folders = self.checkpoints.folders()  # before the rooms: what a new one writes must not be among them
        except OSError as error:
            log.error("old checkpoints could not be swept away: %s", error)
            folders = set()

        def job(database: sqlite3.Connection) -> tuple[set[str], set[str]]:
            referenced, rooms = queries.referenced(database)
            return self.pictures.names() - referenced, folders - set(map(folder_of, rooms))

        return then(self._writer.submit(job, lambda orphans: self._cleaner.quarantine(*orphans)), lambda _: None)
