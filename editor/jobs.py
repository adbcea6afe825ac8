"""``livedrag edit --jobs FILE``: many edits with one model; each picture is prepared once."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livedrag.edit_metadata import EditMetadata, MetadataError
from livedrag.editor.edit_command import completed, edit_prepared, open_session, prepare
from livedrag.editor.edit_request import EditRequest, check_output, new_request, parse_drag, reason
from livedrag.editor.errors import EditorError, PointError, SettingsError
from livedrag.editor.model_options import load_model
from livedrag.editor.output import OutputFiles
from livedrag.editor.points import Drag, Point
from livedrag.editor.progress import Clock
from livedrag.editor.settings import LIVE_SETTINGS, DragSettings
from livedrag.picture_metadata import read_metadata

if TYPE_CHECKING:
    from livedrag.editor.drag.session import DragSession
    from livedrag.editor.models.diffusion import Diffusion

KEYS = ("picture", "drags", "output", "mask", "prompt", "preset", "settings", "seed")
OF_ONE_EDIT = (
    "picture", "repeat", "drag", "mask", "prompt", "preset", "set", "seed", "output", "log", "frames", "save_lora",
    "picture_lora",
)  # fmt: skip
"""Options that are of one edit."""
MAX_JOBS = 100_000
FAILED = 1
"""Exit status if some jobs failed."""


@dataclass(frozen=True)
class Job:
    """One edit of a file of jobs.

    Args:
        number: its place in the file, from 1.
        request: what to do.
        output: file to write.
    """

    number: int
    request: EditRequest
    output: Path


def run_jobs(options: argparse.Namespace, files: OutputFiles) -> int:
    """Do all jobs that are not done yet; a line of JSON on standard output says how each ended.

    Returns:
        Exit status: 0 if all are done, `FAILED` if some are not.

    Raises:
        EditorError: the file can't be read, or the model can't be used.
    """
    if given := [name for name in OF_ONE_EDIT if getattr(options, name) not in (None, [])]:
        raise SettingsError(f"with --jobs, each job says what to do: leave out {given[0].replace('_', '-')!r}")
    jobs: list[Job] = []
    failed = 0
    for number, entry in enumerate(read_jobs(options.jobs), 1):
        try:
            jobs.append(_job(number, entry, options.jobs.resolve().parent))
        except EditorError as error:
            failed += 1
            _say({"job": number, "status": "failed", "error": str(error)})
    if jobs:
        failed += _run(options, jobs, load_model(options, "", tiny=options.tiny), files)
    return FAILED if failed else 0


def read_jobs(path: Path) -> list[object]:
    """The jobs in a file: a JSON list, or a JSON object a line. A line that is no JSON becomes a text that says so.

    Raises:
        SettingsError: there is no such file, or it has neither.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
        found = (
            json.loads(text) if text.startswith("[") else [_line(line) for line in text.splitlines() if line.strip()]
        )
    except OSError as error:
        raise SettingsError(reason(path, error)) from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"--jobs {str(path)!r} is not a JSON list ({error})") from None
    if not found or len(found) > MAX_JOBS:
        raise SettingsError(f"--jobs {str(path)!r} has {len(found)} jobs: it must have 1 to {MAX_JOBS}")
    entries: list[object] = found
    return entries


class _NotJson(str):
    """A line that can't be read, and why."""

    __slots__ = ()


def _line(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return _NotJson(f"{line[:100]!r}, which is not JSON ({error})")


def _job(number: int, entry: object, folder: Path) -> Job:
    if not isinstance(entry, dict):
        shown = entry if isinstance(entry, _NotJson) else repr(json.dumps(entry)[:200])
        raise SettingsError(f"the job is {shown}: it must be an object with {', '.join(KEYS[:3])}")
    if unknown := sorted(entry.keys() - {*KEYS}):
        raise SettingsError(f"unknown entry {unknown[0]!r}: choose from {', '.join(KEYS)}")
    output = folder / _text(entry, "output")
    check_output(output, ".png", ".webp")
    settings = entry.get("settings", {})
    if not isinstance(settings, dict):
        raise SettingsError(f'settings is {settings!r}: it must be an object such as {{"max_iterations": 40}}')
    seed = entry.get("seed", 0)
    if type(seed) is not int:
        raise SettingsError(f"seed is {seed!r}: it must be a whole number")
    request = new_request(
        folder / _text(entry, "picture"),
        drags=_drags(entry.get("drags")),
        mask=folder / _text(entry, "mask") if entry.get("mask") is not None else None,
        prompt=_text(entry, "prompt") if "prompt" in entry else "",
        preset=_text(entry, "preset") if entry.get("preset") is not None else None,
        settings=settings,
        seed=seed,
    )
    return Job(number, request, output)


def _text(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise SettingsError(f"{name} is {value!r}: it must be text")
    return value


def _drags(value: object) -> list[Drag]:
    if not isinstance(value, list) or not value:
        raise PointError(f'drags is {str(value)[:100]!r}: it must be a list such as ["62,150:40,110"]')
    return [_drag(each) for each in value]


def _drag(value: object) -> Drag:
    """``"X0,Y0:X1,Y1"``, or an object with handle and target as the server's API has it."""
    if isinstance(value, str):
        return parse_drag(value)
    match value:
        case {"handle": [x0, y0], "target": [x1, y1]} if all(type(each) in (int, float) for each in (x0, y0, x1, y1)):
            return Drag(Point(float(x0), float(y0)), Point(float(x1), float(y1)))
    wanted = '"X0,Y0:X1,Y1" or {"handle": [x, y], "target": [x, y]}'
    raise PointError(f"the drag is {str(value)[:100]!r}: it must be {wanted}")


def _run(options: argparse.Namespace, jobs: list[Job], model: Diffusion, files: OutputFiles) -> int:
    """Do the jobs, those of a picture one after the other; returns how many failed."""
    failed = 0
    for group in _grouped(jobs, model):
        session: DragSession | None = None
        for job in group:
            said = {"job": job.number, "output": str(job.output)}
            if _is_done(job, model, has_metadata=options.metadata):
                _say({**said, "status": "skipped"})
                continue
            try:
                session, reported = _do(options, job, model, session, files)
                _say({**said, "status": "done", **reported})
            except (EditorError, OSError) as error:
                failed += 1
                _close(session)
                session = None
                _say({**said, "status": "failed", "error": str(error)})
        _close(session)
    return failed


def _grouped(jobs: list[Job], model: Diffusion) -> Iterator[list[Job]]:
    """The jobs that can share a preparation, in the order of the first of each."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        plan = job.request.plan
        settings = DragSettings.resolve(plan.preset or None, model.defaults, plan.settings).as_dict()
        fixed = {name: value for name, value in settings.items() if name not in LIVE_SETTINGS}
        groups.setdefault(repr((plan.picture.sha256, plan.prompt, plan.seed, sorted(fixed.items()))), []).append(job)
    yield from groups.values()


def _do(
    options: argparse.Namespace, job: Job, model: Diffusion, session: DragSession | None, files: OutputFiles
) -> tuple[DragSession, dict[str, Any]]:
    clock = Clock()
    if session is None:
        session = open_session(options, job.request, model)
        clock.lap("load")
        prepare(options, session, files, clock)
    else:
        _clear(session)
    return session, edit_prepared(options, job.request, session, job.output, files, clock)


def _clear(session: DragSession) -> None:
    """As it was when it was prepared."""
    session.reset()
    for name in session.drags:
        session.remove_drag(name)
    session.set_mask(None)
    session.set_pins([])


def _close(session: DragSession | None) -> None:
    if session is not None:
        session.close()


def _is_done(job: Job, model: Diffusion, *, has_metadata: bool) -> bool:
    """Whether the output is there and, as far as it says how it was made, is what the job asks for."""
    try:
        with job.output.open("rb") as file:
            made = read_metadata(file)
    except (OSError, MetadataError):
        return False
    if made is None:
        return not has_metadata
    return _without_outcome(made) == _without_outcome(completed(job.request.plan, model, 0, None))


def _without_outcome(metadata: EditMetadata) -> EditMetadata:
    return replace(metadata, runs=tuple(replace(run, steps=None) for run in metadata.runs), inexact=())


def _say(line: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
