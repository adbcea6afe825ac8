"""A stand-in for a CUDA graph: does the work anew at each run, and refuses what a graph could not do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from livedrag.editor.models.graphs import copied, copy_into
from tests.recorders import EagerRecorder

R = TypeVar("R")

WAITS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "item", "is_nonzero"}
"""Operators for which the host has to wait for the device."""
FROM_HOST = {"lift_fresh", "lift_fresh_copy"}
"""Those that make tensors of Python's numbers, which are copied from the host."""


Operation = tuple[str, tuple[torch.Size, ...], tuple[int, ...]]
"""An operator's name, the shapes of its arguments, and the places of those that come from elsewhere."""


class Watched(TorchDispatchMode):
    """Notes all operators, and refuses some.

    Args:
        refused: names of operators.

    Attributes:
        work: all operators.
    """

    def __init__(self, refused: set[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.work: list[Operation] = []
        self._refused = refused
        self._made: dict[int, Tensor] = {}  # which stay, so that no other tensor takes their place
        self._given: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self._refused, f"{name} has no place here"
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        if name == "index":  # a mask is turned into places, of which there are as many as the device finds
            assert not any(tensor.dtype == torch.bool for tensor in tensors[1:])
        places = tuple(place for tensor in tensors if (place := place_of(tensor)) not in self._made)
        self._given.update(places)
        self.work.append((name, tuple(tensor.shape for tensor in tensors), places))
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and place_of(made) not in self._given:
                self._made[place_of(made)] = made
        return result


def place_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class StrictRecorder(EagerRecorder):
    """Each run must do what the recorded one did, from the same places in memory, and without waiting.

    Attributes:
        recorded: how many works.
    """

    def __init__(self) -> None:
        self.recorded = 0

    def record(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
        self.recorded += 1
        recorded, result = _watch(work)
        outcome = copied(result)

        def replay() -> None:
            now, result = _watch(work)
            other = next((pair for pair in itertools.zip_longest(recorded, now) if pair[0] != pair[1]), None)
            assert other is None, f"where {other[0]} was recorded, there is {other[1]} now"
            copy_into(outcome, result)

        return outcome, replay


def _watch(work: Callable[[], R]) -> tuple[list[Operation], R]:
    watched = Watched(WAITS | FROM_HOST)
    with watched:
        result = work()
    return watched.work, result
