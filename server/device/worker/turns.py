"""Turns: rooms take turns on the device, one step at a time, alone or with others that share its passes."""

from __future__ import annotations

import time
from collections.abc import Callable

from livedrag.editor.drag.passes import Bucket
from livedrag.server.device.edit_log import PREPARED_TOGETHER, SHARED
from livedrag.server.device.messages import EventHandler, StepStarted
from livedrag.server.device.worker.device_room import DeviceRoom, Work
from livedrag.server.device.worker.group_sizes import GroupSizes
from livedrag.server.device.worker.models import Models
from livedrag.server.device.worker.residency import Residency
from livedrag.server.device.worker.scheduler import Scheduler
from livedrag.server.device.worker.shared_step import SharedPassError, SharedStep, Taken
from livedrag.server.device.worker.step_failures import StepFailures
from livedrag.server.device.worker.usage import DeviceUsage


class Turns:
    """Advances the rooms of one device, and charges each for the time that it took.

    Args:
        clock: by which steps are charged, in seconds.
        share_passes: whether rooms share passes of the UNet where that is measured to be faster.
    """

    def __init__(
        self,
        models: Models,
        residency: Residency,
        scheduler: Scheduler,
        usage: DeviceUsage,
        failures: StepFailures,
        on_event: EventHandler,
        *,
        clock: Callable[[], float],
        share_passes: bool,
    ) -> None:
        self._models, self._residency, self._scheduler = models, residency, scheduler
        self._usage, self._failures, self._emit = usage, failures, on_event
        self._clock, self._shares = clock, share_passes
        self._sizes = GroupSizes()

    def take(self) -> None:
        """Do one step of the room whose turn it is, if any has work."""
        ready = {room.id: room.work.priority for room in self._residency.active if room.work is not None}
        if ready:
            self._step(self._group(self._residency.rooms[self._scheduler.choose(ready)]))

    def _group(self, chosen: DeviceRoom) -> list[DeviceRoom]:
        """The chosen room, and those that share its step. Nothing waits for company: only what is ready joins."""
        bucket = self._bucket(chosen)
        if bucket is None:
            return [chosen]
        others = [room.id for room in self._residency.active if room is not chosen and self._bucket(room) == bucket]
        company = self._scheduler.company(chosen.id, others)
        joining = company[: self._sizes.best(bucket, 1 + len(company)) - 1]
        self._scheduler.join(joining)
        # In an order that stays the same, so that the same LoRAs are not stacked anew.
        return sorted([chosen, *map(self._residency.rooms.__getitem__, joining)], key=lambda room: room.id)

    def _bucket(self, room: DeviceRoom) -> Bucket | None:
        """Rooms of one bucket may share their next step; None: it is shared with none."""
        if not self._shares or not room.shareable or room.session is None or room.work is None:
            return None
        return (*room.session.shared.bucket, room.work.stage, room.work.priority)

    def _step(self, group: list[DeviceRoom]) -> None:
        members = [(room, room.work) for room in group if room.work is not None]
        for room, work in members:
            self._emit(StepStarted(room=room.id, run=work.run))
        bucket, stages = self._bucket(group[0]), {room.id: work.stage for room, work in members}
        cold_runs = self._models.cold_runs
        taken = SharedStep(members, self._clock).take()
        comparable = not taken.failures and taken.sizes == [len(members)] and self._models.cold_runs == cold_runs
        if bucket is not None and any(isinstance(failure, SharedPassError) for failure in taken.failures.values()):
            self._sizes.forbid(bucket, len(members))
        elif bucket is not None and comparable:
            self._sizes.measure(bucket, len(members), sum(taken.seconds.values()))
        problems = self._models.take_problems()
        for room, work in members:
            for problem in problems:
                room.log.note_problem(problem)
            if room.id in taken.shared:
                preparing = stages[room.id] in ("fitting", "inverting")
                room.log.note_problem(PREPARED_TOGETHER if preparing else SHARED)
            self._after_step(room, work, taken)

    def _after_step(self, room: DeviceRoom, work: Work, taken: Taken) -> None:
        if (failure := taken.failures.get(room.id)) is not None:
            self._failures.handle(room, work, failure)
        elif room.id in taken.ended:
            room.work = None
        else:
            work.retried = work.retried and work.stage == "loading"  # opening it again is not the step that failed
        seconds = taken.seconds[room.id]
        self._scheduler.charge(room.id, seconds)
        self._usage.add(room.id, work.stage, seconds)
        room.used_at = time.monotonic()
        if room.session is None and room.work is None:
            self._residency.release(room)
