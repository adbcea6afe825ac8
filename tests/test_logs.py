"""Logs: facts come out as facts; secrets and pictures do not come out at all."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from server.logs import LONGEST, JsonLines, TextLines, scrub
from tests.quiet import png

SECRET = "q7Xw-unguessable_0123456789abcdef"


def record(message: str, *arguments: object, **facts: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "server.hub", "levelname": "INFO", "msg": message, "created": 0.0, **facts})
    made.args = arguments
    return made


def test_json_lines_carry_facts_by_name() -> None:
    line = JsonLines().format(record("run %s ended", "r1", room="abc", outcome="arrived", seconds=1.5))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "info",
        "logger": "server.hub",
        "message": "run r1 ended",
        "room": "abc",
        "outcome": "arrived",
        "seconds": 1.5,
    }


def test_text_lines_carry_them_too() -> None:
    line = TextLines().format(record("run %s ended", "r1", room="abc", seconds=1.5))
    assert line == "1970-01-01 00:00:00 server.hub INFO run r1 ended room=abc seconds=1.5"


def test_a_line_stays_one_line() -> None:
    assert "\n" not in JsonLines().format(record("one\ntwo", fact="three\nfour"))


@pytest.mark.parametrize(
    "leaking",
    [
        f"GET /api/rooms/abc Authorization: Bearer {SECRET}",
        f"headers: {{'authorization': 'Bearer {SECRET}', 'cookie': 'livedrag={SECRET}; other=1'}}",
        f"Set-Cookie: livedrag={SECRET}; HttpOnly",
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
    assert len(scrub("x" * 10**6)) < LONGEST + 100
