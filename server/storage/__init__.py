"""Persistent data: rooms in SQLite, pictures named by their content, archives of single rooms.

From the outside in:

    store      one data directory; `saved` has what it gives back
    writer     the thread that owns the database, whose statements are in `queries` and whose tables in `schema`
    loading    reads a room, as far as it can be read
    pictures   as files; `cleaner` removes those of deleted rooms, `quarantine` sets aside those that no room refers to
    disk       the lock on the directory, and what is left for when the disk is full
    archive    one room as a file; `archive_reader` trusts nothing in it
    backup     the whole directory as a copy; `check` reads all of it
"""

from livedrag.server.storage.errors import StoreError
from livedrag.server.storage.saved import CookieSession, RoomSummary, SavedRoom
from livedrag.server.storage.store import Store

__all__ = ["CookieSession", "RoomSummary", "SavedRoom", "Store", "StoreError"]
