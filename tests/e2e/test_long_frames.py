"""A minute of previews at 30 a second: the page keeps up, and keeps none of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import CDPSession

from tests.e2e.editor import OpenPage, choose
from tests.e2e.played import PlayedRun
from tests.quiet import QuietEngine

SECONDS, RATE = 60, 30
MIB = 2**20

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quiet")]


def memory(session: CDPSession) -> float:
    """MiB of JavaScript that are in use once the garbage is gone."""
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"]
    return used / MIB


def test_a_minute_of_frames_leaves_nothing_behind(
    open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine]
) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    session = page.context.new_cdp_session(page)
    editor.place_and_drag()
    run = PlayedRun(quiet[1], page)

    def play(seconds: float) -> None:
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            run.show(sent % 80)
            sent += 1
            # Playwright's own loop turns meanwhile; a plain sleep would hold the page's messages back.
            page.wait_for_timeout(max(0, 1000 * (began + sent / RATE - time.monotonic())))

    play(5)
    before, shown = memory(session), editor.number("frame")
    play(SECONDS)
    page.wait_for_timeout(500)
    after, rate = memory(session), (editor.number("frame") - shown) / SECONDS
    assert after - before < 3, f"{before:.1f} MiB became {after:.1f} MiB"
    assert rate > 10, f"only {rate:.1f} previews a second were shown"
