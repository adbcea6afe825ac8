"""The version of livedrag that is installed, and of the page that it serves."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

PAGE_SCRIPT = re.compile(r'<script\b[^>]*\bsrc="[^"]*/assets/([\w.-]+)"')


def version() -> str:
    """Such as ``0.2.0``; ``0+source`` where the package is not installed."""
    try:
        return installed("livedrag")
    except PackageNotFoundError:
        return "0+source"


def page_version(static_dir: Path) -> str:
    """The name of the page's script, which contains a digest of it; empty where no page has been built.

    It is that of the files as they are now: an upgrade may replace them before the server is restarted.
    """
    page = static_dir / "app" / "index.html"
    try:
        return _script_of(page, page.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError):
        return ""


@lru_cache(maxsize=2)
def _script_of(page: Path, _changed: int) -> str:
    script = PAGE_SCRIPT.search(page.read_text("utf-8"))
    return script[1] if script is not None else ""
