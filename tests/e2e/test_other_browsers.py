"""The page in Firefox and WebKit, where they are installed: a picture is opened, dragged, looked at, loaded again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from playwright.sync_api import Page

from tests import firefox, webkit
from tests.e2e.editor import HANDLE, TARGET
from tests.e2e.played import PlayedRun
from tests.firefox import FirefoxPage
from tests.quiet import quiet_server
from tests.webkit import WebKitPage

CANVAS = "document.querySelector('[data-testid=canvas]')"
SHOWING = f"{CANVAS}?.dataset.showing"
ENTER = "\ue007"

OtherPage = FirefoxPage | WebKitPage
BROWSERS = {
    "Firefox": (firefox.find(), "firefox-esr"),
    "WebKit": (webkit.find(), "webkit2gtk-driver xvfb"),
}
"""By name: the executable, or None, and the packages that have it."""


@pytest.fixture(params=BROWSERS)
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OtherPage]:
    found, packages = BROWSERS[request.param]
    if found is None:
        pytest.skip(f"{request.param} is not installed: `apt-get install {packages}`")
    opened = firefox.firefox if request.param == "Firefox" else webkit.webkit
    with opened(found, tmp_path / "home") as page:
        page.resize(1280, 800)
        yield page


def on_screen(page: OtherPage, place: tuple[float, float]) -> tuple[float, float]:
    left, top, scale = page.evaluate(
        f"(() => {{ const box = {CANVAS}.getBoundingClientRect(), {{ scale, offsetX, offsetY }} = {CANVAS}.dataset;"
        " return [box.left + Number(offsetX), box.top + Number(offsetY), Number(scale)]; })()"
    )
    return left + (place[0] + 0.5) * scale, top + (place[1] + 0.5) * scale


def click(page: OtherPage, name: str) -> None:
    """Press the button of a name."""
    x, y = page.wait_for(
        "(() => { const button = [...document.querySelectorAll('button')].find(({ textContent, ariaLabel }) =>"
        f" (ariaLabel ?? textContent.trim()) === {name!r}); if (!button || button.disabled) return null;"
        " const { left, top, width, height } = button.getBoundingClientRect();"
        " return [left + width / 2, top + height / 2]; })()"
    )
    page.pull((x, y))


def test_a_picture_is_opened_dragged_and_loaded_again(page: OtherPage, upload: Path, tmp_path: Path) -> None:
    with quiet_server(tmp_path / "data") as (address, engine):
        page.goto(f"{address}/")
        page.wait_for("document.querySelector('[data-testid=picture-file]') !== null")
        page.choose_file("[data-testid=picture-file]", upload)
        page.wait_for(f"location.pathname.startsWith('/r/') && {CANVAS}?.dataset.scale && {SHOWING} === 'original'")
        page.wait_for("document.querySelector('.opening') === null && document.querySelector('.hint') !== null")
        page.pull(on_screen(page, HANDLE))
        page.pull(on_screen(page, TARGET))
        page.wait_for("document.querySelector('[data-testid=quick-preview]') !== null")
        handle, target = page.evaluate(
            "Object.values(document.querySelector('[data-testid=point-1]').dataset).slice(0)"
            ".filter(value => /^[\\d.]+,[\\d.]+$/.test(value)).map(value => value.split(',').map(Number))"
        )
        assert handle == pytest.approx(HANDLE, abs=1)
        assert target == pytest.approx(TARGET, abs=1)

        # The wheel zooms by even steps, and 0 goes back.
        fitting = page.evaluate(f"Number({CANVAS}.dataset.scale)")
        page.wheel(on_screen(page, HANDLE), -100)
        page.wait_for(f"Math.abs({CANVAS}.dataset.scale / {fitting} - 1.25) < 1e-6")
        page.press("0")
        page.wait_for(f"Math.abs({CANVAS}.dataset.scale - {fitting}) < 1e-6")

        click(page, "Drag")
        run = PlayedRun(engine, cast(Page, page))
        for iteration in (2, 4, 6):
            run.step(iteration, iteration / 12)
            run.keep(iteration)
        page.wait_for(f"{SHOWING} === 'preview'")
        # A target is moved during the run.
        page.pull(on_screen(page, TARGET), on_screen(page, (60, 90)), on_screen(page, (60, 80)))
        page.wait_for("document.querySelector('[data-testid=point-1]').dataset.target.startsWith('60')")
        run.arrive(7)
        page.wait_for(f"{SHOWING} === 'result'")
        assert page.evaluate("document.querySelector('[data-testid=timeline]').dataset.moments") == "3"

        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.reload()
        page.wait_for(f"{SHOWING} === 'result'")
        assert page.evaluate("document.querySelector('[data-testid=point-1]').dataset.target.startsWith('60')")
    assert page.complaints == []
