"""What makes the page easy to use: text sizes, zoom, focus, installation, being offline."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.editor import WIDE, OpenPage, choose

HANDLE, TARGET = (94.0, 150.0), (72.0, 110.0)

pytestmark = pytest.mark.usefixtures("quiet")


def set_font_size(page: Page, pixels: int) -> None:
    """What the browser's own setting does."""
    session = page.context.new_cdp_session(page)
    session.send("Page.enable")
    session.send("Page.setFontSizes", {"fontSizes": {"standard": pixels}})


def text_sizes(page: Page) -> dict[str, float]:
    """The computed size of every text that is shown, by tag and class."""
    found: dict[str, float] = page.evaluate(
        """() => {
            const sizes = {};
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) {
                const holder = walker.currentNode.parentElement;
                if (!walker.currentNode.data.trim() || holder.closest("svg") || !holder.checkVisibility()) continue;
                sizes[`${holder.tagName} ${holder.className}`] = parseFloat(getComputedStyle(holder).fontSize);
            }
            return sizes;
        }"""
    )
    return found


def test_text_follows_the_browsers_font_size(open_page: OpenPage, upload: Path) -> None:
    # So wide that the layout stays the same.
    page = open_page(viewport={"width": 2200, "height": 1200})

    def expect_to_follow() -> None:
        set_font_size(page, 16)
        before = text_sizes(page)
        assert len(before) > 8
        set_font_size(page, 24)
        after = text_sizes(page)
        # The title's size depends on the width of the window too.
        fixed = {name: size for name, size in before.items() if name in after and name.split()[0] != "H1"}
        assert {name: after[name] for name in fixed} == pytest.approx({k: 1.5 * v for k, v in fixed.items()}, rel=0.01)

    expect_to_follow()
    set_font_size(page, 16)
    editor = choose(page, upload)
    editor.click(HANDLE)
    editor.click(TARGET)
    expect_to_follow()
    # Nothing is cut off in a window of the usual size.
    page.set_viewport_size(WIDE)
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDE["width"]
    expect(editor.button("Drag")).to_be_in_viewport(ratio=1)


def test_one_notch_of_the_wheel_is_one_step(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    fitting = editor.number("scale")
    page.mouse.move(*editor.on_screen(*HANDLE))

    def expect_steps(steps: int) -> None:
        page.wait_for_function(
            "scale => Math.abs(document.querySelector('[data-testid=canvas]').dataset.scale / scale - 1) < 1e-6",
            arg=fitting * 1.25**steps,
        )

    for steps in (1, 2, 3):
        page.mouse.wheel(0, -100)
        expect_steps(steps)
    # Another system scrolls another distance.
    page.mouse.wheel(0, 120)
    expect_steps(2)


def test_only_the_tab_key_outlines_the_canvas(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    outline = "getComputedStyle(document.querySelector('[data-testid=canvas]')).outlineStyle"
    editor.click(HANDLE)
    for key in ("Escape", "b", "v", "p", "ArrowLeft", "Escape"):
        page.keyboard.press(key)
        expect(editor.canvas).to_be_focused()
        assert page.evaluate(outline) == "none"
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    expect(editor.canvas).to_be_focused()
    assert page.evaluate(outline) != "none"
