"""How an edit is judged whose true answer is known, by measures that the loop itself does not use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from livedrag.editor.similarity import peak_signal_to_noise, structural_similarity
from livedrag.editor.training.trials import ARRIVED, Trial, distance_left, is_wrong


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
    squares = (edited - trial.truth).square().mean(0)[inside].mean()
    return Judgement(
        distance_left(trial.picture, edited, trial.drag, trial.mask),
        float((edited - trial.picture).abs().mean(0)[~inside].mean() * 127.5),
        float(peak_signal_to_noise(squares)),
        float(structural_similarity(edited, trial.truth)[inside].mean()),
        seconds,
        claimed=claimed,
        lost=lost,
        wrong=is_wrong(trial, edited),
    )


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
