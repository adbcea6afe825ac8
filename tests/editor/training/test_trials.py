"""Trials on held-out pictures: how they are made and judged, the report and the search."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from livedrag.editor import Diffusion, Drag, DragSettings, Point
from livedrag.editor.training.autoencoder import signal_to_noise
from livedrag.editor.training.clean_latents import clean_latent_errors
from livedrag.editor.training.pck import count_correct, make_keypoints, percentages_of_correct_keypoints
from livedrag.editor.training.pictures import Collection, Emoji, TrainingError
from livedrag.editor.training.preparations import Prepared, prepare
from livedrag.editor.training.report import choose, evaluate, read_pictures, search, table
from livedrag.editor.training.scenes import still_scene
from livedrag.editor.training.stages import CANDIDATES
from livedrag.editor.training.trials import REACH, Trial, bend, cross_correlation, distance_left, is_wrong, make_trials


@pytest.fixture(scope="module")
def picture(shapes: Collection) -> Tensor:
    return still_scene(shapes[0])


def test_a_bent_picture_shows_the_handle_at_its_target(picture: Tensor) -> None:
    drag = Drag(Point(120, 130), Point(136, 118))
    bent, mask = bend(picture, drag)
    torch.testing.assert_close(bent[:, 118, 136], picture[:, 130, 120], atol=1e-3, rtol=0)
    assert torch.equal(bent[:, ~torch.from_numpy(mask)], picture[:, ~torch.from_numpy(mask)])
    assert mask.sum() == pytest.approx(math.pi * (REACH * 20) ** 2, rel=0.01)
    assert distance_left(picture, bent, drag, mask) <= 2
    assert distance_left(picture, picture, drag, mask) == pytest.approx(20)


def test_cross_correlation_is_one_where_the_patch_is(picture: Tensor) -> None:
    likeness = cross_correlation(picture, picture[:, 90:111, 140:161])
    assert likeness[100, 150] == pytest.approx(1, abs=0.02)
    assert divmod(int(likeness.argmax()), 256) == (100, 150)
    assert likeness.max() < 1.02
    brighter = cross_correlation(picture * 0.5 + 0.2, picture[:, 90:111, 140:161])
    assert divmod(int(brighter.argmax()), 256) == (100, 150)


def test_cross_correlation_takes_no_faint_noise_for_the_patch(picture: Tensor) -> None:
    patch = picture[:, 90:111, 140:161]
    faint = torch.full_like(picture, 0.5)
    faint[:, 40:61, 40:61] += 0.01 * (patch - patch.mean())
    assert cross_correlation(faint, patch).max() < 0.1


def test_trials_are_fixed_and_can_be_judged(shapes: Collection) -> None:
    groups, again = (make_trials(shapes, [0, 2], 2) for _ in range(2))
    assert [[trial.drag for trial in group] for group in groups] == [[trial.drag for trial in group] for group in again]
    assert len(groups) == 2
    for trial in (trial for group in groups for trial in group):
        assert distance_left(trial.picture, trial.truth, trial.drag, trial.mask) <= 2
        assert distance_left(trial.picture, trial.picture, trial.drag, trial.mask) >= 13


def test_keypoints_show_the_same_in_both_views(shapes: Collection) -> None:
    made = make_keypoints(shapes, range(4))
    assert sum(len(each.here) for each in made) >= 4
    for each in made:
        assert ((each.here - each.there).norm(dim=-1) * 128 > 24).all()
        here, there = (
            grid_sample(view[None], places[None, None], align_corners=False)[0, :, 0]
            for view, places in zip(each.views, (each.here, each.there), strict=True)
        )
        assert (here - there).abs().mean() < 0.1
        assert count_correct(torch.nn.functional.avg_pool2d(each.views, 8).roll(3, -1), each) < len(each.here)


def test_measures_of_features_and_of_clean_latents(shapes: Collection) -> None:
    model = Diffusion.load("builtin", device="cpu")
    keypoints = make_keypoints(shapes, range(1))
    percentages = percentages_of_correct_keypoints(model, keypoints, timesteps=(60, 650))
    assert all(0 <= percentage <= 100 for percentage in percentages.values())
    errors = clean_latent_errors(model, shapes, count=4, timesteps=(300, 980))
    assert errors[300]["own words"] < errors[980]["own words"]


def test_signals_to_noise() -> None:
    flat = torch.zeros(1, 3, 8, 8)
    assert float(signal_to_noise(flat + 0.02, flat)) == pytest.approx(40)


def test_a_result_is_judged_around_the_target_against_the_true_answer(shapes: Collection) -> None:
    [[trial]] = make_trials(shapes, [0], 1)
    torn = trial.truth.clone()
    x, y = round(trial.drag.target.x), round(trial.drag.target.y)
    torn[:, y - 12 : y + 13, x - 12 : x + 13] *= -1
    assert not is_wrong(trial, trial.truth)
    assert is_wrong(trial, torn)
    assert is_wrong(trial, trial.picture + 1e-3), "it is no nearer to the true answer than the unedited picture"
    far = trial.truth.clone()
    far[:, :4, :4] *= -1
    assert not is_wrong(trial, far), "what is elsewhere does not count"


def test_one_picture_stands_for_a_concept() -> None:
    emojis = [Emoji("a", "wave", 0.5, True), Emoji("b", "fox", 1.0, True), Emoji("c", "flag", 0.1, True)]
    assert choose(Collection(emojis, np.zeros((3, 4, 1, 1), np.uint8))) == [1]


@pytest.fixture
def quick() -> Diffusion:
    """The built-in model with settings that take no time."""
    model = Diffusion.load("builtin", device="cpu")
    model.defaults = {"lora_steps": 1, "lora_batch": 1, "ddim_steps": 4, "max_iterations": 1}
    return model


@pytest.mark.long
def test_the_report_has_all_figures_and_pictures(quick: Diffusion, shapes: Collection, tmp_path: Path) -> None:
    emojis = [replace(emoji, caption=f"{emoji.caption}, {index}") for index in range(4) for emoji in shapes.emojis]
    many = Collection(emojis, np.concatenate([shapes._pictures] * 4))
    others = {"stripes": still_scene(shapes[0])}
    figures = evaluate(
        quick,
        many,
        tmp_path,
        progress=tmp_path / "p",
        overrides={"max_iterations": 1},
        limit=1,
        prompts=["a disc"],
        others=others,
    )
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    drags = figures["drags"]
    assert isinstance(drags, dict)
    assert list(drags)[:3] == ["no edit", "instant guess", "published loop"]
    assert list(drags)[-2:] == ["default", "the true answer"]
    assert list(drags) == list(figures["other kinds"])  # type: ignore[call-overload]
    assert drags["no edit"]["outside"] == drags["the true answer"]["outside"] == 0
    assert drags["the true answer"]["distance"] < 2 < drags["no edit"]["distance"]
    page = (tmp_path / "README.md").read_text()
    assert table(figures) in page
    for name in ("drags-1.webp", "others-1.webp", "reconstructions.webp", "words.webp"):
        assert f"]({name})" in page
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width == (8 * 160 if name.startswith(("drags", "others")) else 1024)


@pytest.mark.long
def test_searching_keeps_what_is_best(quick: Diffusion, shapes: Collection) -> None:
    trials = make_trials(shapes, [0], 1)
    best = search(quick, trials, [{"lora_steps": 1}, {"latent_lr": 1e-5}, {"latent_lr": 0.5}])
    assert {**quick.defaults, "latent_lr": best.get("latent_lr")} == {**best, "latent_lr": best.get("latent_lr")}
    assert best.get("latent_lr") in (None, 1e-5), "half a standard deviation a step tears the picture"


@pytest.mark.long
def test_a_search_prepares_a_picture_once_for_all_live_settings(
    quick: Diffusion, shapes: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []

    def note(model: Diffusion, trial: Trial, settings: DragSettings) -> Prepared:
        prepared.append(settings.lora_steps)
        return prepare(model, trial, settings)

    monkeypatch.setattr("livedrag.editor.training.preparations.prepare", note)
    trials = make_trials(shapes, [0, 2], 1)
    search(quick, trials, [{"latent_lr": 1e-5}, {"supervision": "region"}, {"lora_steps": 2}, {"latent_lr": 1e-4}])
    assert prepared == [1, 1, 2, 2]


def test_what_a_search_tries_can_be_set() -> None:
    for candidate in CANDIDATES:
        DragSettings().changed(candidate)


def test_pictures_of_a_folder_are_read_or_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no pictures in"):
        read_pictures(tmp_path)
    Image.new("RGB", (300, 200), (255, 0, 0)).save(tmp_path / "a red one.png")
    read = read_pictures(tmp_path)
    assert list(read) == ["a red one"]
    assert read["a red one"].shape == (3, 256, 256)
    assert (read["a red one"][0] > 0.99).all()
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(TrainingError, match=r"notes\.txt' can't be read|notes\.txt can't be read"):
        read_pictures(tmp_path)
