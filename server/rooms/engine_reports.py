"""EngineReports: reports to rooms that their device's worker has stopped, or that they have one again."""

from __future__ import annotations

from collections.abc import Iterable

from livedrag.server.device.messages import WorkerRestarted, WorkerRestarting
from livedrag.server.document.protocol import EngineReport
from livedrag.server.rooms.room import LiveRoom


class EngineReports:
    """Reports to a worker's rooms; where the engine has no worker at all, to all others as well."""

    def __init__(self) -> None:
        self._waiting: set[str] = set()  # rooms that have no worker while others have one

    def on_event(self, event: WorkerRestarting | WorkerRestarted, rooms: Iterable[LiveRoom], *, ready: bool) -> None:
        """A worker has stopped, or its rooms have one again.

        Args:
            rooms: all that are open.
            ready: whether the engine has a worker that takes rooms.
        """
        if isinstance(event, WorkerRestarting):
            self._waiting.update(event.rooms if ready else ())
            report = EngineReport(state="restarting", message=event.message)
            concerned = [room for room in rooms if room.id in event.rooms or not ready]
        else:
            self._waiting.difference_update(event.rooms)
            report = EngineReport(state="ready")
            waiting = [room for room in rooms if room.engine_report.state != "ready"]
            concerned = [room for room in waiting if room.id in event.rooms or (ready and room.id not in self._waiting)]
        for room in concerned:
            room.report_engine(report)
