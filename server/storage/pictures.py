"""Pictures on disk: PNG files named by the SHA-256 of their content, in folders by its first two digits."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from livedrag.server.storage.errors import Damaged, StoreError, directory_error
from livedrag.server.storage.quarantine import Quarantine

log = logging.getLogger(__name__)

GRACE_SECONDS = 3600.0
"""How long a new file stays without a room that refers to it."""
SHA256 = re.compile(r"[0-9a-f]{64}")


class Pictures:
    """The pictures of all rooms. Its methods may be called from any thread, and block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._new: dict[str, list[float]] = {}  # when files were stored to which no room refers yet
        self._lock = threading.Lock()

    def put(self, png: bytes) -> str:
        """Store a PNG, durably; returns its SHA-256.

        Raises:
            StoreError: it could not be written.
        """
        sha256 = hashlib.sha256(png).hexdigest()
        path = self.path(sha256)
        with self._lock:  # from here on `remove` spares it
            self._new.setdefault(sha256, []).append(time.monotonic())
        draft = path.with_suffix(f".{threading.get_ident()}.draft")
        try:
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                with draft.open("wb") as file:
                    file.write(png)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(path)
                sync_folder(path.parent)
                sync_folder(path.parent.parent)  # the folder may be new
        except OSError as error:
            _unlink(draft)
            raise directory_error(self.folder.parent, error) from error
        return sha256

    def get(self, sha256: str) -> bytes:
        """Read a file. Raises `Damaged` if it is missing."""
        return self.existing(sha256).read_bytes()

    def existing(self, sha256: str) -> Path:
        """Where a file lies. Raises `Damaged` if it is missing."""
        path = self.path(sha256)
        if not path.exists():
            raise Damaged(f"the picture {sha256}.png of this room is missing on the server: restore it from a backup")
        return path

    def is_whole(self, sha256: str) -> bool:
        """Whether a file is there with the content that its name says."""
        try:
            return hashlib.sha256(self.path(sha256).read_bytes()).hexdigest() == sha256
        except OSError:
            return False

    def size(self, sha256: str) -> int:
        """Bytes of a file; 0 if it is missing."""
        try:
            return self.path(sha256).stat().st_size
        except (OSError, StoreError):
            return 0

    def path(self, sha256: str) -> Path:
        """Where a picture lies. Raises `StoreError` for anything but a SHA-256, which might lead elsewhere."""
        if SHA256.fullmatch(sha256) is None:
            raise StoreError(f"{sha256[:100]!r} is not the name of a picture: it must be 64 hexadecimal digits")
        return self.folder / sha256[:2] / f"{sha256}.png"

    def names(self) -> set[str]:
        """The SHA-256 of every stored file."""
        return {path.stem for path in self.folder.glob("*/*.png")}

    def settle(self, files: Iterable[str]) -> None:
        """Rooms refer to these files now: each has been stored for one of them."""
        with self._lock:
            for sha256 in files:
                times = self._new.pop(sha256, [])[1:]
                if times:
                    self._new[sha256] = times

    def remove(self, unreferenced: set[str]) -> None:
        """Remove files that no room refers to, except new ones, to which a room may be about to refer."""
        with self._lock:
            for path in self._old(unreferenced):
                _unlink(path)

    def set_aside(self, unreferenced: set[str], quarantine: Quarantine) -> None:
        """Likewise, but into quarantine."""
        with self._lock:
            quarantine.add(self._old(unreferenced))

    def _old(self, files: set[str]) -> list[Path]:
        now = time.monotonic()
        self._new = {sha256: times for sha256, times in self._new.items() if now - times[-1] < GRACE_SECONDS}
        return [self.path(sha256) for sha256 in filter(SHA256.fullmatch, files - self._new.keys())]

    def remove_drafts(self) -> None:
        """Remove half-written files that a crash left."""
        for draft in self.folder.glob("*/*.draft"):
            with contextlib.suppress(FileNotFoundError):  # it has just been renamed
                if time.time() - draft.stat().st_mtime > GRACE_SECONDS:
                    _unlink(draft)


def sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s could not be removed: %s", path, error)
