"""``livedrag status`` against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from livedrag.server.client import create_room
from tests.conftest import ROOT, find_free_port
from tests.quiet import png, quiet_server


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "livedrag.server", "status", *arguments]
    given = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDRAG_")} | environment
    return subprocess.run(
        command, cwd=ROOT, env=given, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
    )


def test_it_shows_what_the_operators_page_shows(tmp_path: Path) -> None:
    with quiet_server(tmp_path, admin_token="t\u00f6ken") as (address, _):
        room = create_room(address, png(), title="Bear\x1b[2J")
        shown = run(address, LIVEDRAG_ADMIN_TOKEN="t\u00f6ken")
        assert shown.returncode == 0, shown.stderr
        first, second, *others = shown.stdout.splitlines()
        assert "model quiet; storage: ok" in first
        assert second.startswith("0 people, 0 rooms open of 1, 0 runs in the queue, ")
        (line,) = (line for line in others if line.startswith(room.id))
        assert line.endswith(r"  'Bear\x1b[2J'"), "no control characters"
        exact = run("--json", f"{address}/", LIVEDRAG_ADMIN_TOKEN="t\u00f6ken")
        assert [listed["id"] for listed in json.loads(exact.stdout)["rooms"]] == [room.id]
        assert room.secret not in shown.stdout + exact.stdout


def test_the_password_does_where_there_is_no_token(tmp_path: Path) -> None:
    with quiet_server(tmp_path, password="sesame") as (address, _):
        assert run(address, LIVEDRAG_PASSWORD="sesame").returncode == 0
        wrong = run(address, LIVEDRAG_PASSWORD="wrong")
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert wrong.stderr == f"livedrag: {address}: wrong token or password: use the server's password\n"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000", "'localhost:8000' is not the address of a server: use one such as http://127.0.0.1:8000"),
        ("http://127.0.0.1:{port}", "no livedrag answers at http://127.0.0.1:{port}: "),
    ],
)
def test_a_wrong_address_is_one_clear_line(url: str, said: str) -> None:
    port = find_free_port()
    ran = run(url.format(port=port), LIVEDRAG_ADMIN_TOKEN="t")
    (line,) = ran.stderr.splitlines()
    assert ran.returncode == 2
    assert line.startswith(f"livedrag: {said.format(port=port)}")


def test_without_a_secret_it_says_which_variable(tmp_path: Path) -> None:
    ran = run("http://127.0.0.1:1")
    assert ran.returncode == 2
    assert ran.stderr == "livedrag: set LIVEDRAG_ADMIN_TOKEN, or LIVEDRAG_PASSWORD if the server has no token\n"
