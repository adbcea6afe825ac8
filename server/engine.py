"""Engine: what the service asks of whoever runs the device workers. Commands go in, events come out, in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from server.protocol import XY, ModelInfo, Outcome, Points, Progress, Setting, Stage

EngineState = Literal["starting", "ready", "restarting"]
FrameFormat = Literal["webp", "jpeg"]


class EngineError(Exception):
    """The engine cannot start; the text says why, fit for the person who started the server."""


class Grip(Struct, frozen=True, kw_only=True):
    """A drag as the room has it; ``grabbed`` grows whenever the handle is put down, be it in the same place."""

    handle: XY
    target: XY
    grabbed: int = 0


class Goal(Struct, frozen=True, kw_only=True):
    """What a room wants of its session now, whole: the worker finds out what is new. ``seq`` is the document's.

    ``mask`` is a PNG, white may change; None lets everything change.
    """

    room: str
    seq: int
    prompt: str
    settings: dict[str, Setting]
    drags: dict[str, Grip]
    mask: bytes | None = None
    format: FrameFormat = "webp"


class Command(Struct, frozen=True, kw_only=True, tag=True):
    """What is asked of a worker."""


class Start(Command, frozen=True, kw_only=True):
    """Begin a run, or go on from where the room's last one stopped. ``picture`` is a PNG."""

    run: str
    picture: bytes
    goal: Goal


class Change(Command, frozen=True, kw_only=True):
    """Something was edited during a run."""

    goal: Goal


class Stop(Command, frozen=True, kw_only=True):
    """End a run within one step, and render what there is."""

    room: str
    run: str


class Rewind(Command, frozen=True, kw_only=True):
    """Back to the uploaded picture."""

    room: str


class Event(Struct, frozen=True, kw_only=True, tag=True):
    """What a worker tells."""


class Ready(Event, frozen=True, kw_only=True):
    """The model is loaded."""

    model: ModelInfo


class LoadFailed(Event, frozen=True, kw_only=True):
    """The model cannot be loaded; the worker is gone."""

    message: str


class Reported(Event, frozen=True, kw_only=True):
    """A run went one step further."""

    room: str
    record: Progress | Points


class Pictured(Event, frozen=True, kw_only=True):
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


class Complained(Event, frozen=True, kw_only=True):
    """A change during a run could not be followed; the run goes on without it."""

    room: str
    message: str


class Finished(Event, frozen=True, kw_only=True):
    """A run has ended. ``picture`` is a PNG of the uploaded size, if it made one; ``seq`` of the last goal it knew."""

    room: str
    run: str
    outcome: Outcome
    iterations: int
    seq: int
    tracked: dict[str, XY]
    picture: bytes | None = None
    message: str | None = None


class Lost(Event, frozen=True, kw_only=True):
    """The worker died and is started again; all of its sessions are gone, runs under way are over."""

    message: str


AnyCommand = Start | Change | Stop | Rewind
AnyEvent = Ready | LoadFailed | Reported | Pictured | Complained | Finished | Lost


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

    @abstractmethod
    async def close(self) -> None:
        """Stop all that runs."""
