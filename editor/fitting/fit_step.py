"""A step of fitting a picture's LoRA: the noise that the model has to predict, and the passes that it asks for."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from livedrag.editor.errors import NumericalError
from livedrag.editor.fitting.adamw import Moments
from livedrag.editor.fitting.lora import Lora
from livedrag.editor.models.diffusion import Diffusion

ORIGINAL_SHARE = 0.3
"""Share of training rows that are the picture itself, if there are augmented ones."""
ROWS_PER_PASS = 4
"""Rows of a fitting step that go through the network together: a larger batch takes several passes, so that no pass
takes long or needs much memory, and its gradient is the mean of theirs."""


@dataclass(frozen=True)
class FitPass:
    """Part of a fitting step: so many rows of its batch have been through the network."""

    rows: int
    batch: int


@dataclass(frozen=True)
class FitStep:
    """After a step of fitting.

    Args:
        step: steps taken, of ``steps``.
        steps: of the whole fit.
        loss: mean squared error of the predicted noise.
    """

    step: int
    steps: int
    loss: float


@dataclass(frozen=True, eq=False)
class FitRequest:
    """Asks for the gradients of a LoRA for some rows of a step of fitting; the answer is a `FitGradients`, or after the
    last rows a `Fitted`.

    Args:
        lora: that is fitted.
        noisy: latents with noise, ``(n, 4, h, w)``.
        timesteps: of each, ``(n,)``.
        prompt: text embedding, ``(1, L, D)``.
        wanted: what the network should give, noise or velocity, ``(n, 4, h, w)``.
        batch: rows of the whole step.
        before: what the step's earlier passes gave, if there were any.
        ends: whether these are the step's last rows.
    """

    lora: Lora
    noisy: Tensor
    timesteps: Tensor
    prompt: Tensor
    wanted: Tensor
    batch: int
    before: FitGradients | None = None
    ends: bool = False

    @property
    def model(self) -> Diffusion:
        """That the LoRA is fitted to."""
        return self.lora.model

    @property
    def bucket(self) -> tuple[object, ...]:
        """Requests of one bucket can be answered together."""
        return ("fit", id(self.model), *self.noisy.shape[1:], *self.prompt.shape)


@dataclass(frozen=True, eq=False)
class FitGradients:
    """Of the loss of a step's rows so far, times the model's ``loss_scale``.

    Args:
        loss: the part that they have in the step's mean squared error; a scalar.
        values: one for each of the LoRA's `Lora.parameters`.
    """

    loss: Tensor
    values: list[Tensor]


@dataclass(frozen=True, eq=False)
class FitUpdate:
    """What a step of fitting leads to.

    Args:
        loss: mean squared error before it, a scalar.
        norm: of the gradient times the model's ``loss_scale``, a scalar; not finite if any number of it is not.
        weights: after it, one for each of the LoRA's `Lora.parameters`.
        moments: AdamW's, after it.
    """

    loss: Tensor
    norm: Tensor
    weights: list[Tensor]
    moments: Moments


@dataclass(frozen=True, eq=False)
class Fitted:
    """A proposed step of fitting, and the numbers of it that the caller looks at; see `FitUpdate`."""

    loss: float
    norm: float
    update: FitUpdate


def fit_passes(
    lora: Lora, latents: Tensor, prompt: Tensor, batch: int, generator: torch.Generator
) -> Generator[FitRequest | FitPass, Any, float]:
    """One step of fitting: predict the noise added to the picture's latent at random timesteps.

    The encoder does not run here. If the latent is not square, each row of the batch is a random square crop of it.
    With augmented pictures, a row is the picture itself with probability `ORIGINAL_SHARE`, else one of them.

    Args:
        lora: to fit, to its model.
        latents: clean latents of the picture and of its augmented versions, if any, ``(N, 4, H/8, W/8)``.
        prompt: text embedding, ``(1, L, D)``.
        batch: rows per step.
        generator: CPU generator, so that the same seed draws the same on every device.

    Yields:
        A `FitRequest` for each pass, which has to be answered, and a `FitPass` after each but the last.

    Returns:
        The mean squared error of the step.

    Raises:
        NumericalError: the loss is not finite; the weights are as before the step.
    """
    side = min(latents.shape[-2:])
    crops = torch.cat([_random_crop(_random_row(latents, generator), side, generator) for _ in range(batch)])
    schedule = lora.model.schedule
    timesteps = torch.randint(len(schedule.alphas), (batch,), generator=generator)
    noise = torch.randn(crops.shape, generator=generator, dtype=latents.dtype).to(latents.device)
    alphas = torch.tensor(schedule.alphas, dtype=latents.dtype)[timesteps, None, None, None].to(latents.device)
    noisy = alphas.sqrt() * crops + (1 - alphas).sqrt() * noise
    wanted = noise if schedule.prediction_type == "epsilon" else alphas.sqrt() * noise - (1 - alphas).sqrt() * crops
    timesteps = timesteps.to(latents.device)
    before: FitGradients | None = None
    for start in range(0, batch, ROWS_PER_PASS):
        if start:
            yield FitPass(start, batch)
        end = start + ROWS_PER_PASS
        rows = slice(start, end)
        answered = yield FitRequest(
            lora, noisy[rows], timesteps[rows], prompt, wanted[rows], batch, before, ends=end >= batch
        )
        if isinstance(answered, FitGradients):
            before = answered
    assert isinstance(answered, Fitted)
    _take(lora, answered)
    return answered.loss


def _take(lora: Lora, fitted: Fitted) -> None:
    """Take a step. Raises `NumericalError` if loss or gradient is not finite; the weights are unchanged."""
    if not (math.isfinite(fitted.loss) and math.isfinite(fitted.norm)):
        raise NumericalError(
            f"fitting the picture diverged (loss {fitted.loss}, gradient {fitted.norm}): try a smaller lora_lr"
        )
    lora.take_step(fitted.update.weights, fitted.update.moments)


def _random_row(latents: Tensor, generator: torch.Generator) -> Tensor:
    """The latent of the picture or of an augmented version, ``(1, 4, H/8, W/8)``."""
    augmented = len(latents) - 1
    if augmented == 0 or float(torch.rand((), generator=generator)) < ORIGINAL_SHARE:
        return latents[:1]
    row = 1 + int(torch.randint(augmented, (1,), generator=generator))
    return latents[row : row + 1]


def _random_crop(latent: Tensor, side: int, generator: torch.Generator) -> Tensor:
    top, left = (int(torch.randint(length - side + 1, (1,), generator=generator)) for length in latent.shape[-2:])
    return latent[..., top : top + side, left : left + side]
