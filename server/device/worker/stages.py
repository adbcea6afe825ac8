"""Stages: the steps of a run, of a preparation and of a generation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from PIL import Image

from livedrag.editor import DragSession, FitPass, FitStep, InversionStep, RenderStep
from livedrag.editor.drag.passes import Answer, Request, next_step
from livedrag.editor.drag.preparation import is_known, is_measured
from livedrag.editor.generate import GenerationStep
from livedrag.server.device.messages import DesiredState, Generate, PictureRef, Prepare, Start
from livedrag.server.device.worker.device_room import DeviceRoom, Work
from livedrag.server.device.worker.models import OWN, Models
from livedrag.server.device.worker.previews import Previews
from livedrag.server.device.worker.result_metadata import to_metadata
from livedrag.server.device.worker.room_settings import service_setting
from livedrag.server.device.worker.run_reports import RunReports
from livedrag.server.device.worker.session_files import SessionFiles
from livedrag.server.device.worker.sessions import Sessions
from livedrag.server.document.protocol import Outcome, Progress, Stage
from livedrag.server.images.encoding import encode_png

T = TypeVar("T")
Steps = Generator[Request | None, Answer, T]
"""Yields what an iteration asks of the UNet, and None after each step."""

GENERATION_PREVIEWS = 12
"""Previews of a generation, about."""
GENERATION_SIDE = 256
"""Of such a preview, in pixels."""
PREPARATION_SAVE_SECONDS = 20.0
"""Between two checkpoints of a preparation: so much of it is lost at most when the worker dies."""


@dataclass
class Stopwatch:
    """Times the steps of one stage, in seconds."""

    stage: Stage
    began: float = field(default_factory=time.monotonic)
    latest: float = 0.0

    def progress(self, run: str, step: int, steps: int, loss: float | None = None) -> Progress:
        """After ``step`` of ``steps``."""
        self.latest = time.monotonic()
        seconds = self.latest - self.began
        left = seconds / step * (steps - step) if step else None
        return Progress(
            run=run, stage=self.stage, step=step, steps=steps, seconds=seconds, seconds_left=left, loss=loss
        )


class Stages:
    """Makes the generators of steps that a room's `Work` consists of. Another room may have its turn at each yield.

    Args:
        checkpoint_every: iterations of a run between two checkpoints.
        metadata: whether results say how they were made.
    """

    def __init__(
        self,
        models: Models,
        sessions: Sessions,
        files: SessionFiles,
        previews: Previews,
        reports: RunReports,
        *,
        checkpoint_every: int,
        metadata: bool,
    ) -> None:
        self._models = models
        self._sessions = sessions
        self._files = files
        self._previews = previews
        self._reports = reports
        self._checkpoint_every = checkpoint_every
        self._has_metadata = metadata

    def run(self, room: DeviceRoom, start: Start) -> Steps[None]:
        """One run; continues where it was interrupted."""
        work = working(room)
        watch = self._enter(work, "loading", 1)
        self._reports.progress(room, watch.progress(work.run, 0, 1))
        yield None
        generation_steps: list[GenerationStep] = []
        for record in self._regenerate(room, start.picture, start.desired, generation_steps):
            self._reports.progress(room, record)
            yield None
            if work.stopping:
                self._reports.finish(room, "stopped")
                return
        session = self._sessions.open(room, start.picture, start.desired, generation_steps)
        self._reports.progress(room, watch.progress(work.run, 1, 1))
        yield None
        with closing(self._prepare(room, session)) as preparation:
            while (progress := (yield from next_step(preparation))) is not None:
                if isinstance(progress, Progress):
                    self._reports.progress(room, progress)
                yield None
                if work.stopping:
                    break
        if work.stopping and not session.prepared:
            self._reports.finish(room, "stopped")
            return
        while True:
            work.jumped = False
            outcome: Outcome = "stopped" if work.stopping else (yield from self._drag(room, session))
            nothing_new = outcome == "stopped" and room.count.iterations == 0
            if work.continues_after(outcome):
                continue
            picture = None if nothing_new else (yield from self._render(room, session, outcome))
            if not work.continues_after(outcome):
                break
        self._reports.finish(room, outcome, picture=picture)

    def preparation(self, room: DeviceRoom, prepare: Prepare) -> Steps[None]:
        """Generate the picture again if needed, fit the LoRA and invert the picture, without a run."""
        settings = self._models.loaded(prepare.desired.model).settings
        ignored = settings.ignored_prompt(prepare.desired)
        generation_steps: list[GenerationStep] = []
        for record in self._regenerate(room, prepare.picture, prepare.desired, generation_steps):
            self._reports.preparing(room, "generating", record, ignored)
            yield None
        session = self._sessions.open(room, prepare.picture, prepare.desired, generation_steps)
        with closing(self._prepare(room, session)) as preparation:
            while (progress := (yield from next_step(preparation))) is not None:
                if isinstance(progress, Progress):
                    stage: Literal["fitting", "inverting"] = "fitting" if progress.stage == "fitting" else "inverting"
                    self._reports.preparing(room, stage, progress, ignored)
                yield None
        kind, unknown = settings.kind, False
        if is_measured(kind, session.settings):
            with closing(session.shared.reconstruct()) as steps:
                while (yield from next_step(steps)) is not None:
                    yield None
            unknown = not is_known(kind, session.reconstruction)
        self._reports.prepared(room, ignored, unknown=unknown)
        self._enter(working(room), "loading", 1)
        for _ in session.shared.warm_up():
            yield None

    def generation(self, room: DeviceRoom, generate: Generate) -> Steps[None]:
        """Generate a picture from a prompt."""
        work, steps = working(room), generate.generation.ddim_steps
        watch = self._enter(work, "generating", steps)
        every = max(1, round(steps / GENERATION_PREVIEWS))
        generator = self._models.loaded(OWN).generator
        for step in generator.steps(generate.generation):
            room.count = dataclasses.replace(room.count, iterations=step.step)
            work.steps_left = {"generating": steps - step.step}
            self._reports.progress(room, watch.progress(work.run, step.step, steps))
            if step.step == steps:
                self._reports.finish(room, "arrived", picture=encode_png(generator.picture(step)))
                return
            if step.step % every == 0:
                self._previews.send_generated(room, generator.preview(step, GENERATION_SIDE))
            yield None

    def _regenerate(
        self, room: DeviceRoom, picture: PictureRef, desired: DesiredState, generation_steps: list[GenerationStep]
    ) -> Generator[Progress, None, None]:
        """Generate the picture again, into ``generation_steps``, if the session to be opened needs that."""
        work, watch = working(room), None
        for step in self._sessions.regenerate(room, picture, desired):
            watch = watch or self._enter(work, "generating", step.steps)
            generation_steps.append(step)
            work.steps_left = {"generating": step.steps - step.step}
            yield watch.progress(work.run, step.step, step.steps)

    def _prepare(
        self, room: DeviceRoom, session: DragSession
    ) -> Generator[Request | Progress | FitPass | RenderStep, Answer, None]:
        """Do what is left of preparing a session, and yield what it asks of the UNet too; after a step how far it is,
        and after what is only a part of one, or not counted, something else."""
        work, watch = working(room), None
        if session.prepared:
            return
        room.saved_at = time.monotonic()
        with closing(session.shared.prepare()) as preparation:
            while (step := (yield from next_step(preparation))) is not None:
                assert isinstance(step, FitPass | FitStep | InversionStep)
                if isinstance(step, FitPass):
                    if watch is None:
                        watch = self._enter(work, "fitting", session.settings.lora_steps)
                    yield step
                    continue
                stage: Stage = "fitting" if isinstance(step, FitStep) else "inverting"
                if watch is None or watch.stage != stage:
                    watch = self._enter(work, stage, step.steps - step.step + 1, after=watch)
                work.steps_left = {stage: step.steps - step.step}
                if time.monotonic() - room.saved_at >= PREPARATION_SAVE_SECONDS:
                    self._files.save(room)
                loss = step.loss if isinstance(step, FitStep) else None
                yield watch.progress(work.run, step.step, step.steps, loss)
        self._previews.show_unedited(room, session)
        self._files.save(room)
        self._files.report_timeline(room)
        if is_measured(self._models.settings(room.desired.model).kind, session.settings):
            # The unedited picture is denoised before the drag, where that is quick: no one waits for it after Stop.
            with closing(session.shared.reconstruct()) as steps:
                while (step := (yield from next_step(steps))) is not None:
                    yield step

    def _drag(self, room: DeviceRoom, session: DragSession) -> Steps[Outcome]:
        """Drag to the end, or until the content is moved to another moment; returns the outcome."""
        work, arrived = working(room), False
        watch = self._enter(work, "dragging", self._max_iterations(room))
        self._previews.show_unedited(room, session)
        before = session.iteration
        taken = room.count.iterations - room.count.branched_at
        preview_every = service_setting(room.desired, "preview_every")
        room.log.begin(taken)
        with closing(session.shared.drag(preview_every, taken, self._previews.quality)) as iterations:
            while (step := (yield from next_step(iterations))) is not None:
                room.log.step()
                moved = step.iteration != before
                room.count = dataclasses.replace(room.count, iterations=room.count.iterations + moved)
                end = room.count.branched_at + self._max_iterations(room)
                work.steps_left = {"dragging": max(0, end - room.count.iterations)}
                self._reports.iteration(
                    room,
                    session,
                    step,
                    watch.progress(room.run, room.count.iterations, max(end, room.count.iterations), step.loss),
                )
                if moved and room.count.iterations % self._checkpoint_every == 0:
                    self._files.save(room)
                work.reaimed = False
                yield None
                before = session.iteration
                if work.jumped or work.stopping:
                    break
                arrived = step.arrived
                if not session.drags:
                    break
        room.log.end()
        self._previews.collect(room, leaving=0)
        self._files.save(room)
        return "stopped" if work.stopping else "arrived" if arrived else "exhausted"

    def _max_iterations(self, room: DeviceRoom) -> int:
        return self._models.settings(room.desired.model).editor(room.desired).max_iterations

    def _render(self, room: DeviceRoom, session: DragSession, outcome: Outcome) -> Steps[bytes | None]:
        """Render the result, unless the content is moved to another moment meanwhile, or has further to go.

        A stop while rendering keeps the last result, if there is one.
        """
        work = working(room)
        already_stopping = work.stopping
        watch = self._enter(work, "rendering", session.render_steps)
        with closing(session.shared.render(service_setting(room.desired, "preview_every"))) as steps:
            while (step := (yield from next_step(steps))) is not None:
                assert isinstance(step, RenderStep)
                work.steps_left = {"rendering": step.steps - step.step}
                self._reports.progress(room, watch.progress(work.run, step.step, step.steps))
                self._previews.show(room, session, "rendering", step)
                yield None
                if work.continues_after(outcome) or (work.stopping and not already_stopping and room.has_result):
                    return None
        result = session.result()
        self._previews.store_result(room, session, result)
        return self._encode(room, session, result)

    def _encode(self, room: DeviceRoom, session: DragSession, result: Image.Image) -> bytes:
        """The result as a PNG that says how it was made."""
        if not self._has_metadata:
            return encode_png(result)
        assert room.key is not None
        settings = self._models.settings(room.desired.model)
        return encode_png(result, to_metadata(room.log, session, room.desired, settings, room.key.picture))

    def _enter(self, work: Work, stage: Stage, steps: int, after: Stopwatch | None = None) -> Stopwatch:
        work.stage, work.steps_left = stage, {stage: steps}
        return Stopwatch(stage) if after is None else Stopwatch(stage, after.latest)


def working(room: DeviceRoom) -> Work:
    """The room's work, of which this is a step."""
    assert room.work is not None
    return room.work
