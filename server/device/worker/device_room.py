"""DeviceRoom: what the worker of a device knows of one room: its session, and the work under way for it.

Four terms: a *run* is a press on Drag, which the document records. *Work* is what a worker does for
a room: a run, a preparation or a generation. A *step* is the part of it after which another room may have its turn.
A *session* is the editor's state of the picture, which outlives work.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from livedrag.editor import DragSession
from livedrag.editor.drag.passes import Answer, Request
from livedrag.server.device.checkpoints import Checkpoint, Part, picture_parts
from livedrag.server.device.edit_log import EditLog
from livedrag.server.device.messages import DesiredState
from livedrag.server.device.run_numbers import RunNumbers
from livedrag.server.device.worker.room_settings import SessionKey
from livedrag.server.device.worker.room_timeline import RoomTimeline
from livedrag.server.device.worker.scheduler import Priority
from livedrag.server.document.protocol import Generation, Outcome, Stage

SHARED_STAGES = ("fitting", "inverting", "dragging", "rendering")
"""Stages in which rooms may share passes of the UNet."""


@dataclass(frozen=True)
class RunCount:
    """How far a run is: its iterations, and how many of them it had when it last jumped to another moment."""

    run: str = ""
    iterations: int = 0
    branched_at: int = 0


@dataclass(eq=False)
class Work:
    """A run, a preparation or a generation.

    Args:
        make_steps: gives the steps from the beginning; what the session has done already is not done again.
        run: the id of the run or generation; empty for a preparation.
        resume: the run was interrupted before.
        generation: the picture to generate; None for runs and preparations.
        steps: what is left of it.
        has_place: whether it may take steps; otherwise it waits for a place on the device.
        stage: of the latest step.
        steps_left: of this stage and later ones, as far as they are known.
        stopping: a run ends within one step, and its result is rendered.
        jumped: the content was moved to another moment of the timeline; the stage under way has to start over.
        reaimed: a point was placed or aimed elsewhere after the latest iteration.
        retried: the step was already tried again after the device's memory was full.
        waiting_since: in seconds of `time.monotonic`.
        reported_ahead, reported_at: how many were ahead of it in the latest report on the queue, and when that was.
    """

    make_steps: Callable[[], Generator[Request | None, Answer, None]]
    run: str = ""
    resume: bool = False
    generation: Generation | None = None
    steps: Generator[Request | None, Answer, None] = field(init=False)
    has_place: bool = False
    stage: Stage = "queued"
    steps_left: dict[str, int] = field(default_factory=dict)
    stopping: bool = False
    jumped: bool = False
    reaimed: bool = False
    retried: bool = False
    waiting_since: float = 0.0
    reported_ahead: int = -1
    reported_at: float = 0.0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Do it from the beginning."""
        self.steps = self.make_steps()

    def close(self) -> None:
        """Leave what is under way."""
        self.steps.close()

    def continues(self, run: str) -> bool:
        """Whether the iterations of this run are still counted: an interrupted run goes on, a preparation waits."""
        return not self.run or (self.resume and self.run == run)

    def continues_after(self, outcome: Outcome) -> bool:
        """Whether dragging continues after it has come to this outcome, instead of being rendered."""
        return self.jumped or (self.reaimed and outcome == "arrived" and not self.stopping)

    @property
    def priority(self) -> Priority:
        """Of its next step."""
        if not self.run:
            return Priority.PREPARATION
        return Priority.FITTING if self.stage == "fitting" else Priority.RUN


@dataclass(eq=False)
class DeviceRoom:
    """A room, or a generation, on the device.

    Args:
        desired: the state that the session follows.
        session: None while it is on disk or not made yet.
        key: what the session was made from.
        work: None while there is nothing to do.
        count: of the latest run.
        has_result: a run has rendered a picture.
        log: what was done with the session.
        numbers: of its latest run.
        timeline: what is stored of the session's moments beside it.
        checkpoint: the latest one of this session.
        saved_at: when that was written, in seconds of `time.monotonic`.
        save_failed: the disk has refused a checkpoint during this run.
        used_at: when it last took a step, likewise.
    """

    desired: DesiredState
    session: DragSession | None = None
    key: SessionKey | None = None
    work: Work | None = None
    count: RunCount = RunCount()
    has_result: bool = False
    log: EditLog = field(default_factory=EditLog)
    numbers: RunNumbers = field(default_factory=RunNumbers)
    timeline: RoomTimeline = field(default_factory=RoomTimeline)
    checkpoint: Checkpoint | None = None
    saved_at: float = 0.0
    save_failed: bool = False
    used_at: float = 0.0

    @property
    def id(self) -> str:
        return self.desired.room

    @property
    def run(self) -> str:
        """The run or generation under way; empty where there is none."""
        return "" if self.work is None else self.work.run

    @property
    def active(self) -> bool:
        """Whether it takes steps."""
        return self.work is not None and self.work.has_place

    @property
    def shareable(self) -> bool:
        """Whether its next step may share passes with those of other rooms. A run that was interrupted goes on alone:
        it may be what the worker died of."""
        work = self.work
        return work is not None and work.has_place and work.stage in SHARED_STAGES and not work.resume

    @property
    def idle(self) -> bool:
        """Whether it has a session on the device and nothing to do."""
        return self.work is None and self.session is not None

    def stop_work(self) -> None:
        """Leave what is under way, without a word."""
        if self.work is not None:
            self.work.close()
        self.work = None

    def close_session(self) -> None:
        """Take the session off the device."""
        if self.session is not None:
            self.session.close()
        self.session = None

    def to_checkpoint(self) -> tuple[Checkpoint, list[Part]]:
        """What has to be written of its session."""
        assert self.session is not None
        assert self.key is not None
        moments = self.timeline.moments(self.session)
        checkpoint = Checkpoint(
            picture=self.key.picture,
            desired=self.desired,
            run=self.count.run,
            iterations=self.count.iterations,
            branched_at=self.count.branched_at,
            has_picture=self.has_result,
            moments=moments,
            current=self.session.timeline.current,
            log=self.log.copy(),
        )
        tensors = [
            Part(name=part.name, stamp=part.stamp, make=part.snapshot.to_bytes)
            for part in self.session.shared.snapshot_parts()
        ]
        pictures = [
            *picture_parts("thumbnails", self.timeline.thumbnails),
            *picture_parts("frames", self.timeline.frames),
        ]
        return checkpoint, [*tensors, *pictures, *self.numbers.parts()]
