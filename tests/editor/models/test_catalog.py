"""Folders of ComfyUI and A1111 as people have them: what is listed, and what a name means."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from livedrag.editor import ModelError
from livedrag.editor.models.catalog import Entry, find, scan
from livedrag.editor.models_command import main
from tests.checkpoints import original_vae, write_checkpoint
from tests.conftest import ROOT
from tests.pipelines import write_pipeline

LORA = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": torch.zeros(4, 768),
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": torch.zeros(320, 4),
}


@pytest.fixture(scope="module")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's folders, with what people leave in them."""
    top = tmp_path_factory.mktemp("comfy") / "ComfyUI" / "models"
    for name in ("checkpoints/sdxl", "checkpoints/old", "diffusers", "loras/styles", "vae", "vae_approx", "controlnet"):
        (top / name).mkdir(parents=True)
    small = write_pipeline(top / "diffusers" / "small-sd")
    large = write_pipeline(top / "diffusers" / "small-xl", version="xl")
    write_checkpoint(small, top / "checkpoints" / "dream_v8.safetensors")
    write_checkpoint(large, top / "checkpoints" / "sdxl" / "jug.safetensors")
    shutil.copy(top / "checkpoints" / "dream_v8.safetensors", top / "checkpoints" / "old" / "dream_v8.safetensors")
    torch.save({"state_dict": original_vae(small)}, top / "checkpoints" / "v1.ckpt")
    (top / "checkpoints" / "cut.safetensors").write_bytes(
        (top / "checkpoints" / "dream_v8.safetensors").read_bytes()[:-9]
    )
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(3)}, top / "checkpoints" / "flux.safetensors")
    save_file(LORA, top / "loras" / "styles" / "ink.safetensors")
    save_file({"lora_te2_x.lora_down.weight": torch.zeros(4, 4)}, top / "loras" / "xl-ink.sft")
    save_file({"lora_unet_x.hada_w1_a": torch.zeros(4, 4)}, top / "loras" / "loha.safetensors")
    save_file(
        {name: tensor.contiguous() for name, tensor in original_vae(small).items()}, top / "vae" / "ft.safetensors"
    )
    save_file({"decoder.conv_in.weight": torch.zeros(8, 16, 3, 3)}, top / "vae" / "ae.safetensors")
    save_file(
        {"1.weight": torch.zeros(4, 4, 3, 3), "3.conv.0.weight": torch.zeros(4, 4, 3, 3)},
        top / "vae_approx" / "taesd_decoder.safetensors",
    )
    save_file({"control_model.x": torch.zeros(3)}, top / "controlnet" / "canny.safetensors")
    (top / "checkpoints" / "put_checkpoints_here").touch()
    (top / "checkpoints" / ".hidden.safetensors").touch()
    broken = top / "diffusers" / "broken"
    shutil.copytree(small, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    os.symlink(top / "checkpoints", top / "checkpoints" / "again")
    return top


def by_name(folder: Path) -> dict[str, Entry]:
    return {entry.name: entry for entry in scan(folder)}


def test_what_each_file_is(comfy: Path) -> None:
    entries = by_name(comfy)
    assert {name: (entry.architecture, entry.kind) for name, entry in entries.items() if not entry.problem} == {
        "checkpoints/dream_v8.safetensors": ("Stable Diffusion 1.x", "checkpoint"),
        "checkpoints/old/dream_v8.safetensors": ("Stable Diffusion 1.x", "checkpoint"),
        "checkpoints/sdxl/jug.safetensors": ("Stable Diffusion XL", "checkpoint"),
        "diffusers/small-sd": ("Stable Diffusion 1.x or 2.x", "diffusers folder"),
        "diffusers/small-xl": ("Stable Diffusion XL", "diffusers folder"),
        "loras/styles/ink.safetensors": ("Stable Diffusion 1.x", "lora"),
        "loras/xl-ink.sft": ("Stable Diffusion XL", "lora"),
        "vae/ft.safetensors": ("", "vae"),
    }
    dream = entries["checkpoints/dream_v8.safetensors"]
    assert dream.nbytes == dream.path.stat().st_size > 10_000
    parts = comfy.glob("diffusers/small-sd/*/*.safetensors")
    assert entries["diffusers/small-sd"].nbytes == sum(path.stat().st_size for path in parts)


def test_why_something_can_not_be_used(comfy: Path) -> None:
    problems = {name: entry.problem for name, entry in by_name(comfy).items() if entry.problem}
    assert problems.pop("checkpoints/v1.ckpt").startswith("not opened: convert to safetensors with: python -c")
    assert problems.pop("diffusers/broken").endswith(
        "diffusion_pytorch_model.safetensors is missing: download the model with its .safetensors files"
    )
    assert {name: problem.partition(":")[0] for name, problem in problems.items()} == {
        "checkpoints/cut.safetensors": "is damaged or incomplete",
        "checkpoints/flux.safetensors": "it is for FLUX, which is not supported",
        "loras/loha.safetensors": "it is a LyCORIS or DoRA file (hada_w1_a), not a plain LoRA",
        "vae/ae.safetensors": "its latents have 16 channels, not 4",
        "vae_approx/taesd_decoder.safetensors": "it is a file",
    }


def test_a1111s_folders_and_any_other(comfy: Path, tmp_path: Path) -> None:
    for name, source in (
        ("Stable-diffusion/dream.safetensors", "checkpoints/dream_v8.safetensors"),
        ("Lora/ink.safetensors", "loras/styles/ink.safetensors"),
        ("VAE/ft.safetensors", "vae/ft.safetensors"),
        ("ESRGAN/upscaler.safetensors", "controlnet/canny.safetensors"),
    ):
        path = tmp_path / "webui" / "models" / name
        path.parent.mkdir(parents=True)
        shutil.copy(comfy / source, path)
    found = {entry.name: entry.kind for entry in scan(tmp_path / "webui")}
    assert found == {
        "models/Stable-diffusion/dream.safetensors": "checkpoint",
        "models/Lora/ink.safetensors": "lora",
        "models/VAE/ft.safetensors": "vae",
    }
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(comfy / "vae" / "ft.safetensors", flat)
    assert [entry.name for entry in scan(flat)] == ["ft.safetensors"]


def test_what_a_name_means(comfy: Path) -> None:
    assert find(comfy, "jug", "--model") == comfy / "checkpoints" / "sdxl" / "jug.safetensors"
    assert find(comfy, "sdxl/jug.safetensors", "--model") == comfy / "checkpoints" / "sdxl" / "jug.safetensors"
    assert find(comfy, "small-xl", "--model") == comfy / "diffusers" / "small-xl"
    assert find(comfy, "ink", "--lora") == comfy / "loras" / "styles" / "ink.safetensors"
    assert find(comfy, "ft", "--vae") == comfy / "vae" / "ft.safetensors"
    assert find(comfy, "old/dream_v8", "--model") == comfy / "checkpoints" / "old" / "dream_v8.safetensors"
    for name, option, problem in (
        (
            "dream_v8",
            "--model",
            "--model 'dream_v8' may be 'checkpoints/dream_v8.safetensors' and 'checkpoints/old/dream_v8.safetensors': "
            "write more of the path",
        ),
        ("jugg", "--model", "there is no 'jugg' in .*: there is 'checkpoints/sdxl/jug.safetensors'"),
        ("cut", "--model", "cut.safetensors can't be used: is damaged or incomplete"),
        ("flux", "--model", "flux.safetensors can't be used: it is for FLUX"),
        ("v1", "--model", "v1.ckpt can't be used: not opened"),
        ("taesd_decoder", "--tiny", "it is a file: --tiny takes the diffusers folder of an AutoencoderTiny"),
    ):
        with pytest.raises(ModelError, match=problem):
            find(comfy, name, option)
    with pytest.raises(ModelError, match=r"the models folder '.*nowhere' does not exist: name ComfyUI's"):
        scan(comfy / "nowhere")


def test_the_command_lists_them_without_torch(comfy: Path) -> None:
    script = (
        "import sys\nfrom livedrag.server.__main__ import main\nstatus = main(sys.argv[1:])\n"
        "assert not {'torch', 'diffusers', 'transformers'} & sys.modules.keys()\nsys.exit(status)\n"
    )
    command = [sys.executable, "-c", script, "models", "list", "--models", str(comfy)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True).stdout
    lines = {line.split()[0]: line for line in shown.splitlines()}
    assert lines.keys() == by_name(comfy).keys()
    assert "Stable Diffusion XL checkpoint" in lines["checkpoints/sdxl/jug.safetensors"]
    assert lines["checkpoints/sdxl/jug.safetensors"].endswith(" MB")
    assert "it is for FLUX, which is not supported" in lines["checkpoints/flux.safetensors"]


def test_the_command_as_json_and_its_errors(
    comfy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEDRAG_MODELS", str(comfy))
    assert main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed == [
        {
            "name": entry.name,
            "path": str(entry.path),
            "kind": entry.kind,
            "architecture": entry.architecture,
            "bytes": entry.nbytes,
            "usable": not entry.problem,
            "problem": entry.problem,
            "needs_vae": entry.needs_vae,
        }
        for entry in scan(comfy)
    ]
    monkeypatch.delenv("LIVEDRAG_MODELS")
    assert main(["models", "list"]) == 2
    assert "name the folder of your models with --models DIR" in capsys.readouterr().err
    (comfy / "empty").mkdir(exist_ok=True)
    assert main(["models", "list", "--models", str(comfy / "empty")]) == 0
    assert capsys.readouterr().out == "no models found\n"


def test_a_checkpoint_without_an_autoencoder_says_so(
    comfy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(comfy / "diffusers" / "small-sd", tmp_path / "bare.safetensors", vae=False)
    [entry] = scan(tmp_path)
    assert (entry.kind, entry.problem, entry.needs_vae) == ("checkpoint", "", True)
    assert main(["models", "list", "--models", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("  has no autoencoder (VAE) inside: use it with --vae\n")
    assert not any(each.needs_vae for each in scan(comfy))


def test_the_conversion_that_is_recommended_works(comfy: Path, tmp_path: Path) -> None:
    """The command as it is printed makes a file that is known for what it is."""
    problem = by_name(comfy)["checkpoints/v1.ckpt"].problem
    command = shlex.split(problem.partition("with: ")[2].replace("OUT.safetensors", str(tmp_path / "out.safetensors")))
    subprocess.run([sys.executable, *command[1:]], check=True, timeout=300)
    [entry] = scan(tmp_path)
    assert (entry.kind, entry.problem) == ("vae", "")


def test_a_file_that_vanishes_while_it_is_listed(comfy: Path, tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone.safetensors", tmp_path / "link.safetensors")
    [entry] = scan(tmp_path)
    assert (entry.name, entry.nbytes) == ("link.safetensors", 0)
    assert "No such file" in entry.problem
