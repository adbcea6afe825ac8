"""QueueReport: tells runs that wait for a place how many are ahead, and for how long."""

from __future__ import annotations

import time

from livedrag.editor import EditorError
from livedrag.server.device.worker.device_room import DeviceRoom, Work
from livedrag.server.device.worker.models import Models
from livedrag.server.device.worker.residency import Residency
from livedrag.server.device.worker.run_reports import RunReports
from livedrag.server.device.worker.scheduler import wait
from livedrag.server.device.worker.usage import DeviceUsage
from livedrag.server.document.protocol import Progress

REPEAT_SECONDS = 2.0
"""Between two reports of a place in the queue that has not changed."""


class QueueReport:
    """Reports through `RunReports.progress`, as progress of the stage ``queued``."""

    def __init__(
        self,
        models: Models,
        residency: Residency,
        usage: DeviceUsage,
        reports: RunReports,
    ) -> None:
        self._models = models
        self._residency = residency
        self._usage = usage
        self._reports = reports

    def send(self) -> None:
        """Report to all runs in the queue if one has moved up, or has had no report for long."""
        waiting = [(room, room.work) for room in self._residency.queue if room.work is not None and room.run]
        now = time.monotonic()
        if not any(
            now - work.reported_at >= REPEAT_SECONDS or work.reported_ahead != ahead
            for ahead, (_, work) in enumerate(waiting)
        ):
            return
        running = [self._needs(room, room.work) for room in self._residency.active if room.work and room.run]
        needed = [self._needs(room, work) for room, work in waiting]
        for ahead, (room, work) in enumerate(waiting):
            work.reported_ahead, work.reported_at = ahead, now
            record = Progress(
                run=work.run,
                stage="queued",
                step=ahead,
                steps=len(waiting),
                seconds=now - work.waiting_since,
                seconds_left=_seconds_left(running, needed[:ahead]),
            )
            self._reports.progress(room, record)

    def _needs(self, room: DeviceRoom, work: Work) -> float | None:
        """Seconds of device time to the end of a run that makes all of its iterations; None: not known yet."""
        try:
            steps = self._steps(room, work)
        except EditorError:
            return None  # it will fail as soon as it begins
        stages = list(steps)
        if work.stage in stages:
            steps = {stage: steps[stage] for stage in stages[stages.index(work.stage) :]} | work.steps_left
        return self._usage.estimate(steps)

    def _steps(self, room: DeviceRoom, work: Work) -> dict[str, int]:
        """The steps of each stage of a run from its beginning. Raises `EditorError`."""
        if work.generation is not None:
            return {"generating": work.generation.ddim_steps}
        model = self._models.loaded(room.desired.model)
        settings = model.settings.editor(room.desired)
        generated = model.generator.matches(room.desired)
        return {
            "generating": settings.ddim_steps if generated else 0,
            "fitting": settings.lora_steps,
            "inverting": 0 if generated else settings.inversion_steps,
            "dragging": settings.max_iterations,
            "rendering": 2 * settings.inversion_steps,
        }


def _seconds_left(running: list[float | None], ahead: list[float | None]) -> float | None:
    known_running = [need for need in running if need is not None]
    known_ahead = [need for need in ahead if need is not None]
    if len(known_running) + len(known_ahead) < len(running) + len(ahead):
        return None
    return wait(known_running, known_ahead)
