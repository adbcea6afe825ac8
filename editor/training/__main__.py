"""``python -m livedrag.editor.training``: make the built-in model from scratch, stage by stage."""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

STAGES = """\
stages, in this order:
  autoencoder   pictures to latents and back
  denoiser      tokenizer, UNet and text encoder
  export        the finished model as a diffusers folder
  search        the best default settings, on held-out pictures
  features      how often features find places again, and the error of clean latents
  evaluate      the report, on other held-out pictures
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m livedrag.editor.training",
        description=__doc__,
        epilog=STAGES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name in ("autoencoder", "denoiser"):
        training = stages.add_parser(name, help="train, or go on training")
        _add_training(training)
        if name == "denoiser":
            _add_denoiser(training)
    export = stages.add_parser("export", help="write the finished model")
    export.add_argument("output", type=Path)
    export.add_argument("--shards", type=Path, metavar="FOLDER", help="take the weights from there")
    _add_judging(stages)
    for stage in stages.choices.values():
        stage.add_argument("--folder", type=Path, help="of data and checkpoints; by default in the user's cache")
        stage.add_argument("--seed", type=int, default=0)
        stage.add_argument("--threads", type=int, default=0, help="by default as many as there are cores")
    return parser


def _add_training(training: argparse.ArgumentParser) -> None:
    training.add_argument("--steps", type=int, help="in all, over all runs; the learning rate falls over them")
    training.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="with --steps, stop after so long and go on next time; without, the time in all, over all runs",
    )
    training.add_argument("--batch", type=int, help="scenes a step")
    training.add_argument("--device", help="torch device such as cuda:0 (default: the best there is)")


def _add_denoiser(training: argparse.ArgumentParser) -> None:
    training.add_argument("--rate", type=float, help="learning rate at its highest")
    training.add_argument("--compile", action="store_true", help="let torch compile the UNet first")
    training.add_argument(
        "--start",
        metavar="REF",
        help="a finished model to train further, autoencoder and tokenizer included, such as builtin",
    )
    training.add_argument(
        "--from-scratch", action="store_true", help="take only autoencoder and tokenizer from --start"
    )
    training.add_argument(
        "--teacher",
        metavar="REF",
        help="learn the velocities that a finished model predicts instead of the data's, for small batches",
    )
    training.add_argument("--save-every", type=float, default=5, metavar="MINUTES", help="(default: %(default)s)")
    training.add_argument(
        "--shards",
        type=Path,
        metavar="FOLDER",
        help="also write the averaged weights there, in files below 16 MiB, whenever they are saved",
    )


def _add_judging(stages: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The stages that judge a finished model."""
    searching = stages.add_parser("search", help="find the best default settings on held-out pictures")
    searching.add_argument("--write", action="store_true", help="put them into the model's folder")
    evaluating = stages.add_parser("evaluate", help="judge a model on other held-out pictures")
    evaluating.add_argument("output", type=Path, help="folder of the report")
    evaluating.add_argument("--limit", type=int, metavar="N", help="drag on so many pictures, for a quick look")
    evaluating.add_argument(
        "--others", type=Path, metavar="FOLDER", help="drag on the pictures in this folder too, of any kind"
    )
    evaluating.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="other than the model's default; repeatable"
    )
    measuring = stages.add_parser("features", help="measure the features that dragging reads")
    measuring.add_argument("--quick", action="store_true", help="without the error of clean latents")
    for judging in (searching, measuring, evaluating):
        judging.add_argument("--model", default="builtin", metavar="REF", help="(default: %(default)s)")


def main(arguments: Sequence[str]) -> int:
    """Run one stage; returns the exit status."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: it writes its checkpoint first
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    from livedrag.editor.errors import EditorError
    from livedrag.editor.training import stages as runs
    from livedrag.editor.training.pictures import TrainingError

    try:
        runs.run(options)
    except (TrainingError, EditorError) as error:
        sys.stderr.write(f"python -m livedrag.editor.training {options.stage}: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
