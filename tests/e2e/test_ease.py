"""What makes the page easy to use: text sizes, zoom, focus, installation, being offline."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.e2e.editor import HANDLE, PHONE, SOON, TARGET, WIDE, Editor, OpenPage, choose
from tests.e2e.played import PlayedRun, room_of
from tests.quiet import QuietEngine, quiet_server

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
    page = open_page(viewport={"width": 2500, "height": 1200})

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


LOUPE = """canvas => {
    const { width, height } = canvas;
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    if (width > 0) context.drawImage(canvas, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    let drawn = 0;
    for (let at = 3; at < data.length; at += 4) if (data[at] > 0) drawn += 1;
    return drawn / (canvas.width / canvas.clientWidth) ** 2;
}"""
"""CSS pixels squared that are drawn over the picture."""


def test_a_loupe_shows_what_the_finger_hides(open_page: OpenPage, upload: Path) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    editor = choose(page, upload)
    hand = page.context.new_cdp_session(page)
    over = page.locator(".canvas-pointers")

    def touch(kind: str, place: tuple[float, float] | None = None) -> None:
        points = [{"x": place[0], "y": place[1], "id": 1}] if place else []
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def expect_drawn(test: str) -> None:
        page.wait_for_function(
            f"() => {{ const drawn = ({LOUPE})(document.querySelector('.canvas-pointers')); return {test}; }}"
        )

    x, y = editor.on_screen(160, 150)
    assert over.evaluate(LOUPE) == 0
    touch("touchStart", (x, y))
    touch("touchMove", (x + 30, y - 20))
    # A circle of radius 54.
    expect_drawn("drawn > 9000")
    editor.screenshot("loupe")
    touch("touchEnd")
    expect_drawn("drawn > 0 && drawn < 4500")
    editor.expect_place("target", (160 + 30 / editor.number("scale"), 150 - 20 / editor.number("scale")), 2)


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
    # So do the parts of the page that are loaded after its first screen.
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_test_id("download").click()
    page.get_by_role("button", name="Picture as…").click()
    expect(page.get_by_role("dialog", name="Download picture")).to_be_visible()
    page.keyboard.press("Escape")
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


def test_the_tour_gives_three_hints_once(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    tour = page.get_by_test_id("tour")
    expect(tour).to_contain_text("1 of 3")
    # Doing it goes on.
    editor.click(HANDLE)
    editor.click(TARGET)
    expect(tour).to_contain_text("2 of 3")
    editor.button("Next").click()
    expect(tour).to_contain_text("3 of 3")
    editor.button("Got it").click()
    expect(tour).to_have_count(0)
    page.reload()
    Editor(page)
    expect(tour).to_have_count(0)

    other = choose(open_page(), upload)
    expect(other.page.get_by_test_id("tour")).to_contain_text("1 of 3")
    other.button("Don't show hints").click()
    other.page.reload()
    Editor(other.page)
    expect(other.page.get_by_test_id("tour")).to_have_count(0)


def test_every_tool_has_its_key_in_the_tooltip(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    tools = page.get_by_role("group", name="Tools").get_by_role("button")
    assert tools.count() >= 4
    for index in range(tools.count()):
        tool = tools.nth(index)
        key = tool.get_attribute("aria-keyshortcuts")
        assert key
        expect(tool).to_have_attribute("title", re.compile(rf"\({re.escape(key)}\)$"))
        # And the key chooses it.
        editor.canvas.focus()
        page.keyboard.press(key.lower())
        expect(tool).to_have_attribute("aria-pressed", "true")


@pytest.mark.long
def test_nodes_and_listeners_do_not_grow_with_runs(
    open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine]
) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    editor.click(HANDLE)
    editor.click(TARGET)

    def play(runs: int) -> None:
        for _ in range(runs):
            editor.button("Drag").click()
            run = PlayedRun(quiet[1], page)
            run.keep(0)
            for iteration in (2, 4):
                run.step(iteration, iteration / 8)
                run.keep(iteration)
            run.arrive(4)
            expect(editor.canvas).to_have_attribute("data-showing", "result")
            editor.button("Reset").click()
            expect(editor.canvas).to_have_attribute("data-showing", "original")

    def counts() -> tuple[float, float]:
        session.send("HeapProfiler.collectGarbage")
        found = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
        return found["Nodes"], found["JSEventListeners"]

    def grown_by() -> tuple[float, float]:
        more_nodes, more_listeners = counts()
        return more_nodes - nodes, more_listeners - listeners

    play(4)
    nodes, listeners = counts()
    play(12)
    # A toast may still be there, and what the last run left takes the collector a few rounds on a busy machine.
    # What leaks stays.
    for _ in range(60):
        more_nodes, more_listeners = grown_by()
        if more_nodes <= 60 and more_listeners <= 12:
            break
        page.wait_for_timeout(500)
    assert more_nodes <= 60
    assert more_listeners <= 12


def test_the_result_is_downloaded_in_other_formats_or_copied(
    open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine]
) -> None:
    editor = choose(open_page(permissions=["clipboard-read", "clipboard-write"]), upload)
    page = editor.page
    editor.place_and_drag()
    PlayedRun(quiet[1], page).arrive(4)
    expect(editor.canvas).to_have_attribute("data-showing", "result")

    dialog = page.get_by_role("dialog")

    def ask() -> None:
        page.get_by_test_id("download").click()
        page.get_by_role("button", name="Picture as").click()

    sizes = {}
    for name, kind, quality, size in (
        ("JPEG", "JPEG", "90", "100"),
        ("JPEG", "JPEG", "20", "50"),
        ("WebP", "WEBP", "80", "25"),
        ("PNG", "PNG", None, "50"),
    ):
        ask()
        dialog.get_by_label("Format").select_option(name)
        if quality is None:
            expect(dialog.get_by_label("Quality")).to_be_disabled()
        else:
            dialog.get_by_label("Quality").fill(quality)
        dialog.get_by_label("Size").select_option(size)
        with page.expect_download() as downloading:
            dialog.get_by_role("button", name="Download").click()
        with Image.open(downloading.value.path()) as picture:
            assert picture.format == kind
            assert picture.size == (320 * int(size) // 100, 256 * int(size) // 100)
            sizes[kind, quality] = downloading.value.path().stat().st_size
    assert sizes["JPEG", "20"] < sizes["JPEG", "90"]
    # Only the file as it is stored says how it was made, and that can be left out.
    expect(dialog.get_by_label("With metadata")).to_have_count(0)
    for metadata in (True, False):
        ask()
        expect(dialog.get_by_label("With metadata")).to_be_disabled()
        dialog.get_by_label("Size").select_option("100")
        dialog.get_by_label("With metadata").set_checked(metadata)
        with page.expect_download() as downloading:
            dialog.get_by_role("button", name="Download").click()
        with Image.open(downloading.value.path()) as picture:
            assert ("Comment" in picture.info) == metadata
            assert picture.size == (320, 256)
        if metadata:
            ask()
            dialog.get_by_label("Size").select_option("50")
            page.keyboard.press("Escape")
    ask()
    dialog.get_by_label("Size").select_option("50")
    page.get_by_role("button", name="Copy to clipboard").click()
    page.wait_for_function("() => window.toldToasts.some(told => told.includes('Picture copied'))")
    copied = page.evaluate(
        """async () => {
            const [item] = await navigator.clipboard.read();
            const { width, height } = await createImageBitmap(await item.getType("image/png"));
            return [width, height];
        }"""
    )
    assert copied == [160, 128]


def test_a_picture_over_the_limits_is_offered_smaller(browser: Browser, tmp_path: Path) -> None:
    with (
        quiet_server(tmp_path / "small", max_pixels=100_000, max_upload_bytes=200_000) as (address, _),
        browser.new_context() as context,
    ):
        context.set_default_timeout(SOON)
        page = context.new_page()
        page.goto(address)
        large = tmp_path / "large.png"
        Image.effect_noise((800, 400), 60).convert("RGB").save(large)
        assert large.stat().st_size > 200_000
        chooser = page.get_by_test_id("picture-file")
        chooser.set_input_files(large)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("This picture is too large")
        dialog.get_by_role("button", name="Cancel").click()
        expect(dialog).to_have_count(0)
        expect(chooser).to_be_enabled()
        chooser.set_input_files(large)
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(chooser).to_be_enabled()
        assert "/r/" not in page.url
        chooser.set_input_files(large)
        dialog.get_by_role("button", name="Open a smaller copy (447 × 223)").click()
        page.wait_for_url(re.compile("/r/"))
        Editor(page)
        answered = page.request.get(f"{address}/api/rooms/{room_of(page)}/picture")
        with Image.open(io.BytesIO(answered.body())) as picture:
            assert picture.size == (447, 223)
        # What fits is opened as it is.
        page.goto(address)
        small = tmp_path / "small.png"
        Image.new("RGB", (200, 100), "teal").save(small)
        chooser.set_input_files(small)
        page.wait_for_url(re.compile("/r/"))
