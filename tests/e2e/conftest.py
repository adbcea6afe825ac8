"""Fixtures of the browser tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.e2e.editor import SOON, WIDE, OpenPage
from tests.quiet import QuietEngine, quiet_server

expect.set_options(timeout=SOON)

OFFLINE = re.compile("ERR_(INTERNET_DISCONNECTED|NETWORK_CHANGED)")
REMEMBER_TOASTS = """
    window.toldToasts = [];
    new MutationObserver(() => {
        for (const toast of document.querySelectorAll("[data-testid=toast]"))
            if (!toldToasts.includes(toast.textContent)) toldToasts.push(toast.textContent);
    }).observe(document, { childList: true, subtree: true });
"""
"""Toasts go by themselves, perhaps before a test on a busy machine looks: this keeps what they said."""


@pytest.fixture
def upload(samples: Path, tmp_path: Path) -> Path:
    """A picture file that is no square: the teddy bear on a wider ground."""
    with Image.open(samples / "teddy-bear.png") as bear:
        wide = Image.new("RGB", (320, 256), bear.getpixel((0, 0)))
        wide.paste(bear, (32, 0))
    path = tmp_path / "bear.png"
    wide.save(path)
    return path


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, QuietEngine]]:
    """A server whose runs do nothing by themselves, and the engine through which a test plays them."""
    # A machine with few cores may be busy with something else for a while: no client should be given up for that.
    with quiet_server(tmp_path_factory.mktemp("quiet"), heartbeat=2.0, deadline=60.0) as served:
        yield served


@pytest.fixture
def complaints() -> list[str]:
    """What consoles have complained of; a test that provokes some takes them out again."""
    return []


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest, complaints: list[str]) -> Iterator[OpenPage]:
    """Opens a page of its own browser context. At the end: no error in any console, and that includes the CSP's.

    Paths belong to the real server, unless the test has asked for the quiet one.
    """
    pages: list[Page] = []
    address = (
        request.getfixturevalue("quiet")[0]
        if "quiet" in request.fixturenames
        else request.getfixturevalue("live_server")
    )

    def listen(message: ConsoleMessage) -> None:
        # Going offline is part of some stories, and the browser notes each request that then fails.
        if message.type in {"error", "warning"} and not OFFLINE.search(message.text):
            complaints.append(message.text)

    def open_(path: str = "/", **context: Any) -> Page:
        opened = browser.new_context(**{"viewport": WIDE, "base_url": address, **context})
        opened.set_default_timeout(SOON)
        opened.add_init_script(REMEMBER_TOASTS)
        page = opened.new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path)
        # The start page and a room are parts that come after the first script; the admin's page is plain HTML.
        page.locator("main, body:not(:has(#app))").first.wait_for(state="attached")
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.context.close()
    assert complaints == []
