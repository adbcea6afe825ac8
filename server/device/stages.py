"""Runs: what is done in a room when somebody presses Drag, or before, step by step; and what is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Literal

from PIL import Image

from livedrag.editor import DragSession, DragStep, FitStep, RenderStep
from livedrag.editor.drag.preview import Quality
from livedrag.editor.generate import GenerationStep
from livedrag.server.device.engine import (
    AnyEvent,
    DesiredState,
    Generate,
    PictureRef,
    PreparationProgress,
    Prepare,
    PreviewReady,
    RunFinished,
    RunProgress,
    Start,
)
from livedrag.server.device.job import MAX_STORED_SIDE, Job, Stopwatch, closed, compressed, places, png, shrunk
from livedrag.server.device.model_info import service_setting
from livedrag.server.device.sessions import Sessions
from livedrag.server.document.protocol import Outcome, Points, Progress, Stage

GENERATION_PREVIEWS = 12
"""Previews of a picture that is being made from words, about."""
GENERATION_SIDE = 256
"""Of such a preview, in pixels."""
FITTING_KEPT = 20.0
"""Seconds of preparing a picture after which what is done is kept: no more than that is lost when the worker dies."""


class RunStages:
    """What jobs do. Each generator yields where others may have their turn.

    Args:
        sessions: that they do it with.
        tell: takes every event.
        every: iterations of a run between two of its checkpoints.
        quality: of the previews; by default what the device has the time for.
    """

    def __init__(
        self, sessions: Sessions, tell: Callable[[AnyEvent], None], *, every: int, quality: Quality | None
    ) -> None:
        self._sessions = sessions
        self._tell = tell
        self._every, self._quality = every, quality

    def run(self, job: Job, start: Start) -> Generator[None, None, None]:
        """One run, step by step; where it was begun before, it goes on from there."""
        watch = self._stage(job, "loading", 1)
        self.report(job, watch.progress(job.run, 0, 1))
        yield
        generation_steps: list[GenerationStep] = []
        for record in self._regenerate(job, start.picture, start.desired, generation_steps):
            self.report(job, record)
            yield
            if job.stopping:
                self.finish(job, "stopped")
                return
        resume = start.run if start.resume else None
        session = self._sessions.open(job, start.picture, start.desired, generation_steps, resume)
        self.report(job, watch.progress(job.run, 1, 1))
        yield
        with closed(self._prepare(job, session)) as preparation:
            for record in preparation:
                self.report(job, record)
                yield
                if job.stopping:
                    break
        if job.stopping and not session.prepared:
            self.finish(job, "stopped")
            return
        while True:
            job.sought = False
            outcome: Outcome = "stopped" if job.stopping else (yield from self._drag(job, session))
            nothing_new = outcome == "stopped" and job.iterations == 0
            picture = None if job.sought or nothing_new else (yield from self._render(job, session))
            if not job.sought:
                break
        self.finish(job, outcome, picture=picture)

    def preparation(self, job: Job, prepare: Prepare) -> Generator[None, None, None]:
        """Generate again if needed, fit and invert, without a run, step by step."""
        generation_steps: list[GenerationStep] = []
        for record in self._regenerate(job, prepare.picture, prepare.desired, generation_steps):
            self._tell_preparing(job, "generating", record)
            yield
        session = self._sessions.open(job, prepare.picture, prepare.desired, generation_steps)
        for record in self._prepare(job, session):
            self._tell_preparing(job, "fitting" if record.stage == "fitting" else "inverting", record)
            yield
        self._tell(PreparationProgress(room=job.room, stage="ready", step=1, steps=1))

    def generation(self, job: Job, generate: Generate) -> Generator[None, None, None]:
        """Make a picture from words, step by step."""
        steps = generate.generation.ddim_steps
        watch = self._stage(job, "generating", steps)
        every = max(1, round(steps / GENERATION_PREVIEWS))
        for step in self._sessions.generate(generate.generation):
            job.iterations, job.left = step.step, {"generating": steps - step.step}
            self.report(job, watch.progress(job.run, step.step, steps))
            if step.step == steps:
                self.finish(job, "arrived", picture=png(self._sessions.picture_of(step)))
                return
            if step.step % every == 0:
                preview = self._sessions.preview_of(step, GENERATION_SIDE, self._quality)
                self._tell_picture(job, "generating", preview, compressed(preview, generate.format))
            yield

    def _regenerate(
        self, job: Job, picture: PictureRef, desired: DesiredState, generation_steps: list[GenerationStep]
    ) -> Generator[Progress, None, None]:
        """Generate the picture again, into ``generation_steps``, if the session to be opened needs that."""
        watch: Stopwatch | None = None
        for step in self._sessions.regeneration(job, picture, desired):
            watch = watch or self._stage(job, "generating", step.steps)
            generation_steps.append(step)
            job.left = {"generating": step.steps - step.step}
            yield watch.progress(job.run, step.step, step.steps)

    def _tell_preparing(self, job: Job, stage: Literal["generating", "fitting", "inverting"], record: Progress) -> None:
        left = record.seconds_left
        self._tell(
            PreparationProgress(room=job.room, stage=stage, step=record.step, steps=record.steps, seconds_left=left)
        )

    def _prepare(self, job: Job, session: DragSession) -> Iterator[Progress]:
        """Prepare a session as far as it is not; tells how far that is, step by step."""
        watch: Stopwatch | None = None
        if session.prepared:
            return
        job.kept = time.monotonic()
        with closed(session.prepare()) as preparation:
            for step in preparation:
                stage: Stage = "fitting" if isinstance(step, FitStep) else "inverting"
                if watch is None or watch.stage != stage:
                    watch = self._stage(job, stage, step.steps - step.step + 1, since=watch)
                job.left = {stage: step.steps - step.step}
                if time.monotonic() - job.kept >= FITTING_KEPT:
                    self._sessions.keep(job)
                loss = step.loss if isinstance(step, FitStep) else None
                yield watch.progress(job.run, step.step, step.steps, loss)
        self._show_unedited(job, session)
        self._sessions.keep(job)
        self._sessions.tell_timeline(job)

    def _drag(self, job: Job, session: DragSession) -> Generator[None, None, Outcome]:
        """Drag until it ends, or somebody goes elsewhere on the timeline; returns the outcome."""
        outcome: Outcome = "exhausted"
        watch = self._stage(job, "dragging", self._sessions.settings(job.desired).max_iterations)
        self._show_unedited(job, session)
        before = session.iteration
        taken = job.iterations - job.branched_at
        with closed(session.drag(service_setting(job.desired, "preview_every"), taken)) as iterations:
            for step in iterations:
                moved = step.iteration != before
                job.iterations += moved
                most = job.branched_at + self._sessions.settings(job.desired).max_iterations
                job.left = {"dragging": max(0, most - job.iterations)}
                self._tell_iteration(job, session, step, watch, max(most, job.iterations))
                if moved and job.iterations % self._every == 0:
                    self._sessions.keep(job)
                yield
                before = session.iteration
                if job.sought or job.stopping:
                    break
                if step.arrived:
                    outcome = "arrived"
                if not session.drags:
                    break
        self._sessions.keep(job)
        return "stopped" if job.stopping else outcome

    def _tell_iteration(self, job: Job, session: DragSession, step: DragStep, watch: Stopwatch, most: int) -> None:
        self.report(
            job,
            Points(
                run=job.run,
                iteration=job.iterations,
                handles=places(step.handles),
                distances=step.distances,
                loss=step.loss,
            ),
        )
        self.report(job, watch.progress(job.run, job.iterations, most, step.loss))
        self._show(job, session, "dragging", step)
        self._sessions.tell_timeline(job, at_most_so_often=True)

    def _render(self, job: Job, session: DragSession) -> Generator[None, None, bytes | None]:
        """Render what there is, unless somebody goes elsewhere on the timeline meanwhile.

        A stop leaves the last picture, if there is one.
        """
        already_stopping = job.stopping
        watch = self._stage(job, "rendering", session.render_steps)
        with closed(session.render(preview_every=service_setting(job.desired, "preview_every"))) as steps:
            for step in steps:
                job.left = {"rendering": step.steps - step.step}
                self.report(job, watch.progress(job.run, step.step, step.steps))
                self._show(job, session, "rendering", step)
                yield
                if job.sought or (job.stopping and not already_stopping and job.has_picture):
                    return None
        return png(session.result())

    def _stage(self, job: Job, stage: Stage, steps: int, since: Stopwatch | None = None) -> Stopwatch:
        job.stage, job.left = stage, {stage: steps}
        return Stopwatch(stage) if since is None else Stopwatch(stage, since.latest)

    def report(self, job: Job, record: Progress | Points) -> None:
        self._tell(RunProgress(room=job.room, record=record))

    def _show(self, job: Job, session: DragSession, stage: Stage, step: DragStep | RenderStep) -> None:
        """Send a preview where the step has one, and keep it for its moment on the timeline."""
        side = service_setting(job.desired, "preview_side")
        picture = session.preview(step, longest_side=side, quality=self._quality)
        if picture is None:
            return
        data = compressed(picture, job.desired.format)
        self._tell_picture(job, stage, picture, data)
        if stage == "dragging":
            kept = shrunk(picture, MAX_STORED_SIDE)
            self._keep_picture(job, session, data if kept is picture else compressed(kept, job.desired.format))

    def _tell_picture(self, job: Job, stage: Stage, picture: Image.Image, data: bytes) -> None:
        self._tell(
            PreviewReady(
                room=job.room,
                run=job.run,
                stage=stage,
                iteration=job.iterations,
                format=job.desired.format,
                width=picture.width,
                height=picture.height,
                time=time.time(),
                data=data,
            )
        )

    def _show_unedited(self, job: Job, session: DragSession) -> None:
        """The first moment of a timeline looks like the uploaded picture."""
        current = session.timeline.current
        if current is None or session.timeline[current].parent is not None or current in job.shown.thumbnails:
            return
        small = shrunk(session.picture, min(service_setting(job.desired, "preview_side"), MAX_STORED_SIDE))
        session.timeline.show(small)
        self._keep_picture(job, session, compressed(small, "webp"))

    def _keep_picture(self, job: Job, session: DragSession, data: bytes) -> None:
        current = session.timeline.current
        assert current is not None
        thumbnail = session.timeline[current].thumbnail
        if thumbnail is not None:
            job.shown.thumbnails[current] = compressed(thumbnail, "webp")
        job.shown.frames[current] = data

    def finish(self, job: Job, outcome: Outcome, *, picture: bytes | None = None, message: str | None = None) -> None:
        job.steps, job.placed = None, False
        job.has_picture = job.has_picture or picture is not None
        self._sessions.keep(job)
        self._sessions.tell_timeline(job)
        drags = job.session.drags if job.session is not None else {}
        self._tell(
            RunFinished(
                room=job.room,
                run=job.run,
                outcome=outcome,
                iterations=job.iterations,
                seq=job.desired.seq,
                tracked={id: (drag.handle.x, drag.handle.y) for id, drag in drags.items()},
                picture=picture,
                message=message,
            )
        )
