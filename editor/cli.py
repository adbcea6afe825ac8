"""``livedrag edit`` and ``livedrag generate``: the algorithm without the service."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from livedrag.editor.drag.preview import Quality
from livedrag.editor.drag.session import DragSession
from livedrag.editor.drag.steps import DragStep
from livedrag.editor.errors import EditorError, MaskError, PictureError, PointError, SettingsError
from livedrag.editor.generate import DEFAULT_GUIDANCE, generate
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.picture import to_picture
from livedrag.editor.points import Drag, Point
from livedrag.editor.settings import PRESETS, DragSettings, parse_setting

Step = TypeVar("Step")

EXAMPLE = "for example --drag 62,150:40,110 (from x 62, y 150 to x 40, y 110, in pixels of the picture)"


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand named by the first argument.

    Args:
        arguments: of the command line, without the program's name.

    Returns:
        Exit status: 0 for success, 2 for bad input, explained on standard error.
    """
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    options = _parser().parse_args(arguments)
    try:
        report = {"edit": edit, "generate": generate_picture}[options.command](options)
    except (EditorError, OSError) as error:
        sys.stderr.write(f"livedrag {options.command}: {error}\n")
        return 2
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
    return 0


def edit(options: argparse.Namespace) -> dict[str, Any]:
    """``livedrag edit``; returns what ``--json`` prints. Raises `EditorError` and `OSError`."""
    clock = _Clock()
    drags = [_parse_drag(text) for text in options.drag]
    picture = _open_picture(options.picture, PictureError)
    mask = None if options.mask is None else _open_mask(options.mask)
    output = _writable(options.output)
    frames = None if options.frames is None else _frames_folder(options.frames)
    overrides = dict(parse_setting(text) for text in options.set)

    model = Diffusion.load(options.model, device=options.device, tiny=options.tiny)
    settings = DragSettings.resolve(options.preset, model.defaults, overrides)
    session = DragSession(model, picture, prompt=options.prompt, settings=settings, seed=options.seed)
    names = [str(index) for index in range(len(drags))]
    for name, drag in zip(names, drags, strict=True):
        session.add_drag(name, drag)
    session.set_mask(mask)
    clock.lap("load")

    preparation = session.prepare()
    fitting = itertools.islice(preparation, settings.lora_steps)
    for _ in _with_progress(fitting, "fitting", settings.lora_steps):
        pass
    clock.lap("lora")
    for _ in _with_progress(preparation, "inverting", settings.inversion_steps):
        pass
    clock.lap("inversion")

    preview_every = options.preview_every if frames else 0
    numbers = itertools.count()
    step: DragStep | None = None
    for step in _with_progress(session.drag(preview_every), "dragging", settings.max_iterations, _describe):
        _save_frame(session.preview(step, quality=options.preview) if frames else None, frames, numbers)
    assert step is not None
    clock.lap("drag")
    for rendering in _with_progress(session.render(preview_every), "rendering", session.render_steps):
        _save_frame(session.preview(rendering, quality=options.preview) if frames else None, frames, numbers)
    session.result().save(output, format="PNG")
    clock.lap("render")

    starts = [math.hypot(drag.target.x - drag.handle.x, drag.target.y - drag.handle.y) for drag in drags]
    return {
        "model": model.name,
        "size": list(picture.size),
        "iterations": step.iteration,
        "outcome": "arrived" if step.arrived else "exhausted",
        "handles": [[step.handles[name].x, step.handles[name].y] for name in names],
        "distances": [{"start": start, "end": step.distances[name]} for start, name in zip(starts, names, strict=True)],
        "seconds": {**clock.laps, "total": clock.total()},
        "seconds_per_iteration": clock.laps["drag"] / max(1, step.iteration),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (2**20 if sys.platform == "darwin" else 2**10),
    }


def generate_picture(options: argparse.Namespace) -> dict[str, Any]:
    """``livedrag generate``; returns what ``--json`` prints. Raises `EditorError` and `OSError`."""
    clock = _Clock()
    output = _writable(options.output)
    if not options.prompt.strip():
        raise SettingsError(f"the prompt is {options.prompt!r}: describe what the picture should show")
    model = Diffusion.load(options.model, device=options.device)
    clock.lap("load")
    steps = generate(model, options.prompt, seed=options.seed, guidance=options.guidance, ddim_steps=options.steps)
    *_, last = _with_progress(steps, "generating", options.steps)
    to_picture(model.decode(last.latent)).save(output, format="PNG")
    clock.lap("generate")
    return {
        "model": model.name,
        "prompt": options.prompt,
        "seed": options.seed,
        "seconds": {**clock.laps, "total": clock.total()},
    }


class _Clock:
    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now

    def total(self) -> float:
        return time.perf_counter() - self._start


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="livedrag")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_edit(
        commands.add_parser("edit", description="Drag the content of a picture from handle points to target points.")
    )
    _add_generate(commands.add_parser("generate", description="Generate a picture from a prompt."))
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompt", help="what the picture should show; the built-in model knows emoji-like pictures")
    add("-o", "--output", type=Path, required=True, metavar="OUT.png", help="file to write")
    add(
        "--guidance",
        type=float,
        default=DEFAULT_GUIDANCE,
        help="how closely to follow the prompt (default: %(default)s)",
    )
    add("--steps", type=int, default=50, help="DDIM steps (default: %(default)s)")
    _add_model(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        default="builtin",
        metavar="REF",
        help="'builtin', a diffusers folder, or owner/name@<commit> (default: %(default)s)",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="the same seed gives the same picture on the same machine (default: %(default)s)",
    )
    add("--device", help="torch device such as cuda:1 (default: the best available)")
    add("--json", action="store_true", help="print the outcome as a JSON object")


def _add_edit(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    add = parser.add_argument
    add("picture", type=Path, help="PNG, JPEG or WebP")
    add(
        "--drag",
        action="append",
        required=True,
        metavar="X0,Y0:X1,Y1",
        help=f"handle and target, {EXAMPLE}; repeatable",
    )
    add("--mask", type=Path, help="picture of the same size, white where the picture may change (default: everywhere)")
    add("--prompt", default="", help="what the picture shows")
    add("--preset", metavar="NAME", help=f"{' or '.join(PRESETS)} (default: the model's own)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the method; repeatable")
    add("-o", "--output", type=Path, required=True, metavar="OUT.png", help="file to write")
    add("--tiny", metavar="REF", help="an AutoencoderTiny, folder or owner/name@<commit>, for quicker previews")
    add(
        "--preview",
        choices=get_args(Quality),
        help="quality of previews (default: the best that does not slow down the run)",
    )
    add("--frames", type=Path, metavar="DIR", help="folder to save previews in")
    add("--preview-every", type=int, default=4, metavar="N", help="save one every N iterations (default: %(default)s)")


def _parse_drag(text: str) -> Drag:
    try:
        (x0, y0), (x1, y1) = (tuple(float(number) for number in end.split(",")) for end in text.split(":"))
    except ValueError:
        raise PointError(f"--drag {text!r} is not X0,Y0:X1,Y1: write {EXAMPLE}") from None
    return Drag(Point(x0, y0), Point(x1, y1))


def _open_picture(path: Path, error_type: type[EditorError]) -> Image.Image:
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as opened:
            opened.load()
            return ImageOps.exif_transpose(opened)
    except FileNotFoundError:
        raise error_type(f"there is no file {str(path)!r}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        problem = f"{str(path)!r} can't be read as a picture ({error})"
        raise error_type(f"{problem}: it must be a complete PNG, JPEG or WebP file") from None


def _open_mask(path: Path) -> NDArray[np.bool_]:
    mask = np.asarray(_open_picture(path, MaskError).convert("L")) >= 128
    if not mask.any():
        raise MaskError(
            f"the mask {str(path)!r} has no white, so nothing may change: "
            "paint the area that may change white, or leave out --mask"
        )
    return mask


def _writable(path: Path) -> Path:
    if path.suffix.lower() != ".png":
        raise PictureError(f"the output {str(path)!r} must end in .png")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise PictureError(f"the folder of {str(path)!r} does not exist: create it first")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise PictureError(f"{str(path)!r} can't be written: choose another output file")
    return path


def _frames_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PictureError(f"frames can't be saved in {str(path)!r} ({error}): choose another folder") from None
    return path


def _save_frame(preview: Image.Image | None, folder: Path | None, numbers: Iterator[int]) -> None:
    if folder is not None and preview is not None:
        preview.save(folder / f"{next(numbers):04}.png")


def _describe(step: Any) -> str:
    return ", ".join(f"{distance:.0f} px" for distance in step.distances.values()) + " left"


def _with_progress(
    steps: Iterable[Step], stage: str, total: int | None, describe: Callable[[Step], str] | None = None
) -> Iterator[Step]:
    """The steps, with a progress bar where standard error is a terminal."""
    with tqdm(total=total, desc=f"{stage:<10}", unit="step", disable=not sys.stderr.isatty(), file=sys.stderr) as bar:
        for step in steps:
            if describe is not None:
                bar.set_postfix_str(describe(step), refresh=False)
            bar.update()
            yield step
