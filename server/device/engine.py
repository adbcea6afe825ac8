"""Engine: what the service asks of whoever runs the device workers. Commands go in, events come out, in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from livedrag.server.document.protocol import (
    XY,
    EngineState,
    Generation,
    ModelInfo,
    Outcome,
    Points,
    Progress,
    Setting,
    Stage,
)
from livedrag.server.errors import LivedragError
from livedrag.server.metrics import DeviceStats, EngineStats

FrameFormat = Literal["webp", "jpeg"]


class EngineError(LivedragError):
    """The engine cannot start; the text says why, fit for the person who started the server."""


class PlacedDrag(Struct, frozen=True, kw_only=True):
    """A drag as the room has it; ``grabbed`` grows whenever the handle is put down, be it in the same place."""

    handle: XY
    target: XY
    grabbed: int = 0


class DesiredState(Struct, frozen=True, kw_only=True):
    """What a room wants of its session now, whole: the worker finds out what is new. ``seq`` is the document's.

    ``mask`` is a PNG, white may change; None lets everything change. ``generation``: how the picture was generated.
    """

    room: str
    seq: int
    prompt: str
    settings: dict[str, Setting]
    drags: dict[str, PlacedDrag]
    mask: bytes | None = None
    format: FrameFormat = "webp"
    generation: Generation | None = None


class MomentInfo(Struct, frozen=True, kw_only=True):
    """A kept iteration of a room's timeline. ``parent`` is the one it came from; ``time`` in seconds since the epoch.

    ``id`` is never used again in its room, unless the picture is prepared anew: then the timeline begins anew too.
    """

    id: int
    parent: int | None
    iteration: int
    time: float
    thumbnail: bool = False


class Command(Struct, frozen=True, kw_only=True, tag=True):
    """What is asked of a worker."""


class Start(Command, frozen=True, kw_only=True):
    """Begin a run, or go on from where the room's last one stopped. ``picture`` is a PNG.

    ``resume`` says that this very run was begun before and was interrupted: its iterations go on being counted from the
    room's last checkpoint, or from none where there is no checkpoint yet.
    """

    run: str
    picture: bytes
    goal: DesiredState
    resume: bool = False


class UpdateRun(Command, frozen=True, kw_only=True):
    """Something was edited during a run."""

    goal: DesiredState


class Stop(Command, frozen=True, kw_only=True):
    """End a run within one step, and render what there is."""

    room: str
    run: str


class ResetSession(Command, frozen=True, kw_only=True):
    """Back to the uploaded picture. Answered by `SessionReset`."""

    room: str


class Prepare(Command, frozen=True, kw_only=True):
    """Fit and invert the picture in the background, so that a run finds it done; needs no drags.

    The hub asks when somebody comes into an empty room, so that it starts as soon as the picture is in and the first
    person's page is connected, and again when the prompt or a fixed setting changes.

    Nothing happens while a run is under way: that prepares the picture itself. Where a run has moved the content and
    the goal is of another prompt or other fixed settings, nothing is prepared for it either, since what was moved would
    be lost: this is told as ``failed``, and whoever presses Drag has it prepared then. With the same ones, the session
    is only brought back onto the device, and ``ready``.
    """

    picture: bytes
    goal: DesiredState


class Seek(Command, frozen=True, kw_only=True):
    """Back (or forth) to a moment of the timeline; a run that is under way goes on from there.

    Answered by `SeekCompleted`, or by `CommandFailed` where the moment is not kept. ``goal`` is the room's current one.
    """

    moment: int
    goal: DesiredState


class Generate(Command, frozen=True, kw_only=True):
    """Make a picture from words. It is a run of its own, in no room but its own: ``room`` is its id, and its run's.

    It is told as runs are, with previews; `RunFinished` has the picture. `ReleaseSession` ends it without a word.
    """

    room: str
    generation: Generation
    format: FrameFormat = "webp"


class ReleaseSession(Command, frozen=True, kw_only=True):
    """The room is closed: drop its session, end what it does without a word; with ``wipe`` its checkpoints go too.

    Answered by `SessionReleased`, also where it had no session.
    """

    room: str
    wipe: bool = False


class Event(Struct, frozen=True, kw_only=True, tag=True):
    """What a worker tells."""


class Ready(Event, frozen=True, kw_only=True):
    """The model is loaded on this device."""

    model: ModelInfo
    device: str = ""


class LoadFailed(Event, frozen=True, kw_only=True):
    """The model cannot be loaded; the worker is gone."""

    message: str


class RunProgress(Event, frozen=True, kw_only=True):
    """A run went one step further."""

    room: str
    record: Progress | Points


class PreviewReady(Event, frozen=True, kw_only=True):
    """A run made a preview; ``time`` in seconds since the epoch."""

    room: str
    run: str
    stage: Stage
    iteration: int
    format: FrameFormat
    width: int
    height: int
    time: float
    data: bytes


class CommandFailed(Event, frozen=True, kw_only=True):
    """A change during a run could not be followed; the run goes on without it.

    ``moment`` is the one that could not be sought, where this answers a `Seek`.
    """

    room: str
    message: str
    moment: int | None = None


class RunFinished(Event, frozen=True, kw_only=True):
    """A run has ended. ``picture`` is a PNG of the uploaded size, if it made one; ``seq`` of the last goal it knew."""

    room: str
    run: str
    outcome: Outcome
    iterations: int
    seq: int
    tracked: dict[str, XY]
    picture: bytes | None = None
    message: str | None = None


class PreparationProgress(Event, frozen=True, kw_only=True):
    """How far the preparation of a picture without a run is; ``ready`` or ``failed`` ends it.

    After ``failed`` it is tried again when somebody presses Drag, who is told what went wrong, if something does.
    ``seconds_left`` is None until it can be known.
    """

    room: str
    stage: Literal["generating", "fitting", "inverting", "ready", "failed"]
    step: int
    steps: int
    seconds_left: float | None = None


class TimelineChanged(Event, frozen=True, kw_only=True):
    """The timeline of a room, whole, at most twice a second and at the end of every run.

    ``thumbnails`` are WebP pictures by moment: those alone that have not been told before. ``current`` is the moment
    that the content has just reached or gone back to.
    """

    room: str
    moments: list[MomentInfo]
    current: int | None
    thumbnails: dict[int, bytes] = {}


class SeekCompleted(Event, frozen=True, kw_only=True):
    """A room is at another moment now; ``tracked`` is where the content of each of its drags is there."""

    room: str
    moment: int
    tracked: dict[str, XY]


class SessionReset(Event, frozen=True, kw_only=True):
    """A `ResetSession` has been dealt with: what could not be done of it has been complained of."""

    room: str


class StepStarted(Event, frozen=True, kw_only=True):
    """The worker begins a step of this run ("" for a preparation): its sign of life, and whom to blame if it dies."""

    room: str
    run: str


class SessionReleased(Event, frozen=True, kw_only=True):
    """The session of a room has left the device; its next one may be on another.

    ``forgotten`` says that this answers a `ReleaseSession`: there may have been none.
    """

    room: str
    forgotten: bool = False


class StatsReported(Event, frozen=True, kw_only=True):
    """What a worker counts, at most once a second."""

    stats: DeviceStats


class WorkerRestarting(Event, frozen=True, kw_only=True):
    """A worker has died or hung and is started again; what it did goes on by itself from the last checkpoints.

    ``rooms`` are those that have something on its device.
    """

    message: str
    device: str = ""
    rooms: tuple[str, ...] = ()


class WorkerRestarted(Event, frozen=True, kw_only=True):
    """The worker of this device is there again."""

    device: str = ""
    rooms: tuple[str, ...] = ()


AnyCommand = Start | UpdateRun | Stop | ResetSession | Prepare | Seek | Generate | ReleaseSession
AnyEvent = (
    Ready
    | LoadFailed
    | RunProgress
    | PreviewReady
    | CommandFailed
    | RunFinished
    | PreparationProgress
    | TimelineChanged
    | SeekCompleted
    | SessionReset
    | StepStarted
    | SessionReleased
    | StatsReported
    | WorkerRestarting
    | WorkerRestarted
)


def room_of(command: AnyCommand) -> str:
    """Whom a command is about."""
    return command.goal.room if isinstance(command, Start | UpdateRun | Prepare | Seek) else command.room


class Engine(ABC):
    """Runs sessions somewhere else. All methods belong to the event loop's thread; none of them waits for a tensor."""

    state: EngineState = "starting"

    @abstractmethod
    async def start(self, tell: Callable[[AnyEvent], None]) -> ModelInfo:
        """Start and wait until the model is loaded. Events of runs go to ``tell``, on the event loop.

        Raises:
            EngineError: the model is unknown or cannot be loaded.
        """

    @abstractmethod
    def submit(self, command: AnyCommand) -> None:
        """Ask for something; what comes of it is told as events."""

    def stats(self) -> EngineStats:
        """What its devices have done so far, a second old at most; an engine without devices has none."""
        return EngineStats()

    @abstractmethod
    async def close(self) -> None:
        """Stop all that runs."""
