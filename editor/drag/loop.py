"""DragLoop: the algorithm of DragDiffusion (arXiv 2306.14435), as a generator."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator

from livedrag.editor.drag.alternation import descend
from livedrag.editor.drag.arrival import active, begin_run, check_content, checks_content, go_back, search_is_due
from livedrag.editor.drag.content import ContentSearch
from livedrag.editor.drag.iteration import (
    carry,
    found_handles,
    held_by_warp,
    keep_background,
    lost_drags,
    move_on,
    not_arrived,
    predict,
    record_step,
    still_moving,
    track_at_end,
    warp_further,
    warp_is_due,
)
from livedrag.editor.drag.latent import check_finite
from livedrag.editor.drag.latent_warp import LatentWarp
from livedrag.editor.drag.passes import Answer, Request
from livedrag.editor.drag.preview import Previewer
from livedrag.editor.drag.run_ahead import RunAhead
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.steps import DragStep
from livedrag.editor.models.ddim import predict_x0
from livedrag.editor.settings import Quality


class DragLoop:
    """Drags one session's latent.

    Args:
        state: of the session, which changes.
        search: of the session.
        previewer: of the session.
    """

    def __init__(self, state: SessionState, search: ContentSearch, previewer: Previewer) -> None:
        self._state, self._search, self._previewer = state, search, previewer
        self._latent_warp = LatentWarp(state.model, state.picture, state.rasters)
        self._ahead = RunAhead(state)

    def run(
        self, preview_every: int, iterations_done: int | None, quality: Quality | None
    ) -> Generator[Request | DragStep, Answer, None]:
        """Move the content until all handles have arrived; see `livedrag.editor.drag.session.DragSession.drag`.

        Yields:
            What each iteration asks of the UNet, to be answered, and its `DragStep`.
        """
        state = self._state
        state.require_prepared()
        if iterations_done is not None:
            state.iterations_done = iterations_done
        self._previewer.forget()
        self._ahead.forget()
        if state.iterations_done == 0:
            begin_run(state)
        try:
            while True:
                state.edit.require_drags()
                yield from descend(state)
                last = state.iterations_done >= state.settings.max_iterations
                preview, preview_next = (_shows_preview(state.iteration + later, preview_every) for later in (0, 1))
                began = time.perf_counter()
                if not last and warp_is_due(state):
                    step, ends = (yield from self._warp(preview=preview)), False
                else:
                    step, ends = yield from self._iterate(last=last, preview=preview, preview_next=preview_next)
                self._previewer.note_pace(time.perf_counter() - began, preview_every)
                if step.content:
                    self._previewer.forget()
                else:
                    step = dataclasses.replace(step, content=self._previewer.content_shown(step, quality))
                state.iterations_done = 0 if ends else state.iterations_done + 1
                yield step
                if ends:
                    return
        finally:
            state.iterations_done = 0
            self._ahead.forget()

    def _iterate(
        self, *, last: bool, preview: bool, preview_next: bool
    ) -> Generator[Request, Answer, tuple[DragStep, bool]]:
        """One iteration of the paper, and whether the run ends; the ``last`` one of a run only tracks the handles."""
        state, latent = self._state, self._state.latent
        before = active(state, state.edit.handles)
        if last or not before:
            return (yield from self._end()), True
        # 1. to 6. of the paper, as a function of tensors: the UNet pass, point tracking, motion supervision, the mask
        # loss and a step of Adam, which is only proposed. See `livedrag.editor.drag.rows`. A GPU goes on with the next.
        with_noise = preview or search_is_due(state)
        before = carry(state, before)
        held = yield from held_by_warp(state, self._search, before)
        outcome = yield from self._ahead.iterate(before, with_noise=with_noise, preview_next=preview_next, held=held)
        proposal = outcome.proposal

        # Where is the content now? Or with region supervision: where has it been carried?
        pulled = found_handles(before, outcome)
        moving = still_moving(state, pulled, outcome)
        handles = {**state.edit.handles, **pulled}

        # Have all handles arrived, and does the picture show it?
        content: dict[str, float] = {}
        if checks_content(state):
            check = check_content(state, self._search, handles, moving, proposal.noise)
            handles, content = check.handles, check.content
            if check.failed:
                go_back(state, handles)
                return record_step(state, loss=0.0, arrived=False, x0=None, content=content), False
        if not moving:
            check_finite(proposal.loss, f"the pass after iteration {state.iteration}")
            state.edit.handles, latent.moved = handles, False
            return record_step(state, loss=0.0, arrived=not lost_drags(state), x0=None, content=content), True

        # Take the step.
        x0 = (
            predict_x0(latent.value, proposal.noise, state.level.alpha)
            if preview and proposal.noise is not None
            else None
        )
        latent.take(
            proposal.latent,
            proposal.moments,
            loss=outcome.loss,
            largest=outcome.largest,
            learning_rate=state.settings.latent_lr,
        )
        keep_background(state)
        state.edit.handles = handles
        return move_on(state, loss=outcome.loss, x0=x0, content=content), False

    def _end(self) -> Generator[Request, Answer, DragStep]:
        """The end of a run, after its last iteration: where is the content now?"""
        state, latent = self._state, self._state.latent
        held = yield from held_by_warp(state, self._search, active(state, state.edit.handles))
        features, noise = yield from predict(state, with_noise=False)
        handles = track_at_end(state, features, held)
        moving = not_arrived(state, handles)
        content: dict[str, float] = {}
        if checks_content(state):
            check = check_content(state, self._search, handles, moving, noise)
            handles, content = check.handles, check.content
        check_finite(features, f"the pass after iteration {state.iteration}")
        state.edit.handles, latent.moved = handles, False
        arrived = not moving and not lost_drags(state)
        return record_step(state, loss=0.0, arrived=arrived, x0=None, content=content)

    def _warp(self, *, preview: bool) -> Generator[Request, Answer, DragStep]:
        """One iteration of the latent warp, which is not in the paper."""
        x0 = yield from warp_further(self._state, self._latent_warp, preview=preview)
        return move_on(self._state, loss=0.0, x0=x0, content={})


def _shows_preview(iteration: int, every: int) -> bool:
    return every > 0 and iteration % every == 0
