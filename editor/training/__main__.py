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
  evaluate      the report, on other held-out pictures
"""


def main(arguments: Sequence[str]) -> int:
    """Run one stage; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m livedrag.editor.training",
        description=__doc__,
        epilog=STAGES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name in ("autoencoder", "denoiser"):
        training = stages.add_parser(name, help="train, or go on training")
        training.add_argument("--steps", type=int, required=True, help="in all, over all runs")
        training.add_argument("--minutes", type=float, default=math.inf, help="stop after so long; goes on next time")
        training.add_argument("--batch", type=int, help="scenes a step")
        training.add_argument("--device", help="torch device such as cuda:0 (default: the best there is)")
        if name == "denoiser":
            training.add_argument("--workers", type=int, default=0, help="processes that draw scenes ahead")
            training.add_argument(
                "--start",
                metavar="REF",
                help="a finished model to go on from, autoencoder and tokenizer included, such as builtin",
            )
    export = stages.add_parser("export", help="write the finished model")
    export.add_argument("output", type=Path)
    searching = stages.add_parser("search", help="find the best default settings on held-out pictures")
    searching.add_argument("--write", action="store_true", help="put them into the model's folder")
    evaluating = stages.add_parser("evaluate", help="judge a model on other held-out pictures")
    evaluating.add_argument("output", type=Path, help="folder of the report")
    evaluating.add_argument("--pictures", type=int, help="fewer than all, for a quick look")
    evaluating.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="other than the model's default; repeatable"
    )
    for judging in (searching, evaluating):
        judging.add_argument("--model", default="builtin", metavar="REF", help="(default: %(default)s)")
    for stage in stages.choices.values():
        stage.add_argument("--folder", type=Path, help="of data and checkpoints; by default in the user's cache")
        stage.add_argument("--seed", type=int, default=0)
        stage.add_argument("--threads", type=int, default=0, help="by default as many as there are cores")
    options = parser.parse_args(arguments)
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
