"""``python -m tests.bench.gpu [--tiny] [--seconds N] [--only PART] [--out FILE]``: speed on one GPU, in three minutes.

The most important figures come first, and each is printed and written as soon as it is there: a run that is cut short
leaves complete lines. What fails takes one line and leaves the rest. The model has Stable Diffusion 1.5's exact shape
at 512 x 512 and random weights, which are as fast as any; then the built-in model. ``--tiny`` tests the script on any
device.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import itertools
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
GRACE = 8.0
"""Seconds after that in which what has begun must end."""
ROOMS = (1, 2, 4, 8)
MIN_REPEATS, MAX_REPEATS = 3, 30
REPEAT_SECONDS = 1.5
"""A case is repeated for so long, within these bounds."""
WARM_UPS = 4
"""Runs before those that count: graphs are recorded in the third run of a kind."""


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


class OutOfTimeError(Exception):
    """The time of the whole run is up."""


class Report:
    """Prints figures, and writes them as lines of JSON, as they come.

    Args:
        file: to write to, if any.
        seconds: after which no further part begins.
    """

    def __init__(self, file: TextIO | None, seconds: float) -> None:
        self._file, self._end, self._began = file, time.monotonic() + seconds, time.monotonic()
        self.values: dict[str, float] = {}

    def measure(self, name: str, unit: str, take: Callable[[], float], aim: str = "", note: str = "") -> None:
        """Note one more figure, or why it could not be taken: the figures after it are still worth having."""
        try:
            self.add(Figure(name, take(), unit, aim, note))
        except OutOfTimeError:
            raise
        except Exception as error:
            self.fail(name, error)

    def fail(self, name: str, error: Exception) -> None:
        """Note why something was not measured."""
        lines = str(error).splitlines() or [""]
        self.add(Figure(name, None, "", note=f"failed: {type(error).__name__}: {lines[0]}"))

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
    def seconds_left(self) -> float:
        """Until no further part begins."""
        return self._end - time.monotonic()


class Stopwatch:
    """Times work on a device, once it is warm.

    Args:
        device: that is waited for.
        seconds: for which a case is repeated.
    """

    def __init__(self, device: torch.device, seconds: float) -> None:
        self._device, self._seconds = device, seconds

    def milliseconds(self, work: Callable[[], object], warm_ups: int = WARM_UPS) -> float:
        """Of one run of the work, the median."""
        for _ in range(warm_ups):
            work()
        gc.collect()  # not while something is timed
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
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help=f"of {', '.join(map(repr, PARTS))}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write each figure as a line of JSON")
    options = parser.parse_args()
    if unknown := [name for name in options.only if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}: choose of {', '.join(map(repr, PARTS))}")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not options.tiny and not torch.cuda.is_available():
        sys.stderr.write("python -m tests.bench.gpu: there is no CUDA device; --tiny tests the script on this one\n")
        return 2
    with contextlib.ExitStack() as stack:
        file = None if options.out is None else stack.enter_context(options.out.open("w"))
        report = Report(file, options.seconds)
        measure(report, TINY if options.tiny else Extent(), tiny=options.tiny, only=options.only)
    return 0


@dataclass(frozen=True)
class Bench:
    """What the parts measure, and how.

    Args:
        report: of all figures.
        model: of Stable Diffusion 1.5's shape, or the tiny one.
        extent: of all parts.
        tiny: whether the script itself is tested.
    """

    report: Report
    model: Diffusion
    extent: Extent
    tiny: bool

    @property
    def watch(self) -> Stopwatch:
        """For the model's device."""
        return Stopwatch(self.model.device, self.extent.repeat_seconds)


def measure(report: Report, extent: Extent, *, tiny: bool, only: Sequence[str] = ()) -> None:
    """All parts, or some, as far as there is time."""
    from tests.bench.model import BENCHES, build

    sys.stdout.write("| what | measured | aim | note |\n|--|--:|--|--|\n")
    model = build(BENCHES["tiny" if tiny else "full"])
    report.add(Figure("device", None, "", note=_describe(model)))
    bench = Bench(report, model, extent, tiny)
    for name, part in PARTS.items():
        if (only and name not in only) or (tiny and part.needs_builtin):
            continue
        needed = min(part.seconds, 1.0) if tiny else part.seconds
        if report.seconds_left < needed:
            note = f"not measured: takes about {needed:.0f} s; --only {name!r} measures it alone"
            report.add(Figure(name, None, "", note=note))
            continue
        try:
            with time_limit(report.seconds_left + GRACE):
                part.run(bench)
        except Exception as error:  # the parts after it are still worth having
            report.fail(name, error)
        free(model)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within this block, raise `OutOfTimeError` after so many seconds, where the system has such an alarm."""

    def stop(*_: object) -> None:
        raise OutOfTimeError("the time for all parts is up")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def free(model: Diffusion) -> None:
    """Give back what a part has held."""
    if model.graphs is not None:
        model.graphs.clear()
    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()


def iterations(report: Report, model: Diffusion, watch: Stopwatch, prefix: str = "") -> None:
    """Of one room, with and without graphs, against a bare pass and the literal loop."""
    from tests.bench.clock import Clock
    from tests.bench.drag import Scene

    clock = Clock(model.device)
    scene = Scene(model, clock)
    kinds = {False: "without a mask", True: "with a mask"}
    for graphs in (True, False):
        how = "graphed" if graphs else "eager"
        with graphs_switched(model, on=graphs):
            for masked, kind in kinds.items():
                take = partial(dragged_iteration, scene.sessions[masked], watch)
                report.measure(f"{prefix}iteration {kind}, {how}", "ms", take)
            report.measure(f"{prefix}bare pass, {how}", "ms", partial(timed_bare_pass, model, watch, graphed=graphs))
    for kind, aim in (("with a mask", "at most 1.10"), ("without a mask", "at most 0.70")):
        of, to = f"{prefix}iteration {kind}, graphed", f"{prefix}bare pass, graphed"
        report.ratio(f"{prefix}graphed iteration {kind} to a graphed bare pass", of, to, aim)
    for masked, kind in kinds.items():
        name = f"{prefix}literal loop {kind}, eager"
        with graphs_switched(model, on=False):
            report.measure(name, "ms", partial(literal_iteration, scene, clock, masked=masked))
        of = f"{prefix}iteration {kind}, graphed"
        report.ratio(f"{prefix}literal loop {kind} to a graphed iteration", name, of, "at least 2.5")
    scene.close()


def dragged_iteration(session: DragSession, watch: Stopwatch) -> float:
    """Milliseconds of an iteration that goes on from others: the first one of a run compares nothing."""
    session.reset()
    with contextlib.closing(session.drag(preview_every=0)) as steps:
        return watch.milliseconds(partial(next, steps), warm_ups=2 * WARM_UPS)


def timed_bare_pass(model: Diffusion, watch: Stopwatch, *, graphed: bool) -> float:
    """Milliseconds of a `bare_pass`."""
    with bare_pass(model, graphed=graphed) as bare:
        return watch.milliseconds(bare)


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

    try:
        with lora.active():
            model.adapter.apply_requested()
            run: Callable[[Tensor], Tensor] = gradient
            if graphed:
                recorder = recorder_for(model)
                recorder.run(partial(gradient, latent))
                run = GraphedFunction(gradient, latent, recorder)
            yield partial(run, latent)
    finally:
        lora.remove()


def compiled(bench: Bench) -> None:
    """The CUDA graphs of torch.compile against ours: the faster of the two should be kept."""
    report, model = bench.report, bench.model
    if "bare pass, graphed" not in report.values:  # measured alone
        take = partial(timed_bare_pass, model, bench.watch, graphed=True)
        report.measure("bare pass, graphed", "ms", take)
    options: dict[str, Any] = {"backend": "eager"} if bench.tiny else {"mode": "reduce-overhead"}
    began = time.monotonic()
    with (
        graphs_switched(model, on=False),
        bare_pass(model, graphed=False, unet=torch.compile(model.unet, **options)) as run,
    ):
        run()
        note = f"compiled in {time.monotonic() - began:.0f} s" + (", without its compiler" if bench.tiny else "")
        report.add(Figure("bare pass, torch.compile", bench.watch.milliseconds(run), "ms", note=note))
    report.ratio(
        "bare pass: torch.compile to graphed", "bare pass, torch.compile", "bare pass, graphed", "below 1: keep it"
    )


def contiguous(bench: Bench) -> None:
    """The graphed bare pass without channels_last: normalisation converts to and from it on some versions of torch."""
    model = bench.model
    model.unet.to(memory_format=torch.contiguous_format)
    try:
        take = partial(timed_bare_pass, model, bench.watch, graphed=True)
        bench.report.measure("bare pass, graphed, not channels_last", "ms", take)
    finally:
        if model.device.type == "cuda":
            model.unet.to(memory_format=torch.channels_last)
    name, to = "bare pass: not channels_last to channels_last", "bare pass, graphed"
    bench.report.ratio(name, "bare pass, graphed, not channels_last", to, "below 1: keep it")


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


def rooms(bench: Bench) -> None:
    """Iterations a second of rooms that share passes, each row with its own LoRA."""
    from tests.bench import sharing
    from tests.bench.clock import Clock
    from tests.bench.model import BENCHES

    report, model = bench.report, bench.model
    for count in bench.extent.rooms:  # each by itself: eight may not fit where one does
        clock = Clock(model.device)

        def take(count: int = count, clock: Clock = clock) -> float:
            with graphs_switched(model, on=True, eager_runs=1):
                sharing.measure(model, BENCHES["tiny" if bench.tiny else "full"], clock, (count,), warm_ups=2)
            return count / clock.median(f"{count} together")

        report.measure(_in_a_pass(count), "1/s", take)
        free(model)
    last = bench.extent.rooms[-1]
    name = f"{last} rooms in a pass to one room, iterations a second"
    report.ratio(name, _in_a_pass(last), _in_a_pass(1), "at least 2")


def _in_a_pass(count: int) -> str:
    return f"iterations a second, {count} room{'s' * (count > 1)} in a pass"


def steps(bench: Bench) -> None:
    """A step of fitting, of inversion and of denoising, graphed and eager; and what recording graphs takes."""
    from livedrag.editor.drag.passes import ForwardPass, Outcome, answer
    from livedrag.editor.models.ddim import denoising_step
    from tests.bench.model import new_lora

    report, model, watch = bench.report, bench.model, bench.watch
    latent = model.encode(_noise_picture(model))
    prompt, level = model.embed_prompt(""), model.schedule.levels(50)[30]
    lora = new_lora(model)
    inversion = ForwardPass(model, latent, level.timestep, prompt, lora, alpha=level.alpha_below)

    def denoising() -> float:
        with lora.active():
            return watch.milliseconds(lambda: denoising_step(model, latent, prompt, level))

    def controlled() -> float:
        (reference,) = answer([ForwardPass(model, latent, level.timestep, prompt, lora, records=True)])
        seen = reference.seen if isinstance(reference, Outcome) else None
        control = ForwardPass(model, latent, level.timestep, prompt, lora, reference=seen)
        return watch.milliseconds(partial(answer, [control]))

    for graphs in (True, False):
        how = "graphed" if graphs else "eager"
        with graphs_switched(model, on=graphs):
            report.measure(f"fitting step, 4 rows, {how}", "ms", partial(fitting_step, model, watch))
            inverting = partial(watch.milliseconds, lambda: answer([inversion]))
            report.measure(f"inversion step, {how}", "ms", inverting)
            report.measure(f"denoising step, {how}", "ms", denoising)
            report.measure(f"denoising step with reference-latent control, {how}", "ms", controlled)
        free(model)
    lora.remove()
    report.measure("recording iterations before a drag", "s", partial(recording, model, watch))


def fitting_step(model: Diffusion, watch: Stopwatch) -> float:
    """Milliseconds of a step of fitting a LoRA."""
    from livedrag.editor import DragSession
    from tests.bench.model import picture_for, settings_for

    settings = settings_for(model, lora_steps=10_000, lora_batch=4)
    session = DragSession(model, picture_for(model), settings=settings)
    try:
        with contextlib.closing(session.prepare()) as fitting:
            return watch.milliseconds(partial(next, fitting))
    finally:
        session.close()


def recording(model: Diffusion, watch: Stopwatch) -> float:
    """Seconds that recording a session's iterations takes."""
    with graphs_switched(model, on=True):
        session = prepared(model, masked=False)
        try:
            return watch.once(lambda: list(session.shared.warm_up()))
        finally:
            session.close()


def whole_edit(bench: Bench) -> None:
    """From a picture to its result, twice: the first edit of a server records the graphs of the second."""
    for when, aim in (("the first", ""), ("warm", "at most 15")):
        seconds = edit(bench)
        total, note = sum(seconds.values()), ", ".join(f"{name} {each:.2f}" for name, each in seconds.items())
        bench.report.add(Figure(f"whole edit, {when}", total, "s", aim, note))


def edit(bench: Bench) -> dict[str, float]:
    """Seconds of each part of an edit; of a drag that never arrives."""
    from livedrag.editor import Drag, DragSession, Point
    from tests.bench.drag import STILL
    from tests.bench.model import picture_for, settings_for

    model, extent = bench.model, bench.extent
    settings = settings_for(
        model,
        lora_steps=extent.lora_steps,
        ddim_steps=extent.ddim_steps,
        inversion_strength=0.7,
        latent_lr=STILL,
        max_iterations=extent.iterations,
    )
    moments = [time.perf_counter()]
    session = DragSession(model, picture_for(model), settings=settings)
    side = model.native_side
    session.add_drag("a", Drag(Point(side / 4, side / 2), Point(side * 3 / 4, side / 2)))
    for _ in session.prepare():
        pass
    moments.append(time.perf_counter())
    for step in session.drag():
        session.preview(step)
    moments.append(time.perf_counter())
    for rendering in session.render():
        session.preview(rendering)
    session.result()
    moments.append(time.perf_counter())
    session.close()
    names = (
        f"{extent.lora_steps} steps of fitting and {settings.inversion_steps} of inversion",
        f"{extent.iterations} iterations",
        "rendering",
    )
    return {name: after - before for name, (before, after) in zip(names, itertools.pairwise(moments), strict=True)}


def memory(bench: Bench) -> None:
    """Peak of rooms that take turns, with the model and its graphs."""
    if bench.model.device.type != "cuda":
        bench.report.add(Figure("peak memory", None, "GiB", note="measured on CUDA only"))
        return
    for count in (1, bench.extent.rooms[-1]):
        name = f"peak memory, {count} room{'s' * (count > 1)}"
        bench.report.measure(name, "GiB", partial(peak_of, bench.model, count), note="reserved by torch")
        free(bench.model)


def peak_of(model: Diffusion, count: int) -> float:
    """GiB that so many rooms need at their peak."""
    torch.cuda.reset_peak_memory_stats(model.device)
    sessions = [prepared(model) for _ in range(count)]
    for session in sessions:
        with contextlib.closing(session.drag(preview_every=0)) as steps:
            for _ in range(2 * WARM_UPS):
                next(steps)
    peak = torch.cuda.max_memory_reserved(model.device) / 2**30
    for session in sessions:
        session.close()
    return peak


def builtin(bench: Bench) -> None:
    """An iteration of the built-in model."""
    from livedrag.editor import Diffusion

    model = Diffusion.load("builtin")
    iterations(bench.report, model, Stopwatch(model.device, bench.extent.repeat_seconds / 2), prefix="built-in: ")
    free(model)


def service(bench: Bench) -> None:
    """Through the real server, with the built-in model: how old frames are, and how long Stop takes."""
    from tests.bench import service as through_service

    for promise in through_service.measure_run(through_service.TINY):
        if promise.what.startswith(("frame age", "stop to")):
            name = f"service: {promise.what}"
            bench.report.add(Figure(name, max(promise.figures.values()), promise.unit, note="the longest"))


@dataclass(frozen=True)
class Part:
    """What is measured together.

    Args:
        run: measures and reports.
        seconds: that it takes on an H100, estimated: it does not begin if less time is left.
        needs_builtin: whether it is of the built-in model.
    """

    run: Callable[[Bench], None]
    seconds: float
    needs_builtin: bool = False


PARTS = {
    "iteration": Part(lambda bench: iterations(bench.report, bench.model, bench.watch), 20),
    "rooms": Part(rooms, 15),
    "steps": Part(steps, 25),
    "edit": Part(whole_edit, 20),
    "memory": Part(memory, 5),
    "channels_last": Part(contiguous, 5),
    "service": Part(service, 30, needs_builtin=True),
    "built-in": Part(builtin, 15, needs_builtin=True),
    "torch.compile": Part(compiled, 90),
}
"""By name, the most important first."""


def _noise_picture(model: Diffusion) -> Tensor:
    side = model.native_side
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _describe(model: Diffusion) -> str:
    name = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else platform.machine()
    return f"{name}, torch {torch.__version__}, {model.name}, {model.dtype}".replace("torch.", "", 1)


if __name__ == "__main__":
    sys.exit(main())
