"""The version of the page that is served."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

PAGE_SCRIPT = re.compile(r'<script\b[^>]*\bsrc="[^"]*/assets/([\w.-]+)"')


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
