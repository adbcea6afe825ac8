"""The unedited latent at the noise level at which the picture is dragged, and what the UNet makes of it."""

from __future__ import annotations

import torch
from torch import Tensor

from livedrag.editor.drag.preparation import Preparation
from livedrag.editor.models.ddim import predict_x0
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.noise_schedule import Level


class Reference:
    """What the dragged latent is compared with. Noise and features are computed when they are first needed.

    Args:
        model: of the session.
        preparation: of the session.
        descended: levels below the one that was inverted to.
        latent: the unedited one there, ``(1, 4, H/8, W/8)``.
    """

    def __init__(self, model: Diffusion, preparation: Preparation, descended: int, latent: Tensor) -> None:
        self._model, self._preparation = model, preparation
        self.descended, self.latent = descended, latent
        self._noise: Tensor | None = None
        self._features: Tensor | None = None

    @property
    def level(self) -> Level:
        """The noise level."""
        return self._preparation.levels[-1 - self.descended]

    def noise(self) -> Tensor:
        """The noise predicted there, ``(1, 4, H/8, W/8)``."""
        if self.descended == 0:
            return self._preparation.noise_of_unedited()
        if self._noise is None:
            with torch.no_grad(), self._preparation.lora.active():
                prediction = self._model.predict(self.latent, self.level.timestep, self._preparation.prompt)
            self._noise, self._features = prediction.noise, prediction.features
        return self._noise

    def features(self) -> Tensor:
        """The features there, ``(1, C, h, w)``."""
        if self._features is None:
            with torch.no_grad(), self._preparation.lora.active():
                self._features = self._model.predict_features(
                    self.latent, self.level.timestep, self._preparation.prompt
                )
        return self._features

    def use_noise(self, noise: Tensor) -> None:
        """Take the noise that a pass of this very latent gave, ``(1, 4, H/8, W/8)``."""
        if self.descended == 0:
            self._preparation.unedited_noise = noise
        else:
            self._noise = noise

    def use_features(self, features: Tensor) -> None:
        """Take what a pass of this very latent gave, ``(1, C, h, w)``."""
        self._features = features

    def x0(self) -> Tensor:
        """The clean latent predicted there, ``(1, 4, H/8, W/8)``."""
        return predict_x0(self.latent, self.noise(), self.level.alpha)
