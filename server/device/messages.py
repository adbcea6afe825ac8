"""Messages between the service and the workers of its devices; `livedrag.server.device.engine` says which event answers
which command.

They are msgspec structs, tagged with their class names: they cross processes as MessagePack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from livedrag.server.document.protocol import (
    XY,
    CatalogEntry,
    Generation,
    ModelChoice,
    ModelInfo,
    Outcome,
    Points,
    Progress,
    Setting,
    Stage,
)
from livedrag.server.metrics import DeviceStats

FrameFormat = Literal["webp", "jpeg"]


class PictureRef(Struct, frozen=True, kw_only=True):
    """An uploaded picture: the SHA-256 of its PNG, and the file that has it. `PictureFiles` reads it on the worker."""

    sha256: str
    path: str


class PlacedDrag(Struct, frozen=True, kw_only=True):
    """A drag of a room. ``handle_version`` grows each time the handle is placed, even at the same point."""

    handle: XY
    target: XY
    handle_version: int = 0


class DesiredState(Struct, frozen=True, kw_only=True):
    """What a room wants of its session, complete: the worker applies the difference to what the session has.

    Args:
        seq: of the document that this was made from.
        drags: by id.
        mask: a PNG, white may change; None: everything may.
        pins: places that hold still, by id.
        format: of previews.
        generation: how the picture was generated; None: it was uploaded.
        model: what the room has chosen.
    """

    room: str
    seq: int
    prompt: str
    settings: dict[str, Setting]
    drags: dict[str, PlacedDrag]
    mask: bytes | None = None
    pins: dict[str, XY] = {}
    format: FrameFormat = "webp"
    generation: Generation | None = None
    model: ModelChoice = ModelChoice()


class MomentInfo(Struct, frozen=True, kw_only=True):
    """A stored iteration of a room's timeline. ``time`` is in seconds since the epoch.

    No other moment of the room ever has the same ``id``. ``parent`` is the moment that this one was dragged from.
    """

    id: int
    parent: int | None
    iteration: int
    time: float
    thumbnail: bool = False


# Commands ------------------------------------------------------------------------------------------------------------


class Command(Struct, frozen=True, kw_only=True, tag=True):
    """A request to the worker that has the room's session."""


class Start(Command, frozen=True, kw_only=True):
    """Begin a run where the room's last one left the content.

    ``resume``: this run was interrupted before. Its iterations continue from the count in the room's last checkpoint,
    or from 0 where no checkpoint of this run exists.
    """

    run: str
    picture: PictureRef
    desired: DesiredState
    resume: bool = False


class UpdateRun(Command, frozen=True, kw_only=True):
    """The document was edited during a run. Ignored if the room has no work on the device."""

    desired: DesiredState


class Stop(Command, frozen=True, kw_only=True):
    """End a run within one step, and render the result."""

    room: str
    run: str


class ResetSession(Command, frozen=True, kw_only=True):
    """Back to the unedited picture.

    ``picture``: its SHA-256, if the room had another one before, whose session was released. The session on disk with
    this picture is then the room's again.
    """

    room: str
    picture: str | None = None


class Prepare(Command, frozen=True, kw_only=True):
    """Fit the LoRA and invert the picture in the background, so that a run finds it prepared. Needs no drags.

    The service submits it when the first person joins a room, and when the prompt or a setting that is not live
    changes. It is ignored during a run, which prepares the picture itself.

    If a run has moved the content and the prompt or such a setting differs from the session's, the answer is
    ``failed`` at once: preparing would discard the edit. The next `Start` prepares the picture then.
    """

    picture: PictureRef
    desired: DesiredState


class Seek(Command, frozen=True, kw_only=True):
    """Jump to a moment of the timeline. A run under way continues from there. For ``picture``, see `ResetSession`."""

    moment: int
    picture: str | None = None
    desired: DesiredState


class Generate(Command, frozen=True, kw_only=True):
    """Generate a picture from a prompt. ``room`` is the generation's id, and the id of its run.

    `RunFinished` has the picture. `ReleaseSession` cancels it, without a `RunFinished`.
    """

    room: str
    generation: Generation
    format: FrameFormat = "webp"


class LoadModel(Command, frozen=True, kw_only=True):
    """Load the model that a room is about to choose, in the background: the device's rooms go on meanwhile.

    The other commands load the model of their desired state themselves, if it is not there; they wait for it.
    """

    room: str
    model: ModelChoice


class ReleaseSession(Command, frozen=True, kw_only=True):
    """Take a room's session off the device and cancel its work, without a `RunFinished`.

    ``wipe`` deletes its checkpoints too.
    """

    room: str
    wipe: bool = False


# Events --------------------------------------------------------------------------------------------------------------


class Event(Struct, frozen=True, kw_only=True, tag=True):
    """What a worker or the engine reports."""


class Ready(Event, frozen=True, kw_only=True):
    """The worker has loaded the model on its device. ``catalog`` has what rooms may choose."""

    model: ModelInfo
    device: str = ""
    catalog: tuple[CatalogEntry, ...] = ()


class LoadFailed(Event, frozen=True, kw_only=True):
    """The worker cannot load the model, and ends."""

    message: str


class StepStarted(Event, frozen=True, kw_only=True):
    """The worker begins a step of this run; empty for a preparation. A sign of life, for the engine alone.

    If the worker dies, the run that it named last is the suspect.
    """

    room: str
    run: str


class RunProgress(Event, frozen=True, kw_only=True):
    """A run has done a step, or moved up in the queue."""

    room: str
    record: Progress | Points


class PreviewReady(Event, frozen=True, kw_only=True):
    """A preview of a run. ``time`` is in seconds since the epoch; ``data`` has ``width`` x ``height`` pixels."""

    room: str
    run: str
    stage: Stage
    iteration: int
    format: FrameFormat
    width: int
    height: int
    time: float
    data: bytes


class RunFinished(Event, frozen=True, kw_only=True):
    """A run has ended.

    Args:
        iterations: of the whole run, including those before it was interrupted.
        seq: of the last desired state that the session followed.
        tracked: where the content of each drag is, in pixels of the picture.
        moment: of the timeline, that the content is at.
        lost: the drags whose content did not follow.
        picture: the result, a PNG of the uploaded picture's size, if the run made one.
        message: why the run failed.
    """

    room: str
    run: str
    outcome: Outcome
    iterations: int
    seq: int
    tracked: dict[str, XY]
    moment: int | None = None
    lost: tuple[str, ...] = ()
    picture: bytes | None = None
    message: str | None = None


class CommandFailed(Event, frozen=True, kw_only=True):
    """A command was refused, or a part of it; the session is as it was.

    ``moment`` is that of the `Seek` that this answers; None for other commands.
    """

    room: str
    message: str
    moment: int | None = None


class PreparationProgress(Event, frozen=True, kw_only=True):
    """The state of a preparation. ``seconds_left`` is None until it can be estimated.

    After ``failed``, the next `Start` tries again and reports what is wrong. ``ignored_prompt`` is the end of a prompt
    that is too long for the model. ``unknown``, with ``ready``: the model does not know pictures of this kind.
    """

    room: str
    stage: Literal["loading", "generating", "fitting", "inverting", "ready", "failed"]
    step: int
    steps: int
    seconds_left: float | None = None
    ignored_prompt: str = ""
    unknown: bool = False


class ModelLoaded(Event, frozen=True, kw_only=True):
    """A room's worker has this model now."""

    room: str
    model: ModelChoice


class ModelFailed(Event, frozen=True, kw_only=True):
    """A room's worker cannot load this model; ``message`` says why, in one line."""

    room: str
    model: ModelChoice
    message: str


class TimelineChanged(Event, frozen=True, kw_only=True):
    """The whole timeline of a room, at most twice a second and at the end of every run.

    ``thumbnails`` are WebP pictures by moment, only those that were not reported before. ``current`` is the moment
    that the content is at.
    """

    room: str
    moments: list[MomentInfo]
    current: int | None
    thumbnails: dict[int, bytes] = {}


class SeekCompleted(Event, frozen=True, kw_only=True):
    """The room is at another moment. ``tracked`` is where the content of each of its drags is there."""

    room: str
    moment: int
    tracked: dict[str, XY]


class SessionReset(Event, frozen=True, kw_only=True):
    """A `ResetSession` is done; what failed in it was reported as `CommandFailed` before."""

    room: str


class SessionReleased(Event, frozen=True, kw_only=True):
    """The room has no session on the device any more.

    ``requested``: this answers a `ReleaseSession`, and the room may have had none before. Otherwise the worker needed
    the place, and the session is on disk.
    """

    room: str
    requested: bool = False


class StatsReported(Event, frozen=True, kw_only=True):
    """The worker's statistics, at most once a second."""

    stats: DeviceStats


class WorkerRestarting(Event, frozen=True, kw_only=True):
    """A worker has died or was killed because it hung; another one is started. Its work resumes by itself.

    ``rooms`` are those whose commands went to this device.
    """

    message: str
    device: str = ""
    rooms: tuple[str, ...] = ()


class WorkerRestarted(Event, frozen=True, kw_only=True):
    """The device has a worker again, which has these rooms, or works on them in place of another one."""

    device: str = ""
    rooms: tuple[str, ...] = ()


AnyCommand = Start | UpdateRun | Stop | ResetSession | Prepare | Seek | Generate | ReleaseSession | LoadModel
AnyEvent = (
    Ready
    | LoadFailed
    | StepStarted
    | RunProgress
    | PreviewReady
    | RunFinished
    | CommandFailed
    | PreparationProgress
    | ModelLoaded
    | ModelFailed
    | TimelineChanged
    | SeekCompleted
    | SessionReset
    | SessionReleased
    | StatsReported
    | WorkerRestarting
    | WorkerRestarted
)
EventHandler = Callable[[AnyEvent], None]


def room_of(command: AnyCommand) -> str:
    """The id of the room, or of the generation, that a command is for."""
    return command.desired.room if isinstance(command, Start | UpdateRun | Prepare | Seek) else command.room
