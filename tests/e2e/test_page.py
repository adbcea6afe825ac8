"""The page in a real browser, against a real server with the built-in model."""

from __future__ import annotations

import io
import json
import os
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, ViewportSize, WebSocketRoute, expect

from tests.conftest import ROOT

OUTPUT = ROOT / "tests" / "output"
README_SCREENSHOT = "LIVEDRAG_SCREENSHOT"
WIDE: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
SOON = 20_000
"""Milliseconds that the page and the server have for an answer; two busy cores need some."""
A_RUN = 240_000
"""Milliseconds that preparing, dragging and rendering may take together."""

HANDLE, TARGET, ELSEWHERE = (94, 150), (72, 110), (60, 130)
"""On the uploaded picture, which has the teddy bear 32 pixels further to the right than the sample has."""

expect.set_options(timeout=SOON)


@pytest.fixture
def upload(samples: Path, tmp_path: Path) -> Path:
    """A picture file that is no square: the teddy bear on a wider ground."""
    with Image.open(samples / "teddy-bear.png") as bear:
        wide = Image.new("RGB", (320, 256), bear.getpixel((0, 0)))
        wide.paste(bear, (32, 0))
    path = tmp_path / "bear.png"
    wide.save(path)
    return path


@pytest.fixture
def open_page(browser: Browser, live_server: str) -> Iterator[Callable[..., Page]]:
    """Opens a page of its own browser context. At the end: no error in any console, and that includes the CSP's."""
    pages: list[Page] = []
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    def open_(path: str = "/", **context: Any) -> Page:
        page = browser.new_context(**{"viewport": WIDE, "base_url": live_server, **context}).new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path)
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.context.close()
    assert complaints == []


class Editor:
    """What a person sees and does in a room."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.canvas = page.get_by_test_id("canvas")
        self.stage = page.get_by_test_id("stage")
        expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "open")
        expect(self.canvas).to_have_attribute("data-showing", re.compile("."))
        # Until the picture is there, a line over the canvas says that it is being opened.
        expect(page.get_by_text("Opening the picture")).to_have_count(0)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def on_screen(self, x: float, y: float) -> tuple[float, float]:
        """Where a place of the picture is in the window."""
        box = self.canvas.bounding_box()
        assert box is not None
        scale = self.number("scale")
        left, top = box["x"] + self.number("offset-x"), box["y"] + self.number("offset-y")
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def number(self, name: str) -> float:
        return float(self.canvas.get_attribute(f"data-{name}") or "nan")

    def click(self, place: tuple[float, float]) -> None:
        self.page.mouse.click(*self.on_screen(*place))

    def pull(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*self.on_screen(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.on_screen(*end), steps=5)
        self.page.mouse.up()

    def place(self, name: str, point: int = 1) -> tuple[float, float]:
        """A point's ``handle`` or ``target``."""
        x, y = (self.page.get_by_test_id(f"point-{point}").get_attribute(f"data-{name}") or "").split(",")
        return float(x), float(y)

    def expect_place(self, name: str, place: tuple[float, float], tolerance: float = 1.0) -> None:
        self.page.wait_for_function(
            """([name, x, y, tolerance]) => {
                const point = document.querySelector('[data-testid="point-1"]');
                const [px, py] = (point?.dataset[name] ?? "").split(",").map(Number);
                return Math.hypot(px - x, py - y) <= tolerance;
            }""",
            arg=[name, *place, tolerance],
            timeout=SOON,
        )

    def expect_preview(self) -> None:
        self.page.wait_for_function(
            """() => document.querySelector('[data-testid="canvas"]').dataset.showing === "preview"
                || document.querySelector('[data-testid="stage"]').dataset.outcome === "failed" """,
            timeout=A_RUN,
        )
        expect(self.canvas).to_have_attribute("data-showing", "preview")

    def expect_outcome(self, pattern: str) -> None:
        expect(self.stage).to_have_attribute("data-outcome", re.compile("."), timeout=A_RUN)
        expect(self.stage).to_have_attribute("data-outcome", re.compile(pattern))

    def pixels(self) -> str:
        """Pixels of the shown picture, from where no point and no arrow is drawn over it, as one text."""
        found = self.canvas.evaluate(
            """canvas => {
                const { scale, offsetX, offsetY } = canvas.dataset;
                // A copy, as reading the canvas itself would make the browser draw it more slowly from then on.
                const copy = new OffscreenCanvas(canvas.width, canvas.height);
                const context = copy.getContext("2d", { willReadFrequently: true });
                context.drawImage(canvas, 0, 0);
                const density = canvas.width / canvas.clientWidth;
                const colours = [];
                for (let x = 128; x < 300; x += 9) for (let y = 20; y < 250; y += 9) {
                    const at = [x * scale + Number(offsetX), y * scale + Number(offsetY)];
                    colours.push(...context.getImageData(at[0] * density, at[1] * density, 1, 1).data);
                }
                return colours.join(" ");
            }"""
        )
        return str(found)

    def screenshot(self, name: str) -> None:
        take_picture(self.page, name)


def take_picture(page: Page, name: str) -> None:
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"{name}.png")


def choose(page: Page, picture: Path) -> Editor:
    page.get_by_test_id("picture-file").set_input_files(picture)
    page.wait_for_url(re.compile(r"/r/[\w-]+#[\w-]+"))
    return Editor(page)


def test_a_drag_from_upload_to_download(open_page: Callable[..., Page], upload: Path) -> None:
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
    editor.click(TARGET)
    editor.expect_place("handle", HANDLE)
    editor.expect_place("target", TARGET)
    # The guess is there at once, and says that it is one.
    expect(editor.canvas).to_have_attribute("data-guess", re.compile(r"^[0-9.]+$"))
    expect(page.get_by_test_id("guess")).to_have_text(re.compile("^Guess"))
    editor.screenshot("points")

    friend = Editor(open_page(page.url))
    friend.expect_place("target", TARGET)

    # Different previews, and the point on its way.
    editor.button("Drag").click()
    expect(friend.stage).to_have_attribute("data-stage", re.compile("loading|fitting|inverting|dragging"))
    editor.expect_preview()
    expect(page.get_by_test_id("guess")).to_have_count(0)
    expect(editor.canvas).not_to_have_attribute("data-guess", re.compile("."))
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
    editor.pull(editor.place("target"), ELSEWHERE)
    editor.expect_place("target", ELSEWHERE)
    friend.expect_place("target", ELSEWHERE)

    editor.button("Stop").click()
    editor.expect_outcome("^stopped$")
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    stopped_at = editor.place("handle")
    assert stopped_at != pytest.approx(HANDLE, abs=0.5)
    editor.screenshot("stopped")

    # It goes on from there.
    editor.button("Drag").click()
    expect(editor.button("Stop")).to_be_visible()
    editor.expect_outcome("^(arrived|exhausted)$")
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    expect(friend.canvas).to_have_attribute("data-showing", "result")
    assert editor.place("handle") == friend.place("handle") != stopped_at
    assert editor.pixels() == friend.pixels()
    editor.screenshot("result")

    with page.expect_download() as downloading:
        editor.button("Download").click()
    with Image.open(downloading.value.path()) as result, Image.open(upload) as original:
        assert (result.format, result.size) == ("PNG", original.size)
        assert result.convert("RGB").tobytes() != original.tobytes()


def test_the_mask_is_painted_and_erased(open_page: Callable[..., Page], upload: Path) -> None:
    editor = choose(open_page(), upload)
    editor.button("Paint").click()
    editor.pull((60, 100), (120, 160))
    expect(editor.page.get_by_text("Only the painted region")).to_be_visible()
    painted = mask_of(editor.page)
    assert painted.getpixel((90, 130)) == 255
    assert painted.getpixel((250, 40)) == 0
    editor.button("Erase").click()
    editor.click((90, 130))
    editor.screenshot("mask")
    editor.page.wait_for_timeout(300)
    assert mask_of(editor.page).getpixel((90, 130)) == 0


def test_everything_works_from_the_keyboard(open_page: Callable[..., Page]) -> None:
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
    page.wait_for_timeout(600)
    page.keyboard.press("Space")
    editor.expect_outcome("^stopped$")


def test_it_works_with_fingers(open_page: Callable[..., Page]) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.get_by_role("button", name=re.compile("sample.*koala", re.IGNORECASE)).tap()
    page.wait_for_url(re.compile("/r/"))
    editor = Editor(page)
    points = page.get_by_test_id("points").get_by_role("listitem")
    expect(points).to_have_count(1)
    page.touchscreen.tap(*editor.on_screen(180, 150))
    page.touchscreen.tap(*editor.on_screen(220, 200))
    expect(points).to_have_count(2)
    editor.screenshot("phone")
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "the page is wider than the phone"


def test_a_lost_connection_is_said_and_mended(open_page: Callable[..., Page], upload: Path) -> None:
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
    away = False
    expect(banner).to_have_count(0)
    friend = Editor(open_page(page.url))
    friend.expect_place("target", TARGET)


def test_what_is_no_picture_is_refused_in_words(browser: Browser, live_server: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nand nothing more")
    with browser.new_context(viewport=WIDE) as context:
        page = context.new_page()
        page.goto(live_server)
        page.get_by_test_id("picture-file").set_input_files(broken)
        expect(page.get_by_test_id("toast")).to_contain_text("broken.png")
        page.goto(f"{live_server}/r/nosuchroom#nosecret")
        expect(page.get_by_text("nosuchroom").first).to_be_visible()


@pytest.mark.skipif(README_SCREENSHOT not in os.environ, reason=f"{README_SCREENSHOT}=1 renews the README's picture")
def test_renew_the_screenshot_of_the_readme(open_page: Callable[..., Page]) -> None:
    page = open_page(color_scheme="light")
    page.get_by_role("button", name=re.compile("sample.*teddy", re.IGNORECASE)).click()
    page.wait_for_url(re.compile("/r/"))
    editor = Editor(page)
    editor.button("Drag").click()
    page.wait_for_function(
        "() => Number(document.querySelector('[data-testid=point-1]').dataset.distance) < 18", timeout=A_RUN
    )
    page.screenshot(path=ROOT / "static" / "screenshot.png")


def listed_samples() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "static" / "samples.json").read_text())
    return found


def mask_of(page: Page) -> Image.Image:
    """The room's mask as the server has it."""
    found = re.fullmatch(r"(.*)/r/([\w-]+)#([\w-]+)", page.url)
    assert found is not None
    address, room, secret = found.groups()
    request = urllib.request.Request(f"{address}/api/rooms/{room}/mask", headers={"Authorization": f"Bearer {secret}"})
    with urllib.request.urlopen(request) as answer:
        return Image.open(io.BytesIO(answer.read())).convert("L")
