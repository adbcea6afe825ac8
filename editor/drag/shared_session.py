"""SharedSession: a session beside others on one device, with which it shares passes, time and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from livedrag.editor.drag import snapshot as snapshots
from livedrag.editor.drag.loop import DragLoop
from livedrag.editor.drag.passes import Answer, Request, next_step
from livedrag.editor.drag.preview import PendingPreview, Previewer
from livedrag.editor.drag.snapshot_format import Part
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.steps import DragStep, InversionStep, RenderStep
from livedrag.editor.drag.warm_up import warm_up
from livedrag.editor.fitting.fit_step import FitPass, FitStep
from livedrag.editor.settings import Quality


class SharedSession:
    """A `livedrag.editor.drag.session.DragSession`, for running several on one device.

    Its generators are those of the session, but yield what they ask of the UNet, too. That may be answered together
    with what other sessions ask; see `livedrag.editor.drag.passes`.

    Args:
        state: of the session.
        loop: of the session.
        previewer: of the session.
    """

    def __init__(self, state: SessionState, loop: DragLoop, previewer: Previewer) -> None:
        self._state, self._loop, self._previewer = state, loop, previewer

    @property
    def bucket(self) -> tuple[int, ...]:
        """Sessions of one bucket, with the same model and latents of the same shape, can share passes of the UNet."""
        return (id(self._state.model), *self._state.preparation.clean.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the session's tensors, without the model."""
        return snapshots.count_bytes(self._state)

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

    def warm_up(self) -> Generator[None, None, None]:
        """On CUDA, record what the next `drag` runs, so that it need not wait for that; yields after each pass.

        Raises `EditorError` if the picture is not prepared yet.
        """
        self._state.require_prepared()
        return warm_up(self._state)

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

    def begin_preview(
        self, step: DragStep | RenderStep, longest_side: int = 256, quality: Quality | None = None
    ) -> PendingPreview | None:
        """As `livedrag.editor.drag.session.DragSession.preview`, without waiting for the device where it can go on
        meanwhile. No moment gets a thumbnail."""
        return self._previewer.begin(step, longest_side, quality)

    def snapshot_parts(self) -> list[Part]:
        """The session's snapshot in parts, most of which need not be written again each time; see
        `livedrag.editor.drag.session.DragSession.restore`."""
        return snapshots.take_parts(self._state)
