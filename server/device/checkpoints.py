"""Checkpoints: the sessions of rooms on disk, from which a run continues after its worker or server was killed.

A room has a folder. Little changes from one checkpoint to the next, so a checkpoint is a list of parts, each a file
named by the SHA-256 of its content and written once. The list is a file named by a growing number and its own SHA-256:
a list that is not complete is ignored, and the one before it counts.

Where they lie is the business of `livedrag.server.device.checkpoint_files`. This module knows no torch, so that the
service can show a timeline without a worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from livedrag.server.device.checkpoint_files import DELETED, CheckpointFiles, LocalFiles
from livedrag.server.device.edit_log import EditLog
from livedrag.server.device.messages import DesiredState, MomentInfo, PlacedDrag, TimelineChanged
from livedrag.server.document.protocol import XY
from livedrag.server.errors import LivedragError

CHECKPOINTS_STORED = 2
"""Of a room: if the newest is damaged, there is one more."""
PICTURES_STORED = 3
"""Earlier pictures of a room of which the newest checkpoint is stored, so that it can have them again."""
PICTURES_A_PART = 32
"""Thumbnails or previews of moments in one part."""

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
        log: what was done with the session; None: an older version wrote it.
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
    log: EditLog | None = None
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
        place: their files, or a folder of this machine, which is made when it is needed.
    """

    def __init__(self, place: Path | CheckpointFiles) -> None:
        self.files = place if isinstance(place, CheckpointFiles) else LocalFiles(place)

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
        folder = folder_of(room)
        there = self.files.names(folder)
        saved, made = with_parts(checkpoint, parts, {} if before is None else before.parts, there)
        self._write(folder, saved, made, there)
        return saved

    def write(self, room: str, checkpoint: Checkpoint, made: Mapping[str, bytes]) -> None:
        """Write those parts that are not there yet, by their SHA-256, then the list. Raises `OSError`."""
        folder = folder_of(room)
        self._write(folder, checkpoint, made, self.files.names(folder))

    def amend(self, room: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint with the same parts again. Raises `OSError`."""
        folder = folder_of(room)
        self._write_list(folder, checkpoint, self.files.names(folder))

    def finish(self, seconds: float) -> None:
        """The process ends: write what waits, within so many seconds; here it is written already."""

    def flush(self, room: str) -> None:
        """Return when everything that was saved of a room is written; here it is at once. Raises `OSError`."""

    def newest(self, room: str, picture: str | None = None) -> Checkpoint | None:
        """The newest list that is complete, of this picture if one is given; its parts may be damaged."""
        return next(self._lists(room, picture), None)

    def load(self, room: str, picture: str | None = None) -> Iterator[tuple[Checkpoint, dict[str, bytes]]]:
        """The checkpoints of a room that are complete, newest first, with their parts by name."""
        for checkpoint in self._lists(room, picture):
            with contextlib.suppress(CheckpointError):
                yield checkpoint, {name: self._read(room, name, ref) for name, ref in checkpoint.parts.items()}

    def load_timeline(self, room: str, picture: str | None = None) -> TimelineChanged | None:
        """The timeline of a room with all thumbnails, as a `TimelineChanged`; None without a checkpoint.

        Args:
            picture: SHA-256 of the one that is edited; by default that of the newest checkpoint.
        """
        for checkpoint in self._lists(room, picture):
            with contextlib.suppress(CheckpointError):
                return TimelineChanged(
                    room=room,
                    moments=[moment.info for moment in checkpoint.moments],
                    current=checkpoint.current,
                    thumbnails=self.pictures(room, checkpoint, "thumbnails"),
                )
        return None

    def frames(self, room: str, picture: str | None = None) -> list[TimelineFrame]:
        """The stored previews of the current branch, oldest first; none without a checkpoint. See `load_timeline`."""
        for checkpoint in self._lists(room, picture):
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
        for part in self.parts(room, checkpoint, f"{kind}-").values():
            found |= msgspec.msgpack.decode(part, type=dict[int, bytes])
        return found

    def parts(self, room: str, checkpoint: Checkpoint, prefix: str) -> dict[str, bytes]:
        """The parts whose names begin so, by name. Raises `CheckpointError`."""
        refs = {name: ref for name, ref in checkpoint.parts.items() if name.startswith(prefix)}
        return {name: self._read(room, name, ref) for name, ref in refs.items()}

    def copy(self, room: str, to: str, versions: Mapping[str, int]) -> None:
        """Give a new room the newest session of another one, which stays as it is. Without one, nothing is written.

        Args:
            versions: the ``handle_version`` of each drag of ``room`` now, all of which are 0 in the new one.

        Raises:
            OSError: the disk is full or broken.
        """
        for checkpoint in self._lists(room):
            try:
                for ref in checkpoint.parts.values():
                    self.files.copy(folder_of(room), ref.sha256, folder_of(to))
            except FileNotFoundError:
                continue  # a newer one has just replaced it
            # Lower than any document's, so that what has changed since the checkpoint is followed.
            desired = replace(checkpoint.desired, room=to, seq=-1, drags=_as_new(checkpoint.desired.drags, versions))
            log = None if checkpoint.log is None else _log_as_new(checkpoint.log, versions)
            copied = replace(checkpoint, desired=desired, log=log)
            self._write_list(folder_of(to), copied, self.files.names(folder_of(to)))
            return

    def wipe(self, room: str) -> None:
        """Delete all checkpoints of a room. Raises `OSError` where they are remote."""
        self.files.wipe(folder_of(room))

    def folders(self) -> set[str]:
        """The folders of all rooms that have checkpoints. Raises `OSError`."""
        return {folder for folder in self.files.folders() if not folder.startswith(DELETED)}

    def _write(self, folder: str, checkpoint: Checkpoint, made: Mapping[str, bytes], there: Set[str]) -> None:
        """Write those parts that are not there yet, then the list."""
        for sha256 in made.keys() - there:
            self.files.write(folder, sha256, made[sha256])
        missing = {ref.sha256 for ref in checkpoint.parts.values()} - there - made.keys()
        if missing:
            raise OSError(f"{len(missing)} parts of the checkpoint before are missing, such as {min(missing)}")
        self._write_list(folder, checkpoint, there | made.keys())

    def _write_list(self, folder: str, checkpoint: Checkpoint, there: Set[str]) -> None:
        """Write the list, then delete what none of the newest checkpoints needs among the files that are there."""
        lists = _numbered(there)
        data = msgspec.msgpack.encode(checkpoint)
        number = lists[0][0] + 1 if lists else 1
        name = f"{number:010}-{hashlib.sha256(data).hexdigest()}.checkpoint"
        self.files.write(folder, name, data)
        self.files.settle(folder)
        self._sweep(folder, there | {name})

    def _sweep(self, folder: str, names: Set[str]) -> None:
        """Delete what belongs to none of the newest checkpoints."""
        wanted: set[str] = set()
        pictures: set[str] = set()
        for index, (_, name) in enumerate(_numbered(names)):
            checkpoint = self._decoded(folder, name)
            if index < CHECKPOINTS_STORED:
                wanted.add(name)
            elif checkpoint is None or checkpoint.picture in pictures or len(pictures) > PICTURES_STORED:
                continue
            if checkpoint is not None:
                pictures.add(checkpoint.picture)
                wanted |= {name, *(ref.sha256 for ref in checkpoint.parts.values())}
        self.files.remove(folder, names - wanted)

    def _lists(self, room: str, picture: str | None = None) -> Iterator[Checkpoint]:
        """The complete lists, newest first, of this picture if one is given."""
        folder = folder_of(room)
        for _, name in _numbered(self.files.names(folder)):
            checkpoint = self._decoded(folder, name)
            if checkpoint is not None and picture in (None, checkpoint.picture):
                yield checkpoint

    def _decoded(self, folder: str, name: str) -> Checkpoint | None:
        """A checkpoint; None if its file is incomplete or gone."""
        try:
            data = self.files.read(folder, name)
            match = _NAME.fullmatch(name)
            whole = match is not None and hashlib.sha256(data).hexdigest() == match[2]
            return msgspec.convert(upgraded(msgspec.msgpack.decode(data)), Checkpoint) if whole else None
        except (OSError, msgspec.MsgspecError):
            return None

    def _read(self, room: str, name: str, ref: PartRef) -> bytes:
        try:
            data = self.files.read(folder_of(room), ref.sha256)
        except OSError as error:
            raise CheckpointError(f"{name} of a checkpoint of room {room} cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise CheckpointError(
                f"{name} of a checkpoint of room {room} is damaged: its {len(data)} bytes have changed"
            )
        return data


def folder_of(room: str) -> str:
    """The name of the folder with a room's checkpoints."""
    plain = re.fullmatch(r"[A-Za-z0-9_-]{1,64}", room)
    return room if plain else f"+{hashlib.sha256(room.encode()).hexdigest()}"


def with_parts(
    checkpoint: Checkpoint, parts: Sequence[Part], known: Mapping[str, PartRef], there: Collection[str] | None = None
) -> tuple[Checkpoint, dict[str, bytes]]:
    """A checkpoint with references to its parts, and the parts that had to be made, by their SHA-256.

    Args:
        known: parts of the checkpoint before, which are not made again if their stamp has not changed.
        there: names of the files that are written; a part that is not among them is made in any case. None: all are.
    """
    refs: dict[str, PartRef] = {}
    made: dict[str, bytes] = {}
    for part in parts:
        ref = known.get(part.name)
        if ref is None or not part.stamp or ref.stamp != part.stamp or (there is not None and ref.sha256 not in there):
            data = part.make()
            ref = PartRef(sha256=hashlib.sha256(data).hexdigest(), stamp=part.stamp)
            made[ref.sha256] = data
        refs[part.name] = ref
    return replace(checkpoint, parts=refs), made


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


def _log_as_new(log: EditLog, versions: Mapping[str, int]) -> EditLog:
    """A session's log in a new room: the handles as they are now have version 0, all earlier ones another."""
    copied = log.copy()
    for states in (*(run.states for run in copied.runs), copied.pending):
        states[:] = [replace(state, drags=_with_versions(state.drags, versions)) for state in states]
    return copied


def _with_versions(drags: Mapping[str, PlacedDrag], versions: Mapping[str, int]) -> dict[str, PlacedDrag]:
    return {
        id: replace(drag, handle_version=0 if drag.handle_version == versions.get(id) else -1 - drag.handle_version)
        for id, drag in drags.items()
    }


def _as_new(drags: Mapping[str, PlacedDrag], versions: Mapping[str, int]) -> dict[str, PlacedDrag]:
    """Drags in a room in which every handle has version 0; those placed again since the checkpoint get another one."""
    return {
        id: replace(drag, handle_version=0 if drag.handle_version == versions.get(id) else -1)
        for id, drag in drags.items()
    }


def _numbered(names: Iterable[str]) -> list[tuple[int, str]]:
    """The lists among files, newest first."""
    return sorted(((int(match[1]), name) for name in names if (match := _NAME.fullmatch(name))), reverse=True)
