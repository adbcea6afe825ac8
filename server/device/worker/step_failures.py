"""What becomes of a room's work whose step has failed."""

from __future__ import annotations

import logging

from livedrag.editor import EditorError
from livedrag.server.device.messages import EventHandler, PreparationProgress
from livedrag.server.device.worker.device_room import DeviceRoom, Work
from livedrag.server.device.worker.faults import is_device_fault, is_out_of_memory
from livedrag.server.device.worker.memory import free_memory
from livedrag.server.device.worker.models import Models
from livedrag.server.device.worker.residency import Residency
from livedrag.server.device.worker.run_reports import RunReports
from livedrag.server.device.worker.shared_step import SharedPassError

log = logging.getLogger(__name__)

OUT_OF_MEMORY = (
    "not enough memory on the device for this picture, even after unloading idle rooms: "
    "try again when fewer rooms are busy, or turn reference_control off"
)


def unexpected(error: Exception) -> str:
    """What people read about a bug."""
    return f"something unexpected went wrong: {type(error).__name__}: {error}"


class StepFailures:
    """Ends the work that a step has failed in, or has the step tried again, for the rooms of one device."""

    def __init__(self, models: Models, residency: Residency, reports: RunReports, on_event: EventHandler) -> None:
        self._models, self._residency, self._reports, self._emit = models, residency, reports, on_event

    def handle(self, room: DeviceRoom, work: Work, error: Exception) -> None:
        """A step of a room has raised this: go on, try it again, or end the room's work.

        Raises:
            Exception: ``error``, if it says that the device does not work any more.
        """
        if isinstance(error, SharedPassError):
            log.warning("%s; the runs go on", error, exc_info=error.__cause__)
            self._models.drop_graphs()
            free_memory()
            work.restart()
        elif isinstance(error, EditorError):
            log.info("run %s in room %s failed: %s", work.run, room.id, error)
            self._fail(room, str(error))
        elif is_out_of_memory(error):
            self._out_of_memory(room, work, error)
        elif is_device_fault(error):
            raise error  # nothing works in this process any more: the engine starts another one
        else:
            log.error("run %s in room %s failed unexpectedly", work.run, room.id, exc_info=error)
            room.close_session()  # its state cannot be trusted: the last checkpoint counts
            self._fail(room, unexpected(error))

    def _out_of_memory(self, room: DeviceRoom, work: Work, error: Exception) -> None:
        """Free what graphs and idle sessions hold and try the step again, once; then this run fails, and no other."""
        self._models.drop_graphs()
        idle = [other for other in self._residency.rooms.values() if other.idle and other is not room]
        for other in idle:
            self._residency.evict(other)
        free_memory()
        if work.retried:
            log.warning("run %s in room %s does not fit into the device's memory: %s", work.run, room.id, error)
            self._fail(room, OUT_OF_MEMORY)
            room.close_session()
            free_memory()
            return
        log.warning("out of memory; %d idle sessions have left the device, retrying run %s", len(idle), work.run)
        work.retried = True
        work.restart()

    def _fail(self, room: DeviceRoom, message: str) -> None:
        if room.run:
            self._reports.finish(room, "failed", message=message)
            return
        room.stop_work()
        self._emit(PreparationProgress(room=room.id, stage="failed", step=0, steps=1))
