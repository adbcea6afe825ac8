"""EditLog: what was done with a session, so that its results can say how they were made."""

from __future__ import annotations

import msgspec

from livedrag.server.device.messages import DesiredState, PlacedDrag
from livedrag.server.document.protocol import XY, Setting

MAX_STATES = 1000
MAX_MASK_BYTES = 4 * 2**20
"""Of all states together: checkpoints contain them."""
JUMPED = "the room has jumped to another step of its timeline"
TOO_MANY = "there were too many changes to list"
OLDER = "it was begun by an older version of livedrag"
SHARED = "it shared passes of the network with other rooms, which rounds differently"
PREPARED_TOGETHER = "its picture was prepared together with those of other rooms, which rounds differently"
GENERATED = "the picture was generated and dragged from its own latent"


class LoggedState(msgspec.Struct, frozen=True, kw_only=True):
    """A desired state that the session followed, after so many iterations of its run."""

    at: int
    drags: dict[str, PlacedDrag]
    mask: bytes | None
    pins: dict[str, XY]
    settings: dict[str, Setting]


class LoggedRun(msgspec.Struct, kw_only=True):
    """A run, or a part of one: ``done`` iterations came before it, ``steps`` in it."""

    done: int
    states: list[LoggedState]
    steps: int = 0


class EditLog(msgspec.Struct, kw_only=True):
    """What was done with a session since its picture was prepared or reset.

    Args:
        runs: oldest first.
        pending: states that were followed between runs, or while a result was rendered.
        is_dragging: whether the last run is under way.
        problems: why it can't be repeated exactly.
    """

    runs: list[LoggedRun] = []
    pending: list[LoggedState] = []
    is_dragging: bool = False
    problems: list[str] = []

    def copy(self) -> EditLog:
        """As it is now."""
        runs = [LoggedRun(done=run.done, states=[*run.states], steps=run.steps) for run in self.runs]
        return EditLog(runs=runs, pending=[*self.pending], is_dragging=self.is_dragging, problems=[*self.problems])

    def clear(self) -> None:
        """The session is as it was when it was prepared."""
        self.runs, self.pending, self.is_dragging = [], [], False
        self.problems = [problem for problem in self.problems if problem not in (JUMPED, TOO_MANY, OLDER, SHARED)]

    def note_problem(self, problem: str) -> None:
        """It can't be repeated exactly."""
        if problem not in self.problems:
            self.problems.append(problem)

    def follow(self, desired: DesiredState) -> None:
        """The session has followed another desired state."""
        run = self.runs[-1] if self.is_dragging else None
        mask = desired.mask
        if (last := self.last) is not None and last.mask == mask:
            mask = last.mask  # the same bytes, once in memory
        state = LoggedState(
            at=0 if run is None else run.steps,
            drags=desired.drags,
            mask=mask,
            pins=desired.pins,
            settings=desired.settings,
        )
        if last is None or msgspec.structs.replace(last, at=state.at) != state:
            (self.pending if run is None else run.states).append(state)
        self._limit(state)

    def _limit(self, latest: LoggedState) -> None:
        states = self.states
        masks = {id(state.mask): len(state.mask) for state in states if state.mask is not None}
        if len(states) > MAX_STATES or sum(masks.values()) > MAX_MASK_BYTES:
            self.note_problem(TOO_MANY)
            steps = self.runs[-1].steps if self.runs else 0
            only = msgspec.structs.replace(latest, at=0)
            self.runs, self.pending = [LoggedRun(done=0, states=[only], steps=steps)], []

    def begin(self, done: int) -> None:
        """A run begins, or goes on after so many iterations."""
        self.runs.append(LoggedRun(done=done, states=self.pending))
        self.pending, self.is_dragging = [], True

    def step(self) -> None:
        """The run has done a step."""
        self.runs[-1].steps += 1

    def end(self) -> None:
        """The run has ended, or its result is rendered."""
        self.is_dragging = False

    @property
    def states(self) -> list[LoggedState]:
        """All of them, oldest first."""
        return [*(state for run in self.runs for state in run.states), *self.pending]

    @property
    def last(self) -> LoggedState | None:
        """The latest state."""
        if self.pending:
            return self.pending[-1]
        return next((run.states[-1] for run in reversed(self.runs) if run.states), None)
