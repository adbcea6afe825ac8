"""Logs: fields keep their types; secrets and pictures never appear."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from livedrag.server.logs import MAX_LENGTH, JsonLines, TextLines, scrub
from tests.conftest import ROOT
from tests.quiet import png

SECRET = "q7Xw-unguessable_0123456789abcdef"


def record(message: str, *arguments: object, **facts: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "livedrag.server.rooms.registry", "levelname": "INFO", "msg": message, "created": 0.0, **facts}
    )
    made.args = arguments
    return made


def test_json_lines_carry_facts_by_name() -> None:
    line = JsonLines().format(record("run %s ended", "r1", room="abc", outcome="arrived", seconds=1.5))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "info",
        "logger": "livedrag.server.rooms.registry",
        "message": "run r1 ended",
        "room": "abc",
        "outcome": "arrived",
        "seconds": 1.5,
    }


def test_text_lines_carry_them_too() -> None:
    line = TextLines().format(record("run %s ended", "r1", room="abc", seconds=1.5))
    assert line == "1970-01-01 00:00:00 livedrag.server.rooms.registry INFO run r1 ended room=abc seconds=1.5"


@pytest.mark.parametrize("control", ["\n", "\r", "\x0b", "\x1b[2K", "\x7f", "\x85", "\x9b", "\u2028", "\u2029"])
@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
def test_a_line_stays_one_line(lines: logging.Formatter, control: str) -> None:
    line = lines.format(record(f"one{control}two %s", f"three{control}", room=f"four{control}2026-01-01 forged"))
    assert control not in line
    assert len(line.splitlines()) == 1
    if isinstance(lines, JsonLines):
        assert json.loads(line)["room"] == f"four{control}2026-01-01 forged"
    else:
        assert f"room=four\\u{ord(control[0]):04x}" in line


def test_a_traceback_looks_like_no_line_of_its_own() -> None:
    try:
        raise ValueError("no room 'x\n1970-01-01 00:00:00 livedrag.server.rooms.registry INFO forged\r\x1b[2K'")
    except ValueError:
        failed = record("it failed")
        failed.exc_info = sys.exc_info()
    first, *trace = TextLines().format(failed).split("\n")
    assert first == "1970-01-01 00:00:00 livedrag.server.rooms.registry INFO it failed"
    assert any("forged" in line for line in trace)
    assert all(line.startswith("    ") and "\r" not in line and "\x1b" not in line for line in trace)


@pytest.mark.parametrize(
    "leaking",
    [
        f"GET /api/rooms/abc Authorization: Bearer {SECRET}",
        f"headers: {{'authorization': 'Bearer {SECRET}', 'cookie': 'livedrag={SECRET}; other=1'}}",
        f"Set-Cookie: livedrag_0badcafe={SECRET}; HttpOnly",
        f"Hello(version='livedrag.v1', secret='{SECRET}', ticket=None)",
        f'body {{"password": "{SECRET}"}}',
        f"ticket={SECRET}&x=1",
        f"opened /r/abcdef#{SECRET}",
    ],
)
@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
def test_secrets_do_not_come_out(leaking: str, lines: logging.Formatter) -> None:
    for line in (lines.format(record(leaking)), lines.format(record("seen", fact=leaking))):
        assert SECRET not in line
        assert "[hidden]" in line


def test_a_fact_that_is_named_as_a_secret_is_one() -> None:
    for lines in (JsonLines(), TextLines()):
        assert SECRET not in lines.format(record("entered", secret=SECRET))


def test_pictures_do_not_come_out_not_even_in_a_traceback() -> None:
    picture = png(64, 64)
    try:
        raise ValueError(f"cannot read {picture!r} with secret={SECRET}")
    except ValueError:
        failed = record("the picture %r is odd", picture)
        failed.exc_info = sys.exc_info()
    for lines in (JsonLines(), TextLines()):
        line = lines.format(failed)
        assert "IHDR" not in line
        assert SECRET not in line
        assert "ValueError: cannot read" in line
        assert "characters of bytes" in line


def test_short_bytes_and_plain_words_stay() -> None:
    text = "'a.png' is no picture, it begins with b'GIF89a'; the password was wrong, no secret of room 'r'"
    assert scrub(text) == text


def test_no_message_is_endless() -> None:
    assert len(scrub("x" * 10**6)) < MAX_LENGTH + 100


STORY = """
import asyncio, logging, sys
from pathlib import Path
from livedrag.server.client import Client, create_room
from livedrag.server.logs import configure
from livedrag.server.document.protocol import AddDrag
from tests.quiet import png, quiet_server

configure("debug", "json")
with quiet_server(Path(sys.argv[1]), password=sys.argv[2]) as (address, engine):
    room = create_room(address, png(64, 48), password=sys.argv[2])

    async def story():
        async with Client.join(address, room.id, room.secret, password=sys.argv[2], name="Ada") as client:
            await client.edit(AddDrag(id="d1", handle=(1, 1), target=(9, 9)))
            await client.load_mask(png(color="white", mode="L"))
            link = await client.make_link("viewer")
            await client.get("picture")
            await client.run()
            await client.stop()
            client.socket.transport.abort()
            await client.edit(AddDrag(id="d2", handle=(1, 1), target=(9, 9)))
            print(link["secret"])

    asyncio.run(story())
    print(room.secret, room.id)
"""


def test_a_server_tells_no_secret_and_no_picture_even_at_its_most_talkative(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STORY, str(tmp_path), SECRET]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    viewers, owners, room = ran.stdout.split()
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert any(room in json.dumps(line) for line in lines), "the log says something at all"
    for hidden in (viewers, owners, SECRET, "IHDR", "PNG"):
        assert hidden not in ran.stderr
