"""The example script does what its first lines say, against a real server with the built-in model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.conftest import ROOT
from tests.quiet import png

QUICK = ("lora_steps=2", "ddim_steps=4", "max_iterations=4", "preview_every=1", "preview_side=96")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "examples/drag.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_it_drags_a_picture_and_saves_the_frames(live_server: str, tmp_path: Path) -> None:
    (tmp_path / "teal.png").write_bytes(png(96, 64))
    settings = [argument for setting in QUICK for argument in ("--set", setting)]
    files = ("-o", tmp_path / "out.png", "--frames", tmp_path / "frames")
    ran = run(tmp_path / "teal.png", "--server", live_server, "--drag", "30,30:70,40", *settings, *files)
    assert ran.returncode == 0, ran.stderr
    assert f"watch at {live_server}/r/" in ran.stdout
    assert "exhausted after 4 iterations" in ran.stdout
    assert size(tmp_path / "out.png") == (96, 64)
    frames = sorted((tmp_path / "frames").iterdir())
    assert len(frames) >= 3
    assert any("-dragging-" in frame.name for frame in frames)
    for frame in frames:
        assert size(frame) == (96, 64)


def test_it_says_what_is_wrong(live_server: str, tmp_path: Path) -> None:
    (tmp_path / "teal.png").write_bytes(png(96, 64))
    ran = run(tmp_path / "teal.png", "--server", live_server, "--drag", "30,30:700,40")
    assert ran.returncode == 1
    assert "drag.py: the target (700, 40) lies outside the picture" in ran.stderr
    (tmp_path / "none.png").write_text("no picture")
    ran = run(tmp_path / "none.png", "--server", live_server, "--drag", "30,30:70,40")
    assert "is not a picture" in ran.stderr
