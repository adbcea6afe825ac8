"""What can go wrong with stored data."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from livedrag.server.errors import LivedragError, ServiceError


class StoreError(ServiceError):
    """The data directory cannot be read or written; the message names the place and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(507, "not_saved", message)


class Damaged(StoreError):
    """Something stored is missing or cannot be read."""

    def __init__(self, message: str) -> None:
        ServiceError.__init__(self, 410, "damaged", message)


class DiskFull(StoreError):
    """There is no space to save anything. Deleting rooms still works."""


class ArchiveError(LivedragError):
    """A file is not a usable room archive; the message names what is wrong with it."""


class BackupError(LivedragError):
    """A backup that cannot be made or restored."""


def in_use(folder: Path) -> StoreError:
    return StoreError(
        f"the data directory {str(folder)!r} is in use by another livedrag: stop it, or choose another with --data-dir"
    )


def directory_error(folder: Path, error: Exception) -> StoreError:
    """Why a data directory cannot be used."""
    reason = getattr(error, "strerror", None) or str(error)
    if "locked" in reason:
        return in_use(folder)
    kind = DiskFull if is_full(error) else StoreError
    return kind(f"cannot write in the data directory {str(folder)!r}: {reason}. Choose another with --data-dir")


def is_full(error: BaseException) -> bool:
    """Whether an error may come from a full disk."""
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_corrupt(error: BaseException) -> bool:
    """Whether an error comes from a damaged part of the database; the rest of it may be whole."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT
