"""Logs: one line for each event, as text or as JSON, that names rooms and people and tells no secrets and no pictures.

Names come from outside: what could end a line or move a cursor is escaped, and a traceback is indented, so that none of
them can look like a line of its own.

Callers give facts as ``extra``, such as ``log.info("a run ended", extra={"room": room.id, "outcome": outcome})``.
Whatever is logged passes `scrub`, other libraries' messages and tracebacks included.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Mapping
from typing import Literal

LONGEST = 4000
"""Characters of a message; a traceback may have as many again."""
HIDDEN = "[hidden]"

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_SECRETS = (
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)[^\s'\",]+"),
    re.compile(r"(?i)(\blivedrag=)[^\s;'\",]+"),  # our cookie
    re.compile(r"(?i)(['\"]?\b(?:secret|password|ticket|cookie|authorization)['\"]?\s*[:=]\s*b?['\"]?)[^\s'\",&})]+"),
    re.compile(r"(/r/[A-Za-z0-9_-]+#)[A-Za-z0-9_-]+"),  # a room's link
)
_BYTES = re.compile(r"""\bb(['"])(?:\\.|(?!\1).){33,}(?:\1|$)""", re.DOTALL)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(level: str, style: Literal["text", "json"] | str) -> None:
    """Log to stderr, from ``level`` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("uvicorn", "PIL", "websockets", "multipart", "python_multipart", "asyncio"):
        # These say what they receive: headers and bytes of pictures, which is no use but at the lowest level.
        logging.getLogger(chatty).setLevel(logging.INFO if level == "debug" else logging.WARNING)


def scrub(text: str) -> str:
    """The text without what looks like a secret, and without long runs of bytes."""
    for secret in _SECRETS:
        text = secret.sub(rf"\g<1>{HIDDEN}", text)
    text = _BYTES.sub(lambda found: f"[{len(found[0])} characters of bytes]", text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)} characters)"


def escape(text: str) -> str:
    """The text on one line, without control characters; also within JSON it stays what it is."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class TextLines(logging.Formatter):
    """Time, place, level, message, and facts as ``name=value``; a traceback below it, indented."""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        when = f"{_when(record):%Y-%m-%d %H:%M:%S}"
        line = f"{when} {record.name} {record.levelname} {escape(scrub(record.getMessage() + facts))}"
        return "\n".join([line, *(f"    {escape(traced)}" for traced in _trace(record).split("\n") if traced)])


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, facts, and ``trace`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _when(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": scrub(record.getMessage()),
        }
        entry |= {name: _plain(name, value) for name, value in _facts(record).items() if name not in entry}
        trace = _trace(record)
        if trace:
            entry["trace"] = trace
        return escape(json.dumps(entry, ensure_ascii=False))


def _facts(record: logging.LogRecord) -> Mapping[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _plain(name: str, value: object) -> object:
    """A fact as JSON can say it; its name counts, so that a fact named ``secret`` stays one."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    return scrub(f"{name}={value}")[len(name) + 1 :]


def _trace(record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[0] is not None:
        return scrub(logging.Formatter().formatException(record.exc_info))
    return ""


def _when(record: logging.LogRecord) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(record.created, datetime.UTC)
