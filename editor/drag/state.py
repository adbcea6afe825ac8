"""What a session consists of: all that a snapshot stores, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from livedrag.editor.drag.denoising import Denoising
from livedrag.editor.drag.edit import Edit
from livedrag.editor.drag.latent import DraggedLatent
from livedrag.editor.drag.preparation import Preparation
from livedrag.editor.drag.reference import Reference
from livedrag.editor.drag.region import Carrier
from livedrag.editor.drag.timeline import Moment, Timeline
from livedrag.editor.errors import EditorError
from livedrag.editor.generate import GenerationStep
from livedrag.editor.models.ddim import Guidance
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.noise_schedule import Level
from livedrag.editor.picture import to_picture, to_working_tensor
from livedrag.editor.points import Rasters, Size
from livedrag.editor.settings import DragSettings, check_seed
from livedrag.picture_metadata import hash_pixels
from livedrag.pictures import to_rgb

TIMELINE_BUDGET = 64 * 2**20
"""Bytes of latents and thumbnails on one session's timeline."""


class SessionState:
    """One picture's state; `livedrag.editor.drag.session.DragSession` changes it.

    Args:
        model: shared by all sessions of a device.
        picture: that is edited, RGB.
        settings: the method's numbers.
        prompt: text embedding, ``(1, L, D)``.
        clean: latent of the picture, ``(1, 4, H/8, W/8)``.
        generator: CPU generator.
        rasters: of the picture.

    Attributes:
        model: shared by all sessions of a device.
        picture: that is edited, RGB.
        settings: the method's numbers.
        rasters: of the picture.
        preparation: LoRA and inversion.
        edit: drags and mask.
        timeline: moments that one can jump back to.
        iterations_done: iterations of the run that is going on.
        descended: levels that the latent has been denoised since it was inverted; see
            `livedrag.editor.drag.alternation`.
        carrier: of region supervision.
    """

    def __init__(
        self,
        model: Diffusion,
        picture: Image.Image,
        settings: DragSettings,
        *,
        prompt: Tensor,
        clean: Tensor,
        generator: torch.Generator,
        rasters: Rasters,
    ) -> None:
        self.model, self.picture, self.settings, self.rasters = model, picture, settings, rasters
        self.preparation = Preparation(
            model, picture, rasters, settings, prompt=prompt, clean=clean, generator=generator
        )
        self.edit = Edit(rasters, clean)
        self.timeline = Timeline(TIMELINE_BUDGET)
        self.iterations_done = 0
        self.descended = 0
        self.carrier = Carrier()
        self._reference: Reference | None = None
        self._latent: DraggedLatent | None = None
        self._denoising: Denoising | None = None

    @classmethod
    def of_picture(
        cls,
        model: Diffusion,
        picture: Image.Image,
        *,
        prompt: str,
        settings: DragSettings | None,
        seed: int,
    ) -> SessionState:
        """A new state; see `livedrag.editor.drag.session.DragSession`."""
        check_seed(seed)
        picture = to_rgb(picture)
        rasters = Rasters.fit(Size(*picture.size), model.native_side, model.latent_stride)
        return cls(
            model,
            picture,
            settings or DragSettings.resolve(model_defaults=model.defaults),
            prompt=model.embed_prompt(prompt),
            clean=model.encode(to_working_tensor(picture, rasters)),
            generator=torch.Generator().manual_seed(seed),
            rasters=rasters,
        )

    @classmethod
    def of_generation(
        cls,
        model: Diffusion,
        prompt: str,
        steps: Sequence[GenerationStep],
        *,
        guidance: float,
        picture: Image.Image | None,
        settings: DragSettings | None,
        seed: int,
    ) -> SessionState:
        """That of a generated picture; see `livedrag.editor.drag.session.DragSession.from_generation`."""
        if picture is None:
            picture = to_picture(model.decode(steps[-1].latent))
        if settings is None:
            settings = DragSettings.resolve(None, model.defaults, {"ddim_steps": len(steps)})
        state = cls.of_picture(model, picture, prompt=prompt, settings=settings, seed=seed)
        state.preparation.use_generated(steps, Guidance(model.embed_nothing(), guidance))
        return state

    @property
    def prepared(self) -> bool:
        """Whether there is a latent to drag."""
        return self._latent is not None

    @property
    def iteration(self) -> int:
        """Iterations that led to the latent."""
        return 0 if self._latent is None else self._latent.iteration

    @cached_property
    def picture_hash(self) -> str:
        """SHA-256 of the picture's size and pixels."""
        return hash_pixels(self.picture)

    @property
    def latent(self) -> DraggedLatent:
        """The latent as dragged so far. Raises `EditorError` before preparation is done."""
        self.require_prepared()
        assert self._latent is not None
        return self._latent

    def require_prepared(self) -> None:
        """Raise `EditorError` before preparation is done."""
        if not self.prepared:
            raise EditorError("the picture is not prepared yet: run prepare() to its end first")

    @property
    def level(self) -> Level:
        """The noise level at which the latent is dragged now."""
        return self.preparation.levels[-1 - self.descended]

    @property
    def reference(self) -> Reference:
        """The unedited latent at that level. Raises `EditorError` before preparation is done."""
        if self._reference is None or self._reference.descended != self.descended:
            self.require_prepared()
            assert self._denoising is not None
            self._denoising.denoise_unedited(self.descended)
            latent = self._denoising.unedited[self.descended - 1] if self.descended else self.preparation.inverted
            self._reference = Reference(self.model, self.preparation, self.descended, latent)
        return self._reference

    @property
    def denoising(self) -> Denoising | None:
        """What renders; None before preparation is done."""
        return self._denoising

    def start_dragging(self) -> None:
        """The latent to be dragged has been reached: the first moment of the timeline."""
        self.go_on_from(self.preparation.inverted, iteration=0)
        self.timeline.add(0, self.edit.handles, self.preparation.inverted)

    def reset(self) -> None:
        """Back to the unedited latent."""
        self.edit.reset()
        if self._denoising is not None:
            self._denoising.rendered = None
        if self.prepared:
            self.return_to(next(iter(self.timeline)))

    def go_to(self, moment: Moment) -> None:
        """Back, or forth, to a moment of the timeline, with the handles as they were there."""
        if moment.parent is None:
            self.reset()
            return
        self.edit.handles = dict(moment.handles)
        self.return_to(moment)

    def return_to(self, moment: Moment) -> None:
        """Back, or forth, to the latent of a moment of the timeline; the handles stay."""
        unedited = moment.parent is None
        latent = self.preparation.inverted if unedited else moment.latent.to(self.preparation.clean)
        self.go_on_from(latent, moment.iteration, moment.descended)
        self.latent.moved = not unedited
        self.timeline.current = moment.index

    def go_on_from(self, latent: Tensor, iteration: int, descended: int = 0) -> None:
        """Drag this latent from now on, with a new Adam; it has been denoised ``descended`` levels."""
        self.descended = descended
        unedited = descended == 0 and torch.equal(latent, self.preparation.inverted)
        self._latent = DraggedLatent(latent, iteration, unedited=unedited)
        if self._denoising is None:
            preparation = self.preparation
            self._denoising = Denoising(
                self.model,
                preparation.lora,
                preparation.prompt,
                preparation.levels[::-1],
                preparation.inverted,
                guidance=preparation.guidance,
                control=self.settings.reference_control,
            )
