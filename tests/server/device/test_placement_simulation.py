"""Placement at a scale that no test machine has: 200 workers and 2,000 rooms, simulated in one process.

The workers are quiet: they have no tensors, and take a step when the recorded time of one has passed.
``python -m tests.server.device.test_placement_simulation`` records ``step_times.json`` anew, from a run of the built-in
model.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from livedrag.server.device.placement import WorkerLoad, moves, worker_for
from tests.server.device.imbalance import MAX_IMBALANCE, imbalance

STEP_TIMES = Path(__file__).parent / "step_times.json"
WORKERS, ROOMS = 200, 2000
BALANCE_SECONDS = 5
"""Between two looks for rooms to move."""
DETECT_SECONDS = 5
"""From a worker's death until the engine knows it."""
LOAD_SECONDS = 20
"""From a worker's start until it has its model."""
MOVE_SECONDS = 3
"""In which a moving room is on neither worker: its checkpoint is written and read."""
RUN_STEPS = 80
"""Of a run, on average."""
REST_SECONDS = 120
"""Of a room between two runs, on average."""
WARM_UP = 120
"""Seconds in which the rooms are created."""
SETTLED_SECONDS = 60
"""After a worker has joined or died, the loads must be within the limit again."""


@dataclass(eq=False)
class QuietWorker:
    """A worker that takes the steps of its rooms in turns, each in a recorded time."""

    id: str
    ready_at: float
    speed: float
    rooms: dict[str, int] = field(default_factory=dict)
    spent: float = 0.0
    credit: float = 0.0
    steps: int = 0

    def advance(self, times: list[float], dice: random.Random) -> None:
        """A second passes: rooms that run take steps, one after the other."""
        self.credit += 1.0
        while running := [room for room, left in self.rooms.items() if left]:
            seconds = dice.choice(times) * self.speed
            if seconds > self.credit:
                return
            self.credit -= seconds
            self.spent += seconds
            room = running[self.steps % len(running)]
            self.rooms[room] -= 1
            self.steps += 1
        self.credit = 0.0

    def load(self) -> WorkerLoad:
        active = tuple(room for room, left in self.rooms.items() if left)
        idle = tuple(room for room, left in self.rooms.items() if not left)
        return WorkerLoad(worker=self.id, active=active, idle=idle, step_seconds=self.spent / max(1, self.steps))


class Cluster:
    """The engine's part: it places rooms that begin to run, moves idle ones, and notices who has died."""

    def __init__(self, dice: random.Random, times: list[float]) -> None:
        self.now = 0.0
        self.dice, self.times = dice, times
        self.workers: dict[str, QuietWorker] = {}
        self.under_way: list[tuple[float, str, str]] = []  # when a room arrives, which, and where
        self.dead: list[tuple[float, QuietWorker]] = []
        self.moved = self.restarted = 0

    def join(self, *, at_once: bool = False) -> None:
        name = f"w{len(self.workers) + len(self.dead)}-{self.now:g}"
        speed = self.dice.choice([1.0, 1.0, 1.0, 1.5])  # some devices are older
        self.workers[name] = QuietWorker(name, self.now + (0 if at_once else LOAD_SECONDS), speed)

    def die(self) -> None:
        worker = self.workers.pop(self.dice.choice(sorted(self.workers)))
        self.dead.append((self.now + DETECT_SECONDS, worker))

    def loads(self) -> list[WorkerLoad]:
        return [worker.load() for worker in self.workers.values() if worker.ready_at <= self.now]

    def place(self, room: str, steps: int, current: str = "") -> None:
        chosen = worker_for(self.loads(), current=current)
        assert chosen is not None
        self.workers[chosen].rooms[room] = steps

    def advance(self) -> None:
        """A second passes."""
        self.now += 1.0
        for worker in self.workers.values():
            worker.advance(self.times, self.dice)
        for at, worker in [*self.dead]:
            if at <= self.now:  # its rooms go on elsewhere, from their checkpoints
                self.dead.remove((at, worker))
                for room, left in worker.rooms.items():
                    self.restarted += 1
                    self.place(room, left)
        for at, room, destination in [*self.under_way]:
            if at <= self.now:
                self.under_way.remove((at, room, destination))
                if destination in self.workers:
                    self.workers[destination].rooms[room] = 0
                else:
                    self.place(room, 0)
        self._begin_runs()
        if self.now % BALANCE_SECONDS == 0:
            for move in moves(self.loads()):
                del self.workers[move.source].rooms[move.room]
                self.under_way.append((self.now + MOVE_SECONDS, move.room, move.destination))
                self.moved += 1

    def _begin_runs(self) -> None:
        for worker in [*self.workers.values()]:
            for room in [room for room, left in worker.rooms.items() if not left]:
                if self.dice.random() < 1 / REST_SECONDS:
                    del worker.rooms[room]
                    self.place(room, 1 + int(self.dice.expovariate(1 / RUN_STEPS)), current=worker.id)

    def rooms(self) -> list[str]:
        """Every room, wherever it is."""
        on = [room for worker in self.workers.values() for room in worker.rooms]
        lost = [room for _, worker in self.dead for room in worker.rooms]
        return on + lost + [room for _, room, _ in self.under_way]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long), pytest.param(2, marks=pytest.mark.long)])
def test_200_workers_and_2000_rooms_stay_balanced_as_workers_come_and_go(seed: int) -> None:
    dice = random.Random(seed)
    cluster = Cluster(dice, json.loads(STEP_TIMES.read_text()))
    for _ in range(WORKERS):
        cluster.join(at_once=True)
    changed, worst, most_active = WARM_UP, 0.0, 0
    for second in range(1, WARM_UP + 541):
        for number in range(ROOMS * (second - 1) // WARM_UP, ROOMS * min(second, WARM_UP) // WARM_UP):
            cluster.place(f"r{number}", 1 + int(dice.expovariate(1 / RUN_STEPS)))
        if second - WARM_UP in (60, 240, 420):  # a node with eight devices fails
            for _ in range(8):
                cluster.die()
            changed = second
        if second - WARM_UP in (150, 330, 510):  # a node joins
            for _ in range(8):
                cluster.join()
            changed = second
        cluster.advance()
        if cluster.now - changed >= SETTLED_SECONDS:
            worst = max(worst, imbalance(cluster.loads()))
        most_active = max(most_active, sum(len(load.active) for load in cluster.loads()))
    assert sorted(cluster.rooms()) == sorted(f"r{number}" for number in range(ROOMS)), "none is lost or doubled"
    assert most_active > WORKERS, "they had much to do"
    assert cluster.restarted > 0
    assert worst <= MAX_IMBALANCE


def test_without_placement_the_same_cluster_is_not_balanced() -> None:
    """The limit is no triviality: rooms that are spread by chance exceed it."""
    dice = random.Random(1)
    loads = [WorkerLoad(worker=str(number), active=(), idle=()) for number in range(WORKERS)]
    spread: dict[str, list[str]] = {load.worker: [] for load in loads}
    for number in range(ROOMS):
        spread[dice.choice(loads).worker].append(f"r{number}")
    by_chance = [WorkerLoad(worker=name, idle=tuple(rooms)) for name, rooms in spread.items()]
    assert imbalance(by_chance) > MAX_IMBALANCE


def record() -> None:
    """Time the steps of one run of the built-in model."""
    import tempfile
    import time

    from livedrag.editor import Diffusion
    from livedrag.server.device.checkpoints import Checkpoints
    from livedrag.server.device.messages import PlacedDrag, RunFinished, Start
    from livedrag.server.device.worker.device_worker import DeviceWorker
    from tests.quiet import png
    from tests.server.device.workers import DESIRED, Events
    from tests.stored import stored

    settings = {**DESIRED.settings, "max_iterations": 120, "preview_every": 4}
    drags = {"d": PlacedDrag(handle=(30, 30), target=(220, 220))}
    desired = msgspec.structs.replace(DESIRED, settings=settings, drags=drags)
    times: list[float] = []
    events = Events()
    with tempfile.TemporaryDirectory() as folder:
        worker = DeviceWorker(Diffusion.load("builtin"), events.append, Checkpoints(Path(folder)))
        worker.obey(Start(run="r", picture=stored(png(256, 256)), desired=desired))
        while worker.busy and len(times) < 120:
            before, began = worker.stats.steps.get("dragging", 0), time.perf_counter()
            worker.advance()
            if worker.stats.steps.get("dragging", 0) > before:
                times.append(round(time.perf_counter() - began, 4))
        worker.close()
    STEP_TIMES.write_text(json.dumps(times) + "\n")
    sys.stdout.write(f"{len(times)} steps; {events.of(RunFinished)}\n")


if __name__ == "__main__":
    record()
