"""The version of the page that is served."""

from __future__ import annotations

import os
from pathlib import Path

from livedrag.server.version import page_version


def test_the_page_is_named_by_its_script(tmp_path: Path) -> None:
    assert page_version(tmp_path) == ""
    (tmp_path / "app").mkdir()
    page = tmp_path / "app" / "index.html"
    page.write_text('<script type="module" crossorigin src="/assets/index-B3_F9-N0.js"></script>')
    assert page_version(tmp_path) == "index-B3_F9-N0.js"
    page.write_text("<title>no script</title>")
    os.utime(page, ns=(1, 1))
    assert page_version(tmp_path) == ""
