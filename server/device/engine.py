"""Engine: the service's interface to the processes that own the devices. Commands go in, events come out.

`LocalEngine` implements it with a child process for each device, `RayEngine` with an actor for each device of a Ray
cluster. What another implementation has to keep:

* All commands of one room go to one worker, in the order of submission, as long as the room has a session there or a
  command without its answer. `SessionReleased` says that the session has left: the next command may go elsewhere.
* Events of one room arrive in the order in which its worker sent them, on the event loop of `Engine.start`.
* Each command has its answer:

  ================  =================================================================================================
  command           answered by
  ================  =================================================================================================
  `Start`           `RunProgress` and `PreviewReady` while it runs, then exactly one `RunFinished` with its ``run``
  `Generate`        likewise; ``run`` is its ``room``
  `Prepare`         `PreparationProgress`, whose last one is ``ready`` or ``failed``; nothing while the room has a run
  `UpdateRun`       nothing, or `CommandFailed` for each part that the session refuses
  `Stop`            nothing of its own: the run's `RunFinished` comes soon
  `Seek`            `SeekCompleted` or `CommandFailed`, with its ``moment``
  `ResetSession`    `SessionReset`
  `ReleaseSession`  `SessionReleased` with ``requested``
  `LoadModel`       `PreparationProgress` with the stage ``loading``, then `ModelLoaded` or `ModelFailed`
  ================  =================================================================================================

* A worker that dies is replaced. The engine keeps the commands without an answer, and submits them to its successor or
  to another worker, with ``resume`` where a run was under way: it continues from the checkpoints on disk. A run in
  whose steps the worker dies twice has failed (`RunFinished`), so that it cannot take the device from all others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from livedrag.server.device.messages import AnyCommand, EventHandler
from livedrag.server.document.protocol import CatalogEntry, EngineState, ModelInfo
from livedrag.server.errors import LivedragError, ServiceError
from livedrag.server.metrics import DeviceStats, EngineStats


class EngineError(LivedragError):
    """The engine cannot start; the text says why, for the person who starts the server."""


class DrainRefused(ServiceError):
    """A worker that cannot be drained; the text names it and says why."""

    def __init__(self, message: str) -> None:
        super().__init__(409, "cannot_drain", message)


class Engine(ABC):
    """Runs sessions on devices. All methods are called on the event loop's thread, and none waits for a tensor."""

    state: EngineState = "starting"
    catalog: tuple[CatalogEntry, ...] = ()
    """What rooms may choose, once an engine has started."""

    @abstractmethod
    async def start(self, on_event: EventHandler) -> ModelInfo:
        """Start, and return once the model is loaded. Events are passed to ``on_event``, on the event loop.

        Raises:
            EngineError: the model is unknown or cannot be loaded.
        """

    @abstractmethod
    def submit(self, command: AnyCommand) -> None:
        """Send a command to the room's worker; the answer comes as events."""

    def stats(self) -> EngineStats:
        """Statistics of each worker, at most a second old."""
        return EngineStats()

    def workers(self) -> tuple[DeviceStats, ...]:
        """The workers by their ids, with the node that each runs on; also those that restart or drain."""
        return self.stats().devices

    def drain(self, worker: str) -> None:
        """Take a worker out of service: it gets no more rooms, gives away those that it has, and ends.

        Rooms that are idle leave at once, for the disk; their next command goes to another worker. How those that run
        leave is the engine's own choice, as long as they lose no iteration. Draining a worker again does nothing.

        Args:
            worker: its id, as `workers` has it.

        Raises:
            DrainRefused: there is no such worker, or no other that could take its rooms.
        """
        known = ", ".join(repr(one.worker) for one in self.workers()) or "none"
        raise DrainRefused(f"worker {worker!r} cannot be drained; the workers are {known}")

    @abstractmethod
    async def close(self) -> None:
        """End the workers. Sessions stay on disk as of their last checkpoints."""
