"""DDIM (Song et al., arXiv 2010.02502) without noise: the pure step, and one step of inversion and of denoising with a
model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from livedrag.editor.models.diffusion import Diffusion, Level


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

    Args:
        empty: embedding of no words, ``(1, L, D)``.
        scale: how far a prediction goes from the one without words to the one with them, and beyond; 1 is none.
    """

    empty: Tensor
    scale: float


def predict_x0(latent: Tensor, noise: Tensor, alpha: float) -> Tensor:
    """The clean latent that a noise prediction implies (formula 9 of the paper).

    Args:
        latent: ``z_t``, ``(B, 4, H/8, W/8)``.
        noise: predicted noise, same shape.
        alpha: cumulative alpha at ``t``, in (0, 1].
    """
    return (latent - math.sqrt(1 - alpha) * noise) / math.sqrt(alpha)


def ddim_step(latent: Tensor, noise: Tensor, alpha: float, alpha_next: float) -> Tensor:
    """Carry a latent from one noise level to another along its predicted noise (formula 12 with sigma = 0).

    Denoising goes to a larger ``alpha_next``, inversion to a smaller one; the formula is the same.

    Args:
        latent: ``(B, 4, H/8, W/8)`` at the level ``alpha``.
        noise: predicted noise, same shape.
        alpha, alpha_next: cumulative alphas of the two levels, in (0, 1].
    """
    return math.sqrt(alpha_next) * predict_x0(latent, noise, alpha) + math.sqrt(1 - alpha_next) * noise


@torch.no_grad()
def inversion_step(model: Diffusion, latent: Tensor, prompt: Tensor, level: Level) -> Tensor:
    """Climb one level: the network is asked at the level's timestep for the latent just below it, as diffusers'
    ``DDIMInverseScheduler`` and DragDiffusion do.

    Args:
        latent: ``(1, 4, H/8, W/8)`` just below ``level``.
        prompt: text embedding, ``(1, L, D)``.
    """
    noise = model.predict(latent, level.timestep, prompt, alpha=level.alpha_below).noise
    return ddim_step(latent, noise, level.alpha_below, level.alpha)


@torch.no_grad()
def denoising_step(
    model: Diffusion, latent: Tensor, prompt: Tensor, level: Level, guidance: Guidance | None = None
) -> tuple[Tensor, Tensor]:
    """Descend one level; returns the latent just below it and the predicted clean latent, both ``(1, 4, H/8, W/8)``."""
    if guidance is None:
        noise = model.predict(latent, level.timestep, prompt).noise
    else:
        both = model.predict(latent.expand(2, -1, -1, -1), level.timestep, torch.cat([guidance.empty, prompt])).noise
        without, with_words = both.chunk(2)
        noise = torch.lerp(without, with_words, guidance.scale)
    return ddim_step(latent, noise, level.alpha, level.alpha_below), predict_x0(latent, noise, level.alpha)
