"""Pairs of views with noise: what a UNet is given in training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from livedrag.editor.training.autoencoder import STRIDE
from livedrag.editor.training.pairs import PairBatch
from livedrag.editor.training.pictures import SIDE
from livedrag.editor.training.scenes import send
from livedrag.editor.training.stage import CPU

DROPPED = 0.12
"""Share of prompts that are left empty, so that guidance has something to compare with."""
SHARED_NOISE = 0.5
"""Share of the pairs whose views have the same noise, which stays where it is while content moves, as in a drag."""
UNEVEN = 0.5
"""Share of a batch, its least noisy part, whose noise has something smooth added, local light and dark: dragging makes
such changes there, and a model that has only seen white noise takes them for the picture."""
MAX_UNEVENNESS = 0.5
"""Standard deviation of the smooth part at most, where white noise has one."""
KNOTS = (3, 9)
"""Knots along a side of the smooth part, at least and below."""


@dataclass(frozen=True)
class NoisyPairs:
    """What the network is given for N pairs, and what it should say; 2 N rows, views A, then views B.

    Args:
        latents: ``(2 N, 4, 32, 32)``, noisy.
        velocity: same shape, the right prediction.
        timesteps, alpha: ``(N,)``, of both views.
        words: tokens ``(N, T)``, some left empty.
    """

    latents: Tensor
    velocity: Tensor
    timesteps: Tensor
    alpha: Tensor
    words: Tensor


def add_noise(pairs: PairBatch, random: np.random.Generator, alphas: Tensor, nothing: Tensor) -> NoisyPairs:
    """Noise both views of each pair alike, at timesteps that rise from pair to pair.

    Args:
        alphas: cumulative alpha by timestep, of those that are drawn.
        nothing: tokens of an empty prompt, ``(1, T)``.
    """
    count, device = len(pairs.tokens), alphas.device
    dropped, shared = (
        send(torch.from_numpy(random.random(count) < share), device) for share in (DROPPED, SHARED_NOISE)
    )
    noise = torch.stack([draw_noise(random, count, device) for _ in "AB"])
    noise[1] = torch.where(shared[:, None, None, None], noise[0], noise[1])
    spread = (np.arange(count) + random.random(count)) / count  # rising, so that losses vary less
    timesteps = send(torch.from_numpy((spread * len(alphas)).astype(np.int64)), device)
    signal = alphas[timesteps].sqrt()[:, None, None, None]
    spoiled = (1 - alphas[timesteps]).sqrt()[:, None, None, None]
    return NoisyPairs(
        (signal * pairs.latents + spoiled * noise).flatten(0, 1),
        (signal * noise - spoiled * pairs.latents).flatten(0, 1),
        timesteps,
        alphas[timesteps],
        torch.where(dropped[:, None], nothing, pairs.tokens),
    )


def draw_noise(random: np.random.Generator, count: int, device: torch.device = CPU) -> Tensor:
    """White noise ``(count, 4, 32, 32)``, the first of it with a smooth part added."""
    generator = torch.Generator(device).manual_seed(int(random.integers(2**63)))
    side, uneven = SIDE // STRIDE, round(UNEVEN * count)
    noise = torch.randn(count, 4, side, side, generator=generator, device=device)
    knots = torch.randn(uneven, 4, *random.integers(*KNOTS, 2).tolist(), generator=generator, device=device)
    amounts = MAX_UNEVENNESS * torch.rand(uneven, 1, 1, 1, generator=generator, device=device)
    noise[:uneven] += amounts * interpolate(knots, (side, side), mode="bicubic")
    return noise
