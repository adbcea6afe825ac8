"""``livedrag edit --jobs`` and ``--log``."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from livedrag.editor.cli import main

QUICK = {"lora_steps": 2, "ddim_steps": 6, "max_iterations": 3, "lora_rank": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    return tmp_path


def job(output: str, **changes: Any) -> dict[str, Any]:
    return {"picture": "photo.png", "drags": ["30,30:50,40"], "output": output, "settings": QUICK, **changes}


def run(folder: Path, tiny_folder: Path, jobs: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[Any]]:
    (folder / "jobs.json").write_text(jobs)
    code = main(["edit", "--jobs", str(folder / "jobs.json"), "--model", str(tiny_folder)])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_picture_is_prepared_once_and_what_is_done_is_skipped(
    folder: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drag = {"handle": [60, 60], "target": [40, 50]}
    mask = np.zeros((90, 120), np.uint8)
    mask[10:80, 10:110] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    jobs = [
        job("a.png", mask="mask.png", settings={**QUICK, "latent_lr": 0.02}),
        job("b.png", prompt="a cat"),
        job("c.webp", drags=[drag]),
    ]
    code, lines = run(folder, tiny_folder, json.dumps(jobs), capsys)
    assert code == 0
    assert [(line["job"], line["status"]) for line in lines] == [(1, "done"), (3, "done"), (2, "done")]
    assert ["inversion" in line["seconds"] for line in lines] == [True, False, True]
    alone = ["--drag", "60,60:40,50", "-o", str(folder / "alone.webp"), "--model", str(tiny_folder)]
    alone += [word for name, value in QUICK.items() for word in ("--set", f"{name}={value}")]
    assert main(["edit", str(folder / "photo.png"), *alone]) == 0
    assert (folder / "alone.webp").read_bytes() == (folder / "c.webp").read_bytes(), "as if it were the only one"
    (folder / "a.png").unlink()
    jobs[1]["seed"] = 5
    code, lines = run(folder, tiny_folder, json.dumps(jobs), capsys)
    assert sorted((line["job"], line["status"]) for line in lines) == [(1, "done"), (2, "done"), (3, "skipped")]


def test_a_bad_job_stops_no_other(folder: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {
        "not JSON": "{",
        "it must be an object": "[1]",
        "unknown entry 'evil'": json.dumps(job("o.png", evil=1)),
        "there is no file": json.dumps(job("o.png", picture="nowhere.png")),
        "must end in .png or .webp": json.dumps(job("o.jpg")),
        "drags is 'None'": json.dumps({**job("o.png"), "drags": None}),
        "--drag 'x' is not": json.dumps(job("o.png", drags=["x"])),
        "the drag is": json.dumps(job("o.png", drags=[{"handle": ["a", 1], "target": [1, 1]}])),
        "is outside the picture": json.dumps(job("o.png", drags=["1,1:999,1"])),
        "seed is '5'": json.dumps(job("o.png", seed="5")),
        "unknown setting": json.dumps(job("o.png", settings={"evil": 1})),
        "settings is 5": json.dumps(job("o.png", settings=5)),
        "output is None": json.dumps({"picture": "photo.png"}),
    }
    code, lines = run(folder, tiny_folder, "\n".join([*bad.values(), json.dumps(job("good.png"))]), capsys)
    assert code == 1
    assert [line["status"] for line in lines] == ["failed"] * len(bad) + ["done"]
    for problem, line in zip(bad, lines, strict=False):
        assert problem in line["error"]
    assert (folder / "good.png").is_file()


def test_files_of_jobs_that_are_none(folder: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "jobs.json").write_text("[1")
    for arguments, problem in (
        ([], "is not a JSON list"),
        (["--seed", "3"], "leave out 'seed'"),
        (["-o", "out.png"], "leave out 'output'"),
    ):
        assert main(["edit", "--jobs", str(folder / "jobs.json"), *arguments]) == 2
        assert problem in capsys.readouterr().err
    (folder / "jobs.json").write_text("")
    assert main(["edit", "--jobs", str(folder / "jobs.json")]) == 2
    assert "has 0 jobs" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_the_numbers_of_a_run(folder: Path, tiny_folder: Path, ending: str) -> None:
    settings = [word for name, value in QUICK.items() for word in ("--set", f"{name}={value}")]
    out = ["-o", str(folder / "out.png"), "--log", str(folder / f"log{ending}"), "--model", str(tiny_folder)]
    drags = ["--drag", "30,30:50,40", "--drag", "70,60:60,50"]
    assert main(["edit", str(folder / "photo.png"), *drags, *settings, *out]) == 0
    text = (folder / f"log{ending}").read_text()
    rows = list(csv.DictReader(text.splitlines())) if ending == ".csv" else json.loads(text)
    assert [(int(row["iteration"]), row["drag"]) for row in rows][:4] == [(1, "0"), (1, "1"), (2, "0"), (2, "1")]
    assert list(rows[0]) == ["iteration", "drag", "x", "y", "distance", "content", "loss", "lost"]
    assert (float(rows[0]["x"]), float(rows[0]["y"])) == pytest.approx((30, 30), abs=1e-6)
    assert float(rows[0]["distance"]) == pytest.approx(22.36, abs=0.01)
