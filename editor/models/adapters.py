"""Adapters: changes to the UNet, such as a picture's LoRA, of which one at a time is enabled."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Protocol, TypeGuard, runtime_checkable

from torch import Tensor


class Adapter(Protocol):
    """Changes what the UNet computes while it is enabled."""

    def enable(self, previous: Adapter | None) -> None:
        """Take the place of the adapter that was enabled before, if any."""

    def disable(self) -> None:
        """Leave the UNet as it was without any adapter."""


@runtime_checkable
class Recordable(Adapter, Protocol):
    """An adapter whose passes can be recorded; see `livedrag.editor.models.graphs`."""

    @property
    def layout(self) -> Hashable:
        """Equal for adapters that differ in nothing but `tensors` and the contents of weights that stay where they
        are."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """What a pass with it reads that differs from adapter to adapter."""

    def with_tensors(self, tensors: Sequence[Tensor]) -> Adapter:
        """The same with other tensors, in the order of `tensors`."""


def recordable(adapter: Adapter | None) -> TypeGuard[Recordable | None]:
    """Whether passes with this adapter, or without any, can be recorded."""
    return adapter is None or isinstance(adapter, Recordable)


class ActiveAdapter:
    """The one adapter of a UNet that is enabled, shared by sessions that each want their own.

    Switching costs time, so an adapter stays enabled after its block, until a pass wants another one or none.
    """

    def __init__(self) -> None:
        self._requested: Adapter | None = None
        self._enabled: Adapter | None = None

    @contextlib.contextmanager
    def using(self, adapter: Adapter) -> Iterator[None]:
        """Within this block the UNet has this adapter; the block around it gets its own back afterwards."""
        previous, self._requested = self._requested, adapter
        self.switch_to(adapter)
        try:
            yield
        finally:
            self._requested = previous

    @property
    def requested(self) -> Adapter | None:
        """That of the innermost `using` block."""
        return self._requested

    def apply_requested(self) -> None:
        """Before a pass: enable the adapter of the innermost `using` block, or disable the last one outside of all."""
        self.switch_to(self._requested)

    def switch_to(self, adapter: Adapter | None) -> None:
        """Enable an adapter, unless it is; None disables the one that is."""
        previous, self._enabled = self._enabled, adapter
        if adapter is previous:
            return
        if adapter is not None:
            adapter.enable(previous)
        elif previous is not None:
            previous.disable()
