"""Reading a block's output during a UNet pass, and ending the pass, or its graph, there."""

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
    """Keeps a block's output of the last pass.

    Args:
        block: of a UNet.
    """

    def __init__(self, block: nn.Module) -> None:
        self._features: Tensor | None = None
        self._beyond: BeyondFeatures = "gradient"
        block.register_forward_hook(self._store)

    @contextlib.contextmanager
    def reading(self, beyond: BeyondFeatures) -> Iterator[None]:
        """Within this block, passes of the UNet run as said."""
        self._beyond = beyond
        try:
            # The hook may switch gradients off: they are back on here.
            with torch.set_grad_enabled(torch.is_grad_enabled()), contextlib.suppress(_Reached):
                yield
        finally:
            self._beyond = "gradient"

    def take(self, dtype: torch.dtype) -> Tensor:
        """The output of the last pass, which is no longer kept."""
        features, self._features = self._features, None
        assert features is not None
        return features.to(dtype)

    def _store(self, _block: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._features = output
        if self._beyond == "nothing":
            raise _Reached
        if self._beyond == "no gradient":
            torch.set_grad_enabled(False)
