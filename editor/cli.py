"""``livedrag edit`` and ``livedrag generate``: the editor without the service.

Arguments are checked before torch is imported, which takes seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from livedrag.editor.edit_command import edit
from livedrag.editor.edit_request import EXAMPLE, check_output
from livedrag.editor.errors import EditorError, SettingsError
from livedrag.editor.jobs import run_jobs
from livedrag.editor.model_options import add_model_options, load_model
from livedrag.editor.output import OutputFiles, interruptible
from livedrag.editor.progress import Clock, with_progress
from livedrag.editor.settings import (
    PRESETS,
    Quality,
    check_generation,
    check_prompt,
    check_seed,
)
from livedrag.limits import GUIDANCE


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
            if options.command == "edit" and options.jobs is not None:
                return run_jobs(options, files)
            report = {"edit": edit, "generate": generate_picture}[options.command](options, files)
        except (EditorError, OSError) as error:
            sys.stderr.write(f"{command}: {error}\n")
            return 2
        if options.json:
            sys.stdout.write(json.dumps(report) + "\n")
    return 0


def generate_picture(options: argparse.Namespace, files: OutputFiles) -> dict[str, Any]:
    """``livedrag generate``; returns what ``--json`` prints. Raises `EditorError` and `OSError`."""
    clock = Clock()
    check_output(options.output, ".png")
    if not options.prompt.strip():
        raise SettingsError(f"the prompt is {options.prompt!r}: describe what the picture should show")
    check_prompt(options.prompt)
    seed = options.seed or 0
    check_seed(seed)
    check_generation(options.guidance, options.steps)
    model = load_model(options, options.prompt)
    clock.lap("load")

    from livedrag.editor.generate import generate
    from livedrag.editor.picture import to_picture

    steps = generate(model, options.prompt, seed=seed, guidance=options.guidance, ddim_steps=options.steps)
    *_, last = with_progress(steps, "generating", options.steps)
    files.save(to_picture(model.decode(last.latent)), options.output)
    clock.lap("generate")
    return {
        "model": model.name,
        "prompt": options.prompt,
        "seed": seed,
        "seconds": {**clock.laps, "total": clock.total()},
    }


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
        help="the same seed gives the same picture on the same machine (default: 0)",
    )
    add("--json", action="store_true", help="print the outcome as a JSON object")


def _add_edit(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    add = parser.add_argument
    add("picture", type=Path, nargs="?", help="PNG, JPEG, WebP, AVIF, BMP, TIFF or GIF of a single frame")
    add(
        "--from",
        dest="repeat",
        type=Path,
        metavar="RESULT.png",
        help="repeat the edit that made this result, of PICTURE or of the picture next to it",
    )
    add(
        "--drag",
        action="append",
        default=[],
        metavar="X0,Y0:X1,Y1",
        help=f"handle and target, {EXAMPLE}; repeatable",
    )
    add("--mask", type=Path, help="picture of the same size, white where the picture may change (default: everywhere)")
    add("--prompt", help="what the picture shows")
    add("--preset", metavar="NAME", help=f"{', '.join(PRESETS[:-1])} or {PRESETS[-1]} (default: the model's own)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the method; repeatable")
    add("-o", "--output", type=Path, metavar="OUT.png", help="file to write, .png or .webp")
    add(
        "--jobs",
        type=Path,
        metavar="FILE",
        help="do many edits: a JSON list of objects with picture, drags, output, and what else is wanted; see README",
    )
    add(
        "--log",
        type=Path,
        metavar="OUT.csv",
        help="file to write the points, distances and loss of each iteration to, .csv or .json",
    )
    add(
        "--no-metadata",
        dest="metadata",
        action="store_false",
        help="leave out of the result how it was made",
    )
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
