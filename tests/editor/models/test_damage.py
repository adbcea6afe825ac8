"""Every part of a model in every state that downloads and mix-ups leave it in: one line says what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from livedrag.editor import Diffusion, ModelError
from livedrag.editor.cli import main
from livedrag.editor.settings import OFFICIAL
from tests.pipelines import write_pipeline

Damage = Callable[[Path], None]

ADVICE = ("download", "git lfs pull", "must be", "supported are", "choose from")

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
CONFIGURATIONS = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "text_encoder": "text_encoder/config.json",
    "tokenizer": "tokenizer/tokenizer.json",
    "scheduler": "scheduler/scheduler_config.json",
    "index": "model_index.json",
}


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 123456789\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path) -> None:
    path.unlink()


def web_page(path: Path) -> None:
    path.write_text("<!doctype html><title>Not found</title>")


def changed_tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    def damage(path: Path) -> None:
        save_file(change(load_file(path)), path, {"format": "pt"})

    return damage


def without_one(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != min(tensors)}


def with_another(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tensors, "zork.weight": torch.zeros(3)}


def of_another_shape(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tensors, min(tensors): torch.zeros(7, 5)}


def under_other_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


FILE_DAMAGES: list[Damage] = [cut, cut_in_the_header, pointer, empty, missing, web_page]
TENSOR_DAMAGES = {
    change.__name__: changed_tensors(change)
    for change in (without_one, with_another, of_another_shape, under_other_names)
}


def no_object(path: Path) -> None:
    path.write_text("[1, 2]")


def of_nothing(path: Path) -> None:
    path.write_text("{}")


def of_another_class(path: Path) -> None:
    other = {
        "_class_name": "FlowMatchEulerDiscreteScheduler" if "scheduler" in path.name else "ControlNetModel",
        "model_type": "t5",
        "architectures": ["T5EncoderModel"],
    }
    content = json.loads(path.read_text())
    if "scheduler" in path.name:
        content = {}
    path.write_text(json.dumps({**content, **other, "model": {"type": "Unigram", "vocab": [["a", 0.0]]}}))


CONFIGURATION_DAMAGES: list[Damage] = [cut, pointer, empty, missing, web_page, no_object, of_nothing, of_another_class]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def assert_refused(folder: Path, file: str) -> str:
    with pytest.raises(ModelError) as refused:
        Diffusion.load(str(folder), device="cpu")
    message = str(refused.value)
    assert "\n" not in message
    assert str(folder / file) in message or (file.endswith("model_index.json") and str(folder) in message)
    assert any(advice in message for advice in ADVICE), message
    assert len(message) < 600
    return message


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("damage", FILE_DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_weights(folder: Path, part: str, damage: Damage) -> None:
    damage(folder / WEIGHTS[part])
    assert_refused(folder, WEIGHTS[part])


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("damage", TENSOR_DAMAGES)
def test_weights_that_do_not_fit(
    folder: Path, part: str, damage: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Libraries would fill the gaps with random numbers and warn at most."""
    TENSOR_DAMAGES[damage](folder / WEIGHTS[part])
    assert_refused(folder, WEIGHTS[part])
    assert (capsys.readouterr().err, caplog.text) == ("", "")


@pytest.mark.parametrize("part", CONFIGURATIONS)
@pytest.mark.parametrize("damage", CONFIGURATION_DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_configurations(folder: Path, part: str, damage: Damage) -> None:
    file = CONFIGURATIONS[part]
    damage(folder / file)
    assert_refused(folder, "tokenizer" if (part, damage) == ("tokenizer", missing) else file)


def split_tokenizer(folder: Path) -> None:
    """The vocabulary and merges in files of their own, as the hub's Stable Diffusion has them."""
    whole = folder / "tokenizer" / "tokenizer.json"
    model = json.loads(whole.read_text())["model"]
    whole.unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])))


def test_a_tokenizer_in_two_files(folder: Path) -> None:
    plain = Diffusion.load(str(folder), device="cpu").embed_prompt("a red cat")
    split_tokenizer(folder)
    assert torch.equal(Diffusion.load(str(folder), device="cpu").embed_prompt("a red cat"), plain)


@pytest.mark.parametrize("file", ["tokenizer/vocab.json", "tokenizer/merges.txt"])
@pytest.mark.parametrize("damage", [cut, pointer, empty, missing], ids=lambda damage: damage.__name__)
def test_a_tokenizer_without_its_vocabulary(folder: Path, file: str, damage: Damage) -> None:
    """It would split every word into letters, or into unknown tokens."""
    split_tokenizer(folder)
    damage(folder / file)
    assert_refused(folder, file)


def test_parts_of_different_models(folder: Path, tmp_path: Path) -> None:
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    small = {token: id for token, id in content["model"]["vocab"].items() if id < 250}
    tokenizer.write_text(json.dumps({**content, "model": {**content["model"], "vocab": small, "merges": []}}))
    assert "text encoder takes 3000 tokens" in assert_refused(folder, "tokenizer")


@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema"])
def test_the_only_variant_there_is_is_loaded(folder: Path, variant: str) -> None:
    plain = Diffusion.load(str(folder), device="cpu").embed_prompt("a cat")
    for file in WEIGHTS.values():
        path = folder / file
        path.rename(path.with_name(f"{path.stem}.{variant}.safetensors"))
    assert torch.equal(Diffusion.load(str(folder), device="cpu").embed_prompt("a cat"), plain)
    cut(folder / "vae" / f"diffusion_pytorch_model.{variant}.safetensors")
    assert_refused(folder, f"vae/diffusion_pytorch_model.{variant}.safetensors")


def test_weights_in_several_files(folder: Path) -> None:
    path = folder / WEIGHTS["unet"]
    tensors, names = load_file(path), []
    path.unlink()
    for number, part in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        names.append(f"diffusion_pytorch_model-0000{number}-of-00002.safetensors")
        save_file({name: tensors[name] for name in part}, path.with_name(names[-1]), {"format": "pt"})
    where = {name: names[index % 2] for index, name in enumerate(sorted(tensors))}
    index = path.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    assert Diffusion.load(str(folder), device="cpu").native_side == 128
    path.with_name(names[1]).unlink()
    assert_refused(folder, f"unet/{names[1]}")


def test_defaults_that_cannot_be_used(folder: Path) -> None:
    (folder / "livedrag.json").write_text('{"lora_rnak": 3}')
    assert "'lora_rnak'" in assert_refused(folder, "livedrag.json")


def test_a_model_without_defaults_runs_as_the_authors_code(folder: Path) -> None:
    assert Diffusion.load(str(folder), device="cpu").defaults == dict(OFFICIAL) == {"reference_control": True}
    (folder / "livedrag.json").write_text('{"lora_steps": 60}')
    assert Diffusion.load(str(folder), device="cpu").defaults == {"lora_steps": 60}


def test_the_command_says_it_in_one_line(
    folder: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pointer(folder / WEIGHTS["text_encoder"])
    arguments = [samples / "koala.png", "--drag", "62,84:44,66", "--model", folder, "-o", tmp_path / "out.png"]
    assert main(["edit", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"livedrag edit: {folder / WEIGHTS['text_encoder']} is a Git LFS pointer")
