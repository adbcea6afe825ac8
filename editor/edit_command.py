"""``livedrag edit``: one edit from preparation to result, with what is said on the way."""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from livedrag.edit_metadata import EditMetadata, PlacedDrag, Weights
from livedrag.editor.edit_request import (
    EditRequest,
    check_output,
    make_frames_folder,
    new_request,
    parse_drag,
    parse_settings,
    repeated_request,
)
from livedrag.editor.errors import ModelError, SettingsError
from livedrag.editor.model_options import load_model
from livedrag.editor.output import OutputFiles
from livedrag.editor.points import Size
from livedrag.editor.progress import Clock, peak_memory_mb, returned, with_progress
from livedrag.editor.settings import DragSettings, unsuitable_presets
from livedrag.picture_metadata import save_png, save_webp
from livedrag.run_log import LogRow, encode_log, rows_of
from livedrag.software import software

if TYPE_CHECKING:
    from PIL import Image

    from livedrag.editor.drag.session import DragSession
    from livedrag.editor.drag.steps import DragStep
    from livedrag.editor.models.diffusion import Diffusion

REPEATED = ("drag", "mask", "prompt", "preset", "set", "seed")
"""Options whose values ``--from`` takes from the result."""


def edit(options: argparse.Namespace, files: OutputFiles) -> dict[str, Any]:
    """``livedrag edit``; returns what ``--json`` prints. Raises `EditorError` and `OSError`."""
    clock = Clock()
    request = _request(options)
    _check_outputs(options)
    model = load_model(options, request.plan.prompt, tiny=options.tiny)
    if request.repeats:
        _check_repeatable(request.plan, model)
    session = open_session(options, request, model)
    clock.lap("load")
    prepare(options, session, files, clock)
    return edit_prepared(options, request, session, options.output, files, clock)


def edit_prepared(
    options: argparse.Namespace,
    request: EditRequest,
    session: DragSession,
    output: Path,
    files: OutputFiles,
    clock: Clock,
) -> dict[str, Any]:
    """Make an edit on a prepared session and write its result; returns what ``--json`` prints."""
    plan, model = request.plan, session.model
    base = DragSettings.resolve(plan.preset or None, model.defaults)
    dragged = _drag(options, session, plan, base, files)
    clock.lap("drag")
    _render(options, session, plan, base, files)
    metadata = plan if request.repeats else completed(plan, model, dragged.steps, options.picture_lora)
    save(session.result(), output, metadata if options.metadata else None, files)
    if options.log is not None:
        files.write_text(encode_log(dragged.rows, options.log.suffix.lower()), options.log)
    clock.lap("render")
    return _report(request, model, dragged.last, clock)


@dataclass(frozen=True)
class _Dragged:
    """What dragging came to.

    Args:
        last: the last step.
        steps: how many there were.
        rows: their numbers.
    """

    last: DragStep
    steps: int
    rows: list[LogRow]


def _request(options: argparse.Namespace) -> EditRequest:
    if options.output is None:
        raise SettingsError("name the file to write with -o OUT.png")
    if options.repeat is not None:
        if given := [name for name in REPEATED if getattr(options, name) not in (None, [])]:
            raise SettingsError(f"--from repeats an edit as it was: leave out --{given[0]}")
        return repeated_request(options.repeat, options.picture)
    if options.picture is None:
        raise SettingsError("name the picture to edit, or a result to repeat with --from RESULT.png")
    if not options.drag:
        raise SettingsError("there is nothing to drag: give at least one --drag X0,Y0:X1,Y1")
    return new_request(
        options.picture,
        drags=[parse_drag(text) for text in options.drag],
        mask=options.mask,
        prompt=options.prompt or "",
        preset=options.preset,
        settings=parse_settings(options.set),
        seed=options.seed or 0,
        preview_every=options.preview_every if options.frames else 0,
    )


def _check_outputs(options: argparse.Namespace) -> None:
    check_output(options.output, ".png", ".webp")
    if options.save_lora is not None:
        check_output(options.save_lora, ".safetensors")
    if options.log is not None:
        check_output(options.log, ".csv", ".json")
    if options.frames is not None:
        make_frames_folder(options.frames)


def _check_repeatable(plan: EditMetadata, model: Diffusion) -> None:
    """Raise `ModelError` if the edit was made by another model; say what else may make the result differ."""
    mine = [origin.weights for origin in model.origins]
    for role in ("model", "vae", "lora"):
        theirs, own = ([each for each in weights if each.role == role] for weights in (plan.weights, mine))
        if [(each.sha256, each.strength) for each in theirs] != [(each.sha256, each.strength) for each in own]:
            raise ModelError(
                f"the result was made with {_named(theirs)}, not {_named(own)}: name the same with --{role}"
            )
    reasons = list(plan.inexact)
    if plan.device != model.kind_of_device:
        reasons.append(f"it was made on {plan.device!r}, not on {model.kind_of_device!r}")
    if plan.software != software():
        reasons.append(f"it was made by {plan.software!r}")
    if reasons:
        sys.stderr.write(f"livedrag edit: the result will not be exactly the same: {'; '.join(reasons)}\n")


def _named(weights: list[Weights]) -> str:
    named = [f"{each.name!r} (SHA-256 {each.sha256[:10] or 'unknown'})" for each in weights]
    return " and ".join(named) or "none"


def open_session(options: argparse.Namespace, request: EditRequest, model: Diffusion) -> DragSession:
    """A session on the picture of an edit, with the LoRA that the options name, if any."""
    from livedrag.editor.cost import check_free
    from livedrag.editor.drag.session import DragSession
    from livedrag.editor.fitting.fitted_lora import read_fitted_lora

    plan = request.plan
    settings = DragSettings.resolve(plan.preset or None, model.defaults, plan.settings)
    if reason := unsuitable_presets(model.kind).get(plan.preset):
        sys.stderr.write(f"livedrag edit: the preset {plan.preset!r} does not suit {model.name!r}: {reason}\n")
    model.low_memory.forget_problems()
    check_free(settings, model, Size(*request.picture.size), len(plan.last.drags))
    session = DragSession(model, request.picture, prompt=plan.prompt, settings=settings, seed=plan.seed)
    if options.picture_lora is not None:
        session.use_lora(read_fitted_lora(options.picture_lora, model))
    return session


def prepare(options: argparse.Namespace, session: DragSession, files: OutputFiles, clock: Clock) -> None:
    """Prepare a session; says so if the model does not know pictures like this one."""
    from livedrag.editor.drag.preparation import is_known, is_measured
    from livedrag.editor.fitting.fit_step import FitPass

    settings, model = session.settings, session.model
    preparation = (step for step in session.prepare() if not isinstance(step, FitPass))
    fitting = itertools.islice(preparation, settings.lora_steps)
    for _ in with_progress(fitting, "fitting", settings.lora_steps):
        pass
    if options.save_lora is not None:
        files.write(session.save_lora, options.save_lora)
    clock.lap("lora")
    for _ in with_progress(preparation, "inverting", settings.inversion_steps):
        pass
    clock.lap("inversion")
    if is_measured(model.kind, settings) and not is_known(model.kind, returned(session.reconstruct())):
        sys.stderr.write(
            f"livedrag edit: the model {model.name!r} does not know pictures like this one: "
            "expect a poor result, or use another model\n"
        )


def _drag(
    options: argparse.Namespace, session: DragSession, plan: EditMetadata, base: DragSettings, files: OutputFiles
) -> _Dragged:
    """Take the steps of an edit on a prepared session, saving previews if there is a folder for them."""
    from livedrag.editor.drag.replay import replay

    last, count, rows = None, 0, list[LogRow]()
    steps = replay(session, plan, base)
    for last in with_progress(steps, "dragging", session.settings.max_iterations, _describe):
        count += 1
        handles = {name: (point.x, point.y) for name, point in last.handles.items()}
        rows += rows_of(last.iteration, handles, last.distances, last.content, last.loss, last.lost)
        _save_frame(session.preview(last, quality=options.preview), options.frames, files)
    assert last is not None
    return _Dragged(last, count, rows)


def _render(
    options: argparse.Namespace, session: DragSession, plan: EditMetadata, base: DragSettings, files: OutputFiles
) -> None:
    """Render the result of a session."""
    from livedrag.editor.drag.replay import finish

    preview_every = options.preview_every if options.frames else 0
    for rendering in with_progress(session.render(preview_every), "rendering", session.render_steps):
        _save_frame(session.preview(rendering, quality=options.preview), options.frames, files)
    finish(session, plan, base)


def _save_frame(preview: Image.Image | None, folder: Path | None, files: OutputFiles) -> None:
    if preview is not None and folder is not None:
        files.save(preview, folder / f"{files.next_frame():04}.png")


def completed(plan: EditMetadata, model: Diffusion, steps: int, picture_lora: Path | None) -> EditMetadata:
    """What a new result says about how it was made."""
    fitted = () if picture_lora is None else (f"it used a LoRA fitted before, {picture_lora.name!r}",)
    return replace(
        plan,
        software=software(),
        weights=tuple(origin.weights for origin in model.origins),
        runs=(replace(plan.runs[0], steps=steps),),
        device=model.kind_of_device,
        inexact=(*fitted, *model.low_memory.problems),
    )


def save(picture: Image.Image, path: Path, metadata: EditMetadata | None, files: OutputFiles) -> None:
    """Write a result, whole or not at all."""

    def write(part: Path) -> None:
        with part.open("wb") as file:
            save_result(picture, file, path.suffix.lower(), metadata)

    files.write(write, path)


def save_result(picture: Image.Image, file: IO[bytes], ending: str, metadata: EditMetadata | None) -> None:
    """Write a picture as a PNG or, if the ending says so, as a lossless WebP."""
    (save_webp if ending == ".webp" else save_png)(picture, file, metadata)


def _report(request: EditRequest, model: Diffusion, step: DragStep, clock: Clock) -> dict[str, Any]:
    """What ``--json`` prints of an edit."""
    drags = request.plan.last.drags
    return {
        "model": model.name,
        "size": list(request.picture.size),
        "iterations": step.iteration,
        "outcome": "arrived" if step.arrived else "exhausted",
        "handles": [[step.handles[name].x, step.handles[name].y] for name in drags if name in step.handles],
        "distances": [
            {"start": _length(drag), "end": step.distances[name]}
            for name, drag in drags.items()
            if name in step.distances
        ],
        "lost": [name in step.lost for name in drags],
        "seconds": {**clock.laps, "total": clock.total()},
        "seconds_per_iteration": clock.laps["drag"] / max(1, step.iteration),
        "peak_memory_mb": peak_memory_mb(),
    }


def _length(drag: PlacedDrag) -> float:
    return math.hypot(drag.target[0] - drag.handle[0], drag.target[1] - drag.handle[1])


def _describe(step: Any) -> str:
    return ", ".join(f"{distance:.0f} px" for distance in step.distances.values()) + " left"
