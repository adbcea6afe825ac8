"""How well a model predicts clean latents, and how much words say: the error on scenes that nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.training.pictures import Collection
from livedrag.editor.training.scenes import draw_scenes, render, whole

TIMESTEPS = (980, 700, 300)
SCENES = 192
TOGETHER = 16
SEED = 5
"""Of the scenes: training draws others."""
WORDS = ("own words", "no words", "other words")


@torch.no_grad()
def clean_latent_errors(
    model: Diffusion, pictures: Collection, *, count: int = SCENES, timesteps: Sequence[int] = TIMESTEPS
) -> dict[int, dict[str, float]]:
    """By timestep, the mean squared error of the predicted clean latent, with each of `WORDS`; variance is about one.

    Args:
        pictures: that were trained on, in scenes that were not.
        count: scenes.
    """
    scenes = draw_scenes(pictures, np.random.default_rng((SEED, 0)), count)
    latents = torch.cat([model.encode(view[None]) for view in render(scenes, pictures.atlas, whole())])
    own = torch.cat([model.embed_prompt(caption) for caption in scenes.captions])
    prompts = dict(zip(WORDS, (own, model.embed_prompt("").expand_as(own), own.roll(1, dims=0)), strict=True))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED)).to(latents)
    return {
        timestep: {words: _error(model, latents, noise, timestep, prompt) for words, prompt in prompts.items()}
        for timestep in timesteps
    }


def _error(model: Diffusion, latents: Tensor, noise: Tensor, timestep: int, prompts: Tensor) -> float:
    alpha = model.schedule.alphas[timestep]
    total = 0.0
    for start in range(0, len(latents), TOGETHER):
        rows = slice(start, start + TOGETHER)
        noisy = alpha**0.5 * latents[rows] + (1 - alpha) ** 0.5 * noise[rows]
        predicted = model.predict(noisy, timestep, prompts[rows]).noise
        clean = (noisy - (1 - alpha) ** 0.5 * predicted) / alpha**0.5
        total += float((clean - latents[rows]).square().mean(dim=(1, 2, 3)).sum())
    return total / len(latents)
