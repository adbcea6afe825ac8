"""``livedrag dragbench``: edit the pictures of a benchmark, measure the results, write a report."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from livedrag.editor.dragbench.datasets import DRAG100, RESULTS, Place, find_samples, read_sample
from livedrag.editor.dragbench.report import summarise, to_markdown
from livedrag.editor.edit_request import parse_settings
from livedrag.editor.errors import EditorError, PictureError, SettingsError
from livedrag.editor.model_options import add_model_options, load_model
from livedrag.editor.output import OutputFiles, interruptible
from livedrag.editor.points import Drag
from livedrag.editor.progress import Clock, peak_memory_mb
from livedrag.editor.settings import PRESETS, DragSettings

if TYPE_CHECKING:
    from livedrag.editor.dragbench.datasets import Sample
    from livedrag.editor.models.diffusion import Diffusion

NO_EDIT, WARP, OWN = "no-edit", "instant-warp", "default"
"""Rows that are always there, and the method without a preset."""
NUMBERS = "numbers.json"


def main(arguments: Sequence[str]) -> int:
    """Run ``livedrag dragbench``.

    Args:
        arguments: of the command line, without the program's name.

    Returns:
        Exit status: 0 for success, 1 if some samples failed, 2 for bad input, explained on standard error.
    """
    options = _parser().parse_args(arguments)
    files = OutputFiles()
    with interruptible("livedrag dragbench", files):
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        try:
            return Benchmark(options, files).run()
        except (EditorError, OSError) as error:
            sys.stderr.write(f"livedrag dragbench: {error}\n")
            return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="livedrag", allow_abbrev=False)
    bench = parser.add_subparsers(dest="command", required=True).add_parser(
        "dragbench", description="Edit the pictures of DragBench or Drag100, and measure the results."
    )
    add = bench.add_argument
    add("dataset", type=Path, help="folder of DragBench (meta_data.pkl) or Drag100 (points.json)")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for pictures and report")
    add(
        "--method",
        nargs="+",
        default=[OWN],
        metavar="PRESET",
        help=f"{', '.join(PRESETS)}, or {OWN}: the model's own settings (default: {OWN})",
    )
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all methods; repeatable")
    add("--limit", type=int, metavar="N", help="only the first N samples")
    add(
        "--dift",
        metavar="REF",
        help="model by whose features distances are measured; published numbers are of Stable Diffusion 2.1 "
        "(default: none, distances are measured by pixels)",
    )
    add_model_options(bench)
    return parser


@dataclass(frozen=True)
class Edited:
    """A result, and what it took."""

    picture: Image.Image
    seconds: float
    peak_memory_mb: float


class Benchmark:
    """One run of the command.

    Args:
        options: of the command line.
        files: that it writes.
    """

    def __init__(self, options: argparse.Namespace, files: OutputFiles) -> None:
        self._options, self._files = options, files
        self._settings = parse_settings(options.set)
        for method in options.method:
            DragSettings.resolve(None if method == OWN else method, {}, self._settings)
        if options.limit is not None and options.limit < 1:
            raise SettingsError(f"--limit is {options.limit}: it must be at least 1")
        self._places = find_samples(options.dataset)[: options.limit]
        self._model = load_model(options, "")
        self._dift = self._load_dift()
        self._failed: list[dict[str, str]] = []

    def _load_dift(self) -> Diffusion | None:
        if self._options.dift is None:
            return None
        from livedrag.editor.models.diffusion import Diffusion

        return Diffusion.load(self._options.dift, device=self._options.device, config=self._options.model_config)

    @property
    def _measure(self) -> str:
        return "correlation of pixels" if self._dift is None else f"DIFT with {self._dift.name}"

    def run(self) -> int:
        """Edit, measure, report; returns the exit status."""
        methods = [NO_EDIT, WARP, *dict.fromkeys(self._options.method)]
        results: dict[str, list[Mapping[str, Any]]] = {method: [] for method in methods}
        for place in self._places:
            try:
                sample = read_sample(place)
            except EditorError as error:
                self._fail(place, error)
                continue
            for method in methods:
                try:
                    results[method].append({"sample": place.name, **self._one(place, sample, method)})
                except EditorError as error:
                    self._fail(place, error)
        self._report(results)
        return 1 if self._failed else 0

    def _fail(self, place: Place, error: EditorError) -> None:
        sys.stderr.write(f"livedrag dragbench: {place.name}: {error}\n")
        self._failed.append({"sample": place.name, "error": str(error)})

    def _one(self, place: Place, sample: Sample, method: str) -> dict[str, Any]:
        """The numbers of a method on a sample, from an earlier run if they are there."""
        folder = self._options.output / method / place.name
        asked = {"measure": self._measure, "model": self._model.name, "settings": self._settings}
        picture, numbers = folder / RESULTS[place.layout], folder / NUMBERS
        if (known := _read_numbers(numbers)) is not None and known.get("asked") == asked and picture.is_file():
            return dict(known["numbers"])
        folder.mkdir(parents=True, exist_ok=True)
        edited = self._edit(sample, sample.picture, sample.drags, method)
        back = self._edit(sample, edited.picture, [Drag(drag.target, drag.handle) for drag in sample.drags], method)
        found = self._numbers(sample, edited, back.picture)
        self._files.save(edited.picture, picture)
        if place.layout == DRAG100:
            points = [[end.x, end.y] for drag in sample.drags for end in (drag.handle, drag.target)]
            self._files.write_text(json.dumps({"points": points}), folder / "new_points.json")
        self._files.write_text(json.dumps({"asked": asked, "numbers": found}), numbers)
        return found

    def _edit(self, sample: Sample, picture: Image.Image, drags: Sequence[Drag], method: str) -> Edited:
        from livedrag.warp import warp_picture

        clock = Clock()
        if method == NO_EDIT:
            result = picture
        elif method == WARP:
            result = warp_picture(picture, list(drags), sample.mask)
        else:
            return self._drag(sample, picture, drags, method)
        return Edited(result, clock.total(), peak_memory_mb())

    def _drag(self, sample: Sample, picture: Image.Image, drags: Sequence[Drag], method: str) -> Edited:
        import torch

        from livedrag.editor.drag.session import DragSession

        clock, model = Clock(), self._model
        on_cuda = model.device.type == "cuda"
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(model.device)
        preset = None if method == OWN else method
        settings = DragSettings.resolve(preset, model.defaults, self._settings)
        session = DragSession(model, picture, prompt=sample.prompt, settings=settings)
        try:
            for index, drag in enumerate(drags):
                session.add_drag(str(index), drag)
            session.set_mask(sample.mask)
            for _ in session.prepare():
                pass
            for _ in session.drag(0):
                pass
            for _ in session.render(0):
                pass
            result = session.result()
        finally:
            session.close()
        memory = torch.cuda.max_memory_allocated(model.device) / 2**20 if on_cuda else peak_memory_mb()
        return Edited(result, clock.total(), memory)

    def _numbers(self, sample: Sample, edited: Edited, back: Image.Image) -> dict[str, Any]:
        from livedrag.editor.dragbench import measures

        original = sample.picture
        likeness = (
            measures.by_correlation(original, edited.picture)
            if self._dift is None
            else measures.by_dift(self._dift, sample.prompt, original, edited.picture)
        )
        return {
            "mean_distance": measures.mean_distance(sample.drags, likeness),
            "masked_mean_distance": measures.mean_distance(sample.drags, likeness, sample.mask),
            "ssim": measures.similarity(original, edited.picture),
            "lpips": measures.perceptual_distance(original, edited.picture),
            "drag_back": measures.difference(original, back),
            "seconds": edited.seconds,
            "peak_memory_mb": edited.peak_memory_mb,
        }

    def _report(self, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        about = {"model": self._model.name, "measure": self._measure, "failed": self._failed}
        summary = summarise(results)
        if not any(results.values()):
            raise PictureError(f"all {len(self._places)} samples failed, such as {self._failed[0]['error']}")
        report = {**about, "settings": self._settings, "methods": summary, "samples": results}
        self._files.write_text(json.dumps(report, indent=1) + "\n", self._options.output / "report.json")
        markdown = to_markdown(summary, about)
        self._files.write_text(markdown, self._options.output / "report.md")
        sys.stdout.write(markdown)


def _read_numbers(path: Path) -> dict[str, Any] | None:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return written if isinstance(written, dict) else None
