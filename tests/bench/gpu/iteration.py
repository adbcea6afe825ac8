"""Iterations of one room against a bare pass and the literal loop, and what graphs gain."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from livedrag.editor import Diffusion, DragSession
from livedrag.editor.models.graphs import GraphedFunction
from tests.bench.clock import Clock
from tests.bench.drag import Scene, theirs
from tests.bench.gpu.bench import WARM_UPS, Bench, Stopwatch, free, graphs_switched, noise_picture
from tests.bench.gpu.replays import replays
from tests.bench.gpu.report import Figure, Report
from tests.bench.model import new_lora
from tests.recorders import recorder_for


def iterations(report: Report, model: Diffusion, watch: Stopwatch, prefix: str = "") -> None:
    """Of one room, with and without graphs, against a bare pass and the literal loop."""
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
    replays(report, model, scene.sessions[False], watch, prefix)
    scene.close()


def dragged_iteration(session: DragSession, watch: Stopwatch) -> float:
    """Milliseconds of an iteration among others; the first one of a run compares nothing."""
    session.reset()
    with contextlib.closing(session.drag(preview_every=0)) as steps:
        return watch.milliseconds_in_a_row(partial(next, steps), warm_ups=2 * WARM_UPS)


def timed_bare_pass(model: Diffusion, watch: Stopwatch, *, graphed: bool) -> float:
    """Milliseconds of a `bare_pass`."""
    with bare_pass(model, graphed=graphed) as bare:
        return watch.milliseconds_in_a_row(bare)


def literal_iteration(scene: Scene, clock: Clock, *, masked: bool) -> float:
    """Milliseconds of an iteration of the literal loop, weights frozen; the median of three after one."""
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
    prompt, lora = model.embed_prompt(""), new_lora(model)
    timesteps = torch.full((1,), model.schedule.levels(2)[0].timestep, device=model.device)
    latent = model.encode(noise_picture(model)).to(model.dtype)
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
        report.add(Figure("bare pass, torch.compile", bench.watch.milliseconds_in_a_row(run), "ms", note=note))
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


def builtin(bench: Bench) -> None:
    """An iteration of the built-in model."""
    model = Diffusion.load("builtin")
    iterations(bench.report, model, Stopwatch(model.device, bench.extent.repeat_seconds / 2), prefix="built-in: ")
    free(model)
