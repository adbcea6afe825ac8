"""What can go wrong with stored data."""

from __future__ import annotations

from pathlib import Path

from livedrag.server.errors import LivedragError, ServiceError


class StoreError(ServiceError):
    """The data directory cannot be read or written; the message names the place and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(507, "not_saved", message)


class ArchiveError(LivedragError):
    """A file is not a usable room archive; the message names what is wrong with it."""


def directory_error(folder: Path, error: Exception) -> StoreError:
    """Why a data directory cannot be used."""
    reason = getattr(error, "strerror", None) or str(error)
    if "locked" in reason:
        return StoreError(
            f"the data directory {str(folder)!r} is in use by another livedrag: stop it, or choose with --data-dir"
        )
    return StoreError(f"cannot write in the data directory {str(folder)!r}: {reason}. Choose another with --data-dir")
