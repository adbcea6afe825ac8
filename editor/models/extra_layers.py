"""LoRAs that people bring along, next to the weights of shared networks, which are only read.

Each layer that a LoRA changes gets a forward hook that adds ``up @ (down @ x)``. Which LoRAs are added is decided
before a pass, so that models with other LoRAs can share the networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from livedrag.editor.errors import ModelError
from livedrag.editor.models.lora_files import LoraFile, Update
from livedrag.editor.models.sources import SUPPORTED_MODELS

ExtraLayers = Mapping[nn.Module, Sequence[Update]]
"""By layer, what is added to it."""


class LayerHooks:
    """Adds what is `use`d to the layers of networks."""

    def __init__(self) -> None:
        self._layers: ExtraLayers = {}
        self._hooked: set[nn.Module] = set()

    def use(self, layers: ExtraLayers) -> None:
        """From now on, add this, and nothing else."""
        if layers is self._layers:
            return
        self._layers = layers
        for layer in layers:
            if layer not in self._hooked:
                self._hooked.add(layer)
                layer.register_forward_hook(self._add)

    def _add(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for update in self._layers.get(layer, ()):
            output = output + _apply(layer, update, inputs[0])
        return output


def _apply(layer: nn.Module, update: Update, given: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        reduced = conv2d(given, update.down, None, layer.stride, layer.padding, layer.dilation)
        return conv2d(reduced, update.up)
    return linear(linear(given, update.down), update.up)


def weight_change(updates: Sequence[Update], like: Tensor) -> Tensor:
    """The sum of the updates of a linear layer as one matrix, ``(O, I)``, of the dtype of ``like``."""
    return sum((update.up.to(like.dtype) @ update.down.to(like.dtype) for update in updates), torch.zeros_like(like))


def fit_layers(
    networks: Mapping[str, nn.Module], loras: Sequence[tuple[LoraFile, float]], dtype: torch.dtype
) -> ExtraLayers:
    """What LoRAs add to the layers of networks.

    Args:
        networks: by diffusers' name, such as ``unet``.
        loras: with the weight of each.
        dtype: of the networks.

    Raises:
        ModelError: a LoRA has a layer that the networks lack, or of another size.
    """
    found: dict[nn.Module, list[Update]] = {}
    for lora, weight in loras:
        for network, updates in lora.layers.items():
            if network not in networks:
                raise _does_not_fit(lora.path, f"it changes the {network}, which this model does not have")
            for name, update in updates.items():
                layer = _layer(networks[network], name, lora.path)
                found.setdefault(layer, []).append(_fitted(layer, update, weight, dtype, lora.path, name))
    return {layer: _joined(layer, updates) for layer, updates in found.items()}


def _layer(network: nn.Module, name: str, path: Path) -> nn.Module:
    for candidate in (name, name.removeprefix("text_model."), f"text_model.{name}"):
        try:
            layer = network.get_submodule(candidate)
        except AttributeError:
            continue
        if isinstance(layer, BaseTunerLayer):  # the picture's LoRA is on it
            layer = layer.get_base_layer()
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            return layer
    raise _does_not_fit(path, f"this model has no layer {name!r}")


def _fitted(layer: Any, update: Update, weight: float, dtype: torch.dtype, path: Path, name: str) -> Update:
    """The update in the layer's own shape: some files have matrices for 1 x 1 convolutions, or the other way round."""
    down, up = update.down, update.up
    if isinstance(layer, nn.Conv2d):
        down, up = (side if side.ndim == 4 else side[..., None, None] for side in (down, up))
        wanted_down, wanted_up = tuple(layer.weight.shape[1:]), (layer.weight.shape[0],)
    else:
        down, up = (side.flatten(1) if side.ndim == 4 and side.shape[2:] == (1, 1) else side for side in (down, up))
        wanted_down, wanted_up = (layer.in_features,), (layer.out_features,)
    if tuple(down.shape[1:]) != wanted_down or tuple(up.shape[:1]) != wanted_up or up.shape[1] != down.shape[0]:
        raise _does_not_fit(
            path,
            f"its layer {name!r} maps {_size(down.shape[1:])} to {up.shape[0]}, "
            f"that of this model {_size(wanted_down)} to {wanted_up[0]}",
        )
    place = layer.weight.device
    return Update(down.to(place, dtype), (up.float() * weight).to(place, dtype))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _joined(layer: nn.Module, updates: Sequence[Update]) -> Sequence[Update]:
    """Several updates of a linear layer as one of a higher rank: two products, not two for each."""
    if isinstance(layer, nn.Conv2d) or len(updates) == 1:
        return updates
    down, up = torch.cat([each.down for each in updates]), torch.cat([each.up for each in updates], dim=1)
    return [Update(down, up)]


def _does_not_fit(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"{path} is a LoRA for another model: {reason}; use one that was trained for this model. {SUPPORTED_MODELS}"
    )
