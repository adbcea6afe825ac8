"""The wheel contains everything that `pip install` has to provide."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Not isolated: the virtual environment has hatchling, and a test should not download anything.
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True)
    (built,) = folder.glob("livedrag-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel and this environment's dependencies."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    executable = folder / "bin" / "python"
    subprocess.run([executable, "-m", "pip", "install", "--no-deps", "--no-index", wheel], check=True)
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([executable, "-c", query], capture_output=True, text=True, check=True)
    Path(found.stdout.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return executable


def test_it_contains_the_page_the_samples_and_the_model(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        listed = json.loads(archive.read("livedrag/server/static/samples.json"))
    assert {"livedrag/server/static/app/index.html", "livedrag/server/__main__.py"} <= names
    assert "livedrag/editor/models/configurations/xl/unet/config.json" in names
    for suffix in (".js", ".js.gz", ".css.gz"):
        assert any(name.startswith("livedrag/server/static/app/assets/") and name.endswith(suffix) for name in names)
    assert "livedrag/server/static/app/service-worker.js" in names
    for sample in listed:
        for kind in ("", "-mask"):
            assert f"livedrag/server/static/samples/{sample['name']}{kind}.png" in names
    weights = ROOT / "editor" / "weights"
    for path in weights.rglob("*"):
        if path.is_file():
            assert f"livedrag/{path.relative_to(ROOT).as_posix()}" in names


def test_it_contains_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"livedrag"}
    assert not [name for name in names if "/tests/" in name or "__pycache__" in name]


def test_it_gives_the_command(python: Path, tmp_path: Path) -> None:
    command = [str(python.parent / "livedrag"), "--version"]
    # Outside the repository and without its environment: only what is installed counts.
    environment = {"PATH": os.defpath, "HOME": str(tmp_path)}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert version("livedrag") in answer.stdout


def test_it_is_the_wheel_that_answers(python: Path, tmp_path: Path) -> None:
    code = "import livedrag.server, livedrag.editor; print(livedrag.server.__file__, livedrag.editor.__file__)"
    environment = {"PATH": os.defpath, "HOME": str(tmp_path)}
    answer = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    for path in answer.stdout.split():
        assert Path(path).is_relative_to(python.parent.parent)
