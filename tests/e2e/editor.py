"""What a person sees and does on the page, for tests that drive it in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from playwright.sync_api import Locator, Page, ViewportSize, expect

from tests.conftest import ROOT

OUTPUT = ROOT / "tests" / "output"
WIDE: ViewportSize = {"width": 1280, "height": 800}
TABLET: ViewportSize = {"width": 820, "height": 1100}
PHONE: ViewportSize = {"width": 360, "height": 740}
SOON = 90_000
"""Milliseconds that the page and the server have for an answer; two busy cores need some."""
A_RUN = 600_000
"""Milliseconds that preparing, dragging and rendering may take together."""
QUICK = {"LoRA steps": "10"}
"""Advanced settings with which a picture is soon prepared."""
HANDLE, TARGET, ELSEWHERE = (94.0, 150.0), (72.0, 110.0), (60.0, 130.0)
"""Places on the picture that most tests open, in pixels."""
NO_DOUBLE_CLICK = 600
"""Milliseconds between two presses at the same place that are no double click; the page counts them from the first."""

OpenPage = Callable[..., Page]


class Editor:
    """What a person sees and does in a room."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.canvas = page.get_by_test_id("canvas")
        self.stage = page.get_by_test_id("stage")
        self.points = page.get_by_test_id("points").get_by_role("listitem")
        expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "open")
        expect(self.canvas).to_have_attribute("data-showing", re.compile("."))
        # Until the picture is there, a line over the canvas says that it is being opened.
        expect(page.get_by_text("Opening the picture")).to_have_count(0)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def on_screen(self, x: float, y: float) -> tuple[float, float]:
        """Where a place of the picture is in the window, once the picture lies still there."""
        left, top, scale = self.canvas.evaluate(
            """async canvas => {
                canvas.scrollIntoView({ block: "nearest", behavior: "instant" });
                const frame = () => new Promise(done => requestAnimationFrame(done));
                const lies = () => {
                    const { left, top, width, height } = canvas.getBoundingClientRect();
                    const { scale, offsetX, offsetY } = canvas.dataset;
                    return [left + Number(offsetX), top + Number(offsetY), Number(scale), width, height];
                };
                for (let before = lies(); ; ) {
                    await frame();
                    await frame();
                    const now = lies();
                    if (now.every((value, index) => value === before[index])) return now.slice(0, 3);
                    before = now;
                }
            }"""
        )
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def number(self, name: str) -> float:
        return float(self.canvas.get_attribute(f"data-{name}") or "nan")

    def click(self, place: tuple[float, float]) -> None:
        self.page.mouse.click(*self.on_screen(*place))

    def tap(self, place: tuple[float, float]) -> None:
        self.page.touchscreen.tap(*self.on_screen(*place))

    def pull(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*self.on_screen(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.on_screen(*end), steps=5)
        self.page.mouse.up()

    def place_and_drag(self, handle: tuple[float, float] = HANDLE, target: tuple[float, float] = TARGET) -> None:
        """Place a handle and its target, and press Drag."""
        self.click(handle)
        self.click(target)
        self.button("Drag").click()

    def place(self, name: str, point: int = 1) -> tuple[float, float]:
        """A point's ``handle`` or ``target``."""
        x, y = (self.page.get_by_test_id(f"point-{point}").get_attribute(f"data-{name}") or "").split(",")
        return float(x), float(y)

    def expect_place(self, name: str, place: tuple[float, float], tolerance: float = 1.0, point: int = 1) -> None:
        self.page.wait_for_function(
            """([point, name, x, y, tolerance]) => {
                const found = document.querySelector(`[data-testid="point-${point}"]`);
                const [px, py] = (found?.dataset[name] ?? "").split(",").map(Number);
                return Math.hypot(px - x, py - y) <= tolerance;
            }""",
            arg=[point, name, *place, tolerance],
            timeout=SOON,
        )

    def expect_sent(self) -> None:
        """Wait until the server has answered everything that was changed here."""
        expect(self.page.get_by_test_id("connection")).to_have_attribute("data-waiting", "0")

    def expect_preview(self) -> None:
        self.page.wait_for_function(
            """() => document.querySelector('[data-testid="canvas"]').dataset.showing === "preview"
                || document.querySelector('[data-testid="stage"]').dataset.outcome === "failed" """,
            timeout=A_RUN,
        )
        expect(self.canvas).to_have_attribute("data-showing", "preview")

    def stop(self, *, by_finger: bool = False) -> None:
        """Press Stop, so long after Drag that it is no double click."""
        self.page.wait_for_timeout(NO_DOUBLE_CLICK)
        stop = self.button("Stop")
        if by_finger:
            stop.tap()
        else:
            stop.click()

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

    def change_settings(self, settings: Mapping[str, str]) -> None:
        """Type advanced settings, by the beginning of their labels, and wait until the server has them."""
        self.page.get_by_text("Advanced").click()
        for label, value in settings.items():
            field = self.page.get_by_role("spinbutton", name=re.compile(f"^{label}"))
            field.fill(value)
            field.press("Enter")
        self.expect_sent()

    def screenshot(self, name: str) -> None:
        take_picture(self.page, name)


def take_picture(page: Page, name: str) -> None:
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"{name}.png")


def choose(page: Page, picture: Path) -> Editor:
    """Open a picture from the landing."""
    page.get_by_test_id("picture-file").set_input_files(picture)
    page.wait_for_url(re.compile(r"/r/[\w-]+#[\w-]+"))
    return Editor(page)


def open_sample(page: Page, name: str) -> Editor:
    """Open a sample from the landing's gallery."""
    page.get_by_role("button", name=re.compile(f"sample.*{name}", re.IGNORECASE)).click()
    page.wait_for_url(re.compile("/r/"))
    return Editor(page)
