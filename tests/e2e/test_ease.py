"""What makes the page easy to use: text sizes, zoom, focus, installation, being offline."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.editor import SOON, WIDE, Editor, OpenPage, choose
from tests.e2e.played import PlayedRun, room_of
from tests.quiet import QuietEngine

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


STORED = """async room => {
    const db = await new Promise(done => {
        const request = indexedDB.open("livedrag");
        request.onsuccess = () => done(request.result);
    });
    const all = name => new Promise(done => {
        const request = db.transaction(name).objectStore(name).getAll();
        request.onsuccess = () => done(request.result);
    });
    const [rooms, pictures] = [await all("rooms"), await all("pictures")];
    db.close();
    const document = rooms.find(({ id }) => id === room)?.room.document;
    return {
        rooms: rooms.length,
        drags: Object.keys(document?.drags ?? {}).length,
        result: Boolean(document?.result),
        pictures: pictures.length,
    };
}"""


def expect_stored(page: Page, **expected: object) -> None:
    """Wait until the service worker has the page, and the database what is expected of this room."""
    page.evaluate("navigator.serviceWorker.ready")
    deadline = time.monotonic() + SOON / 1000
    while (stored := page.evaluate(STORED, room_of(page))) != expected:
        assert time.monotonic() < deadline, stored
        page.wait_for_timeout(100)


def test_a_reload_while_offline_shows_the_room_as_it_was(
    open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine]
) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    editor.click(HANDLE)
    editor.click(TARGET)
    page.get_by_label("Prompt").fill("a bear")
    page.get_by_label("Prompt").press("Enter")
    editor.button("Drag").click()
    run = PlayedRun(quiet[1], page)
    run.keep(0)
    run.keep(4)
    run.arrive(4)
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    expect(page.get_by_test_id("timeline")).to_have_attribute("data-moments", "2")
    editor.expect_sent()
    # The picture, the result and two thumbnails.
    expect_stored(page, rooms=1, drags=1, result=True, pictures=4)
    result = editor.pixels()

    page.context.set_offline(True)
    page.reload()
    connection = page.get_by_test_id("connection")
    expect(connection).to_have_attribute("data-state", "lost")
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    expect(editor.points).to_have_count(1)
    expect(page.get_by_label("Prompt")).to_have_value("a bear")
    expect(page.get_by_test_id("timeline")).to_have_attribute("data-moments", "2")
    page.wait_for_function("() => document.querySelector('[data-testid=timeline] canvas')?.width === 88")
    page.mouse.move(5, 5)
    assert editor.pixels() == result
    # What is changed now survives another reload, and is sent when the server is back.
    page.get_by_label("Point 1, target at").click()
    page.get_by_label("Point 1, target, x in pixels").fill("50")
    page.get_by_label("Point 1, target, x in pixels").press("Enter")
    page.reload()
    editor.expect_place("target", (50, 110))
    page.context.set_offline(False)
    expect(connection).to_have_attribute("data-state", "open")
    editor.expect_sent()
    friend = Editor(open_page(page.url))
    friend.expect_place("target", (50, 110))


def test_a_room_that_is_deleted_or_forgotten_is_not_stored_here(
    open_page: OpenPage, upload: Path, complaints: list[str]
) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    editor.click(HANDLE)
    editor.click(TARGET)
    editor.expect_sent()
    expect_stored(page, rooms=1, drags=1, result=False, pictures=1)
    friend = Editor(open_page(page.url))
    friend.page.evaluate("navigator.serviceWorker.ready")
    friend.button("Share").click()
    friend.button("Delete room…").click()
    friend.button("Delete for everyone").click()
    expect(page.get_by_role("heading", name="Can't open this picture")).to_be_visible()
    expect_stored(page, rooms=0, drags=0, result=False, pictures=0)
    complaints.clear()  # the browser notes requests about a room that has gone


def test_the_page_can_be_installed(open_page: OpenPage) -> None:
    page = open_page()
    session = page.context.new_cdp_session(page)
    page.evaluate("navigator.serviceWorker.ready")
    manifest = session.send("Page.getAppManifest")
    assert manifest["errors"] == []
    found = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert {error["errorId"] for error in found} <= {"in-incognito"}, found
    listed = json.loads(manifest["data"])["icons"]
    assert {icon["purpose"] for icon in listed} == {"any", "maskable"}
    for icon in [*listed, {"src": "apple-touch-icon.png", "sizes": "180x180", "type": "image/png"}]:
        response = page.request.get(f"/{icon['src']}")
        assert response.headers["content-type"].startswith(icon["type"])
        if icon["type"] == "image/png":
            with Image.open(io.BytesIO(response.body())) as picture:
                assert f"{picture.width}x{picture.height}" == icon["sizes"]


def test_assets_arrive_compressed_and_are_asked_for_once(open_page: OpenPage) -> None:
    page = open_page()
    script = page.locator("script[type=module]").get_attribute("src")
    assert script is not None
    response = page.request.get(script, headers={"Accept-Encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    assert "immutable" in response.headers["cache-control"]
