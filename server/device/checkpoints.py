"""Checkpoints: what the sessions of rooms were, on disk, so that a run goes on after its worker or server was killed.

A room has a folder. What changes from one checkpoint to the next is small beside what stays the same, so a checkpoint
is a list of parts, each a file named by the SHA-256 of what is in it and written once. The list itself is named by a
number that grows, and by its own SHA-256: one that is not whole is no checkpoint, and the one before it counts.

This module reads and writes; it knows no torch, so that the service can show a timeline without a worker.
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

KEPT = 2
"""Checkpoints of a room that are kept: should the newest turn out damaged, there is one more."""
SHOTS_A_PART = 32
"""Moments whose pictures share a part."""

ASIDE = "+gone-"
"""What folders begin with that are being removed; no room's does."""

_NAME = re.compile(r"(\d{10})-([0-9a-f]{64})\.checkpoint")


class CheckpointError(LivedragError):
    """A checkpoint that cannot be read; the text says which and why."""


class TimelineFrame(Struct, frozen=True, kw_only=True):
    """What a moment looked like; ``time`` in seconds since the epoch, ``data`` a compressed picture."""

    iteration: int
    time: float
    data: bytes


class SavedMoment(Struct, frozen=True, kw_only=True):
    """A moment of the timeline, and where the content of each drag was there."""

    info: MomentInfo
    tracked: dict[str, XY]


class PartRef(Struct, frozen=True, kw_only=True):
    """A part as the list names it. As long as its stamp stays the same, so does what is in it; empty: not known."""

    sha256: str
    stamp: str = ""


class Part(Struct, frozen=True, kw_only=True):
    """A part to be written; ``make`` is called only where it has to be."""

    name: str
    make: Callable[[], bytes]
    stamp: str = ""


class Checkpoint(Struct, frozen=True, kw_only=True):
    """What a room's session was, beside its tensors.

    Args:
        picture: SHA-256 of the uploaded picture's PNG.
        run: that was under way, or the last one; empty: none yet.
        iterations: that this run had made.
        branched_at: how many of them before it went on from another moment of the timeline.
        has_picture: whether a run had left a picture.
        desired: that the session followed.
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
    """The checkpoints of all rooms.

    Args:
        folder: of theirs; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(
        self, room: str, checkpoint: Checkpoint, parts: Sequence[Part], before: Checkpoint | None = None
    ) -> Checkpoint:
        """Write a checkpoint, durably; returns it with its parts.

        Args:
            parts: all of them.
            before: the room's last one, of the same session: parts whose stamp has not changed are not made again.

        Raises:
            OSError: the disk is full, or worse; the room's last checkpoint is as it was.
        """
        folder = self._of(room)
        folder.mkdir(parents=True, exist_ok=True)
        known = {} if before is None else before.parts
        refs = {part.name: self._piece(folder, part, known.get(part.name)) for part in parts}
        saved = msgspec.structs.replace(checkpoint, parts=refs)
        self._list(folder, saved)
        return saved

    def amend(self, room: str, checkpoint: Checkpoint) -> None:
        """Write a changed list of the same parts. Raises `OSError`."""
        self._list(self._of(room), checkpoint)

    def newest(self, room: str) -> Checkpoint | None:
        """The newest list that is whole, whatever its parts are."""
        return next(self._lists(room), None)

    def load(self, room: str) -> Iterator[tuple[Checkpoint, dict[str, bytes]]]:
        """The checkpoints of a room that are whole, newest first, with their parts by name."""
        for checkpoint in self._lists(room):
            with contextlib.suppress(CheckpointError):
                yield checkpoint, {name: self._read(room, name, piece) for name, piece in checkpoint.parts.items()}

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
        """The previews that are kept of the current branch, oldest first; none without a checkpoint."""
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
        for name, piece in checkpoint.parts.items():
            if name.startswith(f"{kind}-"):
                found |= msgspec.msgpack.decode(self._read(room, name, piece), type=dict[int, bytes])
        return found

    def wipe(self, room: str) -> None:
        """Remove all that is kept of a room."""
        shutil.rmtree(self._of(room), ignore_errors=True)

    def folders(self, rooms: Iterable[str]) -> list[Path]:
        """The folders of rooms; not each of them has one."""
        return [self._of(room) for room in rooms]

    def others(self, rooms: Iterable[str]) -> list[Path]:
        """The folders that there are of other rooms than these."""
        there = {path for path in self._folder.iterdir() if path.is_dir()} if self._folder.is_dir() else set()
        return sorted(there - set(self.folders(rooms)))

    def set_aside(self, folders: Iterable[Path]) -> None:
        """Take the names off folders, which is quick, until `clear` removes them. Raises `OSError`."""
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                folder.rename(self._folder / f"{ASIDE}{secrets.token_hex(8)}")

    def clear(self) -> None:
        """Remove what was set aside, before a crash too."""
        for folder in self._folder.glob(f"{ASIDE}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _of(self, room: str) -> Path:
        plain = re.fullmatch(r"[A-Za-z0-9_-]{1,64}", room)
        return self._folder / (room if plain else f"+{hashlib.sha256(room.encode()).hexdigest()}")

    def _piece(self, folder: Path, part: Part, known: PartRef | None) -> PartRef:
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
        """Remove what belongs to no checkpoint that is kept."""
        lists = [path for _, path in _numbered(folder)]
        wanted = {path.name for path in lists[:KEPT]}
        for path in lists[:KEPT]:
            checkpoint = _decoded(path)
            wanted |= {piece.sha256 for piece in checkpoint.parts.values()} if checkpoint else set()
        for path in folder.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def _lists(self, room: str) -> Iterator[Checkpoint]:
        for _, path in _numbered(self._of(room)):
            checkpoint = _decoded(path)
            if checkpoint is not None:
                yield checkpoint

    def _read(self, room: str, name: str, piece: PartRef) -> bytes:
        try:
            data = (self._of(room) / piece.sha256).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{name} of a checkpoint of room {room} cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != piece.sha256:
            raise CheckpointError(
                f"{name} of a checkpoint of room {room} is damaged: its {len(data)} bytes have changed"
            )
        return data


def branch(moments: Sequence[MomentInfo], current: int | None) -> list[MomentInfo]:
    """The moments that lead to the current one, the first one first."""
    known = {moment.id: moment for moment in moments}
    led: list[MomentInfo] = []
    while current is not None and current in known:
        led.append(known[current])
        current = known[current].parent
    return led[::-1]


def picture_parts(kind: str, pictures: Mapping[int, bytes]) -> list[Part]:
    """The ``thumbnails`` or ``frames`` of moments as parts; pictures of a moment never change."""
    parts: dict[str, dict[int, bytes]] = {}
    for moment, data in sorted(pictures.items()):
        parts.setdefault(f"{kind}-{moment // SHOTS_A_PART}", {})[moment] = data
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
    """A list as it was written; None where it is not whole, or gone."""
    try:
        data = path.read_bytes()
        match = _NAME.fullmatch(path.name)
        whole = match is not None and hashlib.sha256(data).hexdigest() == match[2]
        return msgspec.convert(upgraded(msgspec.msgpack.decode(data)), Checkpoint) if whole else None
    except (OSError, msgspec.MsgspecError):
        return None


def _write(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there, and on disk when this returns. Raises `OSError`."""
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
