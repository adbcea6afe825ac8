"""The data directory as a place on a disk: its lock, and a reserve for when the disk is full."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from pathlib import Path

from livedrag.server.settings import MIB
from livedrag.server.storage.errors import DiskFull, in_use

MIN_FREE_BYTES = 256 * 1024
"""Free space below which only deletions are written."""
RESERVE_BYTES = 4 * MIB
MEASURE_SECONDS = 30.0
"""How old the size of the data directory may become."""


class DirectoryLock:
    """Held by the one process that uses a data directory. It is on the directory itself, so that it takes no space."""

    def __init__(self, folder: Path) -> None:
        """Take the lock. Raises `StoreError` if another process has it, `OSError` if there is no such directory."""
        self._descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise in_use(folder) from None

    def release(self) -> None:
        os.close(self._descriptor)


class DiskSpace:
    """Knows whether there is space to write, and has a reserve file to give up, so that rooms can always be deleted.

    Args:
        max_bytes: of the data directory; 0: no limit.
    """

    def __init__(self, folder: Path, max_bytes: int = 0) -> None:
        self.used_bytes = 0  # of the data directory, as measured last
        self._measured = -MEASURE_SECONDS
        self._max_bytes = max_bytes
        self._folder = folder
        self._reserve = folder / "reserve"
        self._given_up = False
        if not self._reserve.exists():
            self.take_reserve()

    def take_reserve(self) -> bool:
        """Have the reserve again; returns whether there is space for it."""
        try:
            with self._reserve.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError:
            self._remove_reserve()
            return False
        self._given_up = False
        return True

    def restore_reserve(self) -> None:
        """Take the reserve if it was given up."""
        if self._given_up:
            self.take_reserve()

    def give_up_reserve(self) -> None:
        """Make room for a deletion."""
        self._given_up = True
        self._remove_reserve()

    def check(self, needed: int = 0) -> None:
        """Raise `DiskFull` unless there is space to write ``needed`` bytes and a little more."""
        free = shutil.disk_usage(self._folder).free
        if free - needed < MIN_FREE_BYTES or (self._given_up and not self.take_reserve()):
            raise DiskFull(
                f"nothing can be saved: the disk with {str(self._folder)!r} is full, with {free // 1024} KiB free. "
                "Delete rooms or other files"
            )

        if self._max_bytes and self.used_bytes + needed > self._max_bytes:
            raise DiskFull(
                f"nothing can be saved: the rooms of this server use {self.used_bytes / MIB:.1f} MiB, "
                f"the limit is {self._max_bytes / MIB:.1f} MiB (LIVEDRAG_MAX_DISK). Delete rooms"
            )

    def needs_measuring(self) -> bool:
        """Whether it is time to call `measure` again, which the caller then does."""
        now = time.monotonic()
        if now - self._measured < MEASURE_SECONDS:
            return False
        self._measured = now
        return True

    def measure(self) -> None:
        """Measure the data directory (blocking)."""
        self.used_bytes = sum(map(_size, self._folder.rglob("*"))) - _size(self._reserve)

    def problem(self) -> str:
        """Why nothing can be saved, or empty."""
        try:
            self.check()
        except DiskFull as error:
            return str(error)
        return ""

    def _remove_reserve(self) -> None:
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
