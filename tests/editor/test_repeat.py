"""A result says how it was made, and `livedrag edit --from` makes it again, byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from livedrag.edit_metadata import EditMetadata, decode, encode
from livedrag.editor.cli import main
from livedrag.picture_metadata import read_metadata, save_png

QUICK = ["--set", "lora_steps=2", "--set", "ddim_steps=6", "--set", "max_iterations=3", "--set", "lora_rank=2"]


@pytest.fixture(scope="module")
def edited(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture and its result, made with a mask, a prompt, a seed and previews."""
    folder = tmp_path_factory.mktemp("repeat")
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    Image.fromarray(noise).save(folder / "photo.jpg")
    mask = np.zeros((90, 120), np.uint8)
    mask[10:70, 10:100] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    arguments = ["--drag", "30,30:50,40", "--drag", "70,60:60,50", "--mask", folder / "mask.png", "--prompt", "a cat"]
    code = run(folder / "photo.jpg", *arguments, "--seed", 7, "--preset", "paper", "--set", "lora_steps=2", *QUICK,
               "--frames", folder / "frames", "--model", tiny_folder, "-o", folder / "out.png")  # fmt: skip
    assert code == 0
    return folder


def run(*arguments: object) -> int:
    return main(["edit", *map(str, arguments)])


def metadata_of(path: Path) -> EditMetadata:
    with path.open("rb") as file:
        found = read_metadata(file)
    assert found is not None
    return found


def test_what_a_result_says(edited: Path, tiny_folder: Path) -> None:
    said = metadata_of(edited / "out.png")
    assert (said.prompt, said.seed, said.preset, said.room) == ("a cat", 7, "paper", "")
    assert (said.picture.width, said.picture.height) == (120, 90)
    assert [(each.role, each.name, len(each.sha256)) for each in said.weights] == [("model", tiny_folder.name, 64)]
    [run] = said.runs
    assert run.steps == 4, "three iterations, and the tracking at the end"
    assert {drag.handle for drag in run.states[0].drags.values()} == {(30, 30), (70, 60)}
    assert said.settings["ddim_steps"] == 6
    with Image.open(edited / "out.png") as picture:
        assert str(picture.info["parameters"]).startswith("a cat\nSampler: DDIM, Seed: 7, Size: 120x90, Model hash: ")
        assert "compositeWithTrainedAlgorithmicMedia" in str(picture.info["XML:com.adobe.xmp"])


@pytest.mark.parametrize("named", [True, False])
def test_the_same_bytes_again(edited: Path, tiny_folder: Path, named: bool, tmp_path: Path) -> None:
    """Of a picture that is named, in another format; or of the one next to the result."""
    Image.open(edited / "photo.jpg").save(tmp_path / "photo.png")
    picture = [tmp_path / "photo.png"] if named else []
    assert run("--from", edited / "out.png", *picture, "--model", tiny_folder, "-o", tmp_path / "again.png") == 0
    assert (tmp_path / "again.png").read_bytes() == (edited / "out.png").read_bytes()


def test_webp_and_without_metadata(edited: Path, tiny_folder: Path, tmp_path: Path) -> None:
    again = ["--from", edited / "out.png", edited / "photo.jpg", "--model", tiny_folder]
    assert run(*again, "-o", tmp_path / "out.webp") == 0
    assert metadata_of(tmp_path / "out.webp") == metadata_of(edited / "out.png")
    with Image.open(tmp_path / "out.webp") as webp, Image.open(edited / "out.png") as png:
        assert webp.convert("RGB").tobytes() == png.tobytes()
        comment = webp.getexif().get_ifd(0x8769)[0x9286]
    assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be").startswith("a cat\nSampler: DDIM")
    assert run(*again, "-o", tmp_path / "bare.png", "--no-metadata") == 0
    with Image.open(tmp_path / "bare.png") as picture, Image.open(edited / "out.png") as png:
        assert not picture.info
        assert picture.tobytes() == png.tobytes()


def test_what_cannot_be_repeated(
    edited: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (120, 90)).save(tmp_path / "other.png")
    result, out = edited / "out.png", ["-o", tmp_path / "out.png"]
    (tmp_path / "alone.png").write_bytes(result.read_bytes())
    for arguments, problem in (
        ([result, edited / "photo.jpg"], "was made with 'model' (SHA-256 "),
        ([result, tmp_path / "other.png"], "was made from another picture than"),
        ([tmp_path / "alone.png"], "was made from a picture of 120 x 90 pixels that is not next to it"),
        ([tmp_path / "other.png"], "does not say how it was made"),
        ([edited / "photo.jpg"], "does not say how it was made"),
        ([tmp_path / "nowhere.png"], "there is no file"),
        ([result, "--seed", "8"], "leave out --seed"),
        ([result, "--drag", "1,1:2,2"], "leave out --drag"),
    ):
        assert run("--from", *arguments, *out) == 2
        assert problem in capsys.readouterr().err, problem
    assert run(*out) == 2
    assert "name the picture to edit" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_a_result_of_another_device_is_repeated_as_far_as_it_can_be(
    edited: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = replace(metadata_of(edited / "out.png"), device="cuda float16")
    with Image.open(edited / "out.png") as picture, (tmp_path / "theirs.png").open("wb") as file:
        save_png(picture.copy(), file, elsewhere)
    again = ["--from", tmp_path / "theirs.png", edited / "photo.jpg", "--model", tiny_folder]
    assert run(*again, "-o", tmp_path / "again.png") == 0
    said = capsys.readouterr().err
    assert "the result will not be exactly the same: it was made on 'cuda float16', not on 'cpu float32'" in said


LIES = {
    "runs[0].states[0].drags has 200000 entries": ("drags", {str(index): {} for index in range(200_000)}),
    "states[0].drags.0.handle is [-1, 5]: it must be inside the picture": (
        "drags",
        {"0": {"handle": [-1, 5], "target": [3, 3], "handle_version": 0}},
    ),
    "'states[0].drags.0' has no 'target'": ("drags", {"0": {"handle": [1, 5]}}),
    "states[0].mask is 5": ("mask", 5),
    "'Rm -rf' is not a setting's name": ("settings", {"Rm -rf": 1}),
    "states[0].settings.seed is [1]": ("settings", {"seed": [1]}),
    "states[0].at is -1": ("at", -1),
}


@pytest.mark.parametrize("problem", LIES)
def test_metadata_that_lie(edited: Path, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(encode(metadata_of(edited / "out.png")))
    name, value = LIES[problem]
    said["runs"][0]["states"][0][name] = value
    refused(json.dumps(said), problem.replace("'states[0].drags.0'", "states[0].drags.0"), tmp_path, capsys)


SIZE = {"sha256": "0" * 64, "file_sha256": "0" * 64, "width": 9, "height": 9}
WHOLE = {
    "is not JSON": "{",
    "is not JSON (NaN": '{"version": NaN}',
    "has no 'version'": "[]",
    "has version 99": '{"version": 99}',
    "is not JSON (maximum recursion": "[" * 100_000,
    "picture.width is -3": ("picture", {**SIZE, "width": -3}),
    "which no picture here has": ("picture", {**SIZE, "width": 9999, "height": 9999}),
    "picture.sha256 is '../photo.jpg'": ("picture", {**SIZE, "sha256": "../photo.jpg"}),
    "weights[0].role is 'code'": ("weights", [{"role": "code", "name": "x", "sha256": "", "strength": 1}]),
    "the metadata has 9000000 characters": "[" + " " * 8_999_998 + "]",
    "prompt has 100000 characters": ("prompt", "a" * 100_000),
    "masks[0] is not base64": ("masks", ["%%%"]),
    "unknown setting 'evil'": ("settings", {"evil": 1}),
    "unknown preset 'evil'": ("preset", "evil"),
    "lora_rank is 1000000": ("settings", {"lora_rank": 1_000_000}),
}  # fmt: skip


@pytest.mark.parametrize("problem", WHOLE)
def test_metadata_that_are_damaged(
    edited: Path, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = WHOLE[problem]
    if isinstance(change, tuple):
        said = json.loads(encode(metadata_of(edited / "out.png")))
        said[change[0]] = change[1]
        change = json.dumps(said)
    assert isinstance(change, str)
    refused(change, problem, tmp_path, capsys, picture=edited / "photo.jpg")


def refused(
    text: str, problem: str, folder: Path, capsys: pytest.CaptureFixture[str], picture: Path | None = None
) -> None:
    """A result with this text is refused in one line."""
    info = PngInfo()
    info.add_itxt("livedrag", text)
    Image.new("RGB", (120, 90)).save(folder / "lie.png", pnginfo=info)
    assert run("--from", folder / "lie.png", *([picture] if picture else []), "-o", folder / "out.png") == 2
    said = capsys.readouterr().err
    assert problem in said
    assert len(said.splitlines()) == 1
    assert len(said) < 1500


def test_a_mask_of_another_size_is_refused(edited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = metadata_of(edited / "out.png")
    Image.new("1", (5000, 5000), 1).save(tmp_path / "mask.png")
    [run] = said.runs
    lying = replace(run, states=(replace(run.states[0], mask=(tmp_path / "mask.png").read_bytes()),))
    with (tmp_path / "lie.png").open("wb") as file:
        save_png(Image.new("RGB", (120, 90)), file, replace(said, runs=(lying,)))
    assert main(["edit", "--from", str(tmp_path / "lie.png"), str(edited / "photo.jpg"), "-o", "out.png"]) == 2
    assert "the mask has 5000 x 5000 pixels, the picture 120 x 90" in capsys.readouterr().err


def test_metadata_survive_their_json(edited: Path) -> None:
    said = metadata_of(edited / "out.png")
    assert decode(encode(said)) == said
    assert encode(decode(encode(said))) == encode(said)
