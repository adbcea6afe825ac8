"""Gradient checkpointing: a pass of the UNet stores what its parts are given, and its backward pass runs each part
again. The gradients are the same; it takes a third longer and needs a fraction of the memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils.checkpoint import checkpoint

RunPart = Callable[..., Any]
"""Runs a part, which is given first, with what it is given."""


def run_again(part: nn.Module, *given: Any) -> Any:
    """Run a part, and once more in the backward pass. Nothing random happens in it."""
    return checkpoint(part, *given, use_reentrant=False, preserve_rng_state=False)


@contextlib.contextmanager
def recomputing(unet: UNet2DConditionModel, run_part: RunPart = run_again) -> Iterator[None]:
    """Within this block, passes with a graph give each part of the network to ``run_part``.

    The backward pass belongs into the same block as the forward one: hooks and adapters must be in place for both.
    """
    unet.enable_gradient_checkpointing(run_part)
    try:
        yield
    finally:
        unet.disable_gradient_checkpointing()
