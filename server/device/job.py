"""Job: one room's session on a device and its work; and what a session does when its desired state changes."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import msgspec
import numpy as np
from PIL import Image

from livedrag.editor import Drag, DragSession, MaskError, Point
from livedrag.server.device.checkpoints import Checkpoint, Part, SavedMoment, picture_parts
from livedrag.server.device.engine import DesiredState, FrameFormat, MomentInfo, PlacedDrag
from livedrag.server.device.scheduler import Rank
from livedrag.server.document.protocol import XY, Generation, Progress, Setting, Stage

T = TypeVar("T")

MAX_DIFFERENCE = 2.0
"""Mean difference, of 255, up to which a picture that was generation again is the one that was kept.

Another processor, or another number of threads, rounds otherwise; other weights draw something else.
"""
MAX_STORED_SIDE = 512
"""Longest side in pixels of a preview that is kept for its moment; larger ones are kept smaller."""
QUALITY = 80
"""Of previews, out of 100."""


@dataclass
class Stopwatch:
    """Times the steps of one stage, in seconds."""

    stage: Stage
    began: float = field(default_factory=time.monotonic)
    latest: float = 0.0

    def progress(self, run: str, step: int, steps: int, loss: float | None = None) -> Progress:
        """How far the stage is; ``step`` of ``steps`` are done."""
        self.latest = time.monotonic()
        seconds = self.latest - self.began
        left = seconds / step * (steps - step) if step else None
        return Progress(
            run=run, stage=self.stage, step=step, steps=steps, seconds=seconds, seconds_left=left, loss=loss
        )


@dataclass
class TimelinePictures:
    """What is kept of a timeline's moments beside the session.

    By moment: when it was reached, where the content of each drag was, a small picture, and a preview.
    """

    times: dict[int, float] = field(default_factory=dict)
    tracked: dict[int, dict[str, XY]] = field(default_factory=dict)
    thumbnails: dict[int, bytes] = field(default_factory=dict)
    frames: dict[int, bytes] = field(default_factory=dict)

    def keep_only(self, moments: set[int]) -> None:
        """Forget all others."""
        for gone in self.times.keys() - moments:
            del self.times[gone], self.tracked[gone]
            self.thumbnails.pop(gone, None)
            self.frames.pop(gone, None)


@dataclass(frozen=True)
class SessionKey:
    """What a session cannot change any more: another of these is another session. ``picture`` is its digest."""

    picture: str
    prompt: str
    seed: int
    settings: Mapping[str, Setting]


@dataclass(eq=False)
class Job:
    """One room's session on the device and what it is doing.

    Args:
        desired: that the session follows.
        session, built_of: and what it was built of; None while it is on disk, or not yet made.
        run: under way or the last one; empty where the picture is only being prepared.
        generation_steps: the picture that is being made from words, where this is no room but a generation_steps.
        steps: what there is to do, a step at a time; None while there is nothing.
        placed: whether it may take steps; else it waits for a place on the device.
        stage: of the last step, and `left` how many are to come in this one.
        sought: somebody has gone to another moment of the timeline, which the run has to notice.
        iterations: that the run has made; ``branched_at`` of them before it went to another moment.
        retried: whether this very step has been tried again after the memory had been full.
        used, asked: when it last took a step, when it began to wait for a place.
        checkpoint: the last one that was written of this session, ``kept`` when; ``unkept``: the disk has refused it.
        told: what was last told of the timeline, and when.
    """

    desired: DesiredState
    session: DragSession | None = None
    built_of: SessionKey | None = None
    run: str = ""
    generation: Generation | None = None
    steps: Iterator[None] | None = None
    again: Callable[[], Iterator[None]] | None = None
    placed: bool = False
    stage: Stage = "idle"
    left: dict[str, int] = field(default_factory=dict)
    stopping: bool = False
    sought: bool = False
    iterations: int = 0
    branched_at: int = 0
    has_picture: bool = False
    retried: bool = False
    used: float = 0.0
    asked: float = 0.0
    queue_told: tuple[int, float] = (-1, 0.0)
    shown: TimelinePictures = field(default_factory=TimelinePictures)
    checkpoint: Checkpoint | None = None
    kept: float = 0.0
    unkept: bool = False
    told: object = None
    told_at: float = 0.0
    told_thumbnails: set[int] = field(default_factory=set)

    @property
    def room(self) -> str:
        return self.desired.room

    @property
    def active(self) -> bool:
        """Whether it takes steps on the device."""
        return self.steps is not None and self.placed

    @property
    def idle(self) -> bool:
        """Whether it has a session on the device and nothing to do."""
        return self.steps is None and self.session is not None

    @property
    def rank(self) -> Rank:
        """What its next step is for."""
        if not self.run:
            return Rank.PREPARING
        return Rank.FITTING if self.stage == "fitting" else Rank.RUN

    def moments(self) -> list[SavedMoment]:
        """The timeline of its session, with where the content of each drag was."""
        session, shown = self.session, self.shown
        if session is None:
            return []
        for moment in session.timeline:
            if moment.index not in shown.times:
                shown.times[moment.index] = time.time()
                shown.tracked[moment.index] = places(session.tracked(moment.index))
        return [
            SavedMoment(
                info=MomentInfo(
                    id=moment.index,
                    parent=moment.parent,
                    iteration=moment.iteration,
                    time=shown.times[moment.index],
                    thumbnail=moment.index in shown.thumbnails,
                ),
                tracked=shown.tracked[moment.index],
            )
            for moment in session.timeline
        ]

    def to_checkpoint(self) -> tuple[Checkpoint, list[Part]]:
        """What there is to be written of its session."""
        assert self.session is not None
        assert self.built_of is not None
        moments = self.moments()
        self.shown.keep_only({moment.info.id for moment in moments})
        checkpoint = Checkpoint(
            picture=self.built_of.picture,
            desired=self.desired,
            run=self.run,
            iterations=self.iterations,
            branched_at=self.branched_at,
            has_picture=self.has_picture,
            moments=moments,
            current=self.session.timeline.current,
        )
        tensors = [Part(name=part.name, stamp=part.stamp, make=part.snapshot.to_bytes) for part in self.session.parts()]
        shown = [
            *picture_parts("thumbnails", self.shown.thumbnails),
            *picture_parts("frames", self.shown.frames),
        ]
        return checkpoint, [*tensors, *shown]


def changes(
    session: DragSession, before: DesiredState, desired: DesiredState, settings: Mapping[str, Setting]
) -> Iterator[Callable[[], None]]:
    """What to call so that a session that followed one desired follows the next; ``settings`` are those that differ."""
    for id in session.drags.keys() - desired.drags.keys():
        yield partial(session.remove_drag, id)
    for id, grip in desired.drags.items():
        yield from _drag_changes(session, id, before.drags.get(id), grip)
    if desired.mask != before.mask:
        yield lambda: session.set_mask(read_mask(desired.mask))
    if settings:
        yield partial(session.change, settings)


def _drag_changes(
    session: DragSession, id: str, old: PlacedDrag | None, new: PlacedDrag
) -> Iterator[Callable[[], None]]:
    drag = Drag(Point(*new.handle), Point(*new.target))
    if old is None or id not in session.drags:
        yield partial(session.add_drag, id, drag)
        return
    grabbed = (old.handle, old.handle_version) != (new.handle, new.handle_version)
    aimed = old.target != new.target
    if grabbed and aimed:  # one after the other, the handle could come to lie on the old target
        yield partial(session.remove_drag, id)
        yield partial(session.add_drag, id, drag)
    elif grabbed:
        yield partial(session.grab, id, drag.handle)
    elif aimed:
        yield partial(session.aim, id, drag.target)


def grips_of(session: DragSession, desired: DesiredState) -> dict[str, PlacedDrag]:
    """The session's drags as the desired state that it follows; handle versions are the room's."""
    return {
        id: PlacedDrag(
            handle=desired.drags[id].handle if id in desired.drags else (drag.handle.x, drag.handle.y),
            target=(drag.target.x, drag.target.y),
            handle_version=desired.drags[id].handle_version if id in desired.drags else 0,
        )
        for id, drag in session.drags.items()
    }


def places(points: Mapping[str, Point]) -> dict[str, XY]:
    """Points as the service writes them."""
    return {id: (point.x, point.y) for id, point in points.items()}


@contextlib.contextmanager
def closed(steps: Iterator[T]) -> Iterator[Iterator[T]]:
    """Close a generator on the way out, so that stopping it takes effect at once."""
    try:
        yield steps
    finally:
        if isinstance(steps, Generator):
            steps.close()


def read_mask(png: bytes | None) -> np.ndarray | None:
    """``(H, W)``, nonzero may change. Raises `MaskError` where nothing may, in words for somebody in a room."""
    mask = None if png is None else np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    if mask is not None and not mask.any():
        raise MaskError("the mask lets nothing change: paint a region or clear the mask")
    return mask


def without_drags(desired: DesiredState) -> DesiredState:
    """The desired of a session in which nothing is put down yet."""
    return msgspec.structs.replace(desired, drags={}, mask=None)


def alike(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures differ by no more than rounding."""
    if one.size != other.size:
        return False
    difference = np.asarray(one.convert("RGB"), np.int16) - np.asarray(other.convert("RGB"), np.int16)
    return float(np.abs(difference).mean()) <= MAX_DIFFERENCE


def shrunk(picture: Image.Image, side: int) -> Image.Image:
    """The picture, no larger than ``side`` pixels either way."""
    if max(picture.size) <= side:
        return picture
    small = picture.copy()
    small.thumbnail((side, side), reducing_gap=2.0)
    return small


def png(picture: Image.Image) -> bytes:
    """Lossless."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def compressed(picture: Image.Image, format: FrameFormat) -> bytes:
    """Small, and quickly made."""
    buffer = io.BytesIO()
    if format == "webp":
        picture.save(buffer, "WEBP", quality=QUALITY, method=0)
    else:
        picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
