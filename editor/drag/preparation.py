"""Preparation of a picture: fit its LoRA, then invert it to the noise level at which it is dragged."""

from __future__ import annotations

import types
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from livedrag.editor.drag.latent import check_finite
from livedrag.editor.drag.passes import Answer, ForwardPass, Request, forward
from livedrag.editor.drag.steps import InversionStep
from livedrag.editor.errors import EditorError, ModelError, SettingsError
from livedrag.editor.fitting.augmentation import random_warp
from livedrag.editor.fitting.fit_step import FitPass, FitRequest, FitStep, fit_passes
from livedrag.editor.fitting.fitted_lora import FittedLora
from livedrag.editor.fitting.lora import Lora
from livedrag.editor.generate import GenerationStep
from livedrag.editor.models.ddim import Guidance, ddim_step
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.noise_schedule import Level
from livedrag.editor.picture import to_working_tensor
from livedrag.editor.points import Rasters
from livedrag.editor.settings import MAX_NOISE, DragSettings

MIN_RECONSTRUCTION: Mapping[str, float] = types.MappingProxyType({"builtin": 30.0})
"""By kind of model: PSNR, in decibels, at which a picture of a kind that it knows comes back from its inversion. Other
kinds of model are not measured."""


def is_measured(kind: str, settings: DragSettings) -> bool:
    """Whether `is_known` works for this kind of model, and for so much noise: with more, no picture comes back well."""
    return kind in MIN_RECONSTRUCTION and settings.inversion_strength <= MAX_NOISE[kind]


def is_known(kind: str, reconstruction: float) -> bool:
    """Whether a model knows pictures like one that came back so well. If not, results look worse than a mere warp.

    Args:
        kind: of the model.
        reconstruction: see `livedrag.editor.drag.session.DragSession.reconstruct`.
    """
    return reconstruction >= MIN_RECONSTRUCTION[kind]


class Preparation:
    """Fits and inverts one picture, step by step.

    Args:
        model: shared by all sessions of a device.
        picture: that is edited, RGB.
        rasters: of the picture.
        settings: of fitting and inversion, which do not change any more.
        prompt: text embedding, ``(1, L, D)``.
        clean: latent of the picture, ``(1, 4, H/8, W/8)``.
        generator: CPU generator of the LoRA's initial weights and training data.

    Attributes:
        levels: those of the inversion, cleanest first.
        fitted: steps of fitting taken.
        augmented: latents of randomly warped versions of the picture, ``(N, 4, H/8, W/8)``.
        inverted: the latent that inversion has reached, ``(1, 4, H/8, W/8)``.
        inverted_levels: levels that it has climbed.
        guidance: with which the picture was generated, if the model made it.
        unedited_noise: noise predicted for the inverted latent, if computed already.
    """

    def __init__(
        self,
        model: Diffusion,
        picture: Image.Image,
        rasters: Rasters,
        settings: DragSettings,
        *,
        prompt: Tensor,
        clean: Tensor,
        generator: torch.Generator,
    ) -> None:
        self._model, self._picture, self._rasters, self._settings = model, picture, rasters, settings
        self.prompt, self.clean, self.generator = prompt, clean, generator
        self.levels = model.schedule.levels(settings.ddim_steps)[: settings.inversion_steps]
        self.fitted = 0
        self.augmented = clean[:0]
        self.inverted = clean
        self.inverted_levels = 0
        self.guidance: Guidance | None = None
        self.unedited_noise: Tensor | None = None
        self._lora: Lora | None = None

    @property
    def lora(self) -> Lora:
        """The picture's LoRA. Raises `EditorError` before preparation begins and after `close`."""
        if self._lora is None:
            raise EditorError("the picture is not prepared yet: run prepare() to its end first")
        return self._lora

    @property
    def has_lora(self) -> bool:
        """Whether there is a LoRA, fitted or not."""
        return self._lora is not None

    @property
    def level(self) -> Level:
        """The noise level at which the picture is dragged."""
        return self.levels[-1]

    @property
    def done(self) -> bool:
        """Whether the latent to be dragged has been reached."""
        return self.inverted_levels == len(self.levels)

    def use_generated(self, steps: Sequence[GenerationStep], guidance: Guidance) -> None:
        """Drag a generated picture's own latents instead of inverting it.

        Args:
            steps: all steps of its generation.
            guidance: that it was made with.

        Raises:
            SettingsError: it was made in another number of steps than ``ddim_steps``.
        """
        if len(steps) != self._settings.ddim_steps:
            raise SettingsError(
                f"ddim_steps is {self._settings.ddim_steps}, but the picture was generated in {len(steps)} steps: "
                "they must be the same"
            )
        self.clean, self.inverted = steps[-1].latent, steps[-len(self.levels)].before
        self.guidance, self.inverted_levels = guidance, len(self.levels)

    def steps(self) -> Generator[Request | FitStep | FitPass | InversionStep, Answer, None]:
        """Fit the LoRA, then invert the picture; continues where an earlier call was left.

        Requests of the UNet are yielded and have to be answered; see `livedrag.editor.drag.passes`.
        """
        if self._lora is None:
            self._lora = self.new_lora(self.generator)
        yield from self._fit(self._lora)
        yield from self._invert(self._lora)

    def _fit(self, lora: Lora) -> Generator[FitRequest | FitStep | FitPass, Any, None]:
        settings = self._settings
        lacks_augmented = len(self.augmented) < settings.lora_copies
        working = to_working_tensor(self._picture, self._rasters) if lacks_augmented else None
        while self.fitted < settings.lora_steps:
            if working is not None and len(self.augmented) < settings.lora_copies:  # one per step: no step takes long
                warped = self._model.encode(random_warp(working, self.generator))
                self.augmented = torch.cat([self.augmented, warped])
            latents = torch.cat([self.clean, self.augmented])
            before = self.generator.get_state()
            try:
                loss = yield from fit_passes(lora, latents, self.prompt, settings.lora_batch, self.generator)
            except BaseException:
                self.generator.set_state(before)  # the step will be taken from its beginning
                raise
            self.fitted += 1
            yield FitStep(self.fitted, settings.lora_steps, loss)

    def _invert(self, lora: Lora) -> Generator[Request | InversionStep, Answer, None]:
        while not self.done:
            level = self.levels[self.inverted_levels]
            # The network gets the latent just below the level with the level's own timestep, as in diffusers'
            # DDIMInverseScheduler and DragDiffusion.
            outcome = yield from forward(
                ForwardPass(self._model, self.inverted, level.timestep, self.prompt, lora, alpha=level.alpha_below)
            )
            assert outcome.noise is not None
            above = ddim_step(self.inverted, outcome.noise, level.alpha_below, level.alpha)
            self.inverted = check_finite(above, f"inversion step {self.inverted_levels + 1}")
            self.inverted_levels += 1
            yield InversionStep(self.inverted_levels, len(self.levels))

    def new_lora(self, generator: torch.Generator) -> Lora:
        """A LoRA as the settings say, not fitted."""
        return Lora(
            self._model,
            rank=self._settings.lora_rank,
            targets=tuple(self._settings.lora_targets.split()),
            learning_rate=self._settings.lora_lr,
            generator=generator,
        )

    def use_lora(self, fitted: FittedLora) -> DragSettings:
        """Take a LoRA that was fitted before, instead of fitting one; returns the settings that follow.

        Raises:
            EditorError: preparation has begun.
            ModelError: the LoRA is for another model.
        """
        if self.has_lora:
            raise EditorError("the picture's LoRA is being fitted already: start a new session")
        self._settings = self._settings.changed(fitted.settings)
        lora = self.new_lora(self.generator)
        try:
            fitted.put_into(lora)
        except ModelError:
            lora.remove()
            raise
        self._lora = lora
        return self._settings

    def restore_lora(self, state: dict[str, Tensor]) -> None:
        """A LoRA with the weights and moments of a snapshot."""
        self._lora = self.new_lora(torch.Generator())
        self._lora.load_state(state)

    def noise_of_unedited(self) -> Tensor:
        """The noise predicted for the unedited latent at the level of dragging, ``(1, 4, H/8, W/8)``."""
        if self.unedited_noise is None:
            with torch.no_grad(), self.lora.active():
                prediction = self._model.predict(self.inverted, self.level.timestep, self.prompt)
            self.unedited_noise = prediction.noise
        return self.unedited_noise

    def close(self) -> None:
        """Remove the LoRA from the model."""
        if self._lora is not None:
            self._lora.remove()
            self._lora = None
