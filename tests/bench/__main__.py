"""``python -m tests.bench [--full | --tiny] [--service] [--json FILE] [--profile]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from tests.bench.model import Bench


def main() -> int:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="How fast is it? Leave the machine alone."
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--full", action="store_true", help="Stable Diffusion 1.5's shape at 512 x 512; 12 GiB, half an hour"
    )
    size.add_argument("--tiny", action="store_true", help="a tiny model: tests the benchmark itself")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--profile", action="store_true", help="show instead which operations take an iteration's time")
    parser.add_argument("--service", action="store_true", help="measure the service instead, as people use it")
    options = parser.parse_args()

    # Both sides run as the product's worker does; OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.service:
        return _service(tiny=options.tiny, numbers=options.json)
    from tests.bench import drag, fitting, memory, rendering, sharing, waiting
    from tests.bench.clock import Clock
    from tests.bench.model import BENCHES, build, take_all_cores
    from tests.bench.profile import profile
    from tests.bench.table import to_json, to_markdown

    bench = BENCHES["full" if options.full else "tiny" if options.tiny else "builtin"]
    take_all_cores()
    if options.profile:
        sys.stdout.write(profile(build(bench)))
        return 0
    peaks = memory.measure(bench)
    model = build(bench)
    clock = Clock(model.device)
    parts = [drag, fitting, rendering] if options.full else [drag, fitting, rendering, waiting, sharing]
    rows = [row for part in parts for row in part.measure(model, bench, clock)] + peaks
    facts = _facts(model, bench)
    sys.stdout.write(to_markdown(facts, rows, aims=options.full))
    if options.json:
        options.json.write_text(json.dumps(to_json(facts, rows, clock.times), indent=1))
    return 0


def _service(*, tiny: bool, numbers: Path | None) -> int:
    from tests.bench import service

    promises = service.measure(service.TINY if tiny else service.FULL)
    sys.stdout.write(service.to_markdown(promises))
    if numbers:
        numbers.write_text(json.dumps(service.to_json(promises), indent=1))
    return 0


def _facts(model: Diffusion, bench: Bench) -> dict[str, str]:
    import torch

    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else str(model.device)
    side = model.native_side
    theirs, ours = bench.rounds * bench.visit, bench.rounds * bench.ours
    return {
        "model": f"{model.name}, {side} x {side}, {str(model.dtype).removeprefix('torch.')}",
        "device": f"{device}; {_processor()}, {torch.get_num_threads()} threads",
        "software": f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']} on both sides",
        "times": f"seconds, medians, the cases taking turns, {theirs} iterations of each reference and {ours} of ours; "
        "ours in row 1 without previews, elsewhere one in 4 with its preview decoded and compressed",
        "memory": "torch's allocations on the device"
        if model.device.type == "cuda"
        else "highest resident set of a process for each case, above the same process before the model was made, "
        "and above the prepared model",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
