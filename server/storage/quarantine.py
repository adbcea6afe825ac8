"""Quarantine: files that no room refers to, set aside for a while in case the database is not the right one."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

QUARANTINE_DAYS = 30.0


class Quarantine:
    """A folder beside the pictures and the checkpoints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, paths: Iterable[Path]) -> None:
        """Move files or folders here. Raises `OSError`."""
        paths = list(paths)
        if paths:
            log.warning("%d files that no room refers to were moved to %s", len(paths), self._folder)
            self._folder.mkdir(exist_ok=True)
        for path in paths:
            there = self._folder / path.name
            _remove(there)
            path.rename(there)
            os.utime(there)

    def names(self) -> set[str]:
        """What is here."""
        return {path.name for path in self._folder.iterdir()} if self._folder.is_dir() else set()

    def give_back(self, paths: Iterable[Path]) -> None:
        """Move those that are here, and not there, to where they were. Raises `OSError`."""
        names = self.names()
        for path in paths if names else ():
            if path.name in names and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                (self._folder / path.name).rename(path)
                log.warning("%s is back from quarantine", path.name)

    def expire(self) -> None:
        """Delete what has been here for long."""
        for name in self.names():
            path = self._folder / name
            if time.time() - path.stat().st_mtime > QUARANTINE_DAYS * 86_400:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
