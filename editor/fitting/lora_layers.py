"""PEFT's LoRA layers on a shared UNet: put in once per rank and set of targets, and used by one LoRA at a time."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Protocol

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from livedrag.editor.models.extra_layers import ExtraLayers, weight_change


class LoraWeights(Protocol):
    """The weights of one LoRA, in the order of `LoraLayers.down` and `LoraLayers.up`."""

    down: list[nn.Parameter]
    up: list[nn.Parameter]
    version: int
    """Grows whenever the weights change."""


class LoraLayers:
    """PEFT's layers for LoRAs of one rank and set of targets on a UNet.

    PEFT adds the layers once. Switching its adapters on and off walks through all of them, which costs a tenth of a
    small model's iteration, so pictures take turns by exchanging the weights, which costs next to nothing.

    Outside of fitting, plain layers with the LoRA merged into their weights take the place of PEFT's: that saves two
    thin products per layer, a sixth of a small model's iteration. The merged weights are copies; the model's own are
    only read.

    Args:
        unet: to add the layers to.
        rank: of the LoRAs; their scale is 1 (alpha = rank).
        targets: names of the attention projections, such as ``to_q``.
        extra: what other LoRAs add to the UNet's layers, which is merged as well.

    Attributes:
        names: of the layers, as diffusers names them.
        down, up: PEFT's own layers.
        bases: the UNet's own layers, under PEFT's.
        users: LoRAs that use them.
    """

    def __init__(
        self, unet: UNet2DConditionModel, rank: int, targets: tuple[str, ...], extra: ExtraLayers | None = None
    ) -> None:
        self._unet, self._extra = unet, extra or {}
        self._name = _free_name(unet, f"rank {rank} {' '.join(targets)}".replace(".", "_"))
        self.users = 0
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=["to_out.0" if name == "to_out" else name for name in targets]
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
            self._unet.add_adapter(config, self._name)
        adapted = {
            name: module
            for name, module in self._unet.named_modules()
            if isinstance(module, BaseTunerLayer) and self._name in module.lora_A
        }
        self.names, self._layers = list(adapted), list(adapted.values())
        self.down = [layer.lora_A[self._name] for layer in self._layers]
        self.up = [layer.lora_B[self._name] for layer in self._layers]
        self.bases = [layer.get_base_layer() for layer in self._layers]
        wrapped = set(self._layers)
        self._parents = {
            child: (parent, name)
            for parent in self._unet.modules()
            for name, child in parent.named_children()
            if child in wrapped
        }
        self._merged_layers: list[nn.Linear] = []
        self._merged: tuple[LoraWeights, int] | None = None  # whose weights the merged layers have, and which version
        self._enabled = self._in_place = True
        self.disable()

    def enable(self, weights: LoraWeights) -> None:
        """PEFT's layers take part, with these weights."""
        self._unmerge()
        if not self._enabled:
            for layer in self._layers:
                layer.enable_adapters(True)
                layer.set_adapter(self._name, inference_mode=True)
            self._enabled = True
        for layer, weight in zip((*self.down, *self.up), (*weights.down, *weights.up), strict=True):
            layer.weight = weight

    def disable(self) -> None:
        """The UNet is the base model."""
        self._unmerge()
        if self._enabled:
            for layer in self._layers:
                layer.enable_adapters(False)
            self._enabled = False

    def merge(self, weights: LoraWeights) -> None:
        """Plain layers with this LoRA merged into their weights take the place of PEFT's."""
        if not self._merged_layers:
            self._merged_layers = [_plain_copy(layer.get_base_layer()) for layer in self._layers]
        if self._merged != (weights, weights.version):
            self._write_merged(weights)
            self._merged = (weights, weights.version)
        if self._in_place:
            for layer, merged in zip(self._layers, self._merged_layers, strict=True):
                parent, name = self._parents[layer]
                setattr(parent, name, merged)
            self._in_place = False

    @torch.no_grad()
    def _write_merged(self, weights: LoraWeights) -> None:
        for layer, merged, down, up in zip(self._layers, self._merged_layers, weights.down, weights.up, strict=True):
            base = layer.get_base_layer()
            weight = torch.addmm(base.weight.to(down.dtype), up, down)
            if base in self._extra:
                weight = weight + weight_change(self._extra[base], weight)
            merged.weight.copy_(weight)

    def _unmerge(self) -> None:
        if not self._in_place:
            for layer, (parent, name) in self._parents.items():
                setattr(parent, name, layer)
            self._in_place = True

    def forget(self, weights: LoraWeights) -> None:
        """Hold no reference to a LoRA that is removed."""
        if self._merged is not None and self._merged[0] is weights:
            self._merged = None

    def remove(self) -> None:
        """Take PEFT's layers off the UNet."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Adapter .* was active")  # another one becomes active: none is enabled
            self._unet.delete_adapters(self._name)


class LoraCopy:
    """Weights that a pass of fitting computes with, in place of the LoRA's own.

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
        """The UNet's own layers that it changes, in the order of `down` and `up`."""
        return self.layers.bases

    def parameters(self) -> list[nn.Parameter]:
        """The down projections of all layers, then the up projections."""
        return [*self.down, *self.up]


def _free_name(unet: UNet2DConditionModel, name: str) -> str:
    """The name, or with a number if the UNet has an adapter of that name, as models with other LoRAs share it."""
    taken = getattr(unet, "peft_config", {})
    others = (f"{name} {number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], others) if each not in taken)


def _plain_copy(layer: nn.Linear) -> nn.Linear:
    """A layer with the same bias and weights of its own."""
    plain = nn.Linear(
        layer.in_features, layer.out_features, bias=False, device=layer.weight.device, dtype=layer.weight.dtype
    )
    plain.bias = layer.bias
    return plain.requires_grad_(False).eval()
