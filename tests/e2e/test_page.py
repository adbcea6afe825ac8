"""The page in a real browser, against a real server with the built-in model."""

from __future__ import annotations

import gzip
import io
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.conftest import ROOT, find_free_port
from tests.e2e.editor import ELSEWHERE, HANDLE, PHONE, QUICK, SOON, TARGET, WIDE, Editor, OpenPage, choose, take_picture
from tests.quiet import QuietEngine, quiet_server

Quiet = tuple[str, QuietEngine]

"""On the uploaded picture, which has the teddy bear 32 pixels further to the right than the sample has."""
FAR, FAR_TOO = (100, 8), (12, 20)
"""So far from the handle that nothing arrives before a test has looked about."""


def difference(ours: str, theirs: str) -> float:
    """Mean absolute difference of two texts of pixels, in levels of 255."""
    levels = [[int(level) for level in pixels.split()] for pixels in (ours, theirs)]
    total: int = sum(abs(a - b) for a, b in zip(*levels, strict=True))
    return total / len(levels[0])


def test_a_drag_from_upload_to_download(open_page: OpenPage, upload: Path) -> None:
    page = open_page()
    gallery = page.get_by_role("button", name=re.compile("sample"))
    expect(gallery).to_have_count(len(listed_samples()))
    for picture in gallery.locator("img").all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("naturalWidth", 256)
    page.mouse.wheel(0, -10_000)
    take_picture(page, "landing")
    editor = choose(page, upload)
    editor.click(HANDLE)
    editor.click(FAR)
    editor.expect_place("handle", HANDLE)
    editor.expect_place("target", FAR)
    # The quick preview is there at once, and says that it is one.
    expect(editor.canvas).to_have_attribute("data-quick-preview", re.compile(r"^[0-9.]+$"))
    expect(page.get_by_test_id("quick-preview")).to_have_text(re.compile("^Quick preview"))
    editor.screenshot("points")

    friend = Editor(open_page(page.url))
    friend.expect_place("target", FAR)
    # However fast or slow the machine and the model, this run continues until someone stops it.
    editor.change_settings({**QUICK, "Warp first": "0", "Max iterations": "5000", "Step size": "0.005"})

    # Different previews, and the point on its way.
    editor.button("Drag").click()
    expect(friend.stage).to_have_attribute("data-stage", re.compile("loading|fitting|inverting|dragging"))
    editor.expect_preview()
    expect(page.get_by_test_id("quick-preview")).to_have_count(0)
    seen, places = {editor.pixels()}, {editor.place("handle")}
    while len(seen) < 3 or len(places) < 3:
        shown = editor.number("frame")
        page.wait_for_function(
            "shown => Number(document.querySelector('[data-testid=canvas]').dataset.frame) > shown",
            arg=shown,
            timeout=SOON,
        )
        expect(editor.canvas).to_have_attribute("data-showing", "preview")
        seen.add(editor.pixels())
        places.add(editor.place("handle"))
    expect(friend.canvas).to_have_attribute("data-showing", "preview")
    editor.screenshot("dragging")

    # Another target while it runs; everybody sees it.
    editor.pull(editor.place("target"), FAR_TOO)
    editor.expect_place("target", FAR_TOO)
    friend.expect_place("target", FAR_TOO)

    editor.stop()
    editor.expect_outcome("^stopped$")
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    stopped_at = editor.place("handle")
    assert stopped_at != pytest.approx(HANDLE, abs=0.5)
    editor.screenshot("stopped")

    # It goes on from there, to where it has not been.
    for label in ("Warp first", "Max iterations", "Step size"):
        editor.button(f"Reset {label} to its default").click()
    editor.pull(editor.place("target"), TARGET)
    editor.expect_place("target", TARGET)
    editor.expect_sent()
    editor.button("Drag").click()
    expect(editor.button("Stop")).to_be_visible()
    editor.expect_outcome("^(arrived|exhausted)$")
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    expect(friend.canvas).to_have_attribute("data-showing", "result")
    assert editor.place("handle") == friend.place("handle") != stopped_at
    assert difference(editor.pixels(), friend.pixels()) < 2  # the two canvases differ in size, and so in sampling
    editor.screenshot("result")

    with page.expect_download() as downloading:
        editor.button("Download").click()
        page.get_by_role("button", name="Picture (PNG)").click()
    with Image.open(downloading.value.path()) as result, Image.open(upload) as original:
        assert (result.format, result.size) == ("PNG", original.size)
        assert result.convert("RGB").tobytes() != original.tobytes()
    stored = numbers_of(page)
    for kind, count in (("JSON", lambda text: len(json.loads(text))), ("CSV", lambda text: text.count("\n") - 1)):
        with page.expect_download() as downloading:
            editor.button("Download").click()
            page.get_by_role("button", name=f"Numbers ({kind})").click()
        assert downloading.value.suggested_filename.endswith(f".{kind.lower()}")
        # The last of them may have been stored since.
        assert count(downloading.value.path().read_text()) >= len(stored)


def test_rounds_of_drag_and_reset_are_one_branch(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    timeline = editor.page.get_by_test_id("timeline")
    editor.pull(HANDLE, FAR)
    editor.change_settings({**QUICK, "Max iterations": "4"})
    for name in ("Arrival tolerance", "Step size"):
        expect(editor.page.get_by_role("spinbutton", name=re.compile(f"^{name}"))).to_be_visible()
    moments = re.compile("^[1-9]")
    for _ in range(3):
        editor.button("Drag").click()
        expect(editor.button("Stop")).to_be_visible()
        editor.expect_outcome("^exhausted$")
        expect(editor.canvas).to_have_attribute("data-showing", "result")
        expect(timeline).to_have_attribute("data-moments", moments)
        moments = re.compile(f"^{timeline.get_attribute('data-moments')}$")
        expect(editor.page.get_by_test_id("open-branches")).to_have_count(0)
        editor.button("Reset").click()
        expect(editor.canvas).to_have_attribute("data-showing", "original")
        editor.expect_place("handle", HANDLE)

    # Another drag from the start is another branch.
    editor.pull(editor.place("target"), ELSEWHERE)
    editor.expect_sent()
    editor.button("Drag").click()
    editor.expect_outcome("^exhausted$")
    expect(editor.stage).to_contain_text("Stopped at the limit.Press Drag to continue.")
    expect(editor.page.get_by_test_id("open-branches")).to_contain_text("2")
    editor.button("Download").click()
    expect(editor.page.get_by_role("button", name="Animation (WebP)")).to_be_visible()


@pytest.mark.usefixtures("quiet")
def test_the_mask_is_painted_and_erased(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    editor.button("Paint").click()
    editor.pull((60, 100), (120, 160))
    expect(editor.page.get_by_text("Only the painted area")).to_be_visible()
    editor.expect_sent()
    painted = mask_of(editor.page)
    assert painted.getpixel((90, 130)) == 255
    assert painted.getpixel((250, 40)) == 0
    editor.button("Erase").click()
    editor.click((90, 130))
    editor.screenshot("mask")
    editor.expect_sent()
    assert mask_of(editor.page).getpixel((90, 130)) == 0


@pytest.mark.usefixtures("quiet")
def test_everything_works_from_the_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("button", name=re.compile("sample.*teddy", re.IGNORECASE)).focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/r/"))
    editor = Editor(page)
    points = page.get_by_test_id("points").get_by_role("listitem")
    expect(points).to_have_count(1)

    editor.canvas.focus()
    for key in ("p", "Shift+ArrowLeft", "Enter", "Shift+ArrowUp", "Shift+ArrowUp", "Enter"):
        page.keyboard.press(key)
    expect(points).to_have_count(2)
    before = editor.place("target", point=2)
    assert before[1] < editor.place("handle", point=2)[1]
    page.keyboard.press("ArrowUp")
    expect(page.get_by_test_id("point-2")).not_to_have_attribute("data-target", f"{before[0]:g},{before[1]:g}")
    page.keyboard.press("Delete")
    expect(points).to_have_count(1)

    editor.canvas.focus()
    page.keyboard.press("Enter")
    expect(editor.button("Stop")).to_be_visible()
    page.keyboard.press("Space")
    editor.expect_outcome("^stopped$")


@pytest.mark.usefixtures("quiet")
def test_it_works_with_fingers(open_page: OpenPage) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.get_by_role("button", name=re.compile("sample.*koala", re.IGNORECASE)).tap()
    page.wait_for_url(re.compile("/r/"))
    editor = Editor(page)
    points = page.get_by_test_id("points").get_by_role("listitem")
    expect(points).to_have_count(1)
    editor.tap((180, 150))
    expect(page.get_by_test_id("hint")).to_have_text(re.compile("^Now tap"))
    editor.tap((220, 200))
    expect(points).to_have_count(2)
    editor.screenshot("phone")
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "the page is wider than the phone"


@pytest.mark.usefixtures("quiet")
def test_a_lost_connection_is_said_and_mended(open_page: OpenPage, upload: Path) -> None:
    page = open_page()
    away = False
    sockets: list[WebSocketRoute] = []

    def pass_on(socket: WebSocketRoute) -> None:
        if away:
            socket.close(code=1012)
        else:
            socket.connect_to_server()
            sockets.append(socket)

    page.route_web_socket(re.compile("/ws/"), pass_on)
    editor = choose(page, upload)
    away = True
    sockets[-1].close(code=1012)
    banner = page.get_by_test_id("connection-banner")
    expect(banner).to_be_visible()
    editor.screenshot("lost")
    editor.click(HANDLE)
    editor.click(TARGET)
    # What waits to be sent outlives the page.
    expect(page.get_by_test_id("point-1")).to_have_attribute("data-waiting", "true")
    page.reload()
    expect(banner).to_be_visible()
    away = False
    expect(banner).to_have_count(0)
    editor = Editor(page)
    editor.expect_place("target", TARGET)
    editor.expect_sent()
    friend = Editor(open_page(page.url))
    friend.expect_place("target", TARGET)


def test_a_server_that_restarts_is_waited_for(browser: Browser, upload: Path, tmp_path: Path) -> None:
    data, port = tmp_path / "data", find_free_port()
    with browser.new_context(viewport=WIDE) as context:
        context.set_default_timeout(SOON)
        page = context.new_page()
        with quiet_server(data, port=port) as (address, _):
            page.goto(address)
            editor = choose(page, upload)
            editor.click(HANDLE)
            editor.click(TARGET)
            editor.expect_place("target", TARGET)
            expect(page.get_by_test_id("connection-banner")).to_have_count(0)
        expect(page.get_by_test_id("connection-banner")).to_be_visible()
        editor.pull(TARGET, ELSEWHERE)
        expect(page.get_by_test_id("point-1")).to_have_attribute("data-waiting", "true")
        with quiet_server(data, port=port):
            expect(page.get_by_test_id("connection-banner")).to_have_count(0)
            expect(page.get_by_test_id("point-1")).to_have_attribute("data-waiting", "false")
            page.reload()
            Editor(page).expect_place("target", ELSEWHERE)


def test_what_is_no_picture_is_refused_in_words(browser: Browser, quiet: Quiet, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nand nothing more")
    with browser.new_context(viewport=WIDE) as context:
        context.set_default_timeout(SOON)
        page = context.new_page()
        page.goto(quiet[0])
        page.get_by_test_id("picture-file").set_input_files(broken)
        expect(page.get_by_test_id("toast")).to_contain_text("broken.png")
        page.goto(f"{quiet[0]}/r/nosuchroom#nosecret")
        expect(page.get_by_text("nosuchroom").first).to_be_visible()


def test_the_page_is_small() -> None:
    # 46 kB and 81 kB when these limits were set. What the first screen can do without should be loaded after it
    # (`panels/later.ts`), all of it together in a moment.
    start, room, everything = (sum(first_load(part).values()) for part in ("Landing", "Editor", ""))
    assert start <= 48_000, first_load("Landing")
    assert room <= 84_000, first_load("Editor")
    assert everything <= 108_000, first_load("")


def first_load(part: str) -> dict[str, int]:
    """Bytes, gzipped, of the scripts and styles that the page loads before ``part`` is shown; of all for "".

    They are what index.html names, and what those import unconditionally, together with the part of this name.
    """
    app = ROOT / "static" / "app"
    named = re.findall(r'(?:src|href)="/(assets/[^"]+[.](?:js|css))"', (app / "index.html").read_text())
    found = [app / name for name in named]
    assert len(found) >= 2
    found += (app / "assets").glob(f"{part}-*.js" if part else "*.js")
    for path in found:
        imports = re.findall(r"""(?:from|import)["'`][.]/([\w.-]+[.]js)["'`]""", path.read_text())
        found += [path.with_name(name) for name in imports if path.with_name(name) not in found]
    return {path.name: len(gzip.compress(path.read_bytes())) for path in found}


def listed_samples() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "static" / "samples.json").read_text())
    return found


def numbers_of(page: Page) -> list[dict[str, Any]]:
    """The rows of the last run, once the server has stored them."""
    deadline = time.monotonic() + SOON / 1000
    while True:
        try:
            with urllib.request.urlopen(request_of(page, "numbers.json")) as answer:
                found: list[dict[str, Any]] = json.load(answer)
            break
        except urllib.error.HTTPError as refused:
            if refused.code != 404 or time.monotonic() > deadline:
                raise
            page.wait_for_timeout(200)
    assert {"iteration", "drag", "x", "y", "distance"} <= set(found[0])
    return found


def mask_of(page: Page) -> Image.Image:
    """The room's mask as the server has it."""
    with urllib.request.urlopen(request_of(page, "mask")) as answer:
        return Image.open(io.BytesIO(answer.read())).convert("L")


def request_of(page: Page, what: str) -> urllib.request.Request:
    """For something of the room that a page is in."""
    found = re.fullmatch(r"(.*)/r/([\w-]+)#([\w-]+)", page.url)
    assert found is not None
    address, room, secret = found.groups()
    return urllib.request.Request(f"{address}/api/rooms/{room}/{what}", headers={"Authorization": f"Bearer {secret}"})
