from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from PIL import Image

from livedrag.editor import Diffusion, DragSession, DragSettings
from livedrag.editor.models.ddim import ddim_step, denoising_step, predict_x0
from livedrag.editor.settings import Setting
from tests.editor.drag.test_session import picture
from tests.pipelines import write_pipeline


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    folder = write_pipeline(tmp_path_factory.mktemp("tiny") / "model", version=2, prediction_type=request.param)
    return Diffusion.load(str(folder), device="cpu", dtype=torch.float64)


def scheduler_of(model: Diffusion, kind: type[DDIMScheduler | DDIMInverseScheduler]) -> DDIMScheduler:
    return kind(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=model.schedule.prediction_type,
    )


@pytest.mark.parametrize("steps", [2, 7, 50, 999])
def test_the_levels_are_those_of_diffusers(tiny: Diffusion, steps: int) -> None:
    down, up = scheduler_of(tiny, DDIMScheduler), scheduler_of(tiny, DDIMInverseScheduler)
    down.set_timesteps(steps)
    up.set_timesteps(steps)
    timesteps = [level.timestep for level in tiny.schedule.levels(steps)]
    assert timesteps == down.timesteps.flip(0).tolist() == up.timesteps.tolist()


def test_denoising_agrees_with_diffusers(tiny: Diffusion) -> None:
    theirs = scheduler_of(tiny, DDIMScheduler)
    theirs.set_timesteps(10)
    levels = tiny.schedule.levels(10)
    assert [level.timestep for level in levels[::-1]] == theirs.timesteps.tolist()
    text = tiny.embed_prompt("a cat")
    mine = other = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        for level in levels[::-1]:
            mine, x0 = denoising_step(tiny, mine, text, level)
            step = theirs.step(tiny.unet(other, level.timestep, text).sample, level.timestep, other)
            other = step.prev_sample
            assert torch.allclose(x0, step.pred_original_sample, atol=1e-5)
    assert torch.allclose(mine, other, atol=1e-5)


def test_inversion_agrees_with_diffusers(tiny: Diffusion) -> None:
    theirs = scheduler_of(tiny, DDIMInverseScheduler)
    theirs.set_timesteps(10)
    levels = tiny.schedule.levels(10)
    assert [level.timestep for level in levels] == theirs.timesteps.tolist()
    session = inverted(tiny, picture(), ddim_steps=10, inversion_strength=1.0)
    text, other = tiny.embed_prompt("a cat"), session._state.preparation.clean
    with torch.no_grad():
        for level in levels:
            other = theirs.step(tiny.unet(other, level.timestep, text).sample, level.timestep, other).prev_sample
    assert torch.allclose(session.latent, other, atol=1e-5)
    session.close()


def inverted(model: Diffusion, image: Image.Image, **changed: Setting) -> DragSession:
    """A session whose LoRA changes nothing."""
    settings = DragSettings.resolve(None, {}, {"lora_steps": 0, "reference_control": False, **changed})
    session = DragSession(model, image, prompt="a cat", settings=settings)
    for _ in session.prepare():
        pass
    return session


def test_the_step_is_its_own_inverse() -> None:
    latent, noise = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64).unbind(0)
    there = ddim_step(latent, noise, 0.9, 0.3)
    assert torch.allclose(ddim_step(there, noise, 0.3, 0.9), latent)
    assert torch.allclose(predict_x0(there, noise, 0.3), predict_x0(latent, noise, 0.9))


def test_inverting_and_denoising_returns(model: Diffusion, samples: Path) -> None:
    """On the built-in model the picture's latent comes back to within a few hundredths of its unit variance."""
    session = inverted(model, Image.open(samples / "koala.png"), ddim_steps=50, inversion_strength=0.7)
    preparation = session._state.preparation
    assert len(preparation.levels) == 35
    latent, clean = session.latent, preparation.clean
    assert (latent - clean).std() > 0.5  # it went somewhere
    with preparation.lora.active():
        for level in preparation.levels[::-1]:
            latent, _ = denoising_step(model, latent, preparation.prompt, level)
    assert (latent - clean).pow(2).mean().sqrt() < 0.1 * clean.std()
    session.close()
