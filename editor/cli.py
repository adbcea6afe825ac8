"""``livedrag edit`` and ``livedrag generate``: the editor without the service.

Arguments are checked before torch is imported, which takes seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from livedrag.editor.errors import EditorError, MaskError, PictureError, PointError, SettingsError
from livedrag.editor.model_options import add_model_options, load_model
from livedrag.editor.output import OutputFiles, interruptible
from livedrag.editor.points import Drag, Point, Rasters, Size
from livedrag.editor.settings import (
    PRESETS,
    DragSettings,
    Quality,
    Setting,
    check_generation,
    check_prompt,
    check_seed,
    parse_setting,
    unsuitable_presets,
)
from livedrag.limits import GUIDANCE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Step = TypeVar("Step")
Value = TypeVar("Value")

EXAMPLE = "for example --drag 62,150:40,110 (from x 62, y 150 to x 40, y 110, in pixels of the picture)"


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand named by the first argument.

    Args:
        arguments: of the command line, without the program's name.

    Returns:
        Exit status: 0 for success, 2 for bad input, explained on standard error. Ctrl-C ends the process with 130.
    """
    options = _parser().parse_args(_with_negative_points(arguments))
    command, files = f"livedrag {options.command}", OutputFiles()
    with interruptible(command, files):
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        try:
            report = {"edit": edit, "generate": generate_picture}[options.command](options, files)
        except (EditorError, OSError) as error:
            sys.stderr.write(f"{command}: {error}\n")
            return 2
        if options.json:
            sys.stdout.write(json.dumps(report) + "\n")
    return 0


@dataclass(frozen=True)
class _EditInput:
    """What ``livedrag edit`` was given, checked as far as that is possible without a model."""

    picture: Image.Image
    mask: NDArray[np.bool_] | None
    drags: dict[str, Drag]
    overrides: dict[str, Setting]


def edit(options: argparse.Namespace, files: OutputFiles) -> dict[str, Any]:
    """``livedrag edit``; returns what ``--json`` prints. Raises `EditorError` and `OSError`."""
    clock = _Clock()
    given = _check_edit(options)
    model = load_model(options, tiny=options.tiny)

    from livedrag.editor.drag.preparation import is_known, is_measured
    from livedrag.editor.drag.session import DragSession
    from livedrag.editor.drag.steps import DragStep
    from livedrag.editor.fitting.fitted_lora import read_fitted_lora
    from livedrag.editor.fitting.lora import FitPass

    settings = DragSettings.resolve(options.preset, model.defaults, given.overrides)
    if reason := unsuitable_presets(model.kind).get(options.preset):
        sys.stderr.write(f"livedrag edit: the preset {options.preset!r} does not suit {model.name!r}: {reason}\n")
    session = DragSession(model, given.picture, prompt=options.prompt, settings=settings, seed=options.seed)
    if options.picture_lora is not None:
        session.use_lora(read_fitted_lora(options.picture_lora, model))
    settings = session.settings
    for name, drag in given.drags.items():
        session.add_drag(name, drag)
    session.set_mask(given.mask)
    clock.lap("load")

    preparation = (step for step in session.prepare() if not isinstance(step, FitPass))
    fitting = itertools.islice(preparation, settings.lora_steps)
    for _ in _with_progress(fitting, "fitting", settings.lora_steps):
        pass
    if options.save_lora is not None:
        files.write(session.save_lora, options.save_lora)
    clock.lap("lora")
    for _ in _with_progress(preparation, "inverting", settings.inversion_steps):
        pass
    clock.lap("inversion")
    if is_measured(model.kind, settings) and not is_known(model.kind, _returned(session.reconstruct())):
        sys.stderr.write(
            f"livedrag edit: the model {model.name!r} does not know pictures like this one: "
            "expect a poor result, or use another model\n"
        )

    numbers = itertools.count()

    def save_frame(preview: Image.Image | None) -> None:
        if preview is not None:
            files.save(preview, options.frames / f"{next(numbers):04}.png")

    preview_every = options.preview_every if options.frames else 0
    step: DragStep | None = None
    for step in _with_progress(
        session.drag(preview_every, quality=options.preview), "dragging", settings.max_iterations, _describe
    ):
        save_frame(session.preview(step, quality=options.preview))
    assert step is not None
    clock.lap("drag")
    for rendering in _with_progress(session.render(preview_every), "rendering", session.render_steps):
        save_frame(session.preview(rendering, quality=options.preview))
    files.save(session.result(), options.output)
    clock.lap("render")
    return {
        "model": model.name,
        "size": list(given.picture.size),
        "iterations": step.iteration,
        "outcome": "arrived" if step.arrived else "exhausted",
        "handles": [[step.handles[name].x, step.handles[name].y] for name in given.drags],
        "distances": [{"start": _length(drag), "end": step.distances[name]} for name, drag in given.drags.items()],
        "lost": [name in step.lost for name in given.drags],
        "seconds": {**clock.laps, "total": clock.total()},
        "seconds_per_iteration": clock.laps["drag"] / max(1, step.iteration),
        "peak_memory_mb": _peak_memory_mb(),
    }


def generate_picture(options: argparse.Namespace, files: OutputFiles) -> dict[str, Any]:
    """``livedrag generate``; returns what ``--json`` prints. Raises `EditorError` and `OSError`."""
    clock = _Clock()
    _check_output(options.output)
    if not options.prompt.strip():
        raise SettingsError(f"the prompt is {options.prompt!r}: describe what the picture should show")
    check_prompt(options.prompt)
    check_seed(options.seed)
    check_generation(options.guidance, options.steps)
    model = load_model(options)
    clock.lap("load")

    from livedrag.editor.generate import generate
    from livedrag.editor.picture import to_picture

    steps = generate(model, options.prompt, seed=options.seed, guidance=options.guidance, ddim_steps=options.steps)
    *_, last = _with_progress(steps, "generating", options.steps)
    files.save(to_picture(model.decode(last.latent)), options.output)
    clock.lap("generate")
    return {
        "model": model.name,
        "prompt": options.prompt,
        "seed": options.seed,
        "seconds": {**clock.laps, "total": clock.total()},
    }


def _returned(steps: Generator[Any, None, Value]) -> Value:
    """What a generator returns at its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: Value = end.value
            return value


class _Clock:
    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now

    def total(self) -> float:
        return time.perf_counter() - self._start


# The command line -----------------------------------------------------------------------------------------------------


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
        default=GUIDANCE,
        help="how closely to follow the prompt (default: %(default)s)",
    )
    add("--steps", type=int, default=50, help="DDIM steps (default: %(default)s)")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    add = parser.add_argument
    add(
        "--seed",
        type=int,
        default=0,
        help="the same seed gives the same picture on the same machine (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the outcome as a JSON object")


def _add_edit(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    add = parser.add_argument
    add("picture", type=Path, help="PNG, JPEG, WebP, AVIF, BMP, TIFF or GIF of a single frame")
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
    add(
        "--picture-lora",
        type=Path,
        metavar="PATH",
        help="LoRA fitted to this picture before, by livedrag or DragDiffusion's own code, instead of fitting one",
    )
    add(
        "--save-lora",
        type=Path,
        metavar="OUT.safetensors",
        help="file to write the picture's LoRA to, for diffusers too",
    )
    add("--tiny", metavar="REF", help="an AutoencoderTiny, folder or owner/name@<commit>, for quicker previews")
    add(
        "--preview",
        choices=get_args(Quality),
        help="quality of previews (default: the best that does not slow down the run)",
    )
    add("--frames", type=Path, metavar="DIR", help="folder to save previews in")
    add("--preview-every", type=int, default=4, metavar="N", help="save one every N iterations (default: %(default)s)")


def _with_negative_points(arguments: Sequence[str]) -> list[str]:
    """``--drag -5,10:20,20`` as ``--drag=-5,10:20,20``, which argparse would take for an option of its own."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--drag" and re.match(r"-[\d.]", argument):
            joined[-1] = f"--drag={argument}"
        else:
            joined.append(argument)
    return joined


# Checks ---------------------------------------------------------------------------------------------------------------


def _check_edit(options: argparse.Namespace) -> _EditInput:
    drags = {str(index): _parse_drag(text) for index, text in enumerate(options.drag)}
    overrides = dict(parse_setting(text) for text in options.set)
    DragSettings.resolve(options.preset, {}, overrides)
    check_prompt(options.prompt)
    check_seed(options.seed)
    _check_output(options.output)
    if options.save_lora is not None:
        _check_output(options.save_lora, ".safetensors")
    picture = _read_picture(options.picture)
    size = Size(*picture.size)
    for drag in drags.values():
        Rasters(size, size).check_drag(drag)
    mask = None if options.mask is None else _read_mask(options.mask, picture.size)
    if options.frames is not None:
        _make_frames_folder(options.frames)
    return _EditInput(picture, mask, drags, overrides)


def _parse_drag(text: str) -> Drag:
    try:
        (x0, y0), (x1, y1) = (tuple(float(number) for number in end.split(",")) for end in text.split(":"))
    except ValueError:
        raise PointError(f"--drag {text!r} is not X0,Y0:X1,Y1: write {EXAMPLE}") from None
    return Drag(Point(x0, y0), Point(x1, y1))


def _read_picture(path: Path) -> Image.Image:
    from livedrag.pictures import PictureFileError, read_picture

    try:
        with path.open("rb") as file:
            return read_picture(file, str(path))
    except (PictureFileError, OSError) as error:
        raise PictureError(_reason(path, error)) from None


def _read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    import numpy as np

    from livedrag.pictures import PictureFileError, read_mask

    try:
        with path.open("rb") as file:
            return np.asarray(read_mask(file, str(path), size)) > 0
    except (PictureFileError, OSError) as error:
        raise MaskError(_reason(path, error)) from None


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no file {str(path)!r}"
    return f"{str(path)!r} can't be read ({error.strerror})" if isinstance(error, OSError) else str(error)


def _check_output(path: Path, ending: str = ".png") -> None:
    if path.suffix.lower() != ending:
        raise PictureError(f"the output {str(path)!r} must end in {ending}")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise PictureError(f"the folder of {str(path)!r} does not exist: create it first")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise PictureError(f"{str(path)!r} can't be written: choose another output file")


def _make_frames_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PictureError(f"frames can't be saved in {str(path)!r} ({error}): choose another folder") from None


# Output ---------------------------------------------------------------------------------------------------------------


def _length(drag: Drag) -> float:
    return math.hypot(drag.target.x - drag.handle.x, drag.target.y - drag.handle.y)


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _describe(step: Any) -> str:
    return ", ".join(f"{distance:.0f} px" for distance in step.distances.values()) + " left"


def _with_progress(
    steps: Iterable[Step], stage: str, total: int | None, describe: Callable[[Step], str] | None = None
) -> Iterator[Step]:
    """The steps, with a progress bar if standard error is a terminal."""
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=f"{stage:<10}", unit="step", disable=not sys.stderr.isatty(), file=sys.stderr) as bar:
        for step in steps:
            if describe is not None:
                bar.set_postfix_str(describe(step), refresh=False)
            bar.update()
            yield step
