"""DDIM (Song et al., arXiv 2010.02502) without noise: the pure step, and one step of denoising with a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.noise_schedule import Alpha, Level, sqrt


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

    Args:
        empty: embedding of no words, ``(1, L, D)``.
        scale: how far a prediction goes from the one for no words towards the one for the prompt; 1 is no guidance.
    """

    empty: Tensor
    scale: float


def predict_x0(latent: Tensor, noise: Tensor, alpha: Alpha) -> Tensor:
    """The clean latent that a noise prediction implies (equation 9 of the DDIM paper).

    Args:
        latent: ``z_t``, ``(B, 4, H/8, W/8)``.
        noise: predicted noise, same shape.
        alpha: cumulative alpha at ``t``, in (0, 1].
    """
    return (latent - sqrt(1 - alpha) * noise) / sqrt(alpha)


def ddim_step(latent: Tensor, noise: Tensor, alpha: Alpha, alpha_next: Alpha) -> Tensor:
    """Carry a latent from one noise level to another along its predicted noise (equation 12, sigma = 0).

    Denoising goes to a larger ``alpha_next``, inversion to a smaller one; the formula is the same.

    Args:
        latent: ``(B, 4, H/8, W/8)`` at the level ``alpha``.
        noise: predicted noise, same shape.
        alpha, alpha_next: cumulative alphas of the two levels, in (0, 1].
    """
    return sqrt(alpha_next) * predict_x0(latent, noise, alpha) + sqrt(1 - alpha_next) * noise


@torch.no_grad()
def denoising_step(
    model: Diffusion, latent: Tensor, prompt: Tensor, level: Level, guidance: Guidance | None = None
) -> tuple[Tensor, Tensor]:
    """One level down (cleaner).

    Args:
        model: predicts the noise.
        latent: ``(1, 4, H/8, W/8)`` at ``level``.
        prompt: text embedding, ``(1, L, D)``.
        level: to leave.
        guidance: classifier-free guidance, if any.

    Returns:
        The latent just below ``level`` and the predicted clean latent, same shape.
    """
    if guidance is None:
        noise = model.predict(latent, level.timestep, prompt).noise
    else:
        noises = model.predict(latent.expand(2, -1, -1, -1), level.timestep, torch.cat([guidance.empty, prompt])).noise
        noise = guided(noises, guidance)
    return denoised(latent, noise, level)


def guided(noises: Tensor, guidance: Guidance) -> Tensor:
    """The noise ``(1, 4, H/8, W/8)`` for those predicted with no words and with the prompt, ``(2, 4, H/8, W/8)``."""
    unconditional, conditional = noises.chunk(2)
    return torch.lerp(unconditional, conditional, guidance.scale)


def denoised(latent: Tensor, noise: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """The latent just below a level, and the predicted clean one, for the noise predicted at the level; all of the same
    shape ``(B, 4, H/8, W/8)``."""
    return ddim_step(latent, noise, level.alpha, level.alpha_below), predict_x0(latent, noise, level.alpha)
