from __future__ import annotations

from pathlib import Path

import pytest
import torch

from livedrag.editor import Diffusion, SettingsError
from tests.pipelines import write_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(
        tmp_path_factory.mktemp("tiny") / "little-diffusion", version=2, prediction_type="v_prediction"
    )


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Diffusion:
    return Diffusion.load(str(folder), device="cpu")


def test_a_folder_says_what_it_is(tiny: Diffusion) -> None:
    assert (tiny.name, tiny.kind) == ("little-diffusion", "stable-diffusion")
    assert (tiny.native_side, tiny.stride, tiny.latent_stride) == (128, 64, 8)
    assert tiny.schedule.prediction_type == "v_prediction"


def test_the_built_in_model_brings_its_defaults(model: Diffusion) -> None:
    assert (model.name, model.kind, model.native_side, model.stride) == ("built-in", "builtin", 256, 32)
    assert model.defaults["lora_lr"] == 0.001


def test_weights_never_require_grad(tiny: Diffusion) -> None:
    for part in (tiny.unet, tiny.vae, tiny.text_encoder):
        assert not any(parameter.requires_grad for parameter in part.parameters())
        assert not part.training


def test_latents_have_about_unit_variance_and_come_back(model: Diffusion, samples: Path) -> None:
    from PIL import Image

    from livedrag.editor.picture import to_tensor
    from livedrag.editor.points import Size

    pixels = to_tensor(Image.open(samples / "t-rex.png"), Size(256, 256))
    latent = model.encode(pixels)
    assert latent.shape == (1, 4, 32, 32)
    error = (model.decode(latent) - pixels).pow(2).mean()
    assert 10 * torch.log10(4 / error) > 25  # PSNR in dB over the range of 2


def test_velocity_becomes_noise(tiny: Diffusion) -> None:
    """v = sqrt(alpha) noise - sqrt(1 - alpha) clean, so the prediction and the latent give both (Salimans and Ho)."""
    latent, text = torch.randn(1, 4, 16, 16), tiny.embed_prompt("a cat")
    alpha = tiny.schedule.alphas[500]
    with torch.no_grad():
        noise = tiny.predict(latent, 500, text).noise
        velocity = tiny.run_unet(latent, 500, text)
    clean = (latent - (1 - alpha) ** 0.5 * noise) / alpha**0.5
    assert torch.allclose(velocity, alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean, atol=1e-4)


def test_features_alone_are_the_features_of_the_whole_pass(tiny: Diffusion) -> None:
    latent, text = torch.randn(1, 4, 16, 16, requires_grad=True), tiny.embed_prompt("")
    whole = tiny.predict(latent, 300, text)
    alone = tiny.predict_features(latent, 300, text)
    assert alone.shape[-2:] == (16, 16)
    assert torch.equal(whole.features, alone)
    assert alone.requires_grad


def test_the_graph_can_end_at_the_features(tiny: Diffusion) -> None:
    latent, text = torch.randn(1, 4, 16, 16, requires_grad=True), tiny.embed_prompt("")
    ended = tiny.predict(latent, 300, text, noise_gradient=False)
    assert ended.features.requires_grad
    assert not ended.noise.requires_grad
    assert torch.is_grad_enabled()
    whole = tiny.predict(latent, 300, text)
    assert whole.noise.requires_grad
    assert torch.equal(whole.noise, ended.noise)


def test_an_early_exit_leaves_nothing_behind(tiny: Diffusion) -> None:
    latent, text = torch.randn(1, 4, 16, 16), tiny.embed_prompt("")
    with torch.no_grad():
        before = tiny.predict(latent, 300, text).noise
        tiny.predict_features(latent, 300, text)
        assert torch.equal(tiny.predict(latent, 300, text).noise, before)


def test_long_prompts_are_cut_to_the_encoders_length(tiny: Diffusion) -> None:
    tokens = tiny.text_encoder.config.max_position_embeddings
    assert tiny.embed_prompt("cat " * 500).shape == tiny.embed_prompt("").shape == (1, tokens, 32)


def test_the_part_of_a_prompt_that_is_ignored_begins_at_a_whole_word(model: Diffusion) -> None:
    length = model.text_encoder.config.max_position_embeddings
    assert model.prompts.ignored_part("a red apple") == ""
    words = [f"apple{index}" for index in range(length)]
    prompt = "  ".join(words)
    ignored = model.prompts.ignored_part(prompt)
    assert prompt.endswith(ignored)
    assert ignored.split() == words[-len(ignored.split()) :]
    read = prompt.removesuffix(ignored)
    assert model.prompts.ignored_part(read) == ""
    assert torch.equal(model.embed_prompt(prompt + " and a pear"), model.embed_prompt(prompt))
    assert not torch.equal(model.embed_prompt(read), model.embed_prompt(read.replace("apple0", "pear")))


def test_a_prompt_must_be_text(tiny: Diffusion) -> None:
    with pytest.raises(SettingsError, match=r"'caf\\udce9' is not valid text from character 4 on"):
        tiny.embed_prompt("caf\udce9")
