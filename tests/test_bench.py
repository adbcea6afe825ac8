"""The benchmark runs on a tiny model and reports everything it should. Speed is not judged here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.bench import events
from tests.bench.gpu import edit, iteration
from tests.bench.gpu.bench import TINY
from tests.bench.gpu.parts import PARTS, measure
from tests.bench.gpu.report import OutOfTimeError, Report, time_limit
from tests.conftest import ROOT
from tests.server.device.engines import with_ray


def test_the_cost_of_events_is_measured() -> None:
    load = events.Load(rooms=2, rate=200, seconds=0.5)
    cost = events.measure(load)
    assert 0 < cost.rate <= 200
    assert math.isfinite(cost.seconds)
    assert cost.seconds > 0
    assert "| 2 |" in events.to_markdown([cost])


@pytest.mark.long
def test_it_measures_everything(tmp_path: Path) -> None:
    numbers = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--tiny", "--json", str(numbers)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert ran.returncode == 0, ran.stderr

    report = json.loads(numbers.read_text())
    rows = report["rows"]
    counts = {number: sum(row["measurement"] == number for row in rows) for number in range(1, 8)}
    assert counts == {1: 4, 2: 4, 3: 2, 4: 3, 5: 8, 6: 3, 7: 2}
    for row in rows:
        for field in ("value", "baseline", "ratio"):
            assert math.isfinite(row[field]), row
            assert row[field] > 0, row
    assert all(math.isfinite(seconds) and seconds > 0 for case in report["times"].values() for seconds in case)
    assert {"model", "device", "software", "times", "memory"} <= report["facts"].keys()
    assert ran.stdout.count("\n| ") == len(rows) + 1


def test_the_gpu_script_leaves_complete_lines(tmp_path: Path) -> None:
    lines = tmp_path / "figures.jsonl"
    command = [sys.executable, "-m", "tests.bench.gpu", "--tiny", "--seconds", "600", "--out", str(lines)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert ran.returncode == 0, ran.stderr
    figures = {figure["name"]: figure for figure in map(json.loads, lines.read_text().splitlines())}
    assert not [each for each in figures.values() if each["note"].startswith(("failed", "not measured"))]
    for name in (
        "iteration with a mask, graphed",
        "iteration without a mask, eager",
        "bare pass, graphed",
        "literal loop with a mask, eager",
        "iterations a second, 2 rooms in a pass",
        "fitting step, 4 rows, graphed",
        "recording an iteration's graph, in eager iterations",
        "replay of an iteration without a mask",
        "bare pass, torch.compile",
        "inversion step, graphed",
        "denoising step, eager",
        "denoising step with reference-latent control, graphed",
        "recording iterations before a drag",
        "whole edit, warm",
        "2 rooms in a pass to one room, iterations a second",
        "bare pass, graphed, not channels_last",
    ):
        assert figures[name]["value"] > 0, name
    assert figures["share of the time between replays"]["value"] < 100
    assert ran.stdout.count("\n| ") == len(figures)


def test_the_gpu_script_begins_nothing_once_time_is_up(tmp_path: Path) -> None:
    lines = tmp_path / "figures.jsonl"
    with lines.open("w") as file:
        measure(Report(file, seconds=0), TINY, tiny=True)
    figures = [json.loads(line) for line in lines.read_text().splitlines()][1:]
    assert [figure["name"] for figure in figures] == [name for name, part in PARTS.items() if not part.needs_builtin]
    assert all(figure["note"].startswith("not measured: takes about") for figure in figures)


def test_what_fails_leaves_the_other_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: object) -> float:
        raise RuntimeError("no such kernel\nin this version")

    monkeypatch.setattr(iteration, "timed_bare_pass", lambda *_, **__: fails())
    monkeypatch.setattr(edit, "fitting_step", fails)
    lines = tmp_path / "figures.jsonl"
    with lines.open("w") as file:
        measure(Report(file, seconds=600), TINY, tiny=True, only=["iteration", "steps"])
    figures = {figure["name"]: figure for figure in map(json.loads, lines.read_text().splitlines())}
    failed = {name for name, figure in figures.items() if figure["note"] == "failed: RuntimeError: no such kernel"}
    ways = ("graphed", "eager")
    assert failed == {f"{what}, {how}" for what in ("bare pass", "fitting step, 4 rows") for how in ways}
    assert figures["iteration with a mask, eager"]["value"] > 0
    assert figures["denoising step, eager"]["value"] > 0


def test_what_takes_too_long_is_cut_short() -> None:
    with pytest.raises(OutOfTimeError), time_limit(0.2):
        threading.Event().wait(600)
    with time_limit(600):
        pass


@pytest.mark.long
@with_ray
def test_the_engines_are_measured_side_by_side() -> None:
    command = [sys.executable, "-m", "tests.bench.cluster", "--tiny"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("\n| ") == 2 + 5 + 2 + 2, ran.stdout
