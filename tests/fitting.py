"""Steps of fitting a LoRA, without a session."""

from __future__ import annotations

import torch

from livedrag.editor import Diffusion
from livedrag.editor.drag.passes import alone
from livedrag.editor.fitting.lora import Lora


def fit_step(
    lora: Lora, model: Diffusion, latents: torch.Tensor, prompt: torch.Tensor, batch: int, generator: torch.Generator
) -> float:
    """One step, as `Lora.fit_passes` takes it; returns its mean squared error."""
    passes = alone(lora.fit_passes(model, latents, prompt, batch, generator))
    while True:
        try:
            next(passes)
        except StopIteration as end:
            return float(end.value)
