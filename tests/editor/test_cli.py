"""``livedrag edit`` and ``generate`` as a person would call them, edits judged by other means than the tracker."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from livedrag.editor.cli import main
from livedrag.editor.output import OutputFiles
from tests.checkpoints import original_vae, write_checkpoint
from tests.conftest import ROOT
from tests.other_kinds import photograph
from tests.pipelines import write_pipeline

QUICK = ["--set", "lora_steps=2", "--set", "ddim_steps=6", "--set", "max_iterations=3"]


def livedrag(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "livedrag.server", "edit", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def find_patch(patch: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    """Where normalised cross-correlation finds the patch in the image: (x, y) of its centre."""
    height, width, _ = patch.shape
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), patch.shape)[..., 0, :, :, :]
    windows = windows.reshape(*windows.shape[:2], -1)
    windows = windows - windows.mean(-1, keepdims=True)
    wanted = patch.astype(np.float64).ravel() - patch.mean()
    scores = (windows @ wanted) / (np.linalg.norm(windows, axis=-1) * np.linalg.norm(wanted) + 1e-9)
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    return column + (width - 1) / 2, row + (height - 1) / 2


@pytest.fixture(scope="module")
def story(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    """One whole edit of the first sample, as the gallery suggests it."""
    sample = json.loads((ROOT / "static" / "samples.json").read_text())[0]
    folder = tmp_path_factory.mktemp("edit")
    picture, mask = samples / Path(sample["picture"]).name, samples / Path(sample["mask"]).name
    drags = [f"{d['handle'][0]},{d['handle'][1]}:{d['target'][0]},{d['target'][1]}" for d in sample["drags"]]
    arguments = [word for drag in drags for word in ("--drag", drag)]
    done = livedrag(
        picture, *arguments, "--mask", mask, "--prompt", sample["prompt"],
        "-o", folder / "out.png", "--frames", folder / "frames", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "no progress bars where standard error is a pipe"
    return {"report": json.loads(done.stdout), "sample": sample, "picture": picture, "mask": mask}, folder


def test_a_preset_or_picture_that_does_not_suit_the_model_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph("a cat").save(tmp_path / "cat.png")
    drag = ["--drag", "60,40:70,50", *QUICK, "--set", "inversion_strength=0.2"]
    arguments = ["edit", tmp_path / "cat.png", *drag, "--preset", "official", "-o", tmp_path / "out.png"]
    assert main([*map(str, arguments)]) == 0
    preset, picture = capsys.readouterr().err.splitlines()
    assert preset.startswith("livedrag edit: the preset 'official' does not suit")
    assert "does not know pictures like this one" in picture


@pytest.mark.long
def test_the_report(story: tuple[dict[str, object], Path]) -> None:
    report = story[0]["report"]
    assert isinstance(report, dict)
    assert report["model"] == "built-in"
    assert report["size"] == [256, 256]
    assert report["outcome"] in ("arrived", "exhausted")
    assert 1 <= report["iterations"] <= 80
    assert len(report["handles"]) == len(report["distances"]) == 1
    assert report["distances"][0]["end"] < report["distances"][0]["start"]
    assert set(report["seconds"]) == {"load", "lora", "inversion", "drag", "render", "total"}
    parts = [seconds for name, seconds in report["seconds"].items() if name != "total"]
    assert sum(parts) == pytest.approx(report["seconds"]["total"], rel=0.05)
    assert 100 < report["peak_memory_mb"] < 4000
    assert report["seconds_per_iteration"] > 0


@pytest.mark.long
def test_the_content_moved_and_nothing_else_did(story: tuple[dict[str, object], Path]) -> None:
    facts, folder = story
    sample = facts["sample"]
    assert isinstance(sample, dict)
    before = np.asarray(Image.open(str(facts["picture"])).convert("RGB"))
    after = np.asarray(Image.open(folder / "out.png").convert("RGB"))
    mask = np.asarray(Image.open(str(facts["mask"])).convert("L")) >= 128
    assert np.array_equal(after[~mask], before[~mask])
    for drag in sample["drags"]:
        (x, y), target = drag["handle"], np.array(drag["target"])
        half = 14
        patch = before[y - half : y + half + 1, x - half : x + half + 1]
        assert find_patch(patch, before) == (x, y)
        found = np.array(find_patch(patch, after))
        began = np.linalg.norm(target - [x, y])
        assert np.linalg.norm(found - target) <= began / 2, f"found at {found}, target {target}"


@pytest.mark.long
def test_frames_show_the_way(story: tuple[dict[str, object], Path]) -> None:
    frames = sorted((story[1] / "frames").iterdir())
    assert len(frames) > 5
    assert len({frame.read_bytes() for frame in frames}) > 5


def test_the_same_command_gives_the_same_bytes(samples: Path, tmp_path: Path) -> None:
    command = [samples / "koala.png", "--drag", "62,84:44,66", *QUICK]
    done = livedrag(*command, "--seed", 3, "-o", tmp_path / "one.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "no progress bars where it is a pipe"
    # Again, and with another seed, in this process, which has loaded what a new one would have to.
    for name, seed in (("two.png", "3"), ("other.png", "4")):
        assert main(["edit", *map(str, command), "--seed", seed, "-o", str(tmp_path / name)]) == 0
    one, two, other = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png", "other.png"))
    assert one == two != other


def test_progress_bars_on_a_terminal(samples: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = [
        sys.executable,
        "-m",
        "livedrag.server",
        "edit",
        str(samples / "koala.png"),
        "--drag",
        "62,84:44,66",
        *QUICK,
    ]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "out.png")], cwd=ROOT, stderr=theirs, stdout=subprocess.PIPE, check=False
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # Linux says EIO at the end of a terminal
        pass
    os.close(ours)
    assert done.returncode == 0
    assert all(stage in shown.decode() for stage in ("fitting", "inverting", "dragging", "rendering"))


def test_bad_input_is_said_with_its_value(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = samples / "koala.png"
    good = ["--drag", "62,84:44,66"]
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:3000])
    Image.new("L", (9, 7), 255).save(tmp_path / "small-mask.png")
    Image.new("L", (256, 256), 0).save(tmp_path / "black-mask.png")
    (tmp_path / "folder.png").mkdir()
    out = tmp_path / "out.png"
    cases = [
        ([tmp_path / "none.png", *good, "-o", out], "none.png"),
        ([tmp_path / "text.png", *good, "-o", out], "text.png"),
        ([tmp_path / "cut.png", *good, "-o", out], "cut.png"),
        ([picture, "--drag", "1,2,3", "-o", out], "'1,2,3'"),
        ([picture, "--drag", "1,2:900,3", "-o", out], "(900, 3)"),
        ([picture, "--drag", "5,5:5,5", "-o", out], "(5, 5)"),
        ([picture, *good, "--mask", tmp_path / "small-mask.png", "-o", out], "9 x 7"),
        ([picture, *good, "--mask", tmp_path / "black-mask.png", "-o", out], "no white"),
        ([picture, *good, "--model", "no/such", "-o", out], "'no/such'"),
        ([picture, *good, "--preset", "fast", "-o", out], "'fast'"),
        ([picture, *good, "--set", "lora_rank=0", "-o", out], "lora_rank is 0"),
        ([picture, *good, "--set", "lora_rank", "-o", out], "'lora_rank'"),
        ([picture, *good, "-o", tmp_path / "no" / "out.png"], "does not exist"),
        ([picture, *good, "-o", tmp_path / "out.jpg"], "must end in .png"),
        ([picture, *good, "-o", tmp_path / "folder.png"], "folder.png"),
        ([picture, *good, "--device", "zork", "-o", out], "'zork'"),
        ([picture, *good, "--device", "cuda:77", "-o", out], "'cuda:77'"),
        ([picture, *good, "--seed", 10**30, "-o", out], "seed is 1000"),
    ]
    for arguments, words in cases:
        assert main(["edit", *map(str, arguments)]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    assert not out.exists()


def test_a_fault_ends_the_process_with_2_and_one_line(tmp_path: Path) -> None:
    done = livedrag(tmp_path / "none.png", "--drag", "1,2:3,4", "-o", tmp_path / "out.png")
    assert done.returncode == 2
    assert done.stderr == f"livedrag edit: there is no file '{tmp_path / 'none.png'}'\n"


INTERRUPT = """
import os, pathlib, signal, sys, threading, time
from livedrag.server.__main__ import main

def interrupt():
    while not (MOMENT):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "moment",
    [
        "'torch' in sys.modules",
        pytest.param("'diffusers' in sys.modules", marks=pytest.mark.long),
        pytest.param("'livedrag.editor.drag.session' in sys.modules", marks=pytest.mark.long),
        "any(pathlib.Path('frames').glob('*.png'))",
    ],
    ids=["importing torch", "importing diffusers", "loading", "dragging"],
)
def test_ctrl_c_ends_with_one_line_and_no_unfinished_file(samples: Path, tmp_path: Path, moment: str) -> None:
    arguments = [samples / "koala.png", "--drag", "62,84:44,66", *QUICK, "--frames", "frames", "--preview-every", "1"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT.replace("MOMENT", moment), "edit", *map(str, arguments), "-o", "out.png"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "livedrag edit: interrupted\n")
    assert not (tmp_path / "out.png").exists()
    for frame in (tmp_path / "frames").glob("*"):
        with Image.open(frame) as whole:
            whole.load()


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    class Broken:
        def save(self, path: Path, format: str) -> None:
            path.write_bytes(b"half of it")
            raise OSError("no space left")

    output = tmp_path / "out.png"
    output.write_bytes(b"before")
    with pytest.raises(OSError, match="no space left"):
        OutputFiles().save(Broken(), output)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert output.read_bytes() == b"before"
    OutputFiles().save(Image.new("RGB", (4, 4)), output)
    with Image.open(output) as written:
        assert written.size == (4, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--drag", "-5,10:20,20"], "handle (-5, 10) is outside the picture of 256 x 256 pixels"),
        (["--drag", "5,10:-.5,20"], "target (-0.5, 20) is outside"),
        (
            ["--drag", "62,84:44,66", "--prompt", "caf\udce9 noir"],
            "'caf\\udce9 noir' is not valid text from character 4",
        ),
        (["--drag", "62,84:44,66", "--set", "max_iterations=0"], "max_iterations is 0: it must be 1 to 10000"),
        (["--drag", "62,84:44,66", "--preset", "fast"], "unknown preset 'fast'"),
        (["--drag", "62,84:44,66", "--model", "no/such"], "unknown model 'no/such'"),
        (["--drag", "62,84:900,66"], "(900, 66) is outside"),
    ],
)
def test_bad_arguments_are_refused_before_torch_is_imported(
    samples: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    code = (
        "import sys; from livedrag.server.__main__ import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'diffusers', 'transformers'} & sys.modules.keys();"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    picture, output = samples / "koala.png", tmp_path / "out.png"
    command = [sys.executable, "-c", code, "edit", str(picture), *arguments, "-o", str(output)]
    done = subprocess.run(
        [os.fsencode(argument) for argument in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_prompt_that_is_too_long(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "a koala " + "that sits on a green tree and looks at us " * 3
    arguments = ["edit", samples / "koala.png", "--drag", "62,84:44,66", *QUICK, "--prompt", prompt]
    assert main([*map(str, arguments), "-o", str(tmp_path / "out.png")]) == 0
    said = capsys.readouterr().err
    assert said.startswith("livedrag edit: the prompt is too long for the model, which ignores everything from '")
    assert said.count("\n") == 1


def test_words_make_the_same_picture_for_a_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        output = tmp_path / f"{name}.png"
        assert main(["generate", "a teddy bear", "-o", str(output), "--seed", str(seed), "--steps", "4", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["seed"] == seed
        pictures.append(np.asarray(Image.open(output)))
    assert pictures[0].shape == (256, 256, 3)
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["  "], "the prompt is '  '"),
        (["a cat", "--seed", "-1"], "the seed is -1: it must be 0 to"),
        (["a cat", "--guidance", "nan"], "guidance is nan: it must be 0 to 50"),
        (["a cat", "--steps", "0"], "the schedule has 0 steps: it must have 1 to 999"),
    ],
)
def test_words_that_cannot_work(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", *arguments, "-o", str(tmp_path / "out.png")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_a_model_of_a_folder_by_its_name(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--models`` and ``LIVEDRAG_MODELS`` name the folder, ``--model`` and ``--vae`` what is in it."""
    pipeline = write_pipeline(tmp_path / "pipeline")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "vae").mkdir()
    write_checkpoint(pipeline, tmp_path / "checkpoints" / "dream.safetensors", vae=False)
    save_file(
        {name: each.contiguous() for name, each in original_vae(pipeline).items()}, tmp_path / "vae/ft.safetensors"
    )
    out = tmp_path / "out.png"
    arguments = [
        "edit", str(samples / "teddy-bear.png"), "--drag", "62,150:40,110", "-o", str(out), "--json", *QUICK,
        "--model", "dream", "--vae", "ft", "--model-config", str(pipeline), "--device", "cpu",
    ]  # fmt: skip
    assert main([*arguments, "--models", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "dream with ft"
    with Image.open(out) as edited:
        assert edited.size == (256, 256)
    monkeypatch.setenv("LIVEDRAG_MODELS", str(tmp_path))
    assert main(["edit", *arguments[1:], "--model", "drem"]) == 2
    assert "there is no 'drem' in " in capsys.readouterr().err
    monkeypatch.delenv("LIVEDRAG_MODELS")
    assert main(arguments) == 2
    assert "unknown model 'dream': there is no such file or folder" in capsys.readouterr().err
