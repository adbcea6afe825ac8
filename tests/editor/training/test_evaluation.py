from __future__ import annotations

from pathlib import Path

import pytest
import torch

from livedrag.editor import PRESETS, Diffusion, DragSettings
from livedrag.editor.picture import to_tensor
from livedrag.editor.points import Size
from livedrag.editor.settings import LIVE_SETTINGS
from livedrag.editor.training.evaluation import (
    DEFAULT,
    GUESS,
    NO_EDIT,
    OTHER_CHECK,
    PUBLISHED,
    PUBLISHED_STRENGTH,
    REGION,
    TRUTH,
    UNWARPED,
    Evaluation,
    ways_of,
)
from livedrag.editor.training.preparations import Prepared, prepare
from livedrag.editor.training.trials import Trial, make_trials_on
from tests.other_kinds import DRAWN, cartoon_cat

QUICK = {"lora_steps": 1, "lora_batch": 1, "ddim_steps": 4, "max_iterations": 1}


@pytest.fixture(scope="module")
def quick() -> Diffusion:
    """The built-in model with settings that take no time."""
    model = Diffusion.load("builtin", device="cpu")
    model.defaults = {**model.defaults, **QUICK}
    return model


@pytest.fixture(scope="module")
def group() -> list[Trial]:
    (found,) = make_trials_on({"a cat": to_tensor(cartoon_cat(), Size(256, 256))[0]}, 2)
    return found


def fixed(settings: DragSettings) -> dict[str, object]:
    return {name: value for name, value in settings.as_dict().items() if name not in LIVE_SETTINGS}


def test_ways_are_those_of_the_table(model: Diffusion) -> None:
    ways = ways_of(model, {"max_iterations": 12})
    assert next(iter(ways)) == PUBLISHED
    assert list(ways)[-1] == DEFAULT
    assert set(PRESETS) - {"official", "paper"} <= set(ways)
    assert ways[PUBLISHED].warp_share == 0
    assert ways[PUBLISHED].arrival_check == "tracker"
    assert ways[PUBLISHED].latent_optimizer == "adam"
    assert ways[REGION].supervision == "region"
    assert ways[UNWARPED].latent_optimizer == ways[DEFAULT].latent_optimizer
    assert {settings.arrival_check for settings in ways.values()} == {"tracker", "content"}
    assert ways[DEFAULT] == DragSettings.resolve(None, model.defaults, {"max_iterations": 12})
    assert all(settings.max_iterations == 12 for settings in ways.values())
    for settings in ways.values():
        assert settings.lora_steps == ways[DEFAULT].lora_steps
    own = (UNWARPED, OTHER_CHECK.format("content"), DEFAULT)
    assert all((ways[way].inversion_strength == PUBLISHED_STRENGTH) == (way not in own) for way in ways)
    for shared in ([PUBLISHED, REGION], own):
        assert len({str(fixed(ways[way])) for way in shared}) == 1, "they share a prepared picture"
    assert all(each.inversion_strength == 0.3 for each in ways_of(model, {"inversion_strength": 0.3}).values())


def test_an_evaluation_prepares_once_and_continues_where_it_was(
    quick: Diffusion, group: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = []

    def counted(model: Diffusion, trial: Trial, settings: DragSettings) -> Prepared:
        prepared.append(settings)
        return prepare(model, trial, settings)

    monkeypatch.setattr("livedrag.editor.training.preparations.prepare", counted)
    ways = {way: settings for way, settings in ways_of(quick, {}).items() if settings.warp_share}
    first = list(Evaluation(quick, ways, tmp_path).judge_all([group]))
    assert len(prepared) == 1
    assert [one.trial for one in first] == group
    assert list(first[0].judgements) == [NO_EDIT, GUESS, *ways, TRUTH]
    assert len(ways) == 2
    assert first[0].kept > 15

    again = list(Evaluation(quick, ways, tmp_path).judge_all([group]))
    assert len(prepared) == 1, "nothing is computed again"
    for one, other in zip(first, again, strict=True):
        assert (one.judgements, one.kept) == (other.judgements, other.kept)
        assert torch.equal(one.pictures[DEFAULT], other.pictures[DEFAULT])

    next(tmp_path.rglob("*.json")).unlink()  # interrupted before this was written
    list(Evaluation(quick, ways, tmp_path).judge_all([group]))
    assert len(prepared) == 2

    with torch.no_grad():
        next(quick.unet.parameters()).add_(1e-3)
    try:
        list(Evaluation(quick, ways, tmp_path).judge_all([group]))
        assert len(prepared) == 3, "other weights are judged anew"
    finally:
        with torch.no_grad():
            next(quick.unet.parameters()).sub_(1e-3)


def test_other_kinds_can_be_judged() -> None:
    """By cross-correlation, which must find each handle in the true answer."""
    assert len(DRAWN) == 10
    pictures = {caption: to_tensor(draw(), Size(256, 256))[0] for caption, draw in DRAWN.items()}
    groups = make_trials_on(pictures, 1)
    assert len(groups) >= 9
