"""The worker opens the model that the server's settings name, with all that goes with it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from livedrag.editor import Diffusion, EditorError
from livedrag.editor.models.graphs import Graphs
from livedrag.server.device.worker.main import load, spare_imports
from livedrag.server.device.worker_process import WorkerOptions
from livedrag.server.settings import resolve
from tests.checkpoints import original_vae, write_checkpoint
from tests.recorders import EagerRecorder


@pytest.fixture(scope="module")
def models(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("models")
    for name in ("checkpoints", "loras", "vae"):
        (top / name).mkdir()
    write_checkpoint(tiny_folder, top / "checkpoints" / "dream.safetensors", vae=False)
    save_file({name: each.contiguous() for name, each in original_vae(tiny_folder).items()}, top / "vae/ft.safetensors")
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    lora = {f"{layer}.lora.down.weight": torch.ones(2, 32), f"{layer}.lora.up.weight": torch.ones(32, 2)}
    save_file(lora, top / "loras" / "ink.safetensors")
    return top


def test_names_in_a_folder_of_models(models: Path, tiny_folder: Path) -> None:
    settings = resolve(
        {"LIVEDRAG_MODELS": str(models), "LIVEDRAG_VAE": "ft", "LIVEDRAG_MODEL_CONFIG": str(tiny_folder)},
        {"model": "dream", "lora": ["ink:0.5", "ink"]},
    )
    assert settings.lora == ("ink:0.5", "ink")
    options = WorkerOptions(
        model=settings.model,
        model_config=settings.model_config,
        vae=settings.vae,
        lora=settings.lora,
        models=settings.models,
        device="cpu",
    )
    assert load(options).name == "dream with ft + ink 0.5 + ink 1"
    with pytest.raises(EditorError, match="there is no 'drem' in "):
        load(WorkerOptions(model="drem", models=str(models)))


def test_graphs_can_be_turned_off(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Diffusion, "__init__", graphed(Diffusion.__init__))
    for text, has_graphs in (("true", True), ("false", False)):
        settings = resolve({"LIVEDRAG_CUDA_GRAPHS": text}, {})
        options = WorkerOptions(model=str(tiny_folder), device="cpu", cuda_graphs=settings.cuda_graphs)
        assert (load(options).graphs is not None) == has_graphs


def graphed(made: Callable[..., None]) -> Callable[..., None]:
    """Makes models as they are on CUDA."""

    def make(model: Diffusion, *arguments: Any, **options: Any) -> None:
        made(model, *arguments, **options)
        model.graphs = Graphs(EagerRecorder())

    return make


def test_loras_in_the_environment_are_separated_by_commas() -> None:
    assert resolve({"LIVEDRAG_LORA": "a:0.5, b"}, {}).lora == ("a:0.5", "b")


def test_a_garbage_collection_skips_what_the_worker_has_imported() -> None:
    imported = len(gc.get_objects())
    spare_imports()
    try:
        assert len(gc.get_objects()) < imported / 100, "the threads of a worker wait for each collection"
    finally:
        gc.unfreeze()
