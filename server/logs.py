"""Logs: one line for each event, as text or as JSON, with the ids of rooms and people, without secrets or pictures.

Control characters are escaped and tracebacks indented, so that no name from outside can forge a line.

Callers pass fields as ``extra``, such as ``log.info("a run ended", extra={"room": room.id, "outcome": outcome})``.
Everything logged passes `scrub`, messages and tracebacks of other libraries included.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Mapping
from typing import Literal

MAX_LENGTH = 4000
"""Characters of a message, and of a traceback."""
HIDDEN = "[hidden]"

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_SECRETS = (
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)[^\s'\",]+"),
    re.compile(r"(?i)(\blivedrag(?:_[0-9a-f]+)?=)[^\s;'\",]+"),  # our cookie
    re.compile(r"(?i)(['\"]?\b(?:secret|password|ticket|cookie|authorization)['\"]?\s*[:=]\s*b?['\"]?)[^\s'\",&})]+"),
    re.compile(r"(/r/[A-Za-z0-9_-]+#)[A-Za-z0-9_-]+"),  # a room's link
)
_BYTES = re.compile(r"""\bb(['"])(?:\\.|(?!\1).){33,}(?:\1|$)""", re.DOTALL)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(level: str, style: Literal["text", "json"] | str) -> None:
    """Log to stderr at ``level`` and above."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("uvicorn", "PIL", "websockets", "multipart", "python_multipart", "asyncio"):
        # Their debug messages have headers and bytes of pictures.
        logging.getLogger(name).setLevel(logging.INFO if level == "debug" else logging.WARNING)


def scrub(text: str) -> str:
    """The text with everything hidden that looks like a secret, and without long runs of bytes."""
    for secret in _SECRETS:
        text = secret.sub(rf"\g<1>{HIDDEN}", text)
    text = _BYTES.sub(lambda found: f"[{len(found[0])} characters of bytes]", text)
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}... ({len(text)} characters)"


def escape(text: str) -> str:
    """The text on one line, with control characters as JSON escapes."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class TextLines(logging.Formatter):
    """Time, logger, level, message and fields as ``name=value``; a traceback below, indented."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        when = f"{_when(record):%Y-%m-%d %H:%M:%S}"
        line = f"{when} {record.name} {record.levelname} {escape(scrub(record.getMessage() + fields))}"
        return "\n".join([line, *(f"    {escape(traced)}" for traced in _trace(record).split("\n") if traced)])


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, the fields, and ``trace`` if any."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _when(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": scrub(record.getMessage()),
        }
        entry |= {name: _plain(name, value) for name, value in _fields(record).items() if name not in entry}
        trace = _trace(record)
        if trace:
            entry["trace"] = trace
        return escape(json.dumps(entry, ensure_ascii=False))


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    """What a message was logged with; names with an underscore are other packages' own, such as Ray's."""
    return {name: value for name, value in vars(record).items() if name not in _OWN and not name.startswith("_")}


def _plain(name: str, value: object) -> object:
    """A field as a JSON value; scrubbed together with its name, so that one named ``secret`` is hidden."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    return scrub(f"{name}={value}")[len(name) + 1 :]


def _trace(record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[0] is not None:
        return scrub(logging.Formatter().formatException(record.exc_info))
    return ""


def _when(record: logging.LogRecord) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(record.created, datetime.UTC)
