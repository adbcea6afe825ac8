"""``python -m tests.bench.page``: how smoothly the page pans, zooms and points while a run's previews come in.

A headless Chromium of 1280 x 800 without a GPU, a picture of 2048 x 1536, previews at 10 a second, a mask and four
points. The delay of an input counts from the event's own time to the frame after the one that shows it.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests import chromium
from tests.e2e.editor import WIDE, choose
from tests.e2e.played import PlayedRun
from tests.quiet import QuietEngine, quiet_server

SECONDS = 8.0
PREVIEWS = 10
"""A second."""

WATCH = """() => {
    window.watched = { frames: [], long: [], inputs: [] };
    const tick = now => { window.watched.frames.push(now); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
    const painted = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const input = async event => {
        await painted();
        window.watched.inputs.push(performance.now() - event.timeStamp);
    };
    for (const kind of ["pointermove", "pointerdown", "wheel"])
        window.addEventListener(kind, input, { capture: true, passive: true });
    new PerformanceObserver(list => {
        for (const task of list.getEntries()) window.watched.long.push(task.duration);
    }).observe({ entryTypes: ["longtask"] });
}"""


@dataclass(frozen=True)
class Smoothness:
    """``frames`` a second that were drawn, the milliseconds that 95 of 100 stay below, and tasks over 50 ms.

    ``input_p95`` and ``input_max`` are milliseconds from an input to its picture.
    """

    frames: float
    p95: float
    long_tasks: int
    longest: float
    input_p95: float
    input_max: float


def measure(page: Page, picture: Path, engine: QuietEngine) -> Smoothness:
    """Pan and zoom for a while during a run."""
    editor = choose(page, picture)
    for x, y in ((500, 500), (1500, 500), (500, 1200), (1500, 1200)):
        editor.pull((x, y), (x + 150, y - 120))
    editor.button("Paint").click()
    editor.pull((300, 300), (1700, 1300))
    editor.button("Points").click()
    editor.button("Drag").click()
    run = PlayedRun(engine, page)
    middle = editor.on_screen(1024, 768)
    page.mouse.move(*middle)
    page.evaluate(WATCH)
    began, shown = time.monotonic(), 0
    while (passed := time.monotonic() - began) < SECONDS:
        if passed * PREVIEWS > shown:
            shown += 1
            run.step(shown, passed / SECONDS / 2)
        _look_about(page, shown)
    watched = page.evaluate("window.watched")
    gaps = sorted(after - before for before, after in zip(watched["frames"], watched["frames"][1:], strict=False))
    long = [float(task) for task in watched["long"]]
    inputs = sorted(watched["inputs"])
    return Smoothness(
        frames=1000 * len(gaps) / sum(gaps),
        p95=gaps[int(0.95 * len(gaps))],
        long_tasks=len(long),
        longest=max(long, default=0.0),
        input_p95=inputs[int(0.95 * len(inputs))],
        input_max=inputs[-1],
    )


def _look_about(page: Page, turn: int) -> None:
    """Move the mouse, and a notch of zooming or two fingers' way of panning."""
    x, y = WIDE["width"] * 0.4, WIDE["height"] * 0.45
    page.mouse.move(x + 60 * math.sin(turn), y + 40 * math.cos(turn))
    if turn % 4 < 2:
        page.mouse.wheel(0, -60 if turn % 2 == 0 else 60)
    else:
        page.mouse.wheel(7 if turn % 2 == 0 else -7, 5)
    page.wait_for_timeout(8)


def main() -> int:
    """Measure and print a Markdown table."""
    found = chromium.find()
    if found is None:
        raise SystemExit("no Chromium: `python -m tests.chromium` installs one")
    with tempfile.TemporaryDirectory() as folder, quiet_server(Path(folder) / "data") as (address, engine):
        picture = Path(folder) / "large.png"
        Image.effect_noise((2048, 1536), 40).convert("RGB").save(picture)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=False, args=["--disable-gpu"])
            page = browser.new_page(viewport=WIDE, base_url=address)
            page.goto("/")
            smooth = measure(page, picture, engine)
            browser.close()
    sys.stdout.write(
        "| The page while panning and zooming during a run | |\n|--|--:|\n"
        f"| frames a second | {smooth.frames:.0f} |\n"
        f"| 95 of 100 frames within | {smooth.p95:.0f} ms |\n"
        f"| tasks over 50 ms in {SECONDS:.0f} s | {smooth.long_tasks} |\n"
        f"| the longest of them | {smooth.longest:.0f} ms |\n"
        f"| 95 of 100 inputs shown within | {smooth.input_p95:.0f} ms |\n"
        f"| the slowest of them | {smooth.input_max:.0f} ms |\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
