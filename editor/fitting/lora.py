"""The picture's LoRA: a low-rank update of the UNet's attention that makes the model know this one picture (Hu et al.,
arXiv 2106.09685)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from livedrag.editor.errors import NumericalError
from livedrag.editor.fitting.lora_layers import LoraLayers
from livedrag.editor.models.adapters import Adapter
from livedrag.editor.models.devices import send
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.low_memory import must_save_memory, saving_memory

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
    """Asks for the gradients of a LoRA for some rows of a step of fitting; the answer is a `FitGradients`.

    Args:
        lora: that is fitted.
        noisy: latents with noise, ``(n, 4, h, w)``.
        timesteps: of each, ``(n,)``.
        prompt: text embedding, ``(1, L, D)``.
        wanted: what the network should give, noise or velocity, ``(n, 4, h, w)``.
        batch: rows of the whole step.
    """

    lora: Lora
    noisy: Tensor
    timesteps: Tensor
    prompt: Tensor
    wanted: Tensor
    batch: int

    @property
    def model(self) -> Diffusion:
        """That the LoRA is fitted to."""
        return self.lora.model

    @property
    def bucket(self) -> tuple[object, ...]:
        """Requests of one bucket can be answered together."""
        return ("fit", id(self.model), *self.noisy.shape[1:], *self.prompt.shape)

    def loss(self, output: Tensor) -> Tensor:
        """The part that these rows have in the step's mean squared error, for what the network gives."""
        return nn.functional.mse_loss(output, self.wanted) * (len(self.noisy) / self.batch)


@dataclass(frozen=True)
class FitGradients:
    """Of the loss of some rows, times the model's ``loss_scale``.

    Args:
        loss: the part that they have in the step's mean squared error; a scalar.
        values: one for each of the LoRA's `Lora.parameters`.
    """

    loss: Tensor
    values: Sequence[Tensor]


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
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=learning_rate)

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
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": {}})
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

    def requiring_grad(self) -> contextlib.AbstractContextManager[None]:
        """Within this block its weights require grad."""
        return _requiring_grad(self.parameters())

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

    def fit_step(
        self, model: Diffusion, latents: Tensor, prompt: Tensor, batch: int, generator: torch.Generator
    ) -> float:
        """One step of fitting; see `fit_passes`. Returns its mean squared error."""
        passes = self.fit_passes(model, latents, prompt, batch, generator)
        answered: FitGradients | None = None
        while True:
            try:
                step = passes.send(answered)
            except StopIteration as end:
                return float(end.value)
            answered = self.gradients(step) if isinstance(step, FitRequest) else None

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
        losses: list[Tensor] = []
        gradients: list[Tensor] = []
        for start in range(0, batch, ROWS_PER_PASS):
            if start:
                yield FitPass(start, batch)
            rows = slice(start, start + ROWS_PER_PASS)
            answered = yield FitRequest(self, noisy[rows], timesteps[rows], prompt, wanted[rows], batch)
            assert isinstance(answered, FitGradients)
            losses.append(answered.loss)
            parts = answered.values
            gradients = [a + b for a, b in zip(gradients, parts, strict=True)] if gradients else list(parts)
        measured: list[float] = torch.stack([sum(losses[1:], losses[0]), nn.utils.get_total_norm(gradients)]).tolist()
        value, norm = measured
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise NumericalError(f"fitting the picture diverged (loss {value}, gradient {norm}): try a smaller lora_lr")
        for parameter, gradient in zip(self.parameters(), gradients, strict=True):
            parameter.grad = gradient / model.loss_scale
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.version += 1
        return value

    def gradients(self, request: FitRequest) -> FitGradients:
        """The answer to a request of this LoRA, in a pass of its own; from a CUDA graph if the model has one."""
        model, layers = self._model, self._layers
        given = FitRow(
            noisy=request.noisy,
            timesteps=request.timesteps,
            prompt=request.prompt,
            wanted=request.wanted,
            share=send(torch.tensor(len(request.noisy) / request.batch, dtype=model.latent_dtype), model.device),
            down=[weight.detach() for weight in self.down],
            up=[weight.detach() for weight in self.up],
        )
        kind = ("fitting", layers, id(model.extra_layers))
        recorded = model.graphs is not None and model.graphs.holds(kind, given)  # which has the memory that it needs
        if model.graphs is None or (not recorded and must_save_memory(model, request.noisy)):
            with saving_memory(model, request.noisy):
                return fit(model, layers, given)
        with self.unmerged():  # so that it is merged anew when it is used next
            return model.graphs.run(kind, partial(fit, model, layers), given)

    def state(self) -> dict[str, Tensor]:
        """Weights and AdamW's moments by name, for `load_state`."""
        parameters = self.parameters()
        weights = {f"{index}.weight": parameter for index, parameter in enumerate(parameters)}
        moments = {
            f"{index}.{name}": value
            for index, parameter in enumerate(parameters)
            for name, value in self.optimizer.state.get(parameter, {}).items()
        }
        return {**weights, **moments}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights and moments that `state` gave, bit for bit."""
        parameters = self.parameters()
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            index, _, kind = name.partition(".")
            if kind == "weight":
                parameters[int(index)].data.copy_(value)
            else:
                moments.setdefault(int(index), {})[kind] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
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


@dataclass(frozen=True, eq=False)
class FitRow:
    """All that a pass of fitting depends on, but for the network.

    Args:
        noisy, timesteps, prompt, wanted: see `FitRequest`.
        share: of these rows in the step's mean squared error, a scalar.
        down, up: weights of the LoRA.
    """

    noisy: Tensor
    timesteps: Tensor
    prompt: Tensor
    wanted: Tensor
    share: Tensor
    down: list[Tensor]
    up: list[Tensor]


def fit(model: Diffusion, layers: LoraLayers, given: FitRow) -> FitGradients:
    """Gradients of a LoRA for some rows, as a function of tensors, so that it can run from a CUDA graph.

    Args:
        model: that it is fitted to.
        layers: of its rank and targets.
        given: rows and weights.
    """
    weights = _Weights(layers, given.down, given.up)
    parameters = [*weights.down, *weights.up]
    with torch.enable_grad(), _requiring_grad(parameters), model.adapter.using(weights), model.eagerly():
        output = model.run_unet(given.noisy, given.timesteps, given.prompt)
        loss = nn.functional.mse_loss(output, given.wanted) * given.share
        gradients = torch.autograd.grad(loss * model.loss_scale, parameters)
    return FitGradients(loss.detach(), gradients)


@contextlib.contextmanager
def _requiring_grad(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within this block these weights require grad."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)


class _Weights:
    """Weights as an adapter, as PEFT applies them.

    Args:
        layers: of their rank and targets.
        down, up: weights, which it shares.
    """

    def __init__(self, layers: LoraLayers, down: Sequence[Tensor], up: Sequence[Tensor]) -> None:
        self.layers = layers
        self.down, self.up = ([nn.Parameter(weight, False) for weight in part] for part in (down, up))
        self.version = 0

    def enable(self, previous: Adapter | None) -> None:
        _make_way(previous, self.layers)
        self.layers.enable(self)

    def disable(self) -> None:
        self.layers.disable()


def _make_way(previous: Adapter | None, layers: LoraLayers) -> None:
    """Disable the previous adapter, unless it uses the same layers."""
    lora = previous.lora if isinstance(previous, _MergedLora) else previous
    if previous is not None and not (isinstance(lora, Lora | _Weights) and lora.layers is layers):
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
