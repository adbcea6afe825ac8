"""What people may write as a model, and what they get."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from livedrag.editor import Diffusion, ModelError
from livedrag.editor.models.references import find_model
from tests.pipelines import write_pipeline

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(
        tmp_path_factory.mktemp("tiny") / "little-diffusion", version=2, prediction_type="v_prediction"
    )


def test_the_built_in_model() -> None:
    source = find_model("builtin")
    assert (source.name, source.kind, source.autoencoder) == ("built-in", "builtin", "AutoencoderDC")
    assert source.defaults["lora_lr"] == 0.001


def test_a_folder_with_defaults_of_its_own(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    (own / "livedrag.json").write_text('{"lora_steps": 60}')
    source = find_model(str(own))
    assert (source.name, source.kind, source.defaults) == ("own", "stable-diffusion", {"lora_steps": 60})


def hub_names(weights: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """The names that the hub's Stable Diffusion 1.x files carry, which are older than the libraries' own now."""
    if part == "text_encoder":
        renamed = {f"text_model.{name}": tensor for name, tensor in weights.items()}
        return {**renamed, "text_model.embeddings.position_ids": torch.arange(16)[None]}
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    named = {}
    for name, tensor in weights.items():
        older = name
        for new, before in old.items():
            older = older.replace(f".{new}.", f".{before}.") if ".attentions." in name else older
        named[older] = tensor
    return named


def test_the_hubs_own_key_names_and_a_pinned_revision(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the cache and without a network, as after a first use; the weights are the same as under the new names."""
    snapshot = tmp_path / "models--someone--little" / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    for part in ("text_encoder", "vae"):
        path = next((snapshot / part).glob("*.safetensors"))
        before = load_file(path)
        after = hub_names(before, part)
        assert before.keys() != after.keys()
        save_file(after, path, {"format": "pt"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub = Diffusion.load(f"someone/little@{COMMIT}", device="cpu")
    assert hub.name == "someone/little"
    plain = Diffusion.load(str(folder), device="cpu")
    assert torch.equal(hub.embed_prompt("a cat"), plain.embed_prompt("a cat"))
    pixels = torch.rand(1, 3, 64, 64)
    assert torch.equal(hub.encode(pixels), plain.encode(pixels))


def changed(source: Path, target: Path, file: str, **changes: object) -> str:
    shutil.copytree(source, target)
    path = target / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(target)


def without_safetensors(source: Path, target: Path) -> str:
    shutil.copytree(source, target)
    weights = next((target / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    return str(target)


def cut_short(source: Path, target: Path) -> str:
    shutil.copytree(source, target)
    weights = next((target / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    return str(target)


def test_what_cannot_be_dragged_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    index = "model_index.json"
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"")
    shutil.copytree(folder, tmp_path / "headless")
    shutil.rmtree(tmp_path / "headless" / "text_encoder")
    cases = {
        "no such model": "unknown model 'no such model'",
        "someone/little": "40 digits",
        "someone/little@main": "40 digits",
        f"someone/unknown@{COMMIT}": "can't be downloaded",
        str(tmp_path / "model.safetensors"): "is empty",
        str(tmp_path / "empty"): "it has no model_index.json",
        str(tmp_path / "headless"): "no 'text_encoder' folder",
        changed(folder, tmp_path / "xl", index, _class_name="StableDiffusionXLPipeline"): "no 'text_encoder_2' folder",
        changed(folder, tmp_path / "flux", index, _class_name="FluxPipeline"): "FluxPipeline",
        changed(folder, tmp_path / "code", index, unet=["my_unet", "MyUNet"]): "its own code for 'unet'",
        changed(folder, tmp_path / "custom", index, _class_name=["pipeline", "Mine"]): "Mine from pipeline",
        changed(folder, tmp_path / "transformer", index, unet=["diffusers", "DiTTransformer2DModel"]): "DiTTransformer",
        changed(folder, tmp_path / "inpaint", "unet/config.json", in_channels=9): "9 channels",
        changed(folder, tmp_path / "x0", "scheduler/scheduler_config.json", prediction_type="sample"): "'sample'",
        without_safetensors(folder, tmp_path / "pickled"): "pickle",
        cut_short(folder, tmp_path / "cut"): "damaged or incomplete",
    }
    for reference, words in cases.items():
        with pytest.raises(ModelError) as refused:
            Diffusion.load(reference)
        assert words in str(refused.value)
        assert any(advice in str(refused.value) for advice in ("supported", "must predict", "download"))
