"""DragLoop: the algorithm of DragDiffusion (arXiv 2306.14435), as a generator."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator

import torch
from torch import Tensor

from livedrag.editor.drag.alternation import descend
from livedrag.editor.drag.arrival import begin_run, check_content, checks_content, go_back, search_is_due
from livedrag.editor.drag.content import ContentSearch
from livedrag.editor.drag.iteration import (
    keep_background,
    lost_drags,
    move_on,
    needs_mask_loss,
    predict,
    record_step,
    still_moving,
    total_loss,
    track,
    warp_further,
    warp_is_due,
)
from livedrag.editor.drag.latent import check_finite
from livedrag.editor.drag.latent_warp import LatentWarp
from livedrag.editor.drag.passes import Answer, BackwardPass, Request, backward
from livedrag.editor.drag.preview import Previewer
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

    Attributes:
        latent_warp: of the session.
    """

    def __init__(self, state: SessionState, search: ContentSearch, previewer: Previewer) -> None:
        self._state, self._search, self._previewer = state, search, previewer
        self.latent_warp = LatentWarp(state.model, state.picture, state.rasters)

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
        if state.iterations_done == 0:
            begin_run(state)
        try:
            while True:
                state.edit.require_drags()
                descend(state)
                last = state.iterations_done >= state.settings.max_iterations
                preview = preview_every > 0 and state.iteration % preview_every == 0
                began = time.perf_counter()
                if not last and warp_is_due(state):
                    step, ends = (yield from self._warp(preview=preview)), False
                else:
                    step, ends = yield from self._iterate(last=last, preview=preview)
                self._previewer.note_pace(time.perf_counter() - began, preview_every)
                if step.predicted_x0 is not None and not step.content:
                    step = dataclasses.replace(step, content=self._previewer.content_shown(step, quality))
                state.iterations_done = 0 if ends else state.iterations_done + 1
                yield step
                if ends:
                    return
        finally:
            state.iterations_done = 0

    def _iterate(self, *, last: bool, preview: bool) -> Generator[Request, Answer, tuple[DragStep, bool]]:
        """One iteration of the paper, and whether the run ends; the ``last`` one of a run only tracks the handles."""
        state, latent = self._state, self._state.latent
        x0: Tensor | None = None
        # 1. One UNet pass: the features, and the noise if the mask or a preview needs it.
        with_noise = not last and (preview or search_is_due(state) or needs_mask_loss(state))
        features, noise = yield from predict(state, with_noise=with_noise, gradient=not last)

        # 2. Point tracking: where is the content now? Or region supervision: where is it carried next?
        handles = track(state, features, last=last)

        # 3. Have all handles arrived, or is this the end of the run?
        moving = still_moving(state, handles, last=last)
        content: dict[str, float] = {}
        if checks_content(state):
            check = check_content(state, self._search, handles, moving, noise)
            handles, content = check.handles, check.content
            if check.failed and not last:
                go_back(state, handles)
                return record_step(state, loss=0.0, arrived=False, x0=None, content=content), False
        if last or not moving:
            check_finite(features, f"the pass after iteration {state.iteration}")
            state.edit.handles, latent.moved = handles, False
            arrived = not moving and not lost_drags(state)
            return record_step(state, loss=0.0, arrived=arrived, x0=None, content=content), True

        # 4. and 5. Motion supervision, and the mask loss.
        with torch.enable_grad():
            loss = total_loss(state, features, noise, handles, moving)

        # 6. One step of Adam on the latent alone.
        if preview and noise is not None:
            x0 = predict_x0(latent.value.detach(), noise.detach(), state.level.alpha)
        gradient = yield from backward(BackwardPass(state.model, loss, latent.value))
        latent.step(gradient, state.settings.latent_lr)
        keep_background(state)
        state.edit.handles = handles
        return move_on(state, loss=gradient.loss, x0=x0, content=content), False

    def _warp(self, *, preview: bool) -> Generator[Request, Answer, DragStep]:
        """One iteration of the latent warp, which is not in the paper."""
        x0 = yield from warp_further(self._state, self.latent_warp, preview=preview)
        return move_on(self._state, loss=0.0, x0=x0, content={})
