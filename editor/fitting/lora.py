"""The picture's LoRA: a low-rank update of the UNet's attention that makes the model know this one picture (Hu et al.,
arXiv 2106.09685)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from livedrag.editor.fitting.adamw import Moments, step_numbers
from livedrag.editor.fitting.lora_adapters import MergedLora, UnmergedLora
from livedrag.editor.fitting.lora_layers import LoraLayers
from livedrag.editor.models.adapters import Adapter
from livedrag.editor.models.diffusion import Diffusion

ADAMW_STATE = ("step", "exp_avg", "exp_avg_sq")
"""Steps, first and second moment, as `torch.optim.AdamW` names them."""

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
        self._merged = MergedLora(self._layers, self)
        self._unmerged = UnmergedLora(self._layers, self)
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
        return self._model.adapter.using(self._unmerged)

    @property
    def moments(self) -> Moments:
        """AdamW's, zeros before the first step."""
        return Moments.zeros(self.parameters()) if self._moments is None else self._moments

    @property
    def next_step(self) -> tuple[float, float, float]:
        """Length, correction and decay of AdamW's next step; see `livedrag.editor.fitting.adamw.AdamW`."""
        return step_numbers(self._learning_rate, self._steps + 1)

    def take_step(self, weights: Sequence[Tensor], moments: Moments) -> None:
        """Take the weights and AdamW's moments that a step of fitting leads to."""
        for parameter, weight in zip(self.parameters(), weights, strict=True):
            parameter.data = weight
        self._steps, self._moments = self._steps + 1, moments
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


def _initial_weight(layer: nn.Linear, generator: torch.Generator) -> Tensor:
    """PEFT's own initial weights of a down projection, drawn from our generator."""
    return nn.init.kaiming_uniform_(torch.empty(layer.weight.shape), a=math.sqrt(5), generator=generator)
