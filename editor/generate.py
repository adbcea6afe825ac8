"""Generate a picture from a prompt: DDIM from noise with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from livedrag.editor.models.ddim import Guidance, denoising_step
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.settings import check_generation, check_seed
from livedrag.limits import GUIDANCE


@dataclass(frozen=True)
class GenerationStep:
    """After a step of denoising.

    Args:
        step: steps taken, of ``steps``.
        steps: of the whole schedule.
        before: the latent before the step, ``(1, 4, H/8, W/8)``.
        latent: the latent after it, same shape; clean after the last step.
        predicted_x0: the predicted clean latent, same shape.
    """

    step: int
    steps: int
    before: Tensor
    latent: Tensor
    predicted_x0: Tensor


def first_noise(model: Diffusion, seed: int) -> Tensor:
    """The noise that generation starts from, ``(1, 4, H/8, W/8)``; the same for a seed on every device."""
    side = model.native_side // model.latent_stride
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(seed))
    return noise.to(model.device, model.latent_dtype)


def generate(
    model: Diffusion, prompt: str, *, seed: int = 0, guidance: float = GUIDANCE, ddim_steps: int = 50
) -> Generator[GenerationStep, None, None]:
    """Generate a picture of the model's native size; the last step's latent is the clean one.

    Args:
        model: that generates it.
        prompt: what the picture should show.
        seed: of the noise it starts from, 0 to `livedrag.limits.MAX_SEED`.
        guidance: guidance scale, 0 to `livedrag.limits.MAX_GUIDANCE`; 1 is no guidance.
        ddim_steps: steps of the schedule, 1 to `livedrag.editor.settings.MAX_DDIM_STEPS`.

    Yields:
        A step at a time.

    Raises:
        SettingsError: a number is out of range.
    """
    check_seed(seed)
    check_generation(guidance, ddim_steps)
    embedding, classifier_free = model.embed_prompt(prompt), Guidance(model.embed_nothing(), guidance)
    latent = first_noise(model, seed)
    for step, level in enumerate(reversed(model.schedule.levels(ddim_steps)), start=1):
        before = latent
        latent, x0 = denoising_step(model, before, embedding, level, classifier_free)
        yield GenerationStep(step, ddim_steps, before, latent, x0)
