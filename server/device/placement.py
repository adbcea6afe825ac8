"""Placement: which worker gets a room, and which idle rooms move to another worker. Pure functions, without a clock.

A worker's load is the seconds that a round takes in which each of its rooms does a step, an idle room counted as a
part of one: that is how long the people in a room wait for their next step.
`livedrag.server.device.worker.residency` decides about the rooms of one device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from msgspec import Struct
from msgspec.structs import replace

TARGET_IMBALANCE = 1.1
"""The highest load over the mean load; above it, idle rooms move."""
IDLE_WEIGHT = 0.5
"""Of an idle room, where a running one has 1: it takes no steps, but memory, and may run at any moment."""


class WorkerLoad(Struct, frozen=True, kw_only=True):
    """What a worker has to do.

    Args:
        worker: its id.
        node: the machine that it runs on.
        models: references of the models that it has loaded.
        unable: ids of rooms whose model it cannot load.
        active: ids of rooms that run or wait for a place there; they stay.
        idle: ids of rooms whose session is there without any work, the least recently used one first.
        step_seconds: that a step takes there; 0: not known yet, it counts as the slowest of the others.
        draining: it gets no rooms, and its idle rooms leave.
    """

    worker: str
    node: str = ""
    models: frozenset[str] = frozenset()
    unable: frozenset[str] = frozenset()
    active: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    step_seconds: float = 0.0
    draining: bool = False


class Move(Struct, frozen=True, kw_only=True):
    """An idle room moves from the worker ``source`` to the worker ``destination``."""

    room: str
    source: str
    destination: str


def worker_for(workers: Sequence[WorkerLoad], *, room: str = "", model: str = "", current: str = "") -> str | None:
    """The worker for a room that begins to run: the least loaded one. Equally loaded: the first in the list.

    Instead of it, the current worker of the room as long as its load stays within `TARGET_IMBALANCE` times the mean, or
    else the least loaded one that has the model, which may have a room more than that: loading a model takes longer.

    Workers that cannot load the model are left out, unless all are: one of them says why.

    Args:
        room: its id.
        model: reference of the room's model; empty: every worker has it.
        current: the worker that has the idle session of the room, which is then not among its ``idle`` rooms; empty:
            none.

    Returns:
        The worker's id; None if there is no worker, or all are draining.
    """
    paces = step_paces(workers)
    taking = {worker.worker: worker for worker in workers if not worker.draining}
    taking = {name: worker for name, worker in taking.items() if room not in worker.unable} or taking
    if not taking:
        return None
    after = {name: load(worker, paces) + paces[name] for name, worker in taking.items()}
    least = min(after, key=lambda name: after[name])
    mean = (sum(after.values()) - sum(paces[name] for name in taking if name != least)) / len(taking)
    bound = max(TARGET_IMBALANCE * mean, after[least])
    if current in taking and after[current] <= bound:
        return current
    holders = [name for name, worker in taking.items() if not model or model in worker.models]
    holder = min(holders, key=lambda name: after[name], default=least)
    return holder if after[holder] <= max(bound, after[least] + paces[holder]) else least


def moves(workers: Sequence[WorkerLoad], models: Mapping[str, str] | None = None) -> list[Move]:
    """The idle rooms that have to move so that no load exceeds `TARGET_IMBALANCE` times the mean, as far as possible.

    As few as possible move: none within that limit, and none that would be no better off. Those of a draining worker
    all move. Rooms that run stay where they are. No room moves to a worker that cannot load its model, unless its own
    is draining and no other is left.

    Args:
        models: references of the rooms' models, by room; workers that have a room's model are preferred.
    """
    models = models or {}
    paces = step_paces(workers)
    state = {worker.worker: worker for worker in workers}
    taking = [worker.worker for worker in workers if not worker.draining]
    found: list[Move] = []
    if not taking:
        return found

    def move(room: str, source: str, destination: str) -> None:
        left, entered = state[source], state[destination]
        state[source] = replace(left, idle=tuple(other for other in left.idle if other != room))
        state[destination] = replace(entered, idle=(*entered.idle, room))
        found.append(Move(room=room, source=source, destination=destination))

    def best(room: str, among: Sequence[str]) -> str:
        """Of the workers that can load the room's model, the least loaded one that has it, or else of all; or none."""
        able = [name for name in among if room not in state[name].unable]
        model = models.get(room, "")
        holders = [name for name in able if not model or model in state[name].models]
        return min(holders or able, key=lambda name: load(state[name], paces, more=1), default="")

    for worker in workers:
        if worker.draining:
            for room in worker.idle:
                move(room, worker.worker, best(room, taking) or taking[0])
    movable = set(taking) if len(taking) > 1 else set()
    while movable:
        loads = {name: load(state[name], paces) for name in taking}
        source = max(movable, key=lambda name: loads[name])
        if loads[source] <= TARGET_IMBALANCE * fmean(loads.values()):
            break
        others = [name for name in taking if name != source]
        better = {name for name in others if load(state[name], paces, more=1) < loads[source]}
        leaving = next((room for room in state[source].idle if best(room, others) in better), "") if better else ""
        if leaving:
            move(leaving, source, best(leaving, others))
        else:
            movable.discard(source)
    return found


def load(worker: WorkerLoad, paces: Mapping[str, float], *, more: int = 0) -> float:
    """The load of a worker in seconds, at its pace in seconds a step, with so many more idle rooms.

    It is rounded alike before and after a move, so that the loads of two workers can't take turns in being the higher.
    """
    return paces[worker.worker] * (len(worker.active) + IDLE_WEIGHT * (len(worker.idle) + more))


def step_paces(workers: Sequence[WorkerLoad]) -> dict[str, float]:
    """Seconds a step by worker, with the slowest of the known ones, or else 1, for those that are not known.

    A new worker that turns out to be faster gets more rooms; one that turned out to be slower could not give back those
    that run.
    """
    slowest = max((worker.step_seconds for worker in workers), default=0.0) or 1.0
    return {worker.worker: worker.step_seconds or slowest for worker in workers}
