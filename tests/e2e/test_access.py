"""Every screen in both themes at three widths: axe finds no violation, and a screenshot is saved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.conftest import ROOT
from tests.e2e.editor import PHONE, TABLET, WIDE, OpenPage, choose, take_picture
from tests.e2e.played import PlayedGeneration, PlayedRun, ask_for
from tests.quiet import QuietEngine, png

AXE = ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SIZES: dict[str, ViewportSize] = {"wide": WIDE, "tablet": TABLET, "phone": PHONE}
ALWAYS = [("wide", "dark"), ("phone", "light")]
LOOKS = ALWAYS + [
    pytest.param(size, theme, marks=pytest.mark.long)
    for size in SIZES
    for theme in ("light", "dark")
    if (size, theme) not in ALWAYS
]

pytestmark = pytest.mark.usefixtures("quiet")


def violations(page: Page) -> list[str]:
    """What axe finds on the page as it is, one line each."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    # Colours on their way from one to another are no colours yet.
    page.emulate_media(reduced_motion="reduce")
    page.wait_for_function("() => document.getAnimations().length === 0")
    found: dict[str, Any] = page.evaluate("rules => axe.run(document, { runOnly: rules })", RULES)
    page.emulate_media(reduced_motion="no-preference")
    return [
        f"{one['id']} ({one['help']}): {', '.join(str(node['target']) for node in one['nodes'][:4])}"
        for one in found["violations"]
    ]


def screens(page: Page, upload: Path, engine: QuietEngine) -> Iterator[str]:
    """Goes through the page; stops at each screen and gives its name."""
    expect(page.get_by_role("button", name=re.compile("sample")).first).to_be_visible()
    yield "landing"
    page.get_by_test_id("more").click()
    yield "menu"
    page.keyboard.press("Escape")
    ask_for(page, "a red apple")
    generation = PlayedGeneration(engine)
    generation.tell("generating", 10, 12.0)
    generation.show("maroon")
    expect(page.get_by_test_id("generation").get_by_role("img")).to_be_visible()
    yield "generating"
    generation.end(png(256, 256, "red"))
    expect(page.get_by_role("button", name="Edit this picture")).to_be_visible()
    yield "generated"
    editor = choose(page, upload)
    yield "empty"
    page.keyboard.press("?")
    yield "shortcuts"
    page.get_by_role("button", name="Close").click()
    editor.click((94, 150))
    editor.click((72, 110))
    page.get_by_label("Point 1, handle at").click()
    page.get_by_text("Advanced").click()
    yield "points"
    page.get_by_text("Advanced").click()
    editor.button("Paint").click()
    editor.pull((60, 100), (120, 160))
    expect(page.get_by_text("Only the painted area")).to_be_visible()
    yield "mask"
    editor.button("Points").click()
    editor.button("Drag").click()
    run = PlayedRun(engine, page)
    for iteration in range(3, 27, 3):
        run.keep(iteration)
        run.step(iteration, iteration / 36)
        expect(editor.canvas).to_have_attribute("data-iteration", str(iteration))
    expect(editor.canvas).to_have_attribute("data-showing", "preview")
    expect(page.get_by_test_id("chart")).to_be_attached()
    yield "running"
    editor.stop()
    editor.expect_outcome("^stopped$")
    expect(page.get_by_test_id("timeline")).to_be_visible()
    editor.button("Split view").click()
    page.get_by_text("History").click()
    yield "result"
    page.get_by_label("Browse iterations").fill("2")
    expect(editor.canvas).to_have_attribute("data-showing", "moment")
    yield "timeline"
    editor.button("Share").click()
    editor.button("New edit link").click()
    expect(page.get_by_test_id("qr")).to_be_visible()
    yield "share"
    editor.button("Close").click()
    page.context.set_offline(True)
    expect(page.get_by_test_id("connection-banner")).to_be_visible()
    yield "offline"
    page.context.set_offline(False)
    with page.expect_console_message(lambda message: "404" in message.text):
        page.goto("/r/nosuchroom#nosecret")
    expect(page.get_by_role("heading", name="Can't open this picture")).to_be_visible()
    yield "refused"
    page.get_by_role("button", name="Open a new picture").click()
    page.get_by_role("button", name=re.compile("^Rename, duplicate or delete")).first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    yield "my-pictures"


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_every_screen(
    open_page: OpenPage,
    upload: Path,
    quiet: tuple[str, QuietEngine],
    size: str,
    theme: Literal["light", "dark"],
    complaints: list[str],
) -> None:
    touch = size != "wide"
    page = open_page(viewport=SIZES[size], color_scheme=theme, has_touch=touch, is_mobile=touch)
    found: dict[str, list[str]] = {}
    for screen in screens(page, upload, quiet[1]):
        take_picture(page, f"{screen}-{size}-{theme}")
        if bad := violations(page):
            found[screen] = bad
        for direction in ("rtl", "ltr"):  # the last is how it goes on
            page.evaluate("direction => { document.documentElement.dir = direction; }", direction)
            overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0, f"{screen} is {overflow} px wider than the window, {direction}"
    assert found == {}
    # The last screen is a room that there is not.
    complaints[:] = [text for text in complaints if "404" not in text]
