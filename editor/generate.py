"""A picture from words: DDIM from noise with classifier-free guidance (see `livedrag.editor.models.ddim`)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from livedrag.editor.errors import SettingsError
from livedrag.editor.models.ddim import Guidance, denoising_step
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.settings import check_seed

GUIDANCE = 3.0
"""How far a prediction goes from the one without words to the one with them, and beyond; 1 is no guidance. It suits the
built-in model; 7.5 is usual with Stable Diffusion."""
MOST_GUIDANCE = 50.0


@dataclass(frozen=True)
class GenerationStep:
    """One level further down.

    Args:
        step: steps taken.
        steps: of the whole schedule.
        before: the latent at the level left, ``(1, 4, H/8, W/8)``.
        latent: at the level reached, same shape.
        predicted_x0: the clean latent that is to be expected, same shape.
    """

    step: int
    steps: int
    before: Tensor
    latent: Tensor
    predicted_x0: Tensor


def first_noise(model: Diffusion, seed: int) -> Tensor:
    """The latent that generation starts from, ``(1, 4, H/8, W/8)``: the same for a seed on every device."""
    side = model.native_side // model.latent_stride
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(seed))
    return noise.to(model.device, model.latent_dtype)


def generate(
    model: Diffusion, prompt: str, *, seed: int = 0, guidance: float = GUIDANCE, ddim_steps: int = 50
) -> Generator[GenerationStep, None, None]:
    """Make a picture of the model's native size; the last step's latent is the clean one.

    Args:
        model: that is to make it.
        prompt: what the picture should show.
        seed: of the noise it starts from.
        guidance: see `GUIDANCE`.
        ddim_steps: of the schedule, 1 to 999.

    Raises:
        SettingsError: a number is out of range.
    """
    _check(seed, guidance, ddim_steps)
    text, guided = model.embed_prompt(prompt), Guidance(model.embed_prompt(""), guidance)
    latent = first_noise(model, seed)
    for step, level in enumerate(reversed(model.levels(ddim_steps)), start=1):
        before = latent
        latent, x0 = denoising_step(model, before, text, level, guided)
        yield GenerationStep(step, ddim_steps, before, latent, x0)


def _check(seed: int, guidance: float, ddim_steps: int) -> None:
    check_seed(seed)
    if not 0 <= guidance <= MOST_GUIDANCE:
        raise SettingsError(f"guidance is {guidance!r}: 0 to {MOST_GUIDANCE:g} works, 3 to 8 is usual")
    if not 1 <= ddim_steps <= 999:
        raise SettingsError(f"the schedule has {ddim_steps} steps: 1 to 999 works, 50 is usual")
