"""The stored rooms and their sizes, for the operator; read beside the writer, which does not wait for it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from livedrag.server.device.checkpoint_files import LocalFiles
from livedrag.server.device.checkpoints import folder_of
from livedrag.server.storage.store import DATABASE, Store

LOGS = """
SELECT id, title, used, length(base) + length(next)
    + (SELECT total(length(record)) FROM records WHERE room = id)
    + (SELECT total(length(stroke)) FROM strokes WHERE room = id)
FROM rooms ORDER BY used DESC, id LIMIT ?
"""
FILES = "SELECT DISTINCT room, sha256 FROM files"


@dataclass(frozen=True)
class StoredRoom:
    """A room on disk.

    Args:
        title: given by people, or empty.
        used: when it was used last, in seconds since the epoch.
        bytes: of its log and pictures, and of its checkpoints where they are in a folder.
    """

    id: str
    title: str
    used: float
    bytes: int


def stored_rooms(store: Store, limit: int) -> list[StoredRoom]:
    """The rooms used last, with their sizes (blocking). A picture counts for each room that refers to it.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    path = (store.folder / DATABASE).absolute()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute(LOGS, (limit,)).fetchall()
        listed = {row[0] for row in rows}
        pictures = dict.fromkeys(listed, 0)
        for room, sha256 in database.execute(FILES):
            if room in listed:
                pictures[room] += store.pictures.size(sha256)
    files = store.checkpoints.files
    return [
        StoredRoom(room, title, used, int(log) + pictures[room] + _checkpoint_bytes(files, room))
        for room, title, used, log in rows
    ]


def _checkpoint_bytes(files: object, room: str) -> int:
    if not isinstance(files, LocalFiles):
        return 0  # one would have to ask for each of them
    folder = files.root / folder_of(room)
    return sum(_size(folder / name) for name in files.names(folder.name))


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:  # replaced by a newer one meanwhile
        return 0
