"""RunReports: what is reported of a room's work, from its first step to its end."""

from __future__ import annotations

from typing import Literal

from livedrag.editor import DragSession, DragStep
from livedrag.server.device.messages import EventHandler, PreparationProgress, RunFinished, RunProgress
from livedrag.server.device.worker.device_room import DeviceRoom
from livedrag.server.device.worker.previews import Previews
from livedrag.server.device.worker.room_timeline import to_xy, tracked_now
from livedrag.server.device.worker.session_files import SessionFiles
from livedrag.server.document.protocol import Outcome, Points, Progress


class RunReports:
    """Emits the progress, the points and the end of runs, and the progress of preparations."""

    def __init__(self, files: SessionFiles, previews: Previews, on_event: EventHandler) -> None:
        self._files = files
        self._previews = previews
        self._emit = on_event

    def progress(self, room: DeviceRoom, record: Progress | Points) -> None:
        """Report how far a run is."""
        self._emit(RunProgress(room=room.id, record=record))

    def iteration(self, room: DeviceRoom, session: DragSession, step: DragStep, progress: Progress) -> None:
        """Report an iteration: its points, how far the run is, a preview if one is due, and the timeline."""
        points = Points(
            run=room.run,
            iteration=room.count.iterations,
            handles=to_xy(step.handles),
            distances=step.distances,
            loss=step.loss,
            content=dict(step.content),
            lost=step.lost,
        )
        room.numbers.note(points)
        self.progress(room, points)
        self.progress(room, progress)
        self._previews.show(room, session, "dragging", step)
        self._files.report_timeline(room, throttled=True)

    def preparing(
        self, room: DeviceRoom, stage: Literal["generating", "fitting", "inverting"], record: Progress, ignored: str
    ) -> None:
        """Report how far a preparation is.

        Args:
            ignored: the part of the prompt that the model ignores.
        """
        self._emit(
            PreparationProgress(
                room=room.id,
                stage=stage,
                step=record.step,
                steps=record.steps,
                seconds_left=record.seconds_left,
                ignored_prompt=ignored,
            )
        )

    def prepared(self, room: DeviceRoom, ignored: str, *, unknown: bool) -> None:
        """Report that a preparation is done; ``unknown`` says that the model does not know such pictures."""
        self._emit(
            PreparationProgress(room=room.id, stage="ready", step=1, steps=1, ignored_prompt=ignored, unknown=unknown)
        )

    def finish(
        self, room: DeviceRoom, outcome: Outcome, *, picture: bytes | None = None, message: str | None = None
    ) -> None:
        """End the run or generation: save the session and report the end. The caller must not take further steps."""
        if outcome == "failed":
            self._previews.drop(room)
        self._previews.collect(room, leaving=0)
        run, room.work = room.run, None
        room.has_result = room.has_result or picture is not None
        self._files.save(room)
        self._files.report_timeline(room)
        self._emit(
            RunFinished(
                room=room.id,
                run=run,
                outcome=outcome,
                iterations=room.count.iterations,
                seq=room.desired.seq,
                tracked={} if room.session is None else tracked_now(room.session),
                moment=None if room.session is None else room.session.timeline.current,
                lost=() if room.session is None else room.session.lost,
                picture=picture,
                message=message,
            )
        )
