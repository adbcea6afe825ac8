"""How an edit is judged whose true answer is known, by measures that the loop itself does not use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from livedrag.editor.training.trials import ARRIVED, Trial, distance_left, is_wrong

SSIM_WINDOW = 1.5
"""Standard deviation in pixels of the window of structural similarity (Wang et al. 2004)."""


@dataclass(frozen=True)
class Judgement:
    """What one way of editing did on one trial.

    Args:
        distance: from where the content is to where it should be, in pixels.
        outside: mean absolute change outside the mask, in levels of 255.
        likeness: PSNR to the true answer within the mask, in decibels.
        structure: SSIM to the true answer within the mask, at most 1.
        seconds: it took.
        claimed: whether the editor reported that the drag had arrived.
        lost: whether it reported that the content had not followed.
        wrong: whether the picture is not the true answer around the target; see `is_wrong`.
    """

    distance: float
    outside: float
    likeness: float
    structure: float
    seconds: float
    claimed: bool = False
    lost: bool = False
    wrong: bool = False


@dataclass(frozen=True)
class Summary:
    """Means and the median of judgements, and shares of trials.

    Args:
        arrived: those that came within `ARRIVED` pixels.
        fooled: those of which the editor reported that they had arrived, wrongly.
        falsely_lost: those of which it reported that the content had not followed, wrongly.
    """

    distance: float
    median: float
    arrived: float
    fooled: float
    falsely_lost: float
    outside: float
    likeness: float
    structure: float
    seconds: float


def judge(trial: Trial, edited: Tensor, seconds: float, *, claimed: bool = False, lost: bool = False) -> Judgement:
    """Compare an edited picture ``(3, 256, 256)`` in [-1, 1] with the truth; the rest is as in `Judgement`."""
    inside = torch.from_numpy(trial.mask)
    squares = ((edited - trial.truth) / 2).square().mean(0)[inside].mean().clamp(min=1e-10)
    return Judgement(
        distance_left(trial.picture, edited, trial.drag, trial.mask),
        float((edited - trial.picture).abs().mean(0)[~inside].mean() * 127.5),
        float(-10 * squares.log10()),
        float(structural_similarity(edited, trial.truth)[inside].mean()),
        seconds,
        claimed=claimed,
        lost=lost,
        wrong=is_wrong(trial, edited),
    )


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


def summarise(judgements: Sequence[Judgement]) -> Summary:
    """Of one way of editing over trials."""

    def mean(value: Callable[[Judgement], float]) -> float:
        return float(np.mean([value(judgement) for judgement in judgements]))

    return Summary(
        distance=mean(lambda judgement: judgement.distance),
        median=float(np.median([judgement.distance for judgement in judgements])),
        arrived=mean(lambda judgement: judgement.distance <= ARRIVED),
        fooled=mean(lambda judgement: judgement.claimed and judgement.wrong),
        falsely_lost=mean(lambda judgement: judgement.lost and not judgement.wrong),
        outside=mean(lambda judgement: judgement.outside),
        likeness=mean(lambda judgement: judgement.likeness),
        structure=mean(lambda judgement: judgement.structure),
        seconds=mean(lambda judgement: judgement.seconds),
    )
