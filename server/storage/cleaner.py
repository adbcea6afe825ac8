"""Cleaner: removes the files of deleted rooms, in a thread of its own, because nothing has to wait for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.storage.disk import DiskSpace
from livedrag.server.storage.pictures import SHA256, Pictures
from livedrag.server.storage.quarantine import Quarantine

log = logging.getLogger(__name__)


class Cleaner:
    """Cleans up in one data directory. Its methods are called in the writer's thread, after a commit, and are quick."""

    def __init__(self, folder: Path, pictures: Pictures, checkpoints: Checkpoints, space: DiskSpace) -> None:
        self._pictures = pictures
        self._checkpoints = checkpoints
        self._space = space
        self._quarantine = Quarantine(folder / "quarantine")
        self._thread = ThreadPoolExecutor(1, "store-cleaner")

    def submit(self, clean_up: Callable[..., object], *arguments: object) -> Future[None]:
        """Run something in the cleaner's thread; errors are logged."""
        return self._thread.submit(_logged, clean_up, *arguments)

    def close(self) -> None:
        """Finish what was submitted."""
        self._thread.shutdown()

    def remove_pictures(self, unreferenced: set[str]) -> None:
        """Remove pictures to which no room refers any more."""
        if unreferenced:
            self.submit(self._pictures.remove, unreferenced)

    def remove_rooms(self, deleted: Mapping[str, set[str]]) -> None:
        """Remove the checkpoints of deleted rooms, and their pictures that no other room refers to."""
        for pictures in deleted.values():
            self.remove_pictures(pictures)
        # Renamed at once, before another room of that name can write some.
        self._checkpoints.set_aside(self._checkpoints.folders(deleted))
        self.submit(self._checkpoints.clear)
        self.submit(self._space.restore_reserve)
        self.submit(self._space.measure)

    def quarantine(self, orphans: tuple[set[str], list[Path]]) -> None:
        """Set pictures and checkpoints aside that belong to no room, and remove what was set aside long ago."""
        pictures, checkpoints = orphans
        self._quarantine.add(checkpoints)
        self.submit(self._checkpoints.clear)
        self.submit(self._pictures.remove_drafts)
        self.submit(self._pictures.set_aside, pictures, self._quarantine)
        self.submit(self._quarantine.expire)
        self.submit(self._space.measure)

    def return_quarantined(self, files: Iterable[str], rooms: Iterable[str]) -> None:
        """Have back what belongs to a room after all: another database was here meanwhile."""
        self._quarantine.give_back(map(self._pictures.path, filter(SHA256.fullmatch, files)))
        self._quarantine.give_back(self._checkpoints.folders(rooms))


def _logged(clean_up: Callable[..., object], *arguments: object) -> None:
    try:
        clean_up(*arguments)
    except Exception:
        log.exception("cleaning up failed")
