"""``python -m tests.bench.page``: how soon the page shows what people do while a run's previews come in.

A headless Chromium of 1280 x 800 without a GPU, a picture of 2048 x 1536, a mask and four points. Each way of input is
measured twice: with previews that are played at 10 a second, so that the page has the processors for itself, and with
a real run of the built-in model on the same processors. An input's delay is Chromium's own ``EventLatency``: from the
event to the presentation of the first frame that shows what it changed.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests import chromium
from tests.conftest import ROOT, serving
from tests.e2e.editor import WIDE, Editor, choose
from tests.e2e.played import PlayedRun
from tests.quiet import quiet_server

SECONDS = 6.0
"""Of each activity."""
PREVIEWS = 10
"""A second."""
SIZE = (2048, 1536)
SAMPLE = "teddy-bear.png"

WATCH = """() => {
    const watched = window.watched = { frames: [], long: [] };
    const tick = now => {
        watched.frames.push(now);
        if (window.watched === watched) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    new PerformanceObserver(list => {
        for (const task of list.getEntries()) watched.long.push(task.duration);
    }).observe({ entryTypes: ["longtask"] });
}"""


@dataclass(frozen=True)
class Smoothness:
    """``previews`` and ``frames`` a second that were shown, and tasks over 50 ms.

    ``input_p95`` (95 of 100 stay below) and ``input_max`` are milliseconds from an input to its picture.
    """

    previews: float
    frames: float
    long_tasks: int
    longest: float
    inputs: int
    input_p95: float
    input_max: float


Act = Callable[[Editor, int], None]
"""One turn of an activity; turns are counted."""
Play = Callable[[], object]
"""Called before each turn."""


def measure(editor: Editor, act: Act, play: Play) -> Smoothness:
    """Do something for a while."""
    page, browser = editor.page, editor.page.context.browser
    assert browser is not None
    page.evaluate(WATCH)
    browser.start_tracing(page=page, categories=["input.scrolling"])
    began, turn, previews = time.monotonic(), 0, editor.number("frame")
    while time.monotonic() - began < SECONDS:
        play()
        act(editor, turn)
        turn += 1
    watched = page.evaluate("window.watched")
    delays = sorted(event_latencies(json.loads(browser.stop_tracing())["traceEvents"]))
    gaps = [after - before for before, after in itertools.pairwise(watched["frames"])]
    return Smoothness(
        previews=(editor.number("frame") - previews) / SECONDS,
        frames=1000 * len(gaps) / sum(gaps),
        long_tasks=len(watched["long"]),
        longest=max(map(float, watched["long"]), default=0.0),
        inputs=len(delays),
        input_p95=delays[int(0.95 * len(delays))],
        input_max=delays[-1],
    )


def look_about(editor: Editor, turn: int) -> None:
    """Move the mouse, and a notch of zooming or two fingers' way of panning."""
    page = editor.page
    page.mouse.move(*_circle(editor, turn))
    if turn % 4 < 2:
        page.mouse.wheel(0, -60 if turn % 2 == 0 else 60)
    else:
        page.mouse.wheel(7 if turn % 2 == 0 else -7, 5)
    page.wait_for_timeout(8)


def aim(editor: Editor, turn: int) -> None:
    """Pull a target about; let go of it now and then, which changes the run."""
    page = editor.page
    if turn == 0:
        page.mouse.move(*editor.on_screen(*editor.place("target")))
        page.mouse.down()
    page.mouse.move(*_circle(editor, turn))
    if turn % 40 == 39:
        page.mouse.up()
        page.mouse.down()
    page.wait_for_timeout(8)


def paint(editor: Editor, turn: int) -> None:
    """Paint the editable area, a stroke of thirty moves after another."""
    page = editor.page
    if turn == 0:
        page.mouse.up()
        editor.button("Paint").click()
    page.mouse.move(*_circle(editor, turn))
    if turn % 30 == 0:
        page.mouse.up()
        page.mouse.down()
    page.wait_for_timeout(8)


ACTIVITIES: dict[str, Act] = {"pan, zoom and point": look_about, "aim a target": aim, "paint the area": paint}


def _circle(editor: Editor, turn: int) -> tuple[float, float]:
    x, y = WIDE["width"] * 0.4, WIDE["height"] * 0.45
    return x + 60 * math.sin(turn / 5), y + 40 * math.cos(turn / 5)


def event_latencies(events: Iterable[dict[str, Any]]) -> list[float]:
    """Milliseconds of each input of a trace, from the event to the frame that shows it."""
    begun: dict[tuple[int, str], float] = {}
    found: list[float] = []
    for event in sorted((one for one in events if one["name"] == "EventLatency"), key=lambda one: one["ts"]):
        key = (event["pid"], str(event.get("id2")))
        if event["ph"] == "b":
            begun[key] = event["ts"]
        elif event["ph"] == "e" and key in begun:
            found.append((event["ts"] - begun.pop(key)) / 1000)
    return found


def measure_played(browser: Browser, folder: Path) -> list[Smoothness]:
    """Each activity while previews come in and nothing else computes."""
    with quiet_server(folder / "played") as (address, engine):
        editor = _open(browser, address, _large_picture(folder))
        _place_points(editor)
        editor.button("Drag").click()
        run, began, shown = PlayedRun(engine, editor.page), time.monotonic(), 0

        def play() -> None:
            nonlocal shown
            if (time.monotonic() - began) * PREVIEWS > shown:
                shown += 1
                run.step(shown, shown / 400)

        smooth = [measure(editor, act, play) for act in ACTIVITIES.values()]
        editor.page.close()
    return smooth


def measure_real(browser: Browser, folder: Path) -> list[Smoothness]:
    """Each activity while the built-in model drags on the same processors."""
    with serving(folder / "real") as address:
        editor = _open(browser, address, _large_picture(folder))
        _place_points(editor)
        # Enough iterations for the whole time; a run that has reached its targets would end.
        editor.change_settings({"Max iterations": "1000", "Arrival tolerance": "0.01"})
        editor.button("Drag").click()
        editor.expect_preview()
        smooth = [measure(editor, act, lambda: None) for act in ACTIVITIES.values()]
        still = editor.canvas.get_attribute("data-showing")
        assert still == "preview", f"the run ended before the measurement: the page shows {still}"
        editor.page.close()
    return smooth


def _large_picture(folder: Path) -> Path:
    """A sample with fine noise over it, so that it is as detailed as a photograph of its size."""
    path = folder / "large.png"
    if not path.exists():
        with Image.open(ROOT / "static" / "samples" / SAMPLE) as sample:
            smooth = sample.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
        Image.blend(smooth, Image.effect_noise(SIZE, 40).convert("RGB"), 0.2).save(path)
    return path


def _open(browser: Browser, address: str, picture: Path) -> Editor:
    page = browser.new_page(viewport=WIDE, base_url=address)
    page.goto("/")
    return choose(page, picture)


def _place_points(editor: Editor) -> None:
    for x, y in ((500, 500), (1500, 500), (500, 1200), (1500, 1200)):
        editor.pull((x, y), (x + 150, y - 120))
    editor.button("Paint").click()
    editor.pull((300, 300), (1700, 1300))
    editor.button("Points").click()
    editor.expect_sent()


def table(measured: Mapping[tuple[str, str], Smoothness]) -> str:
    """In Markdown, a row for each activity and run."""
    head = (
        "| During a run | previews a second | frames a second | tasks over 50 ms | the longest | inputs "
        "| 95 of 100 shown within | the slowest |\n|--|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    return head + "".join(
        f"| {activity}, {run} | {one.previews:.1f} | {one.frames:.0f} | {one.long_tasks} | {one.longest:.0f} ms "
        f"| {one.inputs} | {one.input_p95:.0f} ms | {one.input_max:.0f} ms |\n"
        for (activity, run), one in measured.items()
    )


def main() -> int:
    """Measure and print a Markdown table."""
    found = chromium.find()
    if found is None:
        raise SystemExit("no Chromium: `python -m tests.chromium` installs one")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=False, args=["--disable-gpu"])
        runs = {"played": measure_played, "real": measure_real}
        measured = {
            (activity, run): one
            for run, measure_run in runs.items()
            for activity, one in zip(ACTIVITIES, measure_run(browser, Path(folder)), strict=True)
        }
        browser.close()
    sys.stdout.write(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
