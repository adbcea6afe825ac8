"""Device workers under test: what they are sent, and what they report.

Short settings over a small pipeline with random weights, unless a test brings another model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import (
    AnyEvent,
    DesiredState,
    PlacedDrag,
    RunFinished,
    RunProgress,
    Start,
    TimelineChanged,
)
from livedrag.server.document.protocol import Points, Progress, Setting
from tests.quiet import png
from tests.stored import stored

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker.device_worker import DeviceWorker

T = TypeVar("T")

PICTURE = stored(png(96, 64))
SHORT: dict[str, Setting] = {
    "warp_share": 0.0,
    "inversion_strength": 0.7,
    "lora_steps": 2,
    "ddim_steps": 4,
    "max_iterations": 3,
    "preview_every": 2,
    "preview_side": 64,
}
DESIRED = DesiredState(
    room="a", seq=1, prompt="", settings=SHORT, drags={"d1": PlacedDrag(handle=(30, 30), target=(70, 40))}
)


class Events(list[AnyEvent]):
    """What a worker has reported."""

    def records(self, kind: type[T]) -> list[T]:
        return [event.record for event in self if isinstance(event, RunProgress) and isinstance(event.record, kind)]

    def of(self, kind: type[T], room: str = "a") -> list[T]:
        return [event for event in self if isinstance(event, kind) and getattr(event, "room", None) == room]

    def stages(self) -> list[str]:
        """In order, without repetitions."""
        return list(dict.fromkeys(record.stage for record in self.records(Progress)))


@contextmanager
def a_worker(model: Diffusion, events: Events, checkpoints: Checkpoints, **options: Any) -> Iterator[DeviceWorker]:
    """Its rooms share no passes unless a test says so: the order of steps would depend on the machine's speed."""
    from livedrag.server.device.worker.device_worker import DeviceWorker

    worker = DeviceWorker(model, events.append, checkpoints, **{"sessions": 2, "share_passes": False, **options})
    try:
        yield worker
    finally:
        worker.close()


def start(worker: DeviceWorker, desired: DesiredState = DESIRED, run: str = "r1") -> None:
    worker.obey(Start(run=run, picture=PICTURE, desired=desired))


def finish(worker: DeviceWorker, events: Events) -> RunFinished:
    while worker.busy:
        worker.advance()
    return [event for event in events if isinstance(event, RunFinished)][-1]


def advance_to(worker: DeviceWorker, events: Events, stage: str) -> None:
    while worker.busy and stage not in events.stages():
        worker.advance()
    assert stage in events.stages()


def fitted(events: Events) -> list[int]:
    """The steps of fitting there were, over all runs."""
    return [record.step for record in events.records(Progress) if record.stage == "fitting"]


def later(**changes: Any) -> DesiredState:
    return replace(DESIRED, **{"seq": 9, **changes})


def work(worker: DeviceWorker) -> None:
    """To the end of what there is to do."""
    while worker.busy:
        worker.advance()


def advance_until(worker: DeviceWorker, events: Events, iteration: int) -> None:
    """To an iteration of the run."""
    while worker.busy and not any(points.iteration >= iteration for points in events.records(Points)):
        worker.advance()


def latest(events: Events) -> TimelineChanged:
    return events.of(TimelineChanged)[-1]
