"""Checkpoints: the sessions of rooms on disk, from which a run continues after its worker or server was killed.

A room has a folder. Little changes from one checkpoint to the next, so a checkpoint is a list of parts, each a file
named by the SHA-256 of its content and written once. The list is a file named by a growing number and its own SHA-256:
a list that is not complete is ignored, and the one before it counts.

This module knows no torch, so that the service can show a timeline without a worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from livedrag.server.device.engine import DesiredState, MomentInfo, TimelineChanged
from livedrag.server.document.protocol import XY
from livedrag.server.errors import LivedragError

CHECKPOINTS_STORED = 2
"""Of a room: if the newest is damaged, there is one more."""
PICTURES_A_PART = 32
"""Thumbnails or previews of moments in one part."""

DELETED = "+gone-"
"""Prefix of folders that are being deleted; no room's has it."""

_NAME = re.compile(r"(\d{10})-([0-9a-f]{64})\.checkpoint")


class CheckpointError(LivedragError):
    """A checkpoint that cannot be read; the text says which and why."""


class TimelineFrame(Struct, frozen=True, kw_only=True):
    """The preview of a moment; ``time`` in seconds since the epoch, ``data`` a WebP or JPEG."""

    iteration: int
    time: float
    data: bytes


class SavedMoment(Struct, frozen=True, kw_only=True):
    """A moment of the timeline, and where the content of each drag is there."""

    info: MomentInfo
    tracked: dict[str, XY]


class PartRef(Struct, frozen=True, kw_only=True):
    """A part in a list. Two parts with the same stamp have the same content; an empty stamp says nothing."""

    sha256: str
    stamp: str = ""


class Part(Struct, frozen=True, kw_only=True):
    """A part to write; ``make`` is called only if its stamp has changed."""

    name: str
    make: Callable[[], bytes]
    stamp: str = ""


class Checkpoint(Struct, frozen=True, kw_only=True):
    """A room's session, without its tensors.

    Args:
        picture: SHA-256 of the uploaded picture's PNG.
        desired: the state that the session followed.
        run: under way, or the last one; empty: none yet.
        iterations: of this run so far.
        branched_at: how many of them it had when it last jumped to another moment of the timeline.
        has_picture: whether a run has rendered a picture.
        moments, current: its timeline.
        pending_seek: the moment to jump to when the session is opened next: a `Seek` while it was only on disk.
        pending_reset: likewise back to the uploaded picture: a `ResetSession`.
        parts: by name.
    """

    picture: str
    desired: DesiredState
    run: str = ""
    iterations: int = 0
    branched_at: int = 0
    has_picture: bool = False
    moments: list[SavedMoment] = []
    current: int | None = None
    pending_seek: int | None = None
    pending_reset: bool = False
    parts: dict[str, PartRef] = {}


RENAMED = {"goal": "desired", "sought": "pending_seek", "rewound": "pending_reset", "pieces": "parts"}
"""Fields of a `Checkpoint` that version 0.1 wrote under other names."""
RENAMED_IN_STATE = {"drawn": "generation"}
RENAMED_IN_DRAGS = {"grabbed": "handle_version"}


def upgraded(raw: dict[str, Any]) -> dict[str, Any]:
    """A decoded checkpoint with the names that its fields have now, whatever version wrote it."""
    checkpoint = _renamed(raw, RENAMED)
    state = _renamed(checkpoint["desired"], RENAMED_IN_STATE)
    drags = {id: _renamed(drag, RENAMED_IN_DRAGS) for id, drag in state["drags"].items()}
    return {**checkpoint, "desired": {**state, "drags": drags}}


def _renamed(fields: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in fields.items()}


class Checkpoints:
    """The checkpoints of all rooms, in one folder that is made when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(
        self, room: str, checkpoint: Checkpoint, parts: Sequence[Part], before: Checkpoint | None = None
    ) -> Checkpoint:
        """Write a checkpoint, durably; returns it with references to its parts.

        Args:
            parts: all of them.
            before: the last one of the same session: parts whose stamp has not changed are not made again.

        Raises:
            OSError: the disk is full or broken; the room's last checkpoint is unchanged.
        """
        folder = self._of(room)
        folder.mkdir(parents=True, exist_ok=True)
        known = {} if before is None else before.parts
        refs = {part.name: self._write_part(folder, part, known.get(part.name)) for part in parts}
        saved = msgspec.structs.replace(checkpoint, parts=refs)
        self._list(folder, saved)
        return saved

    def amend(self, room: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint with the same parts again. Raises `OSError`."""
        self._list(self._of(room), checkpoint)

    def newest(self, room: str) -> Checkpoint | None:
        """The newest list that is complete; its parts may be damaged."""
        return next(self._lists(room), None)

    def load(self, room: str) -> Iterator[tuple[Checkpoint, dict[str, bytes]]]:
        """The checkpoints of a room that are complete, newest first, with their parts by name."""
        for checkpoint in self._lists(room):
            with contextlib.suppress(CheckpointError):
                yield checkpoint, {name: self._read(room, name, ref) for name, ref in checkpoint.parts.items()}

    def load_timeline(self, room: str) -> TimelineChanged | None:
        """The timeline of a room with all thumbnails, as a `TimelineChanged`; None without a checkpoint."""
        for checkpoint in self._lists(room):
            with contextlib.suppress(CheckpointError):
                return TimelineChanged(
                    room=room,
                    moments=[moment.info for moment in checkpoint.moments],
                    current=checkpoint.current,
                    thumbnails=self.pictures(room, checkpoint, "thumbnails"),
                )
        return None

    def frames(self, room: str) -> list[TimelineFrame]:
        """The stored previews of the current branch, oldest first; none without a checkpoint."""
        for checkpoint in self._lists(room):
            with contextlib.suppress(CheckpointError):
                shown = self.pictures(room, checkpoint, "frames")
                return [
                    TimelineFrame(iteration=info.iteration, time=info.time, data=shown[info.id])
                    for info in branch([moment.info for moment in checkpoint.moments], checkpoint.current)
                    if info.id in shown
                ]
        return []

    def pictures(self, room: str, checkpoint: Checkpoint, kind: str) -> dict[int, bytes]:
        """The ``thumbnails`` or ``frames`` of a checkpoint, by moment. Raises `CheckpointError`."""
        found: dict[int, bytes] = {}
        for name, ref in checkpoint.parts.items():
            if name.startswith(f"{kind}-"):
                found |= msgspec.msgpack.decode(self._read(room, name, ref), type=dict[int, bytes])
        return found

    def wipe(self, room: str) -> None:
        """Delete all checkpoints of a room."""
        shutil.rmtree(self._of(room), ignore_errors=True)

    def folders(self, rooms: Iterable[str]) -> list[Path]:
        """Where rooms have their checkpoints, if they have any."""
        return [self._of(room) for room in rooms]

    def others(self, rooms: Iterable[str]) -> list[Path]:
        """The folders of all rooms but these."""
        there = {path for path in self._folder.iterdir() if path.is_dir()} if self._folder.is_dir() else set()
        return sorted(there - set(self.folders(rooms)))

    def set_aside(self, folders: Iterable[Path]) -> None:
        """Rename folders, which is quick, for `clear` to delete. Raises `OSError`."""
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                folder.rename(self._folder / f"{DELETED}{secrets.token_hex(8)}")

    def clear(self) -> None:
        """Delete what was set aside, also by a process that crashed."""
        for folder in self._folder.glob(f"{DELETED}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _of(self, room: str) -> Path:
        plain = re.fullmatch(r"[A-Za-z0-9_-]{1,64}", room)
        return self._folder / (room if plain else f"+{hashlib.sha256(room.encode()).hexdigest()}")

    def _write_part(self, folder: Path, part: Part, known: PartRef | None) -> PartRef:
        if known is not None and part.stamp and known.stamp == part.stamp and (folder / known.sha256).exists():
            return known
        data = part.make()
        sha256 = hashlib.sha256(data).hexdigest()
        if not (folder / sha256).exists():
            _write(folder / sha256, data)
        return PartRef(sha256=sha256, stamp=part.stamp)

    def _list(self, folder: Path, checkpoint: Checkpoint) -> None:
        lists = _numbered(folder)
        data = msgspec.msgpack.encode(checkpoint)
        number = lists[0][0] + 1 if lists else 1
        _write(folder / f"{number:010}-{hashlib.sha256(data).hexdigest()}.checkpoint", data)
        if hasattr(os, "O_DIRECTORY"):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        self._sweep(folder)

    def _sweep(self, folder: Path) -> None:
        """Delete what belongs to none of the newest checkpoints."""
        lists = [path for _, path in _numbered(folder)]
        wanted = {path.name for path in lists[:CHECKPOINTS_STORED]}
        for path in lists[:CHECKPOINTS_STORED]:
            checkpoint = _decoded(path)
            wanted |= {ref.sha256 for ref in checkpoint.parts.values()} if checkpoint else set()
        for path in folder.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def _lists(self, room: str) -> Iterator[Checkpoint]:
        for _, path in _numbered(self._of(room)):
            checkpoint = _decoded(path)
            if checkpoint is not None:
                yield checkpoint

    def _read(self, room: str, name: str, ref: PartRef) -> bytes:
        try:
            data = (self._of(room) / ref.sha256).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{name} of a checkpoint of room {room} cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise CheckpointError(
                f"{name} of a checkpoint of room {room} is damaged: its {len(data)} bytes have changed"
            )
        return data


def branch(moments: Sequence[MomentInfo], current: int | None) -> list[MomentInfo]:
    """The moments from the first one to the current one."""
    known = {moment.id: moment for moment in moments}
    led: list[MomentInfo] = []
    while current is not None and current in known:
        led.append(known[current])
        current = known[current].parent
    return led[::-1]


def picture_parts(kind: str, pictures: Mapping[int, bytes]) -> list[Part]:
    """The ``thumbnails`` or ``frames`` of moments as parts; a moment's pictures never change."""
    parts: dict[str, dict[int, bytes]] = {}
    for moment, data in sorted(pictures.items()):
        parts.setdefault(f"{kind}-{moment // PICTURES_A_PART}", {})[moment] = data
    return [
        Part(name=name, make=lambda shown=shown: msgspec.msgpack.encode(shown), stamp=" ".join(map(str, shown)))  # type: ignore[misc]
        for name, shown in parts.items()
    ]


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The lists in a folder, newest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    found = [(int(match[1]), folder / name) for name in names if (match := _NAME.fullmatch(name))]
    return sorted(found, reverse=True)


def _decoded(path: Path) -> Checkpoint | None:
    """A checkpoint; None if its file is incomplete or gone."""
    try:
        data = path.read_bytes()
        match = _NAME.fullmatch(path.name)
        whole = match is not None and hashlib.sha256(data).hexdigest() == match[2]
        return msgspec.convert(upgraded(msgspec.msgpack.decode(data)), Checkpoint) if whole else None
    except (OSError, msgspec.MsgspecError):
        return None


def _write(path: Path, data: bytes) -> None:
    """Write a file, which is complete and on disk when this returns, or not there. Raises `OSError`."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
