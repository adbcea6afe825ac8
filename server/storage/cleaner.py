"""Cleaner: removes the files of deleted rooms, in a thread of its own, because nothing has to wait for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from livedrag.server.device.checkpoint_files import CheckpointFiles, LocalFiles
from livedrag.server.device.checkpoints import Checkpoints, folder_of
from livedrag.server.storage.disk import DiskSpace
from livedrag.server.storage.pictures import SHA256, Pictures
from livedrag.server.storage.quarantine import QUARANTINE_DAYS, Quarantine

log = logging.getLogger(__name__)


class Cleaner:
    """Cleans up in one data directory. Its methods are called in the writer's thread, after a commit, and are quick."""

    def __init__(self, folder: Path, pictures: Pictures, checkpoints: Checkpoints, space: DiskSpace) -> None:
        self._pictures = pictures
        self._files = files = checkpoints.files
        self._own = files if isinstance(files, LocalFiles) and files.root.parent == folder else None
        self._space = space
        self._quarantine = Quarantine(folder / "quarantine")
        self._thread = ThreadPoolExecutor(1, "store-cleaner")

    def submit(self, clean_up: Callable[..., object], *arguments: object) -> Future[None]:
        """Run something in the cleaner's thread; errors are logged."""
        return self._thread.submit(_logged, clean_up, *arguments)

    def close(self) -> None:
        """Finish what was submitted."""
        self._thread.shutdown()

    def settle_pictures(self, files: Iterable[str]) -> None:
        """Rooms refer to these pictures now. Until what was submitted before is done they still count as new: it may
        have been found when no room referred to them."""
        self.submit(self._pictures.settle, files)

    def remove_pictures(self, unreferenced: set[str]) -> None:
        """Remove pictures to which no room refers any more."""
        if unreferenced:
            self.submit(self._pictures.remove, unreferenced)

    def remove_rooms(self, deleted: Mapping[str, set[str]]) -> None:
        """Remove the checkpoints of deleted rooms, and their pictures that no other room refers to."""
        for pictures in deleted.values():
            self.remove_pictures(pictures)
        for folder in map(folder_of, deleted):
            if isinstance(self._files, LocalFiles):
                self._files.set_aside(folder)  # at once, before another room of that name can write some
            else:
                self.submit(self._files.wipe, folder)
        if isinstance(self._files, LocalFiles):
            self.submit(self._files.clear)
        self.submit(self._space.restore_reserve)
        self.submit(self._space.measure)

    def quarantine(self, pictures: set[str], folders: set[str]) -> None:
        """Set pictures and checkpoints aside that belong to no room, and remove what was set aside long ago."""
        if self._own is not None:
            self._quarantine.add(self._own.root / folder for folder in sorted(folders))
        else:
            self.submit(_quarantine_elsewhere, self._files, folders)
        if isinstance(self._files, LocalFiles):
            self.submit(self._files.clear)
        self.submit(self._pictures.remove_drafts)
        self.submit(self._pictures.set_aside, pictures, self._quarantine)
        self.submit(self._quarantine.expire)
        self.submit(self._space.measure)

    def return_quarantined(self, files: Iterable[str], rooms: Iterable[str]) -> None:
        """Have back what belongs to a room after all: another database was here meanwhile."""
        self._quarantine.give_back(map(self._pictures.path, filter(SHA256.fullmatch, files)))
        folders = [folder_of(room) for room in rooms]
        if self._own is not None:
            self._quarantine.give_back(self._own.root / folder for folder in folders)
        else:
            self.submit(self._files.give_back, folders)


def _quarantine_elsewhere(files: CheckpointFiles, folders: set[str]) -> None:
    unused = sorted(folders - files.quarantined())
    if unused:
        log.warning(
            "the checkpoints of %d rooms that there are not, at %s, are in quarantine", len(unused), files.where
        )
    files.quarantine(unused, time.time())
    files.expire(time.time() - QUARANTINE_DAYS * 86_400)


def _logged(clean_up: Callable[..., object], *arguments: object) -> None:
    try:
        clean_up(*arguments)
    except Exception:
        log.exception("cleaning up failed")
