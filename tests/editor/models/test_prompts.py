"""Stable Diffusion XL's conditions are those that diffusers' own pipeline computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline

from livedrag.editor import Diffusion
from livedrag.editor.generate import first_noise, generate
from tests.pipelines import WIDTH, XL_WIDTH, write_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("tiny") / "little-xl", version="xl")


@pytest.fixture(scope="module")
def large(folder: Path) -> Diffusion:
    return Diffusion.load(str(folder), device="cpu", dtype=torch.float64)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float64, add_watermarker=False)


@pytest.mark.parametrize("prompt", ["a red cat", "", "cat " * 100])
def test_both_text_encoders_and_the_pooled_embedding(
    large: Diffusion, pipeline: StableDiffusionXLPipeline, prompt: str
) -> None:
    embedding = large.embed_prompt(prompt)
    words, _, pooled, _ = pipeline.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
    assert words.shape == (1, embedding.shape[1] - 1, WIDTH + XL_WIDTH)
    assert torch.allclose(embedding[:, :-1], words, rtol=0, atol=1e-12)
    assert torch.allclose(embedding[:, -1, :XL_WIDTH], pooled, rtol=0, atol=1e-12)
    assert embedding[:, -1, XL_WIDTH:].abs().max() == 0


def test_a_generated_picture_is_the_pipelines(large: Diffusion, pipeline: StableDiffusionXLPipeline) -> None:
    """Prompt, size conditioning, guidance away from zeros, and the schedule, all at once."""
    noise = first_noise(large, 3)
    *_, last = generate(large, "a red cat", seed=3, guidance=5.0, ddim_steps=4)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="leading")
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(
        "a red cat", num_inference_steps=4, guidance_scale=5.0, latents=noise, output_type="latent"
    ).images  # fmt: skip
    assert torch.allclose(last.latent, wanted, rtol=0, atol=1e-9)


def test_the_size_is_that_of_the_latent(large: Diffusion) -> None:
    """A wide picture is not told to the network as a square one, and rows of a batch are alike."""
    text = large.embed_prompt("a red cat")
    wide = torch.randn(1, 4, 12, 24, dtype=torch.float64)
    seen = []
    handle = large.unet.add_time_proj.register_forward_pre_hook(lambda _module, given: seen.append(given[0].tolist()))
    try:
        noise = large.predict(wide.expand(2, -1, -1, -1), 500, text).noise
    finally:
        handle.remove()
    assert seen == [[96.0, 192.0, 0.0, 0.0, 96.0, 192.0] * 2]
    assert torch.allclose(noise[0], noise[1], rtol=0, atol=1e-12)
