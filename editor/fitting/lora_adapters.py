"""A picture's LoRA as an adapter of the UNet: merged into the weights of its layers, or next to them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from livedrag.editor.fitting.lora_layers import LoraLayers, LoraWeights
from livedrag.editor.models.adapters import Adapter


class UnmergedLora:
    """A LoRA as PEFT applies it, next to the weights, ready to be fitted.

    Args:
        layers: of its rank and targets.
        weights: of the LoRA.
    """

    def __init__(self, layers: LoraLayers, weights: LoraWeights) -> None:
        self.layers, self._weights = layers, weights

    def enable(self, previous: Adapter | None) -> None:
        """Called by the model: take the place of the previous adapter, if any."""
        _make_way(previous, self.layers)
        self.layers.enable(self._weights)

    def disable(self) -> None:
        """Called by the model: the UNet is the base model again."""
        self.layers.disable()


class MergedLora:
    """A LoRA that is merged into the weights: the same result, faster.

    Args:
        layers: of its rank and targets.
        weights: of the LoRA.
    """

    def __init__(self, layers: LoraLayers, weights: LoraWeights) -> None:
        self.layers, self._weights = layers, weights

    @property
    def layout(self) -> LoraLayers:
        """LoRAs of the same layers are merged into the same weights."""
        return self.layers

    @property
    def tensors(self) -> Sequence[Tensor]:
        """None: the merged weights stay where they are."""
        return ()

    def with_tensors(self, _tensors: Sequence[Tensor]) -> MergedLora:
        """Itself."""
        return self

    def enable(self, previous: Adapter | None) -> None:
        """Called by the model: take the place of the previous adapter, if any."""
        _make_way(previous, self.layers)
        self.layers.merge(self._weights)

    def disable(self) -> None:
        """Called by the model: the UNet is the base model again."""
        self.layers.disable()


def _make_way(previous: Adapter | None, layers: LoraLayers) -> None:
    """Disable the previous adapter, unless it uses the same layers."""
    if previous is not None and not (isinstance(previous, UnmergedLora | MergedLora) and previous.layers is layers):
        previous.disable()
