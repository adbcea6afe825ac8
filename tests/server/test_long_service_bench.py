"""The benchmark of the service runs to its end and reports all that it should. Speeds are not judged here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.long
def test_it_measures_every_promise(tmp_path: Path) -> None:
    numbers = tmp_path / "service.json"
    command = [sys.executable, "-m", "tests.bench", "--service", "--tiny", "--json", str(numbers)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert ran.returncode == 0, ran.stderr
    promises = json.loads(numbers.read_text())
    assert len(promises) == 13
    assert len({promise["what"] for promise in promises}) == 13
    for promise in promises:
        assert promise["judged"] in promise["figures"]
        assert all(math.isfinite(figure) for figure in promise["figures"].values()), promise
        assert (promise["kept"] is None) == (promise["aim"] is None)
    assert ran.stdout.count("\n| ") == len(promises) + 1
