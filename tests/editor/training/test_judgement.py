from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as of_skimage
from torch import Tensor

from livedrag.editor.picture import to_tensor
from livedrag.editor.points import Size
from livedrag.editor.similarity import structural_similarity
from livedrag.editor.training.evaluation import guess
from livedrag.editor.training.judgement import Judgement, judge, summarise
from livedrag.editor.training.trials import Trial, make_trials_on
from tests.other_kinds import cartoon_cat, cartoon_fish, cartoon_house


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    drawn = {"cat": cartoon_cat(), "fish": cartoon_fish(), "house": cartoon_house()}
    pictures = {caption: to_tensor(picture, Size(256, 256))[0] for caption, picture in drawn.items()}
    return [trial for group in make_trials_on(pictures, 2) for trial in group]


def with_noise(picture: Tensor, strength: float) -> Tensor:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    return (picture + strength * noise).clamp(-1, 1)


def test_the_truth_is_best_and_the_guess_better_than_nothing(trials: list[Trial]) -> None:
    assert len(trials) == 6
    for trial in trials:
        truth, guessed, nothing = (judge(trial, each, 0.0) for each in (trial.truth, guess(trial), trial.picture))
        assert truth.distance <= 2 < guessed.distance + 2 < nothing.distance
        assert truth.structure == pytest.approx(1)
        assert truth.structure > guessed.structure > nothing.structure
        assert truth.likeness > guessed.likeness > nothing.likeness
        assert nothing.outside == truth.outside == 0


def test_structural_similarity_is_that_of_scikit_image(trials: list[Trial]) -> None:
    one, other = trials[0].truth, with_noise(trials[0].picture, 0.1)
    first, second = (each.mean(0).double().numpy() for each in (one, other))
    _, wanted = of_skimage(  # type: ignore[no-untyped-call]
        first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=2.0, full=True
    )
    found = structural_similarity(one, other).numpy()
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(found[inner] - wanted[inner]).max() < 0.01


def test_summaries() -> None:
    judgements = [
        Judgement(4, 1, 20, 0.8, 3, claimed=True),
        Judgement(16, 3, 30, 0.9, 5, claimed=True, wrong=True),
        Judgement(4, 2, 25, 1.0, 4, lost=True),
        Judgement(4, 2, 25, 1.0, 4, lost=True, wrong=True),
    ]
    summary = summarise(judgements)
    assert (summary.distance, summary.median, summary.outside, summary.likeness, summary.seconds) == (7, 4, 2, 25, 4)
    assert (summary.arrived, summary.fooled, summary.falsely_lost) == (0.75, 0.25, 0.25)
    assert summary.structure == pytest.approx(0.925)
