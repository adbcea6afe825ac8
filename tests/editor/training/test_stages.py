from __future__ import annotations

import copy
import itertools
import json
import math
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import grid_sample
from transformers import CLIPTokenizer

from livedrag.editor import Diffusion, Drag, DragSettings, Point
from livedrag.editor.generate import generate
from livedrag.editor.training.__main__ import main
from livedrag.editor.training.autoencoder import AutoencoderStage, new_autoencoder, signal_to_noise
from livedrag.editor.training.clean_latents import clean_latent_errors
from livedrag.editor.training.correspondence import FeatureUNet, Likeness, cell_places, correspondence, draw_places
from livedrag.editor.training.denoiser import DenoiserStage, assemble
from livedrag.editor.training.flows import Flows
from livedrag.editor.training.networks import TEXT_WIDTH, new_tokenizer, tokens_of
from livedrag.editor.training.noising import MAX_UNEVENNESS, draw_noise
from livedrag.editor.training.pairs import Pairs, draw_pairs, local_contrast
from livedrag.editor.training.pck import count_correct, invert, make_keypoints, percentages_of_correct_keypoints
from livedrag.editor.training.pictures import Collection, Emoji, TrainingError, catalogue, held_out, names_of
from livedrag.editor.training.preparations import Prepared, prepare
from livedrag.editor.training.report import choose, evaluate, read_pictures, search, table
from livedrag.editor.training.scenes import crops, draw_scenes, name_of, render, still_scene, whole
from livedrag.editor.training.shards import load_shards, save_shards
from livedrag.editor.training.stage import CPU, Stage, Training, pace
from livedrag.editor.training.stages import CANDIDATES, _lies_in, write
from livedrag.editor.training.trials import REACH, Trial, bend, cross_correlation, distance_left, is_wrong, make_trials


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


def test_a_crop_is_a_part_of_the_scene(shapes: Collection) -> None:
    scenes = draw_scenes(shapes, np.random.default_rng(0), 6)
    corners = torch.from_numpy(np.random.default_rng(1).integers(0, 256 - 96 + 1, (6, 2)))
    parts, wholes = (render(scenes, shapes.atlas, places) for places in (crops(corners, 96), whole()))
    for part, scene, (x, y) in zip(parts, wholes, corners.tolist(), strict=True):
        torch.testing.assert_close(part, scene[:, y : y + 96, x : x + 96], atol=1e-4, rtol=0)
    assert parts.abs().max() <= 1


def test_scenes_are_drawn_by_their_seed(shapes: Collection) -> None:
    drawn = [draw_scenes(shapes, np.random.default_rng(seed), 8) for seed in (1, 1, 2)]
    one, two, other = (render(scenes, shapes.atlas, whole()) for scenes in drawn)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert all("striped disc" in caption for caption in drawn[0].captions)


def test_backgrounds_have_the_nearest_word() -> None:
    assert name_of((0.9, 0.2, 0.2)) == "red"
    assert name_of((0.95, 0.95, 0.98)) == "white"


# Pairs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(shapes: Collection) -> tuple[Tensor, Flows, tuple[str, ...]]:
    return draw_pairs(shapes, shapes.atlas, np.random.default_rng(0), 12)


def test_the_first_view_warped_by_the_flow_is_the_second(pairs: tuple[Tensor, Flows, tuple[str, ...]]) -> None:
    views, flows, _ = pairs
    places = flows.at(whole().expand(12, -1, -1, -1))
    warped = grid_sample(views[0], places, mode="bicubic", align_corners=False)
    inside = (places.abs().amax(-1) < 0.98)[:, None].expand_as(warped)
    assert inside.float().mean() > 0.3
    off = (warped - views[1]).abs()[inside]
    assert off.mean() < 0.02, "only edges are a little softer"
    assert (views[0] - views[1]).abs()[inside].mean() > 5 * off.mean()


def test_flows_move_everything_far(pairs: tuple[Tensor, Flows, tuple[str, ...]]) -> None:
    """Without large translations features learn positions."""
    _, flows, _ = pairs
    places = whole().expand(12, -1, -1, -1)
    moved = (flows.at(places) - places).norm(dim=-1) * 128
    assert (moved.flatten(1).median(1).values > 24).float().mean() > 0.6
    assert moved.median() < 80


def test_flows_are_inverted(pairs: tuple[Tensor, Flows, tuple[str, ...]]) -> None:
    _, flows, _ = pairs
    here = torch.rand(12, 20, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    back = flows.at(invert(flows, here)[:, None])[:, 0]
    missed = (back - here).norm(dim=-1) * 128
    assert missed.quantile(0.9) < 0.1


@pytest.mark.gpu
def test_a_gpu_draws_the_same_pairs(shapes: Collection) -> None:
    (views, flows, captions), (theirs, their_flows, their_captions) = (
        draw_pairs(shapes, shapes.atlas.to(device), np.random.default_rng(0), 12) for device in ("cpu", "cuda")
    )
    assert captions == their_captions
    assert torch.equal(flows.numbers, their_flows.numbers.cpu())
    off = (views - theirs.cpu()).abs()
    assert off.mean() < 1e-4
    assert off.max() < 0.05


# Correspondence ----------------------------------------------------------------------------------------------------


def position_features(flows: Flows, side: int = 32) -> tuple[Tensor, Tensor]:
    """Features that correspond perfectly: each cell's place in view A, in waves that none has twice."""
    waves = torch.randn(2, 48, generator=torch.Generator().manual_seed(0)) * 6

    def features(places: Tensor) -> Tensor:
        return torch.cat([(places @ waves).sin(), (places @ waves).cos()], dim=-1).movedim(-1, 1)

    places = cell_places(side, side, CPU).unflatten(0, (side, side)).expand(len(flows.numbers), -1, -1, -1)
    return features(places), features(flows.at(places))


def test_features_that_correspond_have_a_low_loss(pairs: tuple[Tensor, Flows, tuple[str, ...]]) -> None:
    views, flows, _ = pairs
    places = draw_places(local_contrast(views[1]), torch.Generator().manual_seed(0))
    perfect = position_features(flows)
    useless = (torch.randn_like(perfect[0]), torch.randn_like(perfect[0]))
    losses = []
    for features in (perfect, useless):
        loss, far, found = correspondence(Likeness(), features, flows, places)
        losses.append(loss.mean())
        share = float(found.sum() / far.sum())
        assert share > 0.95 if features is perfect else share < 0.1
    assert losses[0] < 0.6 * losses[1]


def test_the_loss_makes_features_correspond(pairs: tuple[Tensor, Flows, tuple[str, ...]]) -> None:
    """Its gradient alone, on random features: what is looked for is found after some steps, and not before."""
    views, flows, _ = pairs
    flows = Flows(flows.numbers[:2])
    generator = torch.Generator().manual_seed(0)
    places = draw_places(local_contrast(views[1, :2]), generator)
    features = torch.randn(2, 2, 32, 32, 32, generator=generator).requires_grad_()
    likeness = Likeness()
    optimizer = torch.optim.Adam([features, *likeness.parameters()], lr=0.05)
    shares = []
    for _ in range(60):
        here, there = features
        loss, far, found = correspondence(likeness, (here, there), flows, places)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        shares.append(float(found.sum() / far.sum()))
    assert shares[0] < 0.1
    assert shares[-1] > 0.9


def test_places_are_drawn_by_contrast_each_cell_once() -> None:
    contrast = torch.zeros(16, 32, 32)
    contrast[:, :8, :8] = 1
    cells = ((draw_places(contrast, torch.Generator().manual_seed(0), 40) + 1) * 16).floor()
    assert all(len({tuple(cell) for cell in row}) == 40 for row in cells.tolist())
    assert (cells < 8).all(dim=-1).float().mean() == pytest.approx(0.82, abs=0.05)  # a sixth of the weight is elsewhere


def test_features_are_those_that_dragging_reads() -> None:
    model = Diffusion.load("builtin", device="cpu")
    latents, prompt = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0)), model.embed_prompt("a cat")
    with torch.no_grad():
        _, features = FeatureUNet(copy.deepcopy(model.unet))(latents, torch.tensor([300]), prompt)
    torch.testing.assert_close(features, model.predict_features(latents, 300, prompt))


# Stages ------------------------------------------------------------------------------------------------------------


def test_half_of_the_noise_has_something_smooth_added() -> None:
    noise = draw_noise(np.random.default_rng(0), 64)
    assert torch.equal(noise, draw_noise(np.random.default_rng(0), 64))
    coarse = torch.nn.functional.avg_pool2d(noise, 8).std(dim=(1, 2, 3))  # white: 1 / 8
    assert coarse[32:].mean() == pytest.approx(1 / 8, rel=0.1)
    assert 1.5 / 8 < coarse[:32].mean() < MAX_UNEVENNESS


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
            interrupted._advance(interrupted.step / 40)
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


def test_without_steps_the_learning_rate_falls_over_the_minutes(tmp_path: Path) -> None:
    """Over all runs: a second command goes on with the time that is left."""
    with pytest.raises(TrainingError, match="give --steps, --minutes or both"):
        Training(Line(), tmp_path).run(None)
    training = Training(Line(), tmp_path)
    training.seconds = 59.5
    rates = []
    for step in range(3):
        training._advance(1 - 0.1**step)
        rates.append(training._optimizers[0].param_groups[0]["lr"] / pace(step, 0, Line.warm_up, Line.cooling))
    assert rates == sorted(rates, reverse=True)
    assert training.run(None, minutes=1)
    assert 60 <= training.seconds < 62
    assert Training(Line(), tmp_path).run(None, minutes=1)
    assert not Training(Line(), tmp_path).run(10**9, minutes=0.0001)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [pace(step, step / 10_000, warm_up=200, cooling=0.3) for step in range(10_000)]
    assert rates[0] < 0.01
    assert rates[200] == rates[6000] == 1
    assert rates[-1] < 0.03
    assert all(after <= before for before, after in itertools.pairwise(rates[200:]))


def test_the_autoencoder_learns_a_little_at_once(shapes: Collection) -> None:
    stage = AutoencoderStage(shapes, shapes, batch=2)
    training = Training(stage, Path("/nonexistent"))
    first = sum(float(part.detach()) for part in stage.loss(0, 0.0).values())
    for _ in range(12):
        training._advance(0.5)
    assert sum(float(part.detach()) for part in stage.loss(0, 0.0).values()) < 0.9 * first
    whole = stage.loss(13, 0.99)
    assert all(math.isfinite(float(part.detach())) for part in whole.values())
    assert stage.sheet(training.averaged).size == (8 * 128, 128)  # four above four


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def tiny_unet() -> UNet2DConditionModel:
    blocks = ("DownBlock2D", "DownBlock2D"), ("UpBlock2D", "UpBlock2D")
    return UNet2DConditionModel(
        sample_size=32,
        layers_per_block=1,
        block_out_channels=(16, 16),
        down_block_types=blocks[0],
        up_block_types=blocks[1],
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


@lru_cache
def tokenizer_of(shapes: Collection) -> CLIPTokenizer:
    """Byte pairs that are as frequent come in any order: one tokenizer for all."""
    return new_tokenizer(shapes)


class Averaging(nn.Module):
    """An autoencoder that only averages colours: what it sees needs no time to encode."""

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
        self.matrix: Tensor

    def encode(self, pixels: Tensor) -> SimpleNamespace:
        small = torch.nn.functional.avg_pool2d(pixels, 8)
        return SimpleNamespace(latent=torch.einsum("ij,njhw->nihw", self.matrix, small))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Denoisers are trained on few pairs, by networks that take milliseconds."""
    monkeypatch.setattr("livedrag.editor.training.denoiser.FIRST_PAIRS", 2)
    monkeypatch.setattr("livedrag.editor.training.networks.new_unet", tiny_unet)


def make_stage(
    shapes: Collection,
    vae: nn.Module,
    device: str = "cpu",
    *,
    further: bool = False,
    teacher: nn.ModuleDict | None = None,
) -> DenoiserStage:
    tokenizer = tokenizer_of(shapes)
    vae.eval().requires_grad_(False).to(device)
    pairs = Pairs(shapes, vae, 0.6, partial(tokens_of, tokenizer), capacity=8, together=4)
    return DenoiserStage(pairs, tokenizer, batch=4, further=further, teacher=teacher)


@pytest.mark.long
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.usefixtures("tiny")
def test_the_denoiser_learns_a_little_at_once(shapes: Collection, tmp_path: Path, device: str) -> None:
    stage = make_stage(shapes, Averaging(), device)
    stage.warm_up = 5
    training = Training(stage, tmp_path)
    for _ in range(40):
        training._advance(0.5)
    for part in ("velocity", "correspondence"):
        values = [float(losses[part]) for losses in training._unseen]
        assert np.mean(values[-10:]) < 0.9 * np.mean(values[:10]), part
    training.save()
    assert Training(make_stage(shapes, Averaging(), device), tmp_path).step == 40


@pytest.mark.usefixtures("tiny")
def test_with_a_teacher_its_predictions_are_learned(shapes: Collection, tmp_path: Path) -> None:
    teacher = copy.deepcopy(make_stage(shapes, Averaging(), further=True).modules).eval().requires_grad_(False)
    same = make_stage(shapes, Averaging(), further=True, teacher=teacher)
    assert float(same.loss(0, 0.0)["teacher"].detach()) < 1e-6, "it starts as its teacher"
    assert "velocity" in same.watched
    training = Training(same, tmp_path)
    with torch.no_grad():
        for weight in same.modules["unet"].parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    same.warm_up = 1
    for _ in range(20):
        training._advance(0.5)
    learned = [float(losses["teacher"]) for losses in training._unseen]
    assert np.mean(learned[-5:]) < 0.6 * np.mean(learned[:5])


@pytest.mark.long
@pytest.mark.usefixtures("tiny")
def test_the_denoiser_goes_on_exactly_where_it_was(shapes: Collection, tmp_path: Path) -> None:
    """Also with the pairs that it had in memory: by then some of them have given way to fresh ones."""

    def training(name: str) -> Training:
        return Training(make_stage(shapes, Averaging(), further=True), tmp_path / name)

    straight, interrupted = training("straight"), training("interrupted")
    for step in range(12):
        straight._advance(step / 12)
    for step in range(9):
        interrupted._advance(step / 12)
    interrupted.save()
    resumed = training("interrupted")
    for step in range(9, 12):
        resumed._advance(step / 12)
    for one, other in zip(straight.averaged.parameters(), resumed.averaged.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weights_in_small_files_are_those_of_the_latest_complete_step(tmp_path: Path) -> None:
    modules = nn.ModuleDict({"a": nn.Linear(64, 64), "b": nn.Linear(64, 64)}).half().float()
    with pytest.raises(TrainingError, match="no complete weights"):
        load_shards(tmp_path / "missing")
    save_shards(modules, tmp_path, 5, max_bytes=10_000)
    save_shards(modules, tmp_path, 20, max_bytes=10_000)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["weights-0000020-1-of-2.safetensors", "weights-0000020-2-of-2.safetensors"]
    assert all(file.stat().st_size < 12_000 for file in tmp_path.iterdir())
    (tmp_path / "weights-0000030-1-of-2.safetensors").write_bytes(b"the second is missing")
    kept = load_shards(tmp_path)
    assert kept.keys() == modules.state_dict().keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in modules.state_dict().items())


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


def test_the_finished_model_opens_and_draws(shapes: Collection, tmp_path: Path) -> None:
    """From a tokenizer and random weights to a folder that the editor opens, which makes pictures by their seed."""
    torch.manual_seed(0)
    new_autoencoder().save_pretrained(tmp_path / "vae")
    stage = make_stage(shapes, AutoencoderDC.from_pretrained(tmp_path / "vae"))
    assert 0.5 < float(stage.loss(0, 0.0)["velocity"].detach()) < 5
    write(assemble(stage.pairs.vae, 0.6, stage.modules, tokenizer_of(shapes)), tmp_path / "model")
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
