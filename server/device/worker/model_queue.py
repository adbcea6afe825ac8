"""ModelQueue: commands that wait for a model to be loaded, while the device goes on with other rooms."""

from __future__ import annotations

import time
from collections.abc import Callable

from livedrag.server.device.messages import (
    AnyCommand,
    EventHandler,
    Generate,
    LoadModel,
    ModelFailed,
    ModelLoaded,
    PreparationProgress,
    Prepare,
    ReleaseSession,
    RunFinished,
    RunProgress,
    Start,
    Stop,
    UpdateRun,
    room_of,
)
from livedrag.server.device.worker.models import OWN, Models
from livedrag.server.document.protocol import ModelChoice, Progress

REPORT_SECONDS = 1.0
"""Between two reports of how far a model is."""

Work = Start | Prepare | Generate


class ModelQueue:
    """Holds back the commands of a room from the first one whose model is not loaded.

    Args:
        obey: takes each command once its model is there.
    """

    def __init__(self, models: Models, obey: Callable[[AnyCommand], None], on_event: EventHandler) -> None:
        self._models, self._obey, self._emit = models, obey, on_event
        self._held: dict[str, list[AnyCommand]] = {}
        self._loads: list[LoadModel] = []
        self._reported = 0.0

    @property
    def waiting(self) -> bool:
        """Whether anything waits for a model."""
        return bool(self._models.loading)

    def pass_on(self, command: AnyCommand) -> None:
        """Obey a command now, or when its model is loaded."""
        room = room_of(command)
        held = self._held.get(room)
        match command:
            case LoadModel(model=choice):
                self._loads.append(command)
                self._want(choice)
            case ReleaseSession():
                self._held.pop(room, None)
                self._loads = [load for load in self._loads if load.room != room]
                self._obey(command)
            case Stop(run=run) if held and _is_new_run(held, run):
                del self._held[room]
                self._emit(_ended(held, "stopped", ""))
            case Start() | Prepare() | Generate():
                before = [] if held is None else [each for each in held if not isinstance(each, Prepare)]
                if before or not self._models.has(choice_of(command)):
                    self._held[room] = [*before, command]
                    self._want(choice_of(command))
                else:
                    self._held.pop(room, None)
                    self._obey(command)
            case Stop() | UpdateRun() if held and not _run_of(held):
                self._obey(command)  # it is about the run under way
            case _ if held:
                held.append(command)
            case _:
                self._obey(command)

    def _want(self, choice: ModelChoice) -> None:
        self._models.request(choice)
        if self._models.has(choice):
            self._settle(choice, "")

    def advance(self, in_use: frozenset[ModelChoice], leave: Callable[[ModelChoice], None]) -> None:
        """Obey what waited for models that are there now, load the next one, and report; see `Models.start`."""
        for choice, problem in self._models.take():
            self._settle(choice, problem)
        self._models.start(in_use, leave)
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS and self._models.loading:
            self._reported = now
            self._report()

    def _settle(self, choice: ModelChoice, problem: str) -> None:
        """A model is there, or can't be loaded."""
        loads = [load for load in self._loads if load.model == choice]
        self._loads = [load for load in self._loads if load.model != choice]
        for load in loads:
            failed = ModelFailed(room=load.room, model=choice, message=problem)
            self._emit(failed if problem else ModelLoaded(room=load.room, model=choice))
        for room in [room for room, held in self._held.items() if choice_of(held[0]) == choice]:
            held = self._held.pop(room)
            if problem:
                self._emit(_ended(held, "failed", problem))
                held = [each for each in held if not isinstance(each, Work | Stop)]
            for command in held:
                self.pass_on(command)

    def _report(self) -> None:
        for choice, loading in self._models.loading.items():
            seconds = time.monotonic() - loading.began
            for room in [load.room for load in self._loads if load.model == choice]:
                self._emit(PreparationProgress(room=room, stage="loading", step=loading.step, steps=loading.steps))
            for room, held in self._held.items():
                if choice_of(held[0]) != choice:
                    continue
                if run := _run_of(held):
                    record = Progress(run=run, stage="loading", step=loading.step, steps=loading.steps, seconds=seconds)
                    self._emit(RunProgress(room=room, record=record))
                else:
                    self._emit(PreparationProgress(room=room, stage="loading", step=loading.step, steps=loading.steps))


def choice_of(command: AnyCommand) -> ModelChoice:
    """The model that a command's session needs."""
    return command.desired.model if isinstance(command, Start | Prepare) else OWN


def _is_new_run(held: list[AnyCommand], run: str) -> bool:
    return any(isinstance(each, Start) and each.run == run and not each.resume for each in held)


def _run_of(held: list[AnyCommand]) -> str:
    for each in held:
        if isinstance(each, Start):
            return each.run
        if isinstance(each, Generate):
            return each.room
    return ""


def _ended(held: list[AnyCommand], outcome: str, message: str) -> RunFinished | PreparationProgress:
    """The end of the work that waited."""
    room, run = room_of(held[0]), _run_of(held)
    if not run:
        return PreparationProgress(room=room, stage="failed", step=0, steps=1)
    seq = next((each.desired.seq for each in held if isinstance(each, Start)), 0)
    return RunFinished(
        room=room,
        run=run,
        outcome="failed" if outcome == "failed" else "stopped",
        iterations=0,
        seq=seq,
        tracked={},
        message=message or None,
    )
