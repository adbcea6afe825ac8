"""The stages of training, and how they continue."""

from __future__ import annotations

import copy
import itertools
import math
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from livedrag.editor import Diffusion
from livedrag.editor.generate import generate
from livedrag.editor.training.__main__ import main
from livedrag.editor.training.autoencoder import AutoencoderStage, new_autoencoder
from livedrag.editor.training.denoiser import DenoiserStage, assemble
from livedrag.editor.training.networks import TEXT_WIDTH, new_tokenizer, tokens_of
from livedrag.editor.training.noising import MAX_UNEVENNESS, draw_noise
from livedrag.editor.training.pairs import Pairs
from livedrag.editor.training.pictures import Collection, TrainingError
from livedrag.editor.training.shards import load_shards, save_shards
from livedrag.editor.training.stage import Stage, Training, pace
from livedrag.editor.training.stages import _lies_in, write


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
