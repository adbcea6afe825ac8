"""The noise levels that a model was trained on, and the DDIM schedules through them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

Alpha = float | Tensor
"""A cumulative alpha in (0, 1], as a number or a scalar tensor."""


def sqrt(number: Alpha) -> Alpha:
    """Square root."""
    return number.sqrt() if isinstance(number, Tensor) else math.sqrt(number)


@dataclass(frozen=True)
class Level:
    """One step of a DDIM schedule.

    Args:
        timestep: what the network is given, 0 to 999.
        alpha: cumulative alpha there.
        alpha_below: cumulative alpha of the next cleaner level.
    """

    timestep: int
    alpha: float
    alpha_below: float


@dataclass(frozen=True)
class NoiseSchedule:
    """What a model was trained on.

    Args:
        alphas: cumulative alpha by timestep.
        prediction_type: what the network gives, ``epsilon`` or ``v_prediction``.
    """

    alphas: tuple[float, ...]
    prediction_type: str

    def levels(self, ddim_steps: int) -> tuple[Level, ...]:
        """The levels of a DDIM schedule, cleanest first, spaced as Stable Diffusion's own ("leading", offset 1)."""
        spacing = len(self.alphas) // ddim_steps
        timesteps = [index * spacing + 1 for index in range(ddim_steps)]
        alphas = [self.alphas[timestep] for timestep in timesteps]
        below = [self.alphas[0], *alphas[:-1]]
        return tuple(Level(*level) for level in zip(timesteps, alphas, below, strict=True))

    def to_noise(self, output: Tensor, latent: Tensor, alpha: Alpha) -> Tensor:
        """The noise that the network's own output for a latent of this cumulative alpha stands for."""
        if self.prediction_type == "epsilon":
            return output
        return sqrt(alpha) * output + sqrt(1 - alpha) * latent
