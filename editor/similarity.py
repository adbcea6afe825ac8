"""How alike two pictures are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SSIM_WINDOW = 1.5
"""Standard deviation in pixels of the window of structural similarity (Wang et al. 2004)."""


def peak_signal_to_noise(squares: Tensor) -> Tensor:
    """PSNR in decibels, at most 100, of mean squared differences between pictures in [-1, 1]."""
    return -10 * (squares / 4).clamp(min=1e-10).log10()


def structural_similarity(one: Tensor, other: Tensor) -> Tensor:
    """SSIM of the brightness of two pictures ``(3, H, W)`` in [-1, 1] at every place, ``(H, W)``."""
    first, second = (each.mean(0)[None, None] for each in (one, other))
    reach = int(3 * SSIM_WINDOW + 1)
    line = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * SSIM_WINDOW**2))
    window = (line[:, None] * line)[None, None] / line.sum() ** 2

    def mean(plane: Tensor) -> Tensor:
        return nn.functional.conv2d(nn.functional.pad(plane, (reach,) * 4, mode="replicate"), window)

    a, b = mean(first), mean(second)
    spread = mean(first**2) - a**2 + mean(second**2) - b**2
    together = mean(first * second) - a * b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    similarity: Tensor = (2 * a * b + c1) * (2 * together + c2) / ((a**2 + b**2 + c1) * (spread + c2))
    return similarity[0, 0]
