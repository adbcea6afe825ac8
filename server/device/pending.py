"""PendingCommands: the commands that have no answer yet, which a new worker has to be sent again."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from livedrag.server.device.messages import (
    AnyCommand,
    AnyEvent,
    CommandFailed,
    Generate,
    LoadModel,
    ModelFailed,
    ModelLoaded,
    PreparationProgress,
    Prepare,
    ReleaseSession,
    ResetSession,
    RunFinished,
    RunProgress,
    Seek,
    SeekCompleted,
    SessionReleased,
    SessionReset,
    Start,
    Stop,
    UpdateRun,
    room_of,
)
from livedrag.server.document.protocol import XY, Points


@dataclass(eq=False)
class PendingWork:
    """A run, a preparation or a generation without its end.

    Args:
        command: with the room's latest desired state.
        stop: that was submitted for it.
        iterations, tracked: how far the run is, and where its content is.
        suspect: a worker has died in a step of this run before.
    """

    command: Start | Prepare | Generate
    stop: Stop | None = None
    iterations: int = 0
    tracked: dict[str, XY] = field(default_factory=dict)
    suspect: bool = False

    @property
    def run(self) -> str:
        """Empty for a preparation."""
        match self.command:
            case Start(run=run) | Generate(room=run):
                return run
        return ""

    def commands(self) -> list[AnyCommand]:
        """Those by which a new worker continues it."""
        if not isinstance(self.command, Start):
            return [self.command]
        return [replace(self.command, resume=True), *([self.stop] if self.stop else [])]

    def failed(self, message: str) -> RunFinished:
        """The end of a run that cannot be continued."""
        return RunFinished(
            room=room_of(self.command),
            run=self.run,
            outcome="failed",
            iterations=self.iterations,
            seq=0 if isinstance(self.command, Generate) else self.command.desired.seq,
            tracked=self.tracked,
            message=message,
        )


class PendingCommands:
    """By room; of each kind a room has at most one, the latest."""

    def __init__(self) -> None:
        self.work: dict[str, PendingWork] = {}
        self._seeks: dict[str, Seek] = {}
        self._resets: dict[str, ResetSession] = {}
        self._releases: dict[str, ReleaseSession] = {}
        self._loads: dict[str, LoadModel] = {}

    def has(self, room: str) -> bool:
        """Whether any command of a room has no answer yet."""
        every = (self.work, self._seeks, self._resets, self._releases, self._loads)
        return any(room in pending for pending in every)

    def run_of(self, room: str) -> str:
        """The run or generation of a room; empty if there is none."""
        return self.work[room].run if room in self.work else ""

    def is_leaving(self, room: str) -> bool:
        """Whether all that it waits for is that its session leaves."""
        return room in self._releases and room not in self.work

    def is_generation(self, room: str) -> bool:
        """Whether it is a generation, and under way."""
        return room in self.work and isinstance(self.work[room].command, Generate)

    def add(self, command: AnyCommand) -> None:
        """A command was submitted."""
        room = room_of(command)
        work = self.work.get(room)
        match command:
            case Seek():
                self._seeks[room] = command
            case ResetSession():
                self._resets[room] = command
            case LoadModel():
                self._loads[room] = command
        match command:
            case Start() | Prepare() | Generate():
                self.work[room] = PendingWork(command)
            case UpdateRun(desired=desired) | Seek(desired=desired) if work and not isinstance(work.command, Generate):
                work.command = replace(work.command, desired=desired)
            case Stop(run=run) if work and work.run == run:
                work.stop = command
            case ReleaseSession(wipe=wipe):
                self._releases[room] = command
                self.work.pop(room, None)
                self._seeks.pop(room, None)
                self._loads.pop(room, None)
                if wipe:
                    self._resets.pop(room, None)

    def receive(self, event: AnyEvent) -> bool:
        """Note what an event answers; whether it is of a run or command that is pending, or of none."""
        match event:
            case SessionReset(room=room):
                self._resets.pop(room, None)
            case SessionReleased(room=room, requested=True):
                self._releases.pop(room, None)
            case ModelLoaded(room=room, model=model) | ModelFailed(room=room, model=model):
                if room in self._loads and self._loads[room].model == model:
                    del self._loads[room]
            case RunFinished(room=room, run=run):
                if self.run_of(room) != run:
                    return False
                del self.work[room]
            case PreparationProgress(room=room, stage="ready" | "failed"):
                if room in self.work and not self.work[room].run:
                    del self.work[room]
            case SeekCompleted(room=room, moment=moment) | CommandFailed(room=room, moment=int(moment)):
                if room in self._seeks and self._seeks[room].moment == moment:
                    del self._seeks[room]
            case RunProgress(room=room, record=Points(run=run) as points) if self.run_of(room) == run:
                self.work[room].iterations, self.work[room].tracked = points.iteration, points.handles
        return True

    def fail_suspect(self, room: str, suspect: str | None, *, settled: bool) -> PendingWork | None:
        """The worker has died in a step of the run ``suspect``: remove a run in which that happened before.

        Args:
            settled: the death has nothing to do with the one before.
        """
        work = self.work.get(room)
        if work is None:
            return None
        suspected = bool(work.run) and work.run == suspect
        if suspected and work.suspect and not settled:
            return self.work.pop(room)
        work.suspect = suspected or (work.suspect and not settled)
        return None

    def replay(self, rooms: tuple[str, ...]) -> list[AnyCommand]:
        """What a new worker has to be sent for these rooms."""
        commands: list[AnyCommand] = []
        for room in rooms:  # what was submitted before the work began comes first
            commands.extend(pending[room] for pending in (self._releases, self._resets) if room in pending)
            commands.extend(self.work[room].commands() if room in self.work else ())
        commands += [self._seeks[room] for room in rooms if room in self._seeks]
        return commands + [self._loads[room] for room in rooms if room in self._loads]
