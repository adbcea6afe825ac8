"""Store: one data directory, with a SQLite database of the rooms' logs and their pictures beside it.

Methods that return a future do their work in the writer's thread; the future is done once the change is on disk.
Pictures are on disk before the record that refers to them, and are removed after the last record that did.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import msgspec

import livedrag.server.storage.queries as queries
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.document.members import Link, Member
from livedrag.server.document.protocol import DocRecord, Document, Ended
from livedrag.server.storage.errors import StoreError, directory_error
from livedrag.server.storage.pictures import Pictures
from livedrag.server.storage.saved import CookieSession, RoomSummary, SavedRoom, new_room
from livedrag.server.storage.schema import open_database
from livedrag.server.storage.writer import Writer, logged, then

DATABASE = "livedrag.sqlite3"
MIN_RECORDS = 1000
"""Latest records of a room that stay at least: how far undo, resuming and repeated operations can reach back."""


class Store:
    """The rooms in one data directory, which one process at a time may have open."""

    def __init__(self, folder: Path) -> None:
        """Open or create a data directory; an older one is migrated.

        Raises:
            StoreError: it cannot be written, is in use by another process, or comes from a newer livedrag.
        """
        self.folder = folder
        self.pictures = Pictures(folder / "pictures")
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._loaded: dict[str, float] = {}  # when each room was last read; only used in the writer's thread
        self._cleaner = ThreadPoolExecutor(1, "store-cleaner")
        try:
            self.pictures.folder.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(open_database(folder / DATABASE))
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
            raise directory_error(folder, error) from error
        self.sweep()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish what was submitted, then close."""
        self._writer.close()
        self._cleaner.shutdown()

    # Rooms -----------------------------------------------------------------------------------------------------------

    def create(self, room: str, document: Document, links: Iterable[Link]) -> Future[str]:
        """Add a new room; gives its instance."""
        return self.add(room, new_room(document, links))

    def add(self, room: str, saved: SavedRoom) -> Future[str]:
        """Add a room with its whole log, under an unused id; gives its instance."""

        def job(database: sqlite3.Connection) -> str:
            queries.insert_room(database, room, saved)
            return saved.instance

        return self._writer.submit(job)

    def append(self, room: str, record: DocRecord, document: Document) -> Future[None]:
        """Add a record to a room's log; ``document`` is the one after it.

        The future fails with StoreError if the record before it was not saved.
        """

        def job(database: sqlite3.Connection) -> set[str]:
            next_seq = queries.append_record(database, room, record, document)
            if next_seq is None:
                raise StoreError(f"record {record.seq} of room {room!r} does not follow the last one on disk")
            if record.seq - next_seq >= MIN_RECORDS:
                queries.compact_log(database, room, record.seq, document)
            return queries.drop_old_results(database, room, document) if isinstance(record, Ended) else set()

        return then(self._writer.submit(job, self._remove_pictures), lambda _: None)

    def load(self, room: str) -> Future[SavedRoom | None]:
        """Read a room, which counts as using it; None if it does not exist."""

        def job(database: sqlite3.Connection) -> SavedRoom | None:
            saved = queries.load_room(database, room)
            if saved is not None:
                self._loaded[room] = time.time()
            return saved

        return self._writer.submit(job)

    def rooms(self) -> Future[list[RoomSummary]]:
        """All rooms, the most recently used first."""
        return self._writer.submit(queries.list_rooms)

    def delete(self, room: str) -> Future[bool]:
        """Delete a room with its log, links, checkpoints and the pictures that no other room refers to.

        The future gives whether the room existed; its files are removed a little later.
        """

        def job(database: sqlite3.Connection) -> dict[str, set[str]]:
            exists = queries.room_exists(database, room)
            return {room: queries.delete_room(database, room)} if exists else {}

        return then(self._writer.submit(job, self._clean_up_deleted), bool)

    def expire(self, before: float, occupied: Collection[str] = ()) -> Future[list[str]]:
        """Delete the rooms unused since ``before``, in seconds since the epoch; gives their ids.

        Args:
            occupied: rooms with people in them, which stay and count as used now.
        """

        def job(database: sqlite3.Connection) -> dict[str, set[str]]:
            used = {**self._loaded, **dict.fromkeys(occupied, time.time())}
            rows = [(when, room) for room, when in used.items()]
            database.executemany("UPDATE rooms SET used = max(used, ?) WHERE id = ?", rows)
            unused = database.execute("SELECT id FROM rooms WHERE used < ?", (before,)).fetchall()
            return {room: queries.delete_room(database, room) for (room,) in unused if room not in occupied}

        return then(self._writer.submit(job, self._clean_up_deleted), list)

    def barrier(self) -> Future[None]:
        """Done when everything submitted before is on disk."""
        return self._writer.submit(lambda database: None)

    # Links, members and session cookies ------------------------------------------------------------------------------

    def save_link(self, room: str, link: Link) -> Future[None]:
        """Add or replace a link; does nothing if the room was deleted meanwhile."""
        return self._writer.submit(lambda database: queries.put_link(database, room, link))

    def remove_link(self, room: str, id: str) -> Future[None]:
        """Revoke a link."""
        return self._execute("DELETE FROM links WHERE room = ? AND id = ?", room, id)

    def save_member(self, room: str, member: Member) -> Future[None]:
        """Add or replace a member; does nothing if the room was deleted meanwhile."""
        return self._writer.submit(lambda database: queries.put_member(database, room, member))

    def save_session(self, session: CookieSession) -> Future[None]:
        """Add or replace a session cookie."""
        return self._writer.submit(lambda database: queries.put_session(database, session))

    def find_session(self, digest: str) -> Future[CookieSession | None]:
        """The session cookie with this digest, if there is one."""
        return self._writer.submit(lambda database: queries.find_session(database, digest))

    def expire_sessions(self, before: float) -> Future[None]:
        """Delete the session cookies unused since ``before``, in seconds since the epoch."""
        return self._execute("DELETE FROM sessions WHERE used < ?", before)

    def _execute(self, statement: str, *values: object) -> Future[None]:
        return then(self._writer.submit(lambda database: database.execute(statement, values)), lambda _: None)

    # Pictures --------------------------------------------------------------------------------------------------------

    def put_picture(self, png: bytes) -> str:
        """Store a PNG (blocking); returns its SHA-256. Raises `StoreError`."""
        return self.pictures.put(png)

    def picture_path(self, sha256: str) -> Path:
        """Where a picture lies. Raises `StoreError` for anything but a SHA-256."""
        return self.pictures.path(sha256)

    def get_picture(self, sha256: str) -> bytes:
        """Read a picture (blocking)."""
        return self.pictures.get(sha256)

    # Cleaning up -----------------------------------------------------------------------------------------------------

    def sweep(self) -> Future[None]:
        """Remove the pictures and checkpoints that no room refers to: what a crash left between file and record."""

        def job(database: sqlite3.Connection) -> tuple[set[str], list[Path]]:
            referenced = {sha256 for (sha256,) in database.execute("SELECT DISTINCT sha256 FROM files")}
            rooms = [room for (room,) in database.execute("SELECT id FROM rooms")]
            return self.pictures.names() - referenced, self._checkpoints.others(rooms)

        return then(self._writer.submit(job, self._clean_up_orphans), lambda _: None)

    # These run in the writer's thread after a commit, and leave what takes long to the cleaner's.

    def _clean_up_orphans(self, orphans: tuple[set[str], list[Path]]) -> None:
        pictures, checkpoints = orphans
        self._remove_checkpoints(checkpoints)
        self._cleaner.submit(logged, self.pictures.remove_drafts)
        self._remove_pictures(pictures)

    def _clean_up_deleted(self, deleted: Mapping[str, set[str]]) -> None:
        for room, pictures in deleted.items():
            self._loaded.pop(room, None)
            self._remove_pictures(pictures)
        self._remove_checkpoints(self._checkpoints.folders(deleted))

    def _remove_pictures(self, unreferenced: set[str]) -> None:
        if unreferenced:
            self._cleaner.submit(logged, lambda: self.pictures.remove(unreferenced))

    def _remove_checkpoints(self, folders: Iterable[Path]) -> None:
        """Rename them at once, before another room of that name can write some, and remove them later."""
        self._checkpoints.set_aside(folders)
        self._cleaner.submit(logged, self._checkpoints.clear)
