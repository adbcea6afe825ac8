"""The picture's LoRA: a low-rank update of the UNet's attention that makes the model know this one picture (Hu et al.,
arXiv 2106.09685)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from livedrag.editor.errors import NumericalError
from livedrag.editor.fitting.adamw import Moments, step_numbers
from livedrag.editor.fitting.lora_layers import LoraLayers
from livedrag.editor.models.adapters import Adapter
from livedrag.editor.models.diffusion import Diffusion

ORIGINAL_SHARE = 0.3
"""Share of training rows that are the picture itself, if there are augmented ones."""
ROWS_PER_PASS = 4
"""Rows of a fitting step that go through the network together: a larger batch takes several passes, so that no pass
takes long or needs much memory, and its gradient is the mean of theirs."""

ADAMW_STATE = ("step", "exp_avg", "exp_avg_sq")
"""Steps, first and second moment, as `torch.optim.AdamW` names them."""


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


_layers_on: WeakKeyDictionary[Diffusion, dict[tuple[int, tuple[str, ...]], LoraLayers]] = WeakKeyDictionary()


class Lora:
    """One picture's LoRA on a shared UNet. It takes part only inside `active` and `unmerged`, and while it is
    fitted.

    Args:
        model: the model it belongs to.
        rank: of the update; its scale is 1 (alpha = rank), as in the authors' code.
        targets: names of the attention projections that get it, such as ``to_q``.
        learning_rate: of AdamW.
        generator: CPU generator of the initial weights.
    """

    def __init__(
        self, model: Diffusion, *, rank: int, targets: tuple[str, ...], learning_rate: float, generator: torch.Generator
    ) -> None:
        model.adapter.switch_to(None)
        self._model = model
        self._key = (rank, targets)
        shared = _layers_on.setdefault(model, {})
        if self._key not in shared:
            shared[self._key] = LoraLayers(model.unet, rank, targets, model.extra_layers)
        self._layers = shared[self._key]
        self._layers.users += 1
        device, dtype = model.device, model.latent_dtype  # full precision, even if the network has less
        self.down = [
            nn.Parameter(_initial_weight(layer, generator).to(device, dtype), False) for layer in self._layers.down
        ]
        self.up = [
            nn.Parameter(torch.zeros(layer.weight.shape, dtype=dtype, device=device), False)
            for layer in self._layers.up
        ]
        self.version = 0
        """Grows whenever the weights change."""
        self._merged = _MergedLora(self)
        self._learning_rate = learning_rate
        self._steps = 0  # of AdamW
        self._moments: Moments | None = None

    @property
    def names(self) -> list[str]:
        """Of its layers, as diffusers names them, in the order of `down` and `up`."""
        return self._layers.names

    @property
    def model(self) -> Diffusion:
        """The model it belongs to."""
        return self._model

    @property
    def bases(self) -> list[nn.Linear]:
        """The UNet's own layers that it changes, in the order of `down` and `up`."""
        return self._layers.bases

    @property
    def layers(self) -> LoraLayers:
        """The layers that LoRAs of its rank and targets share."""
        return self._layers

    def load_weights(self, down: Sequence[Tensor], up: Sequence[Tensor]) -> None:
        """Take these weights, of the same shapes, for its own; AdamW starts anew."""
        for parameter, weight in zip(self.parameters(), (*down, *up), strict=True):
            parameter.data.copy_(weight)
        self._steps, self._moments = 0, None
        self.version += 1

    def parameters(self) -> list[nn.Parameter]:
        """Its weights: the down projections of all layers, then the up projections."""
        return [*self.down, *self.up]

    @property
    def merged(self) -> Adapter:
        """It as an adapter that is merged into the weights of the UNet's attention."""
        return self._merged

    def active(self) -> contextlib.AbstractContextManager[None]:
        """Within this block the UNet has this LoRA, merged into the weights of its attention."""
        return self._model.adapter.using(self._merged)

    def unmerged(self) -> contextlib.AbstractContextManager[None]:
        """Within this block the UNet has this LoRA as PEFT applies it, next to the weights: same result, slower."""
        return self._model.adapter.using(self)

    def enable(self, previous: Adapter | None) -> None:
        """Called by the model: take the place of the previous adapter, if any, ready to be fitted."""
        _make_way(previous, self._layers)
        self._layers.enable(self)

    def enable_merged(self, previous: Adapter | None) -> None:
        """As `enable`, merged into the weights."""
        _make_way(previous, self._layers)
        self._layers.merge(self)

    def disable(self) -> None:
        """Called by the model: the UNet is the base model again."""
        self._layers.disable()

    @property
    def moments(self) -> Moments:
        """AdamW's, zeros before the first step."""
        return Moments.zeros(self.parameters()) if self._moments is None else self._moments

    @property
    def next_step(self) -> tuple[float, float, float]:
        """Length, correction and decay of AdamW's next step; see `livedrag.editor.fitting.adamw.AdamW`."""
        return step_numbers(self._learning_rate, self._steps + 1)

    def fit_passes(
        self, model: Diffusion, latents: Tensor, prompt: Tensor, batch: int, generator: torch.Generator
    ) -> Generator[FitRequest | FitPass, Any, float]:
        """One step of fitting: predict the noise added to the picture's latent at random timesteps.

        The encoder does not run here. If the latent is not square, each row of the batch is a random square crop of it.
        With augmented pictures, a row is the picture itself with probability `ORIGINAL_SHARE`, else one of them.

        Args:
            model: to fit to.
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
        schedule = model.schedule
        timesteps = torch.randint(len(schedule.alphas), (batch,), generator=generator)
        noise = torch.randn(crops.shape, generator=generator, dtype=latents.dtype).to(latents.device)
        alphas = torch.tensor(schedule.alphas, dtype=latents.dtype)[timesteps, None, None, None].to(latents.device)
        noisy = alphas.sqrt() * crops + (1 - alphas).sqrt() * noise
        wanted = (
            noise
            if model.schedule.prediction_type == "epsilon"
            else alphas.sqrt() * noise - (1 - alphas).sqrt() * crops
        )
        timesteps = timesteps.to(latents.device)
        before: FitGradients | None = None
        for start in range(0, batch, ROWS_PER_PASS):
            if start:
                yield FitPass(start, batch)
            end = start + ROWS_PER_PASS
            rows = slice(start, end)
            answered = yield FitRequest(
                self, noisy[rows], timesteps[rows], prompt, wanted[rows], batch, before, ends=end >= batch
            )
            if isinstance(answered, FitGradients):
                before = answered
        assert isinstance(answered, Fitted)
        self._take(answered)
        return answered.loss

    def _take(self, fitted: Fitted) -> None:
        """Take a step. Raises `NumericalError` if loss or gradient is not finite; the weights are unchanged."""
        if not (math.isfinite(fitted.loss) and math.isfinite(fitted.norm)):
            raise NumericalError(
                f"fitting the picture diverged (loss {fitted.loss}, gradient {fitted.norm}): try a smaller lora_lr"
            )
        for parameter, weight in zip(self.parameters(), fitted.update.weights, strict=True):
            parameter.data = weight
        self._steps, self._moments = self._steps + 1, fitted.update.moments
        self.version += 1

    def state(self) -> dict[str, Tensor]:
        """Weights and AdamW's moments by name, for `load_state`."""
        weights = {f"{index}.weight": parameter.detach() for index, parameter in enumerate(self.parameters())}
        moments: dict[str, Tensor] = {}
        if self._moments is not None:
            for index, pair in enumerate(zip(self._moments.first, self._moments.second, strict=True)):
                values = (torch.tensor(float(self._steps)), *pair)
                moments.update({f"{index}.{name}": value for name, value in zip(ADAMW_STATE, values, strict=True)})
        return {**weights, **moments}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights and moments that `state` gave, bit for bit."""
        parameters = self.parameters()
        for index, parameter in enumerate(parameters):
            parameter.data.copy_(state[f"{index}.weight"])
        self._steps, self._moments = 0, None
        step, first, second = ADAMW_STATE
        if f"0.{step}" in state:
            self._steps = int(state[f"0.{step}"])
            self._moments = Moments(
                *(
                    [state[f"{index}.{name}"].to(each) for index, each in enumerate(parameters)]
                    for name in (first, second)
                )
            )
        self.version += 1

    def remove(self) -> None:
        """Take it off the UNet for good."""
        self._model.adapter.switch_to(None)
        self._layers.forget(self)
        self._layers.users -= 1
        if self._layers.users == 0:
            del _layers_on[self._model][self._key]
            if self._model.graphs is not None:
                self._model.graphs.forget(self._layers)
            self._layers.remove()


class LoraCopy:
    """Weights of a LoRA as an adapter, as PEFT applies them.

    Args:
        layers: of their rank and targets.
        down, up: weights, which it shares.
    """

    def __init__(self, layers: LoraLayers, down: Sequence[Tensor], up: Sequence[Tensor]) -> None:
        self.layers = layers
        self.down, self.up = ([nn.Parameter(weight, False) for weight in part] for part in (down, up))
        self.version = 0

    @property
    def bases(self) -> list[nn.Linear]:
        """As of a `Lora`."""
        return self.layers.bases

    def parameters(self) -> list[nn.Parameter]:
        """As of a `Lora`."""
        return [*self.down, *self.up]

    def enable(self, previous: Adapter | None) -> None:
        """Called by the model: take the place of the previous adapter, if any, ready to be fitted."""
        _make_way(previous, self.layers)
        self.layers.enable(self)

    def disable(self) -> None:
        """Called by the model: the UNet is the base model again."""
        self.layers.disable()


def _make_way(previous: Adapter | None, layers: LoraLayers) -> None:
    """Disable the previous adapter, unless it uses the same layers."""
    lora = previous.lora if isinstance(previous, _MergedLora) else previous
    if previous is not None and not (isinstance(lora, Lora | LoraCopy) and lora.layers is layers):
        previous.disable()


class _MergedLora:
    """A LoRA as an adapter that is merged into the weights."""

    def __init__(self, lora: Lora) -> None:
        self.lora = lora

    @property
    def layout(self) -> LoraLayers:
        """LoRAs of the same layers are merged into the same weights."""
        return self.lora.layers

    @property
    def tensors(self) -> Sequence[Tensor]:
        return ()

    def with_tensors(self, _tensors: Sequence[Tensor]) -> _MergedLora:
        return self

    def enable(self, previous: Adapter | None) -> None:
        self.lora.enable_merged(previous)

    def disable(self) -> None:
        self.lora.disable()


def _initial_weight(layer: nn.Linear, generator: torch.Generator) -> Tensor:
    """PEFT's own initial weights of a down projection, drawn from our generator."""
    return nn.init.kaiming_uniform_(torch.empty(layer.weight.shape), a=math.sqrt(5), generator=generator)


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
