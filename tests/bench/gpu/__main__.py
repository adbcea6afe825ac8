"""``python -m tests.bench.gpu [--tiny] [--seconds N] [--only PART] [--out FILE]``: speed on one GPU, in three minutes.

The most important figures come first, and each is printed and written as soon as it is there: a run that is cut short
leaves complete lines. What fails takes one line and leaves the rest. The model has Stable Diffusion 1.5's exact shape
at 512 x 512 and random weights, which are as fast as any; then the built-in model. ``--tiny`` tests the script on any
device.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

SECONDS = 170.0


def main() -> int:
    """Measure, print a Markdown table, and write lines of JSON."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before anything that reads it is imported
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    from tests.bench.gpu.bench import TINY, Extent
    from tests.bench.gpu.parts import PARTS, measure
    from tests.bench.gpu.report import Report

    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description="How fast is it on a GPU?")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: tests the script itself, on any device")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="(default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help=f"of {', '.join(map(repr, PARTS))}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write each figure as a line of JSON")
    options = parser.parse_args()
    if unknown := [name for name in options.only if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}: choose of {', '.join(map(repr, PARTS))}")
    if not options.tiny and not torch.cuda.is_available():
        sys.stderr.write("python -m tests.bench.gpu: there is no CUDA device; --tiny tests the script on this one\n")
        return 2
    with contextlib.ExitStack() as stack:
        file = None if options.out is None else stack.enter_context(options.out.open("w"))
        report = Report(file, options.seconds)
        measure(report, TINY if options.tiny else Extent(), tiny=options.tiny, only=options.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
