"""Where checkpoints lie: a folder of this machine, or a place that every node of a cluster reaches, by its URL.

Both have one folder for each room with files that never change. A file is there completely or not at all.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from livedrag.server.errors import LivedragError

T = TypeVar("T")

REMOTE = ("memory", "s3", "gs")
"""Schemes of URLs, beside ``file``, of stores in which writing a file is atomic."""
DELETED = "+gone-"
"""Prefix of folders that are being deleted; no room's has it."""
OWNER = "+livedrag"
"""A file with the id of the one data directory whose rooms have their checkpoints there."""
SERVER = "+server"
"""A file by which workers on other machines see that they have the same place as their server."""
QUARANTINE = "+quarantine"
"""A folder with a file for each folder that no room refers to, named like it, with the time since when."""
RETRY_PAUSES = (0.2, 1.0)
"""Seconds before a request is sent the second and third time."""


class CheckpointsUrlError(LivedragError):
    """A URL at which no checkpoints can be stored; the text quotes it and says what would work."""


class CheckpointFiles(ABC):
    """The files of all rooms' checkpoints. Every method blocks, and may raise `OSError`.

    Attributes:
        where: for people.
    """

    where: str

    @abstractmethod
    def folders(self) -> set[str]:
        """The names of the rooms' folders."""

    @abstractmethod
    def names(self, folder: str) -> set[str]:
        """The names of the files in a folder; none if it does not exist."""

    @abstractmethod
    def read(self, folder: str, name: str) -> bytes:
        """The content of a file."""

    @abstractmethod
    def write(self, folder: str, name: str, data: bytes) -> None:
        """Write a file, which is there completely when this returns."""

    def copy(self, folder: str, name: str, to: str) -> None:
        """Give another folder a file too."""
        self.write(to, name, self.read(folder, name))

    @abstractmethod
    def settle(self, folder: str) -> None:
        """Make sure that what was written survives a power failure."""

    @abstractmethod
    def remove(self, folder: str, names: Iterable[str]) -> None:
        """Delete files, as far as they are there."""

    @abstractmethod
    def wipe(self, folder: str) -> None:
        """Delete a folder with all its files, if it is there."""

    def claim(self, owner: str) -> None:
        """Check that files can be written, read and deleted there, and that no other data directory uses the place.

        Args:
            owner: the id of this data directory.

        Raises:
            CheckpointsUrlError: why not.
        """
        probe = f"+probe-{secrets.token_hex(8)}"
        try:
            self.write("", probe, b"livedrag")
            self.read("", probe)
            self.remove("", [probe])
            there = self.read("", OWNER).decode(errors="replace") if OWNER in self.names("") else ""
            if not there:
                self.write("", OWNER, owner.encode())
        except OSError as error:
            text = f"checkpoints cannot be stored at {self.where!r}: {_reason(error)}. Choose another --checkpoints-url"
            raise CheckpointsUrlError(text) from error
        if there not in ("", owner):
            text = f"checkpoints at {self.where!r} belong to another data directory, with the id {there}"
            raise CheckpointsUrlError(f"{text}: choose another --checkpoints-url")

    def mark(self, server: str) -> None:
        """Leave the id of this server for `check_mark`. Raises `CheckpointsUrlError`."""
        try:
            self.write("", SERVER, server.encode())
        except OSError as error:
            raise CheckpointsUrlError(f"checkpoints cannot be stored at {self.where!r}: {_reason(error)}") from error

    def check_mark(self, server: str) -> None:
        """Check that this is where the server with this id left it. Raises `CheckpointsUrlError`."""
        try:
            same = SERVER in self.names("") and self.read("", SERVER) == server.encode()
        except OSError as error:
            raise CheckpointsUrlError(f"checkpoints cannot be read at {self.where!r}: {_reason(error)}") from error
        if not same:
            raise CheckpointsUrlError(
                f"checkpoints at {self.where!r} are not those of the server: "
                "all machines have to reach the same folder under this path, or use another --checkpoints-url"
            )

    # Folders that no room refers to ----------------------------------------------------------------------------------

    def quarantined(self) -> set[str]:
        """The folders in quarantine. They stay where they are."""
        return self.names(QUARANTINE)

    def quarantine(self, folders: Iterable[str], now: float) -> None:
        """Note since when no room has referred to these folders, in seconds since the epoch."""
        for folder in folders:
            self.write(QUARANTINE, folder, f"{now:.0f}".encode())

    def give_back(self, folders: Iterable[str]) -> None:
        """Rooms refer to these folders after all."""
        self.remove(QUARANTINE, self.quarantined() & set(folders))

    def expire(self, before: float) -> None:
        """Delete the folders that have been in quarantine since before then."""
        for folder in self.quarantined():
            if float(self.read(QUARANTINE, folder)) < before:
                self.wipe(folder)
                self.remove(QUARANTINE, [folder])


class LocalFiles(CheckpointFiles):
    """A folder of this machine, made when it is needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def folders(self) -> set[str]:
        found = self.root.iterdir() if self.root.is_dir() else ()
        return {path.name for path in found if path.is_dir() and path.name != QUARANTINE}

    def names(self, folder: str) -> set[str]:
        path = self.root / folder
        return set(os.listdir(path)) if path.is_dir() else set()

    def read(self, folder: str, name: str) -> bytes:
        return (self.root / folder / name).read_bytes()

    def write(self, folder: str, name: str, data: bytes) -> None:
        path = self.root / folder
        path.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path / name)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise

    def copy(self, folder: str, name: str, to: str) -> None:
        (self.root / to).mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.root / folder / name, self.root / to / name)  # files never change
        except FileNotFoundError:
            raise
        except OSError:  # it is there already, or the file system has no hard links
            super().copy(folder, name, to)

    def settle(self, folder: str) -> None:
        if hasattr(os, "O_DIRECTORY"):
            handle = os.open(self.root / folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def remove(self, folder: str, names: Iterable[str]) -> None:
        for name in names:
            (self.root / folder / name).unlink(missing_ok=True)

    def wipe(self, folder: str) -> None:
        shutil.rmtree(self.root / folder, ignore_errors=True)

    def set_aside(self, folder: str) -> None:
        """Rename a folder, which is quick, for `clear` to delete."""
        with contextlib.suppress(FileNotFoundError):
            (self.root / folder).rename(self.root / f"{DELETED}{secrets.token_hex(8)}")

    def clear(self) -> None:
        """Delete what was set aside, even by a process that crashed."""
        for folder in self.root.glob(f"{DELETED}*"):
            shutil.rmtree(folder, ignore_errors=True)


class RemoteFiles(CheckpointFiles):
    """A place of an object store, by fsspec. Requests that fail are sent again twice.

    Args:
        url: such as ``s3://bucket/folder``.

    Raises:
        CheckpointsUrlError: what fsspec needs for this scheme is not installed, or has no settings.
    """

    def __init__(self, url: str, sleep: Callable[[float], object] = time.sleep) -> None:
        import fsspec  # takes a while, and most servers do not need it

        self.where = url
        self._sleep = sleep
        try:
            # Without a cache of listings: other nodes write there too.
            self._store, self._root = fsspec.core.url_to_fs(url.rstrip("/"), use_listings_cache=False)
        except Exception as error:  # whatever the package for this scheme raises
            raise CheckpointsUrlError(f"checkpoints cannot be stored at {url!r}: {_reason(error)}") from error

    def folders(self) -> set[str]:
        return {name for name, kind in self._list(self._root) if kind == "directory" and name != QUARANTINE}

    def names(self, folder: str) -> set[str]:
        return {name for name, kind in self._list(self._path(folder)) if kind == "file"}

    def read(self, folder: str, name: str) -> bytes:
        data: bytes = self._try(lambda: self._store.cat_file(self._path(folder, name)))
        return data

    def write(self, folder: str, name: str, data: bytes) -> None:
        self._try(lambda: self._store.pipe_file(self._path(folder, name), data))

    def settle(self, folder: str) -> None:
        pass  # a store has what it has acknowledged

    def remove(self, folder: str, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._try(lambda name=name: self._store.rm_file(self._path(folder, name)))  # type: ignore[misc]

    def wipe(self, folder: str) -> None:
        self.remove(folder, self.names(folder))
        with contextlib.suppress(OSError):  # object stores have no folders without files
            self._try(lambda: self._store.rmdir(self._path(folder)))

    def _path(self, *names: str) -> str:
        return "/".join([self._root, *filter(None, names)])

    def _list(self, path: str) -> list[tuple[str, str]]:
        try:
            found = self._try(lambda: self._store.ls(path, detail=True))
        except FileNotFoundError:
            return []
        return [(entry["name"].rstrip("/").rpartition("/")[2], entry["type"]) for entry in found]

    def _try(self, request: Callable[[], T]) -> T:
        for pause in (*RETRY_PAUSES, None):
            try:
                return request()
            except FileNotFoundError:
                raise
            except Exception as error:  # the packages of the stores have errors of their own
                if pause is None:
                    raise OSError(f"{self.where}: {_reason(error)}") from error
                self._sleep(pause)
        raise AssertionError


def open_files(place: str) -> CheckpointFiles:
    """The files at a URL, or in a folder given by its path.

    Raises:
        CheckpointsUrlError: not a URL at which checkpoints can be stored.
    """
    scheme, separator, rest = place.partition("://")
    if not separator:
        return LocalFiles(Path(place).expanduser())
    if scheme == "file":
        parts = urlsplit(place)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise CheckpointsUrlError(f"checkpoints URL {place!r} must be such as file:///shared/checkpoints")
        return LocalFiles(Path(unquote(parts.path)))
    if scheme not in REMOTE or not rest.strip("/"):
        raise CheckpointsUrlError(
            f"checkpoints URL {place!r} must be a folder, or a URL such as file:///folder, s3://bucket/folder or "
            "gs://bucket/folder"
        )
    return RemoteFiles(place)


def _reason(error: BaseException) -> str:
    text: Any = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).replace("\n", " ")
