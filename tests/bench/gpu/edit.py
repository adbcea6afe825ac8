"""A whole edit and its steps, and the way through the service."""

from __future__ import annotations

import contextlib
import itertools
import time
from functools import partial

from livedrag.editor import Diffusion, Drag, DragSession, Point
from livedrag.editor.drag.passes import ForwardPass, Outcome, answer
from livedrag.editor.models.ddim import denoising_step
from tests.bench.drag import STILL
from tests.bench.gpu.bench import Bench, Stopwatch, free, graphs_switched, noise_picture, prepared
from tests.bench.gpu.report import Figure
from tests.bench.model import new_lora, picture_for, settings_for


def steps(bench: Bench) -> None:
    """A step of fitting, of inversion and of denoising, graphed and eager; and what recording graphs takes."""
    report, model, watch = bench.report, bench.model, bench.watch
    latent = model.encode(noise_picture(model))
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


def service(bench: Bench) -> None:
    """Through the real server, with the built-in model: how old frames are, and how long Stop takes."""
    from tests.bench import service as through_service  # which needs more than the other parts do

    for promise in through_service.measure_run(through_service.TINY):
        if promise.what.startswith(("frame age", "stop to")):
            name = f"service: {promise.what}"
            bench.report.add(Figure(name, max(promise.figures.values()), promise.unit, note="the longest"))
