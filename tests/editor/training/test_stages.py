from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC
from PIL import Image
from torch import Tensor, nn

from livedrag.editor import Diffusion, Drag, Point
from livedrag.editor.generate import generate
from livedrag.editor.training.__main__ import main
from livedrag.editor.training.autoencoder import AutoencoderStage, new_autoencoder, signal_to_noise
from livedrag.editor.training.denoiser import (
    MOST_UNEVEN,
    TOGETHER,
    DenoiserStage,
    Latents,
    assemble,
    draw_noise,
    new_tokenizer,
)
from livedrag.editor.training.pictures import Collection, Emoji, TrainingError, catalogue, held_out, names_of
from livedrag.editor.training.report import Judgement, Summary, choose, evaluate, guess, judge, search, summarise, table
from livedrag.editor.training.scenes import Crop, draw_scene, name_of, scene_at, still_scene
from livedrag.editor.training.stage import Stage, Training, pace
from livedrag.editor.training.stages import _lies_in, write
from livedrag.editor.training.trials import REACH, bend, cross_correlation, distance_left, make_trials


@pytest.fixture(scope="module")
def shapes() -> Collection:
    """Four discs with stripes: enough detail to be found again."""
    rows, columns = np.mgrid[:256, :256]
    pictures = []
    for index in range(4):
        solid = np.hypot(rows - 128, columns - 128) < 90 + 5 * index
        waves = 127 * (1 + np.sin(columns / (7 + index) + rows / 31) * np.cos(rows / (9 + index)))
        colours = [np.roll(waves, 40 * channel, axis=0) for channel in range(3)]
        pictures.append(np.stack([*colours, solid * 255]).astype(np.uint8))
    emojis = [Emoji(str(index), f"striped disc {index}", 1.0, False) for index in range(4)]
    return Collection(emojis, np.stack(pictures))


# Pictures --------------------------------------------------------------------------------------------------------


def test_captions_come_from_code_points_without_the_skin_tone() -> None:
    assert names_of("1f9f8") == ("teddy bear",)
    assert names_of("1f44b-1f3fd") == names_of("1f44b") == ("waving hand", "wave")
    assert names_of("1f3d8-fe0f")[0] == "houses"
    assert names_of("1f697") == ("automobile", "car", "red car")
    assert names_of("1f415") == ("dog",)  # not "dog2" as well
    assert names_of("31-20e3")[0] == "keycap 1"
    assert names_of("1f3f4-e0067_e0062_e0065_e006e_e0067_e007f")[0] == "england"  # so named in the package
    assert names_of("e000") == ()


def test_a_concept_counts_once_however_many_tones_it_comes_in() -> None:
    emojis = catalogue(["1f44b", "1f44b-1f3fb", "1f44b-1f3ff", "1f9f8", "1f1f0-1f1f5", "e000"])
    weights = {emoji.code: emoji.weight for emoji in emojis}
    assert weights["1f44b"] == weights["1f44b-1f3ff"] == pytest.approx(1 / 3)
    assert weights["1f9f8"] == 1
    assert weights["1f1f0-1f1f5"] < 0.5
    assert "e000" not in weights


def test_what_is_held_out_goes_by_the_concept_and_stays_so() -> None:
    assert [name for name in ("fox", "bacon", "snail", "teddy bear", "cactus") if held_out(name)] == [
        "fox",
        "bacon",
        "snail",
    ]
    share = np.mean([held_out(f"thing {number}") for number in range(4000)])
    assert 0.035 < share < 0.065


# Scenes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_crop_is_a_part_of_the_scene(shapes: Collection, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = (int(random.integers(0, 256 - 96 + 1)) for _ in "xy")
    part = draw_scene(shapes, np.random.default_rng(seed), 96)
    state = np.random.default_rng(seed)
    for _ in "xy":
        state.integers(0, 256 - 96 + 1)
    whole = scene_at(shapes, state, Crop())
    assert part.caption == whole.caption
    torch.testing.assert_close(part.pixels, whole.pixels[:, y : y + 96, x : x + 96], atol=1e-4, rtol=0)
    assert part.pixels.abs().max() <= 1


def test_scenes_are_drawn_by_their_seed(shapes: Collection) -> None:
    one, two, other = (draw_scene(shapes, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.pixels, two.pixels)
    assert not torch.equal(one.pixels, other.pixels)
    assert "striped disc" in one.caption


def test_backgrounds_have_the_nearest_word() -> None:
    assert name_of((0.9, 0.2, 0.2)) == "red"
    assert name_of((0.95, 0.95, 0.98)) == "white"


# Stages ------------------------------------------------------------------------------------------------------------


def test_half_of_the_noise_has_something_smooth_added() -> None:
    noise = draw_noise(np.random.default_rng(0), 64)
    assert torch.equal(noise, draw_noise(np.random.default_rng(0), 64))
    coarse = torch.nn.functional.avg_pool2d(noise, 8).std(dim=(1, 2, 3))  # white: 1 / 8
    assert coarse[32:].mean() == pytest.approx(1 / 8, rel=0.1)
    assert 1.5 / 8 < coarse[:32].mean() < MOST_UNEVEN


class Line(Stage):
    """Fits a line to noisy points: a stage in milliseconds."""

    name = "line"
    rate = 0.05

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules = nn.ModuleDict({"line": nn.Linear(1, 1)})

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        x = torch.from_numpy(np.random.default_rng(step).standard_normal((32, 1), dtype=np.float32))
        return {"squares": (self.modules["line"](x) - (2 * x - 1)).square().mean()}

    def sheet(self, averaged: nn.ModuleDict) -> Image.Image:
        return Image.new("RGB", (8, 8))


def test_training_goes_on_exactly_where_it_was(tmp_path: Path) -> None:
    straight = Training(Line(), tmp_path / "straight")
    straight.run(40)
    for stop in (7, 25):
        interrupted = Training(Line(), tmp_path / "interrupted")
        while interrupted.step < stop:
            interrupted._advance(40)
        interrupted.save()
    resumed = Training(Line(), tmp_path / "interrupted")
    assert resumed.step == 25
    resumed.run(40)
    for one, other in zip(straight.averaged.parameters(), resumed.averaged.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (tmp_path / "interrupted" / "line-loss.png").is_file()
    assert (tmp_path / "interrupted" / "line-sheet.png").is_file()


class Broken(Line):
    """Its loss is nothing from the sixth step on."""

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        return {name: part / (step < 5) for name, part in super().loss(step, progress).items()}


@pytest.mark.parametrize("look", [100, 7])
def test_a_loss_that_is_not_finite_is_said_and_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    monkeypatch.setattr("livedrag.editor.training.stage.LOOK", look)
    training = Training(Broken(), tmp_path)
    training.run(5)
    with pytest.raises(TrainingError, match="not finite at step 5: take a lower rate"):
        training.run(20)
    assert Training(Broken(), tmp_path).step == 5


def test_training_learns(tmp_path: Path) -> None:
    training = Training(Line(), tmp_path)
    training.run(400)
    weight, bias = (float(parameter) for parameter in training.averaged["line"].parameters())
    assert weight == pytest.approx(2, abs=0.05)
    assert bias == pytest.approx(-1, abs=0.05)


def test_training_stops_after_its_minutes(tmp_path: Path) -> None:
    training = Training(Line(), tmp_path)
    training.run(10**9, minutes=0.005)
    assert 0 < training.step < 10**9
    assert training.checkpoint.is_file()


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [pace(step, 10_000, cooling=0.3) for step in range(10_000)]
    assert rates[0] < 0.01
    assert rates[200] == rates[6000] == 1
    assert rates[-1] < 0.03
    assert all(after <= before for before, after in itertools.pairwise(rates[200:]))


def test_the_autoencoder_learns_a_little_at_once(shapes: Collection) -> None:
    stage = AutoencoderStage(shapes, shapes, batch=2)
    training = Training(stage, Path("/nonexistent"))
    first = sum(float(part.detach()) for part in stage.loss(0, 0.0).values())
    for _ in range(12):
        training._advance(12)
    assert sum(float(part.detach()) for part in stage.loss(0, 0.0).values()) < 0.9 * first
    whole = stage.loss(13, 0.99)
    assert all(math.isfinite(float(part.detach())) for part in whole.values())
    assert stage.sheet(training.averaged).size == (8 * 128, 128)  # four above four


@pytest.mark.long
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_denoiser_learns_a_little_at_once(
    shapes: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr("livedrag.editor.training.denoiser.FIRST_LATENTS", 16)
    place = torch.device(device)
    vae = new_autoencoder().eval().requires_grad_(False).to(place)
    latents = Latents(shapes, vae, 0.6, tmp_path / "latents.f16", seed=0, workers=1)
    stage = DenoiserStage(latents, new_tokenizer(shapes), device=place, batch=4)
    training = Training(stage, tmp_path)
    (first,) = stage.loss(0, 0.0).values()
    for _ in range(12):
        training._advance(12)
    (last,) = stage.loss(0, 0.0).values()
    assert float(last.detach()) < 0.95 * float(first.detach())
    training.save()
    again = Training(DenoiserStage(latents, new_tokenizer(shapes), device=place, batch=4), tmp_path)
    assert again.step == 12


@pytest.mark.long
def test_latents_are_the_same_again_from_their_file(shapes: Collection, tmp_path: Path) -> None:
    vae = new_autoencoder().eval()

    def latents(workers: int = 0) -> Latents:
        return Latents(shapes, vae, 0.5, tmp_path / "latents.f16", seed=3, workers=workers)

    kept = latents()
    kept.grow(3)
    with (tmp_path / "latents.f16").open("ab") as file:
        file.write(b"half of the next one")  # a crash while writing
    again = latents(workers=2)
    assert len(again) == TOGETHER
    again.grow(TOGETHER + 1)
    kept.grow(TOGETHER + 1)
    assert len(kept) == len(again) == 2 * TOGETHER
    everything = np.arange(2 * TOGETHER)
    assert torch.equal(kept[everything], again[everything])
    assert kept.captions == again.captions


def test_only_the_same_autoencoder_keeps_its_latents(tmp_path: Path) -> None:
    vae = AutoencoderDC.from_config(new_autoencoder().config)
    assert not _lies_in(tmp_path, vae)
    vae.save_pretrained(tmp_path)
    assert _lies_in(tmp_path, vae)
    vae.register_to_config(scaling_factor=0.5)
    assert not _lies_in(tmp_path, vae)
    vae.save_pretrained(tmp_path)
    with torch.no_grad():
        next(vae.parameters()).add_(1e-3)
    assert not _lies_in(tmp_path, vae)


def test_the_finished_model_opens_and_draws(
    shapes: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a tokenizer and random weights to a folder that the editor opens, which makes pictures by their seed."""
    monkeypatch.setattr("livedrag.editor.training.denoiser.FIRST_LATENTS", 16)
    tokenizer = new_tokenizer(shapes)
    new_autoencoder().save_pretrained(tmp_path / "vae")
    vae = AutoencoderDC.from_pretrained(tmp_path / "vae")
    stage = DenoiserStage(Latents(shapes, vae, 0.6, tmp_path / "latents", seed=0), tokenizer, batch=2)
    (loss,) = stage.loss(0, 0.0).values()
    assert 0.5 < float(loss.detach()) < 5
    write(assemble(stage.latents.vae, 0.6, stage.modules, tokenizer), tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "vae" / "config.json").read_text()
    model = Diffusion.load(str(tmp_path / "model"), device="cpu")
    assert model.native_side == 256
    assert model.stride == 32
    assert sum(file.stat().st_size for file in (tmp_path / "model").rglob("*.*")) < 40 * 2**20
    one, two, other = (list(generate(model, "a striped disc", seed=seed, ddim_steps=2)) for seed in (1, 1, 2))
    assert [step.step for step in one] == [1, 2]
    assert torch.equal(one[-1].latent, two[-1].latent)
    assert not torch.equal(one[-1].latent, other[-1].latent)


def test_a_stage_out_of_order_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "model"), "--folder", str(tmp_path)]) == 2
    assert "no finished autoencoder" in capsys.readouterr().err


# Trials ------------------------------------------------------------------------------------------------------------


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
        assert judge(trial, trial.truth, 0.0).distance <= 2
        nothing = judge(trial, trial.picture, 0.0)
        assert nothing.distance >= 13
        assert nothing.outside == 0
        guessed = judge(trial, guess(trial), 0.0)
        assert guessed.distance < nothing.distance / 2
        assert guessed.likeness > nothing.likeness


def test_summaries_and_signals() -> None:
    summary = summarise([Judgement(4, 1, 20, 3), Judgement(16, 3, 30, 5)])
    assert summary == Summary(distance=10, arrived=0.5, outside=2, likeness=25, seconds=4)
    flat = torch.zeros(1, 3, 8, 8)
    assert float(signal_to_noise(flat + 0.02, flat)) == pytest.approx(40)


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
    figures = evaluate(quick, many, tmp_path, most=1, prompts=["a disc"])
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    drags = figures["drags"]
    assert isinstance(drags, dict)
    assert list(drags) == ["no edit", "instant guess", "livedrag", "the true answer"]
    assert drags["no edit"]["outside"] == drags["the true answer"]["outside"] == 0
    assert drags["the true answer"]["distance"] < 2 < drags["no edit"]["distance"]
    page = (tmp_path / "README.md").read_text()
    assert table(figures) in page
    for name in ("drags-1.webp", "reconstructions.webp", "words.webp"):
        assert f"]({name})" in page
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width == (8 * 160 if name.startswith("drags") else 1024)


@pytest.mark.long
def test_searching_keeps_what_is_best(quick: Diffusion, shapes: Collection) -> None:
    trials = make_trials(shapes, [0], 1)
    best = search(quick, trials, {"lora_steps": (1,), "latent_lr": (1e-5, 0.5)})
    assert {**quick.defaults, "latent_lr": best.get("latent_lr")} == {**best, "latent_lr": best.get("latent_lr")}
    assert best.get("latent_lr") in (None, 1e-5), "half a standard deviation a step tears the picture"
