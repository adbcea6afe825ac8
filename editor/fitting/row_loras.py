"""LoRAs of several pictures in one pass of the UNet: each row has its own.

Every layer that any of them changes adds ``bmm(bmm(x, A^T), B^T)`` to what it gives, with the matrices of all rows
padded to the largest rank, as in BLoRA. PEFT's batches of several adapters run them one after the other and cannot be
differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, baddbmm, bmm, nn
from torch.nn.functional import pad
from torch.utils.hooks import RemovableHandle

from livedrag.editor.fitting.lora import Lora
from livedrag.editor.fitting.lora_layers import LoraCopy
from livedrag.editor.models.adapters import Adapter
from livedrag.editor.models.diffusion import Diffusion


@dataclass(frozen=True)
class RowFactors:
    """What is added to a layer, for each row.

    Args:
        down: A of each row, ``(R, r, I)``; rows of zeros where a LoRA has a lower rank, or leaves the layer alone.
        up: B of each row, ``(R, O, r)``; columns of zeros likewise.
    """

    down: Tensor
    up: Tensor

    def of(self, rows: Sequence[int]) -> RowFactors:
        """Those of some rows."""
        index = torch.tensor(rows, device=self.down.device)
        return RowFactors(self.down.index_select(0, index), self.up.index_select(0, index))

    def add(self, output: Tensor, given: Tensor) -> Tensor:
        """The layer's output ``(R, T, O)`` for what it is given, ``(R, T, I)``, with each row's LoRA."""
        return baddbmm(output, bmm(given, self.down.mT), self.up.mT)


Factors = Mapping[nn.Module, RowFactors]
"""By layer of the UNet, what is added to it."""


def stack_loras(loras: Sequence[Lora | LoraCopy], dtype: torch.dtype) -> dict[nn.Module, RowFactors]:
    """The matrices of these LoRAs, one row each, by layer.

    Args:
        loras: of one model, of any ranks and targets.
        dtype: of the result.
    """
    own = [dict(zip(lora.bases, zip(lora.down, lora.up, strict=True), strict=True)) for lora in loras]
    stacked: dict[nn.Module, RowFactors] = {}
    for layer in dict.fromkeys(layer for lora in loras for layer in lora.bases):
        pairs = [each.get(layer) for each in own]
        rank = max(len(pair[0]) for pair in pairs if pair is not None)
        downs = [_padded_down(layer, pair, rank) for pair in pairs]
        ups = [_padded_up(layer, pair, rank) for pair in pairs]
        stacked[layer] = RowFactors(torch.stack(downs).to(dtype), torch.stack(ups).to(dtype))
    return stacked


def _padded_down(layer: nn.Linear, pair: tuple[Tensor, Tensor] | None, rank: int) -> Tensor:
    if pair is None:
        return torch.zeros(rank, layer.in_features, device=layer.weight.device)
    return pad(pair[0], (0, 0, 0, rank - len(pair[0])))


def _padded_up(layer: nn.Linear, pair: tuple[Tensor, Tensor] | None, rank: int) -> Tensor:
    if pair is None:
        return torch.zeros(layer.out_features, rank, device=layer.weight.device)
    return pad(pair[1], (0, rank - pair[1].shape[1]))


class RowLoras:
    """An adapter of the UNet: each row's own LoRA, while it is enabled.

    Args:
        factors: by layer.
    """

    def __init__(self, factors: Factors) -> None:
        self._factors = factors
        self._hooks: list[RemovableHandle] = []

    @property
    def layout(self) -> Hashable:
        """The layers that get something."""
        return tuple(self._factors)

    @property
    def tensors(self) -> list[Tensor]:
        """The matrices of all layers: A and B of each, one layer after the other."""
        return [tensor for factors in self._factors.values() for tensor in (factors.down, factors.up)]

    def with_tensors(self, tensors: Sequence[Tensor]) -> RowLoras:
        """The same with other matrices, in the order of `tensors`."""
        pairs = zip(tensors[::2], tensors[1::2], strict=True)
        return RowLoras({layer: RowFactors(*pair) for layer, pair in zip(self._factors, pairs, strict=True)})

    def enable(self, previous: Adapter | None) -> None:
        """Called by the model: take the place of the previous adapter, if any."""
        if previous is not None:
            previous.disable()
        self._hooks = [layer.register_forward_hook(_adds(factors)) for layer, factors in self._factors.items()]

    def disable(self) -> None:
        """Called by the model: the UNet is the base model again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def _adds(factors: RowFactors) -> Callable[..., Tensor]:
    def add(_layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return factors.add(output, inputs[0])

    return add


@dataclass(frozen=True)
class _Stack:
    """The stacked LoRAs of the latest pass, which the next one most often wants again."""

    loras: Sequence[tuple[ReferenceType[Lora], int]]
    factors: Factors
    adapters: dict[tuple[int, ...], RowLoras] = field(default_factory=dict)

    def holds(self, loras: Sequence[Lora]) -> bool:
        """Whether it is of these LoRAs as they are now."""
        return [(made_of(), version) for made_of, version in self.loras] == [(lora, lora.version) for lora in loras]


_latest: WeakKeyDictionary[Diffusion, _Stack] = WeakKeyDictionary()


def row_loras(model: Diffusion, loras: Sequence[Lora], further: Sequence[int]) -> RowLoras:
    """The adapter for a pass in which each row has its own LoRA.

    Args:
        model: of the pass.
        loras: fitted, one of each row.
        further: the rows that go through the last up block; of the others it sees nothing.
    """
    stack = _latest.get(model)
    if stack is None or not stack.holds(loras):
        versions = [(ref(lora), lora.version) for lora in loras]
        stack = _latest[model] = _Stack(versions, stack_loras(loras, model.dtype))
    key = tuple(further)
    if key not in stack.adapters:
        factors = stack.factors
        if 0 < len(further) < len(loras):
            factors = _only_rows(factors, further, _in_last_block(model, loras))
        stack.adapters[key] = RowLoras(factors)
    return stack.adapters[key]


def trained_loras(model: Diffusion, loras: Sequence[LoraCopy], counts: Sequence[int]) -> RowLoras:
    """The adapter for a pass in which LoRAs are fitted; gradients lead to their weights.

    Args:
        model: of the pass.
        loras: that require grad.
        counts: rows of each, one after the other.
    """
    stacked = stack_loras(loras, model.dtype)
    return RowLoras(
        {layer: RowFactors(*(_repeat(each, counts) for each in (f.down, f.up))) for layer, f in stacked.items()}
    )


def _repeat(matrices: Tensor, counts: Sequence[int]) -> Tensor:
    """Each of the matrices ``(n, a, b)`` as often as is said, one after the other."""
    return torch.cat([each.expand(count, -1, -1) for each, count in zip(matrices.split(1), counts, strict=True)])


def _in_last_block(model: Diffusion, loras: Sequence[Lora]) -> set[nn.Module]:
    """By name, since merged layers may have taken these layers' place in the UNet."""
    block = f"up_blocks.{len(model.unet.up_blocks) - 1}."
    return {
        layer for lora in loras for name, layer in zip(lora.names, lora.bases, strict=True) if name.startswith(block)
    }


def _only_rows(factors: Factors, rows: Sequence[int], layers: Collection[nn.Module]) -> dict[nn.Module, RowFactors]:
    """The same, with these rows alone in some of the layers."""
    return {layer: each.of(rows) if layer in layers else each for layer, each in factors.items()}
