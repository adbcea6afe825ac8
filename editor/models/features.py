"""Reading a block's output during a UNet pass, and ending the pass, its graph, or some of its rows there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

BeyondFeatures = Literal["gradient", "no gradient", "nothing"]
"""What of a pass runs after the block: all of it, all without a graph, or nothing."""


class _Reached(Exception):
    """Ends a UNet pass early."""


class FeatureReader:
    """Keeps the features of the last pass, the output of a block.

    Args:
        block: of a UNet.
        next_block: the one after it.
    """

    def __init__(self, block: nn.Module, next_block: nn.Module) -> None:
        self._features: Tensor | None = None
        self._beyond: BeyondFeatures | None = None
        self._rows: Tensor | None = None
        block.register_forward_hook(self._store)
        next_block.register_forward_pre_hook(self._select, with_kwargs=True)

    @contextlib.contextmanager
    def reading(self, beyond: BeyondFeatures, rows: Tensor | None = None) -> Iterator[None]:
        """Within this block, passes of the UNet run as said.

        Args:
            beyond: what runs after the features.
            rows: indices of the rows that go on after the features, ``(n,)``; by default all.
        """
        self._beyond, self._rows = beyond, rows
        try:
            # The hook may switch gradients off: they are back on here.
            with torch.set_grad_enabled(torch.is_grad_enabled()), contextlib.suppress(_Reached):
                yield
        finally:
            self._beyond, self._rows = None, None

    def take(self, dtype: torch.dtype) -> Tensor:
        """The features of the last pass, which are no longer kept."""
        features, self._features = self._features, None
        assert features is not None
        return features.to(dtype)

    @property
    def beyond(self) -> BeyondFeatures | None:
        """What runs after the block in a pass now; None: its features are not read."""
        return self._beyond

    @property
    def rows(self) -> Tensor | None:
        """Indices of the rows that go on after the block in a pass now, ``(n,)``; None: all do."""
        return self._rows

    def put(self, features: Tensor, beyond: BeyondFeatures) -> None:
        """Take the features of a pass that ran elsewhere, and end this one, or its graph, as if it had come here."""
        self._features = features
        self._end(beyond)

    def _store(self, _block: nn.Module, _inputs: Any, output: Tensor) -> None:
        if self._beyond is not None:
            self._features = output
            self._end(self._beyond)

    def _end(self, beyond: BeyondFeatures) -> None:
        if beyond == "nothing":
            raise _Reached
        if beyond == "no gradient":
            torch.set_grad_enabled(False)

    def _select(
        self, _block: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """What the next block is given: hidden states, skip connections, timestep and text, of the rows that go on."""
        if self._rows is None:
            return None
        rows = self._rows
        return _rows_of(inputs, rows), {name: _rows_of(each, rows) for name, each in options.items()}


def _rows_of(given: Any, rows: Tensor) -> Any:
    if isinstance(given, tuple):
        return tuple(_rows_of(each, rows) for each in given)
    return given.index_select(0, rows) if isinstance(given, Tensor) else given
