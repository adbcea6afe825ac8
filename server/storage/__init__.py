"""Persistent data: rooms in SQLite, pictures named by their content, archives of single rooms."""

from livedrag.server.storage.errors import StoreError
from livedrag.server.storage.saved import CookieSession, RoomSummary, SavedRoom
from livedrag.server.storage.store import Store

__all__ = ["CookieSession", "RoomSummary", "SavedRoom", "Store", "StoreError"]
