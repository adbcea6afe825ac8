"""Backups: a copy of a data directory, made while a server may be using it, and the way back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from livedrag.server.device.checkpoint_files import CheckpointFiles, LocalFiles, open_files
from livedrag.server.storage.disk import DirectoryLock
from livedrag.server.storage.errors import BackupError
from livedrag.server.storage.pictures import Pictures
from livedrag.server.storage.queries import referenced
from livedrag.server.storage.store import DATABASE, Store

MAX_TRIES = 20
"""Snapshots of the database, until no picture in it was removed before it could be copied."""


@dataclass(frozen=True)
class Copied:
    """What a backup has, or what was restored: numbers of rooms and pictures, and the pictures that are damaged."""

    rooms: int
    pictures: int
    damaged: tuple[str, ...]


def back_up(folder: Path, target: Path, checkpoints_url: str = "") -> Copied:
    """Copy a data directory into a new one.

    The copy has every change that was acknowledged before this call. The database comes last, so that a directory
    without one is not a backup.

    Args:
        checkpoints_url: where the checkpoints are, which the copy has in a folder; empty: in the data directory.

    Raises:
        CheckpointsUrlError: there can be no checkpoints there.
        BackupError: there is no database, or the target is not empty.
    """
    source, copies, draft = Pictures(folder / "pictures"), Pictures(target / "pictures"), target / f"{DATABASE}.draft"
    with _disk_errors(f"cannot back up {str(folder)!r} into {str(target)!r}"):
        _make_empty(target)
        copies.folder.mkdir()
        missing: set[str] | None = None
        for _ in range(MAX_TRIES):
            _copy_pictures(source, copies, source.names() - copies.names())
            files, rooms = _snapshot(folder / DATABASE, draft)
            _copy_pictures(source, copies, files - copies.names())
            before, missing = missing, files - copies.names()
            if not missing or missing == before:  # else a room was deleted or a result replaced: take a newer snapshot
                break
        copies.remove(copies.names() - files)
        if checkpoints_url:
            _copy_checkpoints(open_files(checkpoints_url), LocalFiles(target / "checkpoints"))
        elif (folder / "checkpoints").is_dir():
            shutil.copytree(folder / "checkpoints", target / "checkpoints", copy_function=_copy_if_there)
        damaged = {sha256 for sha256 in files & copies.names() if not copies.is_whole(sha256)}
        _sync(draft)
        draft.rename(target / DATABASE)
    return Copied(len(rooms), len(copies.names()), tuple(sorted(damaged | (missing or set()))))


def restore(backup: Path, folder: Path, checkpoints_url: str = "") -> Copied:
    """Make a data directory of a backup.

    Args:
        checkpoints_url: where its checkpoints go, an empty place; empty: into the data directory.

    Raises:
        CheckpointsUrlError: there can be no checkpoints there.
        BackupError: it is not a backup, its database is damaged, or the data directory is not empty.
        StoreError: the data directory is in use, or the backup comes from a newer livedrag.
    """
    copies, draft = Pictures(folder / "pictures"), folder / f"{DATABASE}.draft"
    with _disk_errors(f"cannot restore {str(backup)!r} into {str(folder)!r}"):
        if not (backup / DATABASE).is_file():
            raise BackupError(f"{str(backup)!r} is not a complete backup: it has no {DATABASE}")
        elsewhere = open_files(checkpoints_url) if checkpoints_url else None
        if elsewhere is not None and (elsewhere.folders() or elsewhere.names("")):
            raise BackupError(f"{elsewhere.where!r} is not empty: choose another --checkpoints-url")
        _make_empty(folder)
        lock = DirectoryLock(folder)
        try:
            _snapshot(backup / DATABASE, draft)
            for name in ("pictures",) if elsewhere else ("pictures", "checkpoints"):
                if (backup / name).is_dir():
                    shutil.copytree(backup / name, folder / name)
            if elsewhere:
                _copy_checkpoints(LocalFiles(backup / "checkpoints"), elsewhere)
            _sync(draft)
            draft.rename(folder / DATABASE)
        finally:
            lock.release()
    with Store(folder, checkpoints_url=checkpoints_url) as store:
        files, rooms = store.referenced().result()
        damaged = sorted(sha256 for sha256 in files if not copies.is_whole(sha256))
    return Copied(len(rooms), len(files) - len(damaged), tuple(damaged))


def _snapshot(database: Path, target: Path) -> tuple[set[str], list[str]]:
    """Copy a database as it is at one moment; returns the files that it refers to, and its rooms."""
    if not database.is_file():
        raise BackupError(f"there is no {DATABASE} in {str(database.parent)!r}: choose another with --data-dir")
    target.unlink(missing_ok=True)
    with (
        closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a write-ahead log beside it
        (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise BackupError(f"the database {str(database)!r} is damaged: {verdict}")
        (version,) = copy.execute("PRAGMA user_version").fetchone()
        if version == 1:  # it does not list the files that rooms refer to
            raise BackupError(f"{str(database)!r} was made by an early livedrag: start the server once to migrate it")
        return referenced(copy)


def _copy_pictures(source: Pictures, target: Pictures, files: set[str]) -> None:
    for sha256 in files:
        path = target.path(sha256)
        path.parent.mkdir(exist_ok=True)
        draft = path.with_suffix(".draft")
        _copy_if_there(source.path(sha256), draft)
        if draft.exists():
            _sync(draft)
            draft.rename(path)


def _copy_checkpoints(source: CheckpointFiles, target: CheckpointFiles) -> None:
    for folder in source.folders():
        for name in source.names(folder):
            with suppress(FileNotFoundError):  # a running server has removed it meanwhile
                target.write(folder, name, source.read(folder, name))


def _copy_if_there(source: str | Path, target: str | Path) -> str | Path:
    """Copy a file, unless a running server has removed it meanwhile."""
    try:
        return shutil.copyfile(source, target)
    except FileNotFoundError:
        return target


def _make_empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BackupError(f"{str(folder)!r} is not empty: choose another directory")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _disk_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise BackupError(f"{what}: {reason}") from error
