"""``python -m tests.bench.gpu [--tiny] [--seconds N] [--out FILE]``: speed on one GPU, in at most three minutes.

The most important figures come first, and each is printed and written as soon as it is there: a run that is cut short
leaves complete lines. The model has Stable Diffusion 1.5's exact shape at 512 x 512 and random
weights, which are as fast as any; then the built-in model. ``--tiny`` tests the script on any device.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch
from torch import Tensor

if TYPE_CHECKING:
    from livedrag.editor import Diffusion, DragSession
    from tests.bench.clock import Clock
    from tests.bench.drag import Scene

SECONDS = 170.0
ROOMS = (1, 2, 4, 8)
MIN_REPEATS, MAX_REPEATS = 3, 30
REPEAT_SECONDS = 1.5
"""A case is repeated for so long, within these bounds."""


@dataclass(frozen=True)
class Figure:
    """One figure.

    Args:
        name: of what was measured.
        value: None if it was not.
        unit: of the value.
        aim: in words.
        note: why there is no value, or how it was measured.
    """

    name: str
    value: float | None
    unit: str
    aim: str = ""
    note: str = ""


@dataclass(frozen=True)
class Extent:
    """How much is done: of a whole edit, and of the longest repetitions."""

    lora_steps: int = 80
    ddim_steps: int = 50
    iterations: int = 40
    rooms: tuple[int, ...] = ROOMS
    repeat_seconds: float = REPEAT_SECONDS


TINY = Extent(lora_steps=2, ddim_steps=6, iterations=3, rooms=(1, 2), repeat_seconds=0.0)


class Report:
    """Prints figures, and writes them as lines of JSON, as they come.

    Args:
        file: to write to, if any.
        seconds: after which no further part begins.
    """

    def __init__(self, file: TextIO | None, seconds: float) -> None:
        self._file, self._end, self._began = file, time.monotonic() + seconds, time.monotonic()
        self.values: dict[str, float] = {}

    def add(self, figure: Figure) -> None:
        """Note one more figure."""
        if figure.value is not None:
            self.values[figure.name] = figure.value
        shown = "-" if figure.value is None else f"{figure.value:.4g} {figure.unit}"
        sys.stdout.write(f"| {figure.name} | {shown} | {figure.aim} | {figure.note} |\n")
        sys.stdout.flush()
        if self._file is not None:
            self._file.write(json.dumps({**dataclasses.asdict(figure), "at": round(self.elapsed, 1)}) + "\n")
            self._file.flush()

    def ratio(self, name: str, of: str, to: str, aim: str) -> None:
        """Note how two figures compare, if both are there."""
        if of in self.values and to in self.values:
            self.add(Figure(name, self.values[of] / self.values[to], "times", aim))

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def has_time(self) -> bool:
        """Whether another part may begin."""
        return time.monotonic() < self._end


class Stopwatch:
    """Times work on a device, once it is warm.

    Args:
        device: that is waited for.
        seconds: for which a case is repeated.
    """

    def __init__(self, device: torch.device, seconds: float) -> None:
        self._device, self._seconds = device, seconds

    def milliseconds(self, work: Callable[[], object], warm_ups: int = 4) -> float:
        """Of one run of the work, the median."""
        for _ in range(warm_ups):
            work()
        times: list[float] = []
        end = time.monotonic() + self._seconds
        while len(times) < MIN_REPEATS or (time.monotonic() < end and len(times) < MAX_REPEATS):
            began = self._now()
            work()
            times.append(self._now() - began)
        return 1000 * statistics.median(times)

    def once(self, work: Callable[[], object]) -> float:
        """Seconds of one run of the work, the first."""
        began = self._now()
        work()
        return self._now() - began

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def main() -> int:
    """Measure, print a Markdown table, and write lines of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description="How fast is it on a GPU?")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: tests the script itself, on any device")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write each figure as a line of JSON")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not options.tiny and not torch.cuda.is_available():
        sys.stderr.write("python -m tests.bench.gpu: there is no CUDA device; --tiny tests the script on this one\n")
        return 2
    with contextlib.ExitStack() as stack:
        file = None if options.out is None else stack.enter_context(options.out.open("w"))
        report = Report(file, options.seconds)
        measure(report, TINY if options.tiny else Extent(), tiny=options.tiny)
    return 0


def measure(report: Report, extent: Extent, *, tiny: bool) -> None:
    """All parts, as far as there is time."""
    from tests.bench.model import BENCHES, build

    sys.stdout.write("| what | measured | aim | note |\n|--|--:|--|--|\n")
    model = build(BENCHES["tiny" if tiny else "full"])
    report.add(Figure("device", None, "", note=_describe(model)))
    watch = Stopwatch(model.device, extent.repeat_seconds)
    parts: list[tuple[str, Callable[[], None]]] = [
        ("an iteration", lambda: iterations(report, model, watch)),
        ("rooms that share a pass", lambda: rooms(report, model, extent, tiny=tiny)),
        ("fitting, inversion and denoising", lambda: steps(report, model, watch)),
        ("whole edit", lambda: whole_edit(report, model, extent)),
        ("memory", lambda: memory(report, model, extent)),
    ]
    if not tiny:
        parts += [("built-in model", lambda: builtin(report, extent)), ("service", lambda: service(report))]
    # Compiling takes a minute or more.
    parts.append(("torch.compile", lambda: compiled(report, model, watch, tiny=tiny)))
    for name, part in parts:
        if not report.has_time:
            report.add(Figure(name, None, "", note="not measured: no time left"))
            continue
        try:
            part()
        except Exception as error:  # the parts after it are still worth having
            report.add(Figure(name, None, "", note=f"failed: {type(error).__name__}: {str(error).splitlines()[0]}"))


def iterations(report: Report, model: Diffusion, watch: Stopwatch, prefix: str = "") -> None:
    """Of one room, with and without graphs, against a bare pass and the literal loop."""
    from tests.bench.clock import Clock
    from tests.bench.drag import Scene

    clock = Clock(model.device)
    scene = Scene(model, clock)
    for graphs in (True, False):
        how = "graphed" if graphs else "eager"
        with graphs_switched(model, on=graphs):
            for masked in (False, True):
                kind = "with a mask" if masked else "without a mask"
                took = watch.milliseconds(partial(scene.ours, 1, masked=masked, preview_every=0))
                report.add(Figure(f"{prefix}iteration {kind}, {how}", took, "ms"))
        with bare_pass(model, graphed=graphs) as bare:
            report.add(Figure(f"{prefix}bare pass, {how}", watch.milliseconds(bare), "ms"))
    for kind, aim in (("with a mask", "at most 1.10"), ("without a mask", "at most 0.70")):
        of, to = f"{prefix}iteration {kind}, graphed", f"{prefix}bare pass, graphed"
        report.ratio(f"{prefix}graphed iteration {kind} to a graphed bare pass", of, to, aim)
    for masked in (False, True):
        kind = "with a mask" if masked else "without a mask"
        name = f"{prefix}literal loop {kind}, eager"
        with graphs_switched(model, on=False):
            report.add(Figure(name, literal_iteration(scene, clock, masked=masked), "ms"))
        of = f"{prefix}iteration {kind}, graphed"
        report.ratio(f"{prefix}literal loop {kind} to a graphed iteration", name, of, "at least 2.5")
    scene.close()


def literal_iteration(scene: Scene, clock: Clock, *, masked: bool) -> float:
    """Milliseconds of an iteration of the literal loop, weights frozen; the median of three after one."""
    from tests.bench.drag import theirs

    scene.reference(4, masked=masked, weights_require_grad=False)
    return 1000 * statistics.median(clock.times[theirs(masked, False)][-3:])


@contextlib.contextmanager
def bare_pass(
    model: Diffusion, *, graphed: bool, unet: Callable[..., Any] | None = None
) -> Iterator[Callable[[], object]]:
    """The UNet forward and backward to its input, the LoRA merged into its weights, and nothing else.

    Args:
        graphed: whether it runs from a CUDA graph.
        unet: that runs, by default the model's.
    """
    from livedrag.editor.models.graphs import GraphedFunction
    from tests.bench.model import new_lora
    from tests.recorders import recorder_for

    prompt, lora = model.embed_prompt(""), new_lora(model)
    timesteps = torch.full((1,), model.schedule.levels(2)[0].timestep, device=model.device)
    latent = model.encode(_noise_picture(model)).to(model.dtype)
    ones, network = torch.ones_like(latent), model.unet if unet is None else unet

    def gradient(given: Tensor) -> Tensor:
        leaf = given.detach().requires_grad_()
        with torch.enable_grad():
            output: Tensor = network(leaf, timesteps, prompt, return_dict=False)[0]
        return torch.autograd.grad(output, leaf, ones)[0]

    with lora.active():
        model.adapter.apply_requested()
        run = GraphedFunction(gradient, latent, recorder_for(model)) if graphed else gradient
        yield lambda: run(latent)
    lora.remove()


def compiled(report: Report, model: Diffusion, watch: Stopwatch, *, tiny: bool) -> None:
    """The CUDA graphs of torch.compile against ours: the faster of the two should be kept."""
    options: dict[str, Any] = {"backend": "eager"} if tiny else {"mode": "reduce-overhead"}
    began = time.monotonic()
    with (
        graphs_switched(model, on=False),
        bare_pass(model, graphed=False, unet=torch.compile(model.unet, **options)) as run,
    ):
        run()
        note = f"compiled in {time.monotonic() - began:.0f} s" + (", without its compiler" if tiny else "")
        report.add(Figure("bare pass, torch.compile", watch.milliseconds(run), "ms", note=note))
    report.ratio(
        "bare pass: torch.compile to graphed", "bare pass, torch.compile", "bare pass, graphed", "below 1: keep it"
    )


@contextlib.contextmanager
def graphs_switched(model: Diffusion, *, on: bool, eager_runs: int = 2) -> Iterator[None]:
    """Within this block the model's passes run from graphs, after so many runs of a kind; or none does."""
    from livedrag.editor.models.graphs import Graphs
    from tests.recorders import recorder_for

    before, model.graphs = model.graphs, Graphs(recorder_for(model), eager_runs=eager_runs) if on else None
    try:
        yield
    finally:
        model.graphs = before


def prepared(model: Diffusion, *, masked: bool = True) -> DragSession:
    """A session that is ready to be dragged; its LoRA is not fitted, which makes no difference to speed."""
    import numpy as np

    from livedrag.editor import Drag, DragSession, Point
    from tests.bench.drag import STILL
    from tests.bench.model import picture_for, settings_for

    settings = settings_for(model, lora_steps=0, ddim_steps=2, latent_lr=STILL, max_iterations=10_000)
    session = DragSession(model, picture_for(model), settings=settings)
    for _ in session.prepare():
        pass
    side = model.native_side
    session.add_drag("a", Drag(Point(side / 4, side / 2), Point(side * 3 / 4, side / 2)))
    left_half = np.zeros((side, side), dtype=bool)
    left_half[:, : side // 2] = True
    session.set_mask(left_half if masked else None)
    return session


def rooms(report: Report, model: Diffusion, extent: Extent, *, tiny: bool) -> None:
    """Iterations a second of rooms that share passes, each row with its own LoRA."""
    from tests.bench import sharing
    from tests.bench.clock import Clock
    from tests.bench.model import BENCHES

    clock = Clock(model.device)
    with graphs_switched(model, on=True, eager_runs=0):  # there is one round to warm up
        sharing.measure(model, BENCHES["tiny" if tiny else "full"], clock, extent.rooms)
    for count in extent.rooms:
        name = f"iterations a second, {count} room{'s' * (count > 1)} in a pass"
        report.add(Figure(name, count / clock.median(f"{count} together"), "1/s"))


def steps(report: Report, model: Diffusion, watch: Stopwatch) -> None:
    """A step of fitting, of inversion and of denoising, eager and graphed; and what recording graphs takes."""
    from livedrag.editor import DragSession
    from livedrag.editor.drag.passes import ForwardPass, Outcome, answer
    from livedrag.editor.models.ddim import denoising_step
    from tests.bench.model import new_lora, picture_for, settings_for

    latent = model.encode(_noise_picture(model))
    prompt, level = model.embed_prompt(""), model.schedule.levels(50)[30]
    lora = new_lora(model)
    inversion = ForwardPass(model, latent, level.timestep, prompt, lora, alpha=level.alpha_below)
    for graphs in (True, False):
        how = "graphed" if graphs else "eager"
        with graphs_switched(model, on=graphs):
            session = DragSession(model, picture_for(model), settings=settings_for(model, lora_steps=10_000))
            fitting = session.prepare()
            report.add(Figure(f"fitting step, 4 rows, {how}", watch.milliseconds(partial(next, fitting)), "ms"))
            fitting.close()
            session.close()
            report.add(Figure(f"inversion step, {how}", watch.milliseconds(lambda: answer([inversion])), "ms"))
            with lora.active():
                took = watch.milliseconds(lambda: denoising_step(model, latent, prompt, level))
            report.add(Figure(f"denoising step, {how}", took, "ms"))
            (reference,) = answer([ForwardPass(model, latent, level.timestep, prompt, lora, records=True)])
            assert isinstance(reference, Outcome)
            control = ForwardPass(model, latent, level.timestep, prompt, lora, reference=reference.seen)
            took = watch.milliseconds(partial(answer, [control]))
            report.add(Figure(f"denoising step with reference-latent control, {how}", took, "ms"))
    lora.remove()
    with graphs_switched(model, on=True):
        session = prepared(model, masked=False)
        report.add(Figure("recording iterations before a drag", watch.once(lambda: list(session.warm_up())), "s"))
        session.close()


def whole_edit(report: Report, model: Diffusion, extent: Extent) -> None:
    """From a picture to its result; a drag that never arrives."""
    from livedrag.editor import Drag, DragSession, Point
    from tests.bench.drag import STILL
    from tests.bench.model import picture_for, settings_for

    settings = settings_for(
        model,
        lora_steps=extent.lora_steps,
        ddim_steps=extent.ddim_steps,
        inversion_strength=0.7,
        latent_lr=STILL,
        max_iterations=extent.iterations,
    )
    began = time.perf_counter()
    session = DragSession(model, picture_for(model), settings=settings)
    side = model.native_side
    session.add_drag("a", Drag(Point(side / 4, side / 2), Point(side * 3 / 4, side / 2)))
    for _ in session.prepare():
        pass
    prepared_at = time.perf_counter()
    for step in session.drag():
        session.preview(step)
    dragged_at = time.perf_counter()
    for rendering in session.render():
        session.preview(rendering)
    session.result()
    ended = time.perf_counter()
    session.close()
    steps_taken = f"{extent.lora_steps} steps of fitting, {settings.inversion_steps} of inversion"
    report.add(Figure("whole edit", ended - began, "s", "at most 15", f"{steps_taken}, {extent.iterations} iterations"))
    report.add(Figure("... its preparation", prepared_at - began, "s"))
    report.add(Figure("... its iterations", dragged_at - prepared_at, "s"))
    report.add(Figure("... its rendering", ended - dragged_at, "s"))


def memory(report: Report, model: Diffusion, extent: Extent) -> None:
    """Peak of rooms that take turns, with the model and its graphs."""
    if model.device.type != "cuda":
        report.add(Figure("peak memory", None, "GiB", note="measured on CUDA only"))
        return
    for count in (1, extent.rooms[-1]):
        if model.graphs is not None:
            model.graphs.clear()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(model.device)
        sessions = [prepared(model) for _ in range(count)]
        for steps in [session.drag(preview_every=0) for session in sessions]:
            for _ in range(4):
                next(steps)
        peak = torch.cuda.max_memory_reserved(model.device) / 2**30
        report.add(Figure(f"peak memory, {count} room{'s' * (count > 1)}", peak, "GiB", note="reserved by torch"))
        for session in sessions:
            session.close()


def builtin(report: Report, extent: Extent) -> None:
    """An iteration of the built-in model."""
    from livedrag.editor import Diffusion

    model = Diffusion.load("builtin")
    iterations(report, model, Stopwatch(model.device, extent.repeat_seconds / 2), prefix="built-in: ")


def service(report: Report) -> None:
    """Through the real server, with the built-in model: how old frames are, and how long Stop takes."""
    from tests.bench import service as through_service

    for promise in through_service.measure(through_service.TINY):
        if promise.what.startswith(("frame age", "stop to")):
            name = f"service: {promise.what}"
            report.add(Figure(name, max(promise.figures.values()), promise.unit, note="the longest"))


def _noise_picture(model: Diffusion) -> Tensor:
    side = model.native_side
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _describe(model: Diffusion) -> str:
    name = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else platform.machine()
    return f"{name}, torch {torch.__version__}, {model.name}, {model.dtype}".replace("torch.", "", 1)


if __name__ == "__main__":
    sys.exit(main())
