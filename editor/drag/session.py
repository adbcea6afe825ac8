"""DragSession: one picture being edited. What it does when it drags is in `livedrag.editor.drag.loop`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from livedrag.editor.drag import snapshot as snapshots
from livedrag.editor.drag.content import ContentSearch
from livedrag.editor.drag.iteration import lost_drags
from livedrag.editor.drag.loop import DragLoop
from livedrag.editor.drag.passes import alone
from livedrag.editor.drag.preview import Previewer
from livedrag.editor.drag.result import compose_result, measure_reconstruction
from livedrag.editor.drag.shared_session import SharedSession
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.steps import DragStep, InversionStep, RenderStep
from livedrag.editor.drag.timeline import Timeline
from livedrag.editor.fitting.fit_step import FitPass, FitStep
from livedrag.editor.fitting.fitted_lora import FittedLora, save_fitted_lora
from livedrag.editor.generate import GenerationStep
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.points import Drag, Point
from livedrag.editor.settings import DragSettings, Quality, Setting
from livedrag.limits import GUIDANCE
from livedrag.pictures import to_rgb


class DragSession:
    """One picture being edited, from preparation to result.

    Sessions share a model and never disturb each other: each of their passes names the LoRA it needs, and attention
    processors and grad modes are left before each yield.

    Args:
        model: shared by all sessions of a device.
        picture: as uploaded, of any size, with sides of at most 8 to 1.
        prompt: what the picture shows; may be empty.
        settings: the method's numbers; by default the model's own.
        seed: of the random generator; the same seed gives the same picture on the same machine.

    Raises:
        PictureError: the picture is too narrow.
        SettingsError: the seed is out of range.
    """

    def __init__(
        self,
        model: Diffusion,
        picture: Image.Image,
        *,
        prompt: str = "",
        settings: DragSettings | None = None,
        seed: int = 0,
    ) -> None:
        self._use(SessionState.of_picture(model, picture, prompt=prompt, settings=settings, seed=seed))

    @classmethod
    def from_generation(
        cls,
        model: Diffusion,
        prompt: str,
        steps: Sequence[GenerationStep],
        *,
        guidance: float = GUIDANCE,
        picture: Image.Image | None = None,
        settings: DragSettings | None = None,
        seed: int = 0,
    ) -> DragSession:
        """A session on a picture made by `livedrag.editor.generate.generate`: its own latent is dragged, not inverted.

        Args:
            model: that made it.
            prompt: that it was made from.
            steps: all steps of its generation.
            guidance: that it was made with.
            picture: the stored picture; by default it is decoded from the last step.
            settings: the method's numbers; ``ddim_steps`` must be the number of steps. By default the model's own.
            seed: of the random generator.

        Raises:
            SettingsError: it was made in another number of steps.
        """
        return cls._of(
            SessionState.of_generation(
                model, prompt, steps, guidance=guidance, picture=picture, settings=settings, seed=seed
            )
        )

    @classmethod
    def _of(cls, state: SessionState) -> DragSession:
        session = cls.__new__(cls)
        session._use(state)
        return session

    def _use(self, state: SessionState) -> None:
        self._state = state
        search = ContentSearch(state)
        self._previewer = Previewer(state, search)
        self._shared = SharedSession(state, DragLoop(state, search, self._previewer), self._previewer)

    @property
    def model(self) -> Diffusion:
        """The model, which other sessions share."""
        return self._state.model

    @property
    def picture(self) -> Image.Image:
        """The picture that is edited, RGB."""
        return self._state.picture

    @property
    def picture_hash(self) -> str:
        """SHA-256 of its size and pixels, see `livedrag.picture_metadata.hash_pixels`."""
        return self._state.picture_hash

    @property
    def settings(self) -> DragSettings:
        """The method's numbers."""
        return self._state.settings

    @property
    def iteration(self) -> int:
        """Iterations that led to the latent as it is now."""
        return self._state.iteration

    @property
    def timeline(self) -> Timeline:
        """The moments that `seek` can jump to."""
        return self._state.timeline

    @property
    def latent(self) -> Tensor:
        """A copy of the latent as dragged so far, ``(1, 4, H/8, W/8)``. Raises `EditorError` before preparation."""
        return self._state.latent.value.detach().clone()

    # What may change between any two yields ---------------------------------------------------------------------------

    @property
    def drags(self) -> dict[str, Drag]:
        """By name: where the content is now, and its target, in pixels of the picture."""
        return self._state.edit.drags

    @property
    def lost(self) -> tuple[str, ...]:
        """The drags whose content did not follow in the latest run, by name; see `livedrag.editor.drag.arrival`."""
        return lost_drags(self._state)

    def add_drag(self, name: str, drag: Drag) -> None:
        """Place a handle and its target. The feature there now becomes its template. Raises `PointError`."""
        self._state.edit.add_drag(name, drag, edited=self.iteration > 0)

    def set_target(self, name: str, target: Point) -> None:
        """Give a drag another target. Raises `PointError`."""
        self._state.edit.set_target(name, target)

    def set_handle(self, name: str, handle: Point) -> None:
        """Place a drag's handle elsewhere; the feature there now becomes its template. Raises `PointError`."""
        self._state.edit.set_handle(name, handle, edited=self.iteration > 0)

    def remove_drag(self, name: str) -> None:
        """Remove a drag. Raises `PointError` if there is none of this name."""
        self._state.edit.remove_drag(name)

    def set_mask(self, mask: NDArray[np.generic] | None) -> None:
        """Set the editable area.

        Args:
            mask: ``(H, W)`` of the picture's size, nonzero may change; None: everything may.

        Raises:
            MaskError: it has another size, or nothing may change.
        """
        self._state.edit.set_mask(mask)

    def set_pins(self, pins: Iterable[Point]) -> None:
        """Set the places that hold still, in pixels of the picture: they keep the features that they have unedited.

        Raises:
            PointError: one is outside the picture.
        """
        self._state.edit.set_pins(pins)

    def change(self, overrides: Mapping[str, Setting]) -> None:
        """Change live settings. Raises `SettingsError` for a value out of range or a setting that is not live."""
        self._state.settings = self.settings.changed_live(overrides)

    def reset(self) -> None:
        """Back to the unedited latent, the handles to where they were placed; the timeline stays."""
        self._state.reset()

    def seek(self, index: int) -> None:
        """Jump to a moment of the timeline; the next iteration branches off from there.

        Its latent was stored in half precision and Adam starts anew: the run is not repeated bit for bit.

        Args:
            index: of a moment on the `timeline`.

        Raises:
            EditorError: there is no such moment.
        """
        self._state.go_to(self.timeline[index])

    def tracked(self, index: int) -> dict[str, Point]:
        """By drag: where its content was at a moment of the timeline. Raises `EditorError` if there is no such one."""
        return self._state.edit.positions(self.timeline[index].handles)

    # Preparation, dragging, rendering ---------------------------------------------------------------------------------

    @property
    def shared(self) -> SharedSession:
        """The same session, for running several on one device."""
        return self._shared

    @property
    def prepared(self) -> bool:
        """Whether the LoRA is fitted and the picture inverted."""
        return self._state.prepared

    def use_lora(self, fitted: FittedLora) -> None:
        """Take a LoRA that was fitted to this picture before, so that `prepare` does not fit one.

        Raises:
            EditorError: preparation has begun.
            ModelError: the LoRA is for another model.
        """
        self._state.settings = self._state.preparation.use_lora(fitted)

    def save_lora(self, path: Path) -> None:
        """Write the picture's LoRA as a file that diffusers opens too. Raises `EditorError` before preparation."""
        save_fitted_lora(self._state.preparation.lora, path)

    def prepare(self) -> Generator[FitStep | FitPass | InversionStep, None, None]:
        """Fit the picture's LoRA, then invert the picture; continues where an earlier call was left.

        A step of fitting with a large batch yields `FitPass` in between.
        """
        return alone(self._shared.prepare())

    def reconstruct(self) -> Generator[RenderStep, None, float]:
        """Denoise the inverted picture without an edit, which `render` then need not do.

        Returns:
            The `reconstruction`.

        Raises:
            EditorError: the picture is not prepared yet.
            NumericalError: a step is not finite.
        """
        yield from alone(self._shared.reconstruct())
        return self.reconstruction

    @property
    def reconstruction(self) -> float:
        """How well the model knows the picture, once `reconstruct` is done: the PSNR of what comes back, in decibels;
        see `livedrag.editor.drag.preparation.is_known`."""
        return measure_reconstruction(self._state)

    def drag(
        self, preview_every: int = 4, iterations_done: int | None = None, quality: Quality | None = None
    ) -> Generator[DragStep, None, None]:
        """Move the content until all handles have arrived, for at most ``max_iterations`` iterations.

        Args:
            preview_every: iterations between two steps with a predicted picture; 0 for never.
            iterations_done: iterations that an interrupted run has done already; by default those in the snapshot that
                the session was restored from, else 0.
            quality: of the previews that will be made of the steps; see `preview`. With each, content is searched, but
                for ``latent``.

        Raises:
            EditorError: the picture is not prepared yet.
            PointError: there is nothing to drag.
            NumericalError: the loss is not finite; the last good latent stays.
        """
        return alone(self._shared.drag(preview_every, iterations_done, quality))

    def render(self, preview_every: int = 4) -> Generator[RenderStep, None, None]:
        """Denoise the latent as it is now; the first time, the unedited one before it. Then `result` is the picture.

        Args:
            preview_every: steps between two that have a predicted picture; 0 for never.

        Raises:
            EditorError: the picture is not prepared yet.
            NumericalError: a step is not finite.
        """
        return alone(self._shared.render(preview_every))

    @property
    def render_steps(self) -> int:
        """How many steps the next `render` takes."""
        denoising = self._state.denoising
        return 2 * self.settings.inversion_steps if denoising is None else denoising.steps(self._state.descended)

    def result(self) -> Image.Image:
        """The last rendered picture, RGB, of the uploaded size. Raises `EditorError` if there is none."""
        return compose_result(self._state)

    def preview(
        self, step: DragStep | RenderStep, longest_side: int = 256, quality: Quality | None = None
    ) -> Image.Image | None:
        """A small RGB picture of what a step predicts; None if the step has no prediction.

        Args:
            step: the latest one of this session's `drag` or `render`.
            longest_side: of the preview, in pixels.
            quality: see `livedrag.editor.drag.preview`; by default the best that does not slow down the iterations.
        """
        return self._previewer.make(step, longest_side, quality)

    # Snapshots --------------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole session but for thumbnails and what can be recomputed; see `restore`."""
        return snapshots.take(self._state).to_bytes()

    @classmethod
    def restore(cls, model: Diffusion, picture: Image.Image, snapshot: bytes | Mapping[str, bytes]) -> DragSession:
        """The session that a snapshot was taken of; it continues bit for bit.

        Args:
            model: the same model, on the same kind of device.
            picture: the same picture.
            snapshot: from `snapshot`, in this process or another; or all parts as bytes, by name, see
                `livedrag.editor.drag.shared_session.SharedSession.snapshot_parts`.

        Raises:
            EditorError: it is not a snapshot, or of another picture, or of a model of another name.
        """
        return cls._of(snapshots.restore(model, to_rgb(picture), snapshot))

    def close(self) -> None:
        """Remove the session's LoRA from the model."""
        self._state.preparation.close()
