"""A server over a Ray cluster: what it has acknowledged is not lost, however often a worker is killed."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from livedrag.server.client import Client, NewRoom, create_room
from livedrag.server.device.pool import WorkerPool
from livedrag.server.document.protocol import XY, AddDrag, Ended, EngineReport, MoveDrag, Points, Prepared, SetSettings
from livedrag.server.settings import Settings
from livedrag.server.storage import Store
from tests.conftest import START_SECONDS
from tests.quiet import png, serving_in_thread
from tests.server.device.engines import RayEngines, with_ray

pytestmark = [pytest.mark.long, with_ray]

KILLS = 10
WORKERS = 4
"""Of which others load their model again while one goes on."""
CHECKPOINT_EVERY = 3
SETTINGS = SetSettings(
    settings={
        "warp_share": 0.0,
        "lora_steps": 2,
        "ddim_steps": 4,
        "max_iterations": 5000,
        "latent_lr": 1e-6,  # the handle stays away from the targets, at none of which it may lie
        "preview_every": 4,
        "preview_side": 64,
    }
)


class Edits:
    """Edits of one person, one after another.

    Attributes:
        targets: of the drag, of all edits that were sent.
        acknowledged: the edits' places in the room's log, by ``op_id``.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.targets: list[XY] = []
        self.acknowledged: dict[str, int] = {}

    async def make(self) -> None:
        """Move the drag's target to another place."""
        number = len(self.targets)
        self.targets.append((60.0 + number % 30, 40.0 + number // 30 / 4))
        edited = await self._client.edit(MoveDrag(id="d1", target=self.targets[-1]), op_id=f"move-{number}")
        self.acknowledged[f"move-{number}"] = edited.seq

    @asynccontextmanager
    async def meanwhile(self) -> AsyncIterator[None]:
        """Make some as long as the block takes, ever more slowly: the room's log has to keep all of them."""
        over = asyncio.Event()

        async def repeat() -> None:
            for number in itertools.count():
                if over.is_set():
                    return
                await self.make()
                await asyncio.sleep(0.05 * number)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(repeat())
            try:
                yield
            finally:
                over.set()


def heads_for(points: Points, targets: Sequence[XY]) -> bool:
    """Whether the distances are those to one of these targets."""
    handle, distance = points.handles["d1"], points.distances["d1"]
    return any(math.isclose(distance, math.dist(handle, target), abs_tol=0.001) for target in targets)


def restarts_of(engine: WorkerPool) -> int:
    return sum(device.restarts for device in engine.stats().devices)


async def kill_in_a_run(engine: WorkerPool, room: str, client: Client, edits: Edits, iteration: int) -> str:
    """Kill the worker of a run after an iteration, and stop the run when it has continued; gives its id.

    After the kill it heads for the target that was acknowledged last, or a later one.
    """
    async with asyncio.timeout(2 * START_SECONDS):
        return await _kill_in_a_run(engine, room, client, edits, iteration)


async def _kill_in_a_run(engine: WorkerPool, room: str, client: Client, edits: Edits, iteration: int) -> str:
    await edits.make()
    run = (await client.run()).run.id

    def of_run(points: Points) -> bool:
        return points.run == run

    async with edits.meanwhile():
        await client.wait(Points, lambda points: of_run(points) and points.iteration >= iteration)
        pid, acknowledged, killed_at = engine._places[room].pid, len(edits.acknowledged), client.count
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await client.wait(EngineReport, lambda report: report.state == "restarting", since=killed_at)
        restarted_at = client.count
        reported = [each for each in client.received if isinstance(each, Points) and of_run(each)]
        again = await client.wait(
            Points,
            lambda points: of_run(points) and heads_for(points, edits.targets[acknowledged - 1 :]),
            since=restarted_at,
        )
        assert again.iteration > reported[-1].iteration - CHECKPOINT_EVERY, "more is lost than since its checkpoint"
        await client.wait(EngineReport, lambda report: report.state == "ready", since=killed_at)
    await client.stop()
    ended = await client.end_of(run)
    assert ended.run.outcome == "stopped"
    assert ended.result is not None
    return run


async def are_killed(engine: WorkerPool, address: str, room: NewRoom) -> Edits:
    iterations = random.Random(0)
    async with (
        Client.join(address, room.id, room.secret, name="Ada", remember=100_000) as ada,
        Client.join(address, room.id, room.secret, name="Bo") as bo,
    ):
        await ada.edit(SETTINGS)
        await ada.edit(AddDrag(id="d1", handle=(30, 30), target=(80, 50)))
        await ada.wait(Prepared, lambda prepared: prepared.stage == "ready")
        edits = Edits(bo)
        runs = [await kill_in_a_run(engine, room.id, ada, edits, iterations.randint(1, 12)) for _ in range(KILLS)]
        assert [each.run.id for each in ada.received if isinstance(each, Ended)] == runs, "exactly one end a run"
    async with Client.join(address, room.id, room.secret, name="Cy") as late:
        assert late.document.drags["d1"].target == edits.targets[-1]
        assert late.seq >= max(edits.acknowledged.values())
    return edits


def test_ten_killed_workers_lose_nothing_acknowledged(
    ray_engines: RayEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livedrag.server.device.supervisor.RESTART_PAUSES", (0.1,))
    data = tmp_path / "data"
    engine = ray_engines.builtin(
        workers=WORKERS, checkpoint_every=CHECKPOINT_EVERY, checkpoints_dir=str(data / "checkpoints")
    )
    with serving_in_thread(Settings(data_dir=data, port=0), engine, patience=START_SECONDS) as address:
        room = create_room(address, png(96, 64))
        edits = asyncio.run(are_killed(engine, address, room))
        assert restarts_of(engine) == KILLS
    with Store(data) as store:
        saved = store.load(room.id).result()
    assert saved is not None
    stored = {record.op_id: record.seq for record in saved.records if hasattr(record, "op_id")}
    lost = edits.acknowledged.items() - stored.items()
    assert len(edits.acknowledged) >= 3 * KILLS
    assert not lost, f"{len(lost)} of {len(edits.acknowledged)} acknowledged edits are lost"
