"""How many bytes each room uses: its log, and its pictures."""

from __future__ import annotations

import sqlite3

from livedrag.server.document.protocol import DocRecord, Edited, Ended, Raster
from livedrag.server.storage.errors import is_corrupt
from livedrag.server.storage.pictures import Pictures

MAX_ROOMS = 10_000
"""Rooms whose size is in memory."""
MEASURE_EVERY = 50
"""Records, if they refer to no files."""
LOG_BYTES = """
SELECT length(base) + length(next)
    + (SELECT total(length(record)) FROM records WHERE room = id)
    + (SELECT total(length(stroke)) FROM strokes WHERE room = id)
FROM rooms WHERE id = ?
"""


class RoomSizes:
    """Sizes of rooms in use. The writer's thread updates them, any thread may read."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._sizes: dict[str, int] = {}

    def get(self, room: str) -> int:
        """Bytes of a room; 0 if it was not used lately."""
        return self._sizes.get(room, 0)

    def largest(self) -> int:
        """Bytes of the largest room that was used lately."""
        return max(list(self._sizes.values()), default=0)

    def forget(self, room: str) -> None:
        self._sizes.pop(room, None)

    def note(self, database: sqlite3.Connection, room: str, record: DocRecord) -> None:
        """A record was added: measure the room if it refers to a file, and now and then."""
        has_file = isinstance(record, Ended) or (isinstance(record, Edited) and isinstance(record.op, Raster))
        if has_file or room not in self._sizes or record.seq % MEASURE_EVERY == 0:
            self.measure(database, room)

    def measure(self, database: sqlite3.Connection, room: str) -> None:
        """Measure a room."""
        try:
            (log,) = database.execute(LOG_BYTES, (room,)).fetchone()
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
            return  # its damage is named where it is read
        files = database.execute("SELECT DISTINCT sha256 FROM files WHERE room = ?", (room,))
        if len(self._sizes) >= MAX_ROOMS:
            self._sizes.clear()
        self._sizes[room] = int(log) + sum(self._pictures.size(sha256) for (sha256,) in files)
