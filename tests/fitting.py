"""Steps of fitting a LoRA, without a session."""

from __future__ import annotations

import torch

from livedrag.editor.drag.passes import alone
from livedrag.editor.fitting.fit_step import fit_passes
from livedrag.editor.fitting.lora import Lora


def fit_step(lora: Lora, latents: torch.Tensor, prompt: torch.Tensor, batch: int, generator: torch.Generator) -> float:
    """One step, as `fit_passes` takes it; returns its mean squared error."""
    passes = alone(fit_passes(lora, latents, prompt, batch, generator))
    while True:
        try:
            next(passes)
        except StopIteration as end:
            return float(end.value)
