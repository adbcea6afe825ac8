"""A picture's LoRA leaves as a file that diffusers opens, and comes back, also from the authors' code."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, EditorError, FitStep, ModelError, Point
from livedrag.editor.fitting.fitted_lora import FittedLora, read_fitted_lora

PICTURE = Image.effect_noise((96, 64), 60).convert("RGB")
SETTINGS = DragSettings(
    lora_steps=3, lora_rank=5, lora_lr=0.01, lora_batch=1, ddim_steps=3, max_iterations=2, lora_targets="to_q to_out"
)


def finished(session: DragSession) -> Image.Image:
    session.add_drag("0", Drag(Point(20, 20), Point(60, 30)))
    for stage in (session.prepare, session.drag, session.render):
        for _ in stage():
            pass
    return session.result()


@pytest.fixture(scope="module")
def exported(tiny: Diffusion, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, torch.Tensor]:
    """A LoRA's file, the picture of the session that it is from, and the noise that was predicted with it."""
    path = tmp_path_factory.mktemp("lora") / "pytorch_lora_weights.safetensors"
    session = DragSession(tiny, PICTURE, settings=SETTINGS, seed=2)
    result = finished(session)
    session.save_lora(path)
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with session._state.preparation.lora.active():
        noise = tiny.predict(latent, 500, tiny.embed_prompt("a cat")).noise
    session.close()
    return path, result.tobytes(), noise


def test_it_opens_in_diffusers(exported: tuple[Path, bytes, torch.Tensor], tiny: Diffusion, tiny_folder: Path) -> None:
    path, _, noise = exported
    assert set(load_file(path)) == {
        f"unet.{name}.lora.{side}.weight"
        for name, _ in tiny.unet.named_modules()
        if name.endswith((".to_q", ".to_out.0"))
        for side in ("down", "up")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
        pipeline.load_lora_weights(path.parent)
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    text = tiny.embed_prompt("a cat")
    with torch.no_grad():
        theirs = pipeline.unet(latent, 500, text).sample
    assert torch.allclose(theirs, noise, rtol=0, atol=1e-5)
    assert not torch.allclose(theirs, tiny.predict(latent, 500, text).noise, rtol=0, atol=1e-3), "it changes something"


def as_the_authors_write(path: Path, target: Path) -> Path:
    """DragDiffusion's code runs on diffusers 0.17 and 0.24, which name the attention's processors."""
    renamed = {
        re.sub(r"\.(to_q|to_k|to_v|to_out)(\.0)?\.lora\.", r".processor.\1_lora.", name): tensor
        for name, tensor in load_file(path).items()
    }
    save_file(renamed, target)
    return target


@pytest.mark.parametrize("author", ["livedrag", "DragDiffusion"])
def test_it_comes_back_and_nothing_is_fitted(
    exported: tuple[Path, bytes, torch.Tensor], tiny: Diffusion, author: str, tmp_path: Path
) -> None:
    path, result, _ = exported
    if author == "DragDiffusion":
        path = as_the_authors_write(path, tmp_path / "lora.safetensors")
    fitted = read_fitted_lora(path, tiny)
    assert (fitted.rank, fitted.targets) == (5, ("to_q", "to_out"))
    other = DragSettings(ddim_steps=3, max_iterations=2, lora_steps=50)
    session = DragSession(tiny, PICTURE, settings=other, seed=2)
    session.use_lora(fitted)
    assert not any(isinstance(step, FitStep) for step in session.prepare())
    restored = DragSession.restore(tiny, PICTURE, session.snapshot())
    session.close()
    assert restored.settings.lora_rank == 5
    assert finished(restored).tobytes() == result
    restored.close()


def test_layers_of_different_ranks_and_layers_that_are_missing(tiny: Diffusion, tmp_path: Path) -> None:
    layers = [name for name, _ in tiny.unet.named_modules() if name.endswith(".to_q")][:2]
    width = {name: tiny.unet.get_submodule(name).in_features for name in layers}
    out = {name: tiny.unet.get_submodule(name).out_features for name in layers}
    tensors = {}
    for rank, name in enumerate(layers, start=2):
        tensors[f"unet.{name}.lora.down.weight"] = torch.ones(rank, width[name])
        tensors[f"unet.{name}.lora.up.weight"] = torch.ones(out[name], rank)
    save_file(tensors, tmp_path / "lora.safetensors")
    fitted = read_fitted_lora(tmp_path / "lora.safetensors", tiny)
    assert (fitted.rank, fitted.targets) == (3, ("to_q",))
    session = DragSession(tiny, PICTURE, settings=SETTINGS)
    session.use_lora(fitted)
    lora = session._state.preparation.lora
    for name, down, up in zip(lora.names, lora.down, lora.up, strict=True):
        rank = {layers[0]: 2, layers[1]: 3}.get(name, 0)
        assert (up @ down - rank).abs().max() < 1e-5
    session.close()


def test_loras_that_are_for_something_else(
    exported: tuple[Path, bytes, torch.Tensor], tiny: Diffusion, model: Diffusion, tmp_path: Path
) -> None:
    path, _, _ = exported
    style = {"unet.mid_block.attentions.0.proj_in.lora.down.weight": torch.zeros(2, 32)}
    style |= {"unet.mid_block.attentions.0.proj_in.lora.up.weight": torch.zeros(32, 2)}
    save_file(style, tmp_path / "style.safetensors")
    with pytest.raises(ModelError, match=r"it changes mid_block.attentions.0.proj_in: use it with --lora"):
        read_fitted_lora(tmp_path / "style.safetensors", tiny)
    session = DragSession(model, PICTURE)
    with pytest.raises(
        ModelError, match=r"the picture's LoRA (is for another model|has a layer that this model lacks)"
    ):
        session.use_lora(read_fitted_lora(path, model))
    next(iter(session.prepare()))
    with pytest.raises(EditorError, match=r"is being fitted already: start a new session"):
        session.use_lora(FittedLora(1, ("to_q",), {}))
    session.close()
