"""PictureCache: uploaded pictures on a worker's machine, by digest, shared by its workers."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import secrets
import tempfile
from pathlib import Path

MAX_BYTES = 2**30
"""Of the pictures on a machine; those unused for longest are deleted."""


class PictureCache:
    """Files named by the SHA-256 of their content."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    @classmethod
    def of_this_machine(cls) -> PictureCache:
        """The one in the folder for temporary files, which only this user can read."""
        folder = Path(tempfile.gettempdir()) / f"livedrag-pictures-{getpass.getuser()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            folder = Path(tempfile.mkdtemp(prefix="livedrag-pictures-"))  # another user was there first
        return cls(folder)

    def path(self, sha256: str) -> Path:
        """Where a picture would be."""
        if not (len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
            sha256 = hashlib.sha256(sha256.encode()).hexdigest()
        return self._folder / sha256

    def find(self, sha256: str) -> Path | None:
        """The picture's file, which counts as used now; None: it is not here, or damaged."""
        path = self.path(sha256)
        try:
            os.utime(path)
            return path if hashlib.sha256(path.read_bytes()).hexdigest() == sha256 else None
        except OSError:
            return None

    def add(self, sha256: str, data: bytes) -> Path:
        """Store a picture. Raises `OSError`."""
        path = self.path(sha256)
        draft = path.with_name(f"{secrets.token_hex(8)}.draft")
        draft.write_bytes(data)
        draft.replace(path)
        self._trim(path)
        return path

    def _trim(self, newest: Path) -> None:
        files = []
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):  # another worker has deleted it
                about = path.stat()
                files.append((about.st_mtime, about.st_size, path))
        held = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if held <= self._max_bytes:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                held -= size
