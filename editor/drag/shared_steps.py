"""What a session does, step by step, in passes of the UNet that other sessions may share."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from livedrag.editor.drag.loop import DragLoop
from livedrag.editor.drag.passes import Answer, Request, next_step
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.steps import DragStep, InversionStep, RenderStep
from livedrag.editor.fitting.lora import FitPass, FitStep
from livedrag.editor.settings import Quality


class SharedSteps:
    """The generators of `livedrag.editor.drag.session.DragSession`, for running several sessions together.

    Each yields what it asks of the UNet, too. That may be answered together with what other sessions ask; see
    `livedrag.editor.drag.passes`.

    Args:
        state: of the session.
        loop: of the session.
    """

    def __init__(self, state: SessionState, loop: DragLoop) -> None:
        self._state, self._loop = state, loop

    def prepare(self) -> Generator[Request | FitStep | FitPass | InversionStep, Answer, None]:
        """Fit the picture's LoRA, then invert the picture."""
        state = self._state
        with contextlib.closing(state.preparation.steps()) as steps:
            while (step := (yield from next_step(steps))) is not None:
                assert isinstance(step, FitStep | FitPass | InversionStep)
                if isinstance(step, InversionStep) and state.preparation.done:
                    state.start_dragging()
                yield step
        if not state.prepared:  # a generated picture is not inverted
            state.start_dragging()

    def reconstruct(self) -> Generator[Request | RenderStep, Answer, None]:
        """Denoise the inverted picture without an edit."""
        self._state.require_prepared()
        assert self._state.denoising is not None
        yield from self._state.denoising.reconstruct()

    def drag(
        self, preview_every: int = 4, iterations_done: int | None = None, quality: Quality | None = None
    ) -> Generator[Request | DragStep, Answer, None]:
        """Move the content until all handles have arrived."""
        return self._loop.run(preview_every, iterations_done, quality)

    def render(self, preview_every: int = 4) -> Generator[Request | RenderStep, Answer, None]:
        """Denoise the latent as it is now."""
        state = self._state
        latent, denoising = state.latent.value.detach().clone(), state.denoising
        assert denoising is not None
        # GoodDrag denoises freely where it drags, with reference-latent control below.
        control_first = state.settings.alternation == 1
        yield from denoising.render(latent, preview_every, first=state.descended, control_first=control_first)
