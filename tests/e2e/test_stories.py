"""The whole story by fingers and by keys alone, on a server whose runs are played by the test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.e2e.editor import NO_DOUBLE_CLICK, PHONE, Editor, OpenPage, choose
from tests.e2e.played import PlayedRun
from tests.quiet import QuietEngine

pytestmark = pytest.mark.usefixtures("quiet")

Quiet = tuple[str, QuietEngine]


def test_by_fingers_on_a_phone(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    editor = choose(page, upload)
    hand = page.context.new_cdp_session(page)
    expect(page.get_by_test_id("hint")).to_have_text(re.compile("^Tap"))

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y} for x, y in places]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    editor.tap((94, 150))
    expect(page.get_by_test_id("hint")).to_have_text(re.compile("^Now tap"))
    editor.tap((72, 110))
    editor.expect_place("target", (72, 110), 2)
    # A finger pulls the target elsewhere.
    start, end = editor.on_screen(72, 110), editor.on_screen(60, 90)
    touch("touchStart", start)
    for part in (0.3, 0.6, 1):
        touch("touchMove", (start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])))
    touch("touchEnd")
    editor.expect_place("target", (60, 90), 3)
    # The browser may take a tap so soon after a pull for the pull's end; a person would tap again.
    paint = editor.button("Paint")
    for _ in range(20):
        paint.tap()
        page.wait_for_timeout(NO_DOUBLE_CLICK)
        if paint.get_attribute("aria-pressed") == "true":
            break
    expect(paint).to_have_attribute("aria-pressed", "true")
    editor.tap((80, 120))
    expect(page.get_by_text("Only the painted area")).to_be_attached()

    editor.button("Drag").tap()
    run = PlayedRun(quiet[1], page)
    for iteration in range(4):
        run.keep(iteration * 4)
        run.step(iteration * 4, iteration / 5)
    expect(editor.canvas).to_have_attribute("data-showing", "preview")
    editor.stop(by_finger=True)
    editor.expect_outcome("^stopped$")
    editor.button("Split view").tap()
    expect(page.get_by_test_id("split")).to_be_visible()
    with page.expect_download() as downloading:
        editor.button("Download").tap()
        page.get_by_role("button", name="Picture (PNG)").tap()
    with Image.open(downloading.value.path()) as result:
        assert result.format == "PNG"
    # What is pressed with a finger is large enough for one.
    small = page.evaluate(
        """() => [...document.querySelectorAll(":is(.dock, .bar, .toolbar, .zoom, .panel) button")]
            .filter(one => one.offsetWidth > 0 && !one.closest("[popover]"))
            .filter(one => one.offsetHeight < 44 || one.offsetWidth < 44)
            .map(one => one.ariaLabel || one.textContent)"""
    )
    assert small == [], str(small)


def test_by_keys_alone(open_page: OpenPage, quiet: Quiet) -> None:
    page = open_page()
    keys = page.keyboard

    def reach(name: str, most: int = 60) -> None:
        """Tab until the control of that name has the focus."""
        for _ in range(most):
            keys.press("Tab")
            if page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent").startswith(name):
                return
        raise AssertionError(f"{most} tabs have not led to {name!r}")

    expect(page.get_by_role("button", name=re.compile("sample")).first).to_be_visible()
    reach("Open the sample “T. rex")
    keys.press("Enter")
    page.wait_for_url(re.compile("/r/"))
    editor = Editor(page)
    expect(editor.points).to_have_count(1)

    keys.press("p")
    for key in ("Shift+ArrowRight", "Enter", "Shift+ArrowRight", "Shift+ArrowDown", "Enter"):
        keys.press(key)
    expect(editor.points).to_have_count(2)
    expect(editor.button("Undo")).to_be_enabled()  # the server has it
    keys.press("Control+z")
    expect(editor.points).to_have_count(1)
    keys.press("b")
    keys.press("p")
    keys.press("Enter")
    keys.press("Escape")
    keys.press("v")
    reach("Drag")
    keys.press("Enter")
    run = PlayedRun(quiet[1], page)
    for iteration in range(4):
        run.keep(iteration * 4)
        run.step(iteration * 4, iteration / 5)
    expect(editor.canvas).to_have_attribute("data-showing", "preview")
    keys.press("Escape")
    editor.expect_outcome("^stopped$")
    expect(editor.canvas).to_have_attribute("data-showing", "result")

    keys.press("x")
    bar = page.get_by_test_id("split")
    expect(bar).to_have_attribute("aria-valuenow", "50")
    reach("Divider between")
    keys.press("ArrowRight")
    expect(bar).to_have_attribute("aria-valuenow", "52")
    keys.press("x")
    reach("Browse iterations")
    keys.press("Home")
    expect(page.get_by_test_id("showing")).to_have_text("Iteration 0")
    reach("Back to the current step")
    keys.press("Enter")
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    keys.press("Shift+?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    keys.press("Escape")
    reach("Share", 80)
    keys.press("Enter")
    reach("New view link")
    keys.press("Enter")
    expect(page.get_by_test_id("qr")).to_be_visible()
    keys.press("Escape")
    expect(page.get_by_role("dialog", name="Share")).to_be_hidden()
