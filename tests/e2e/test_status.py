"""What the page says about points and pictures is what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from livedrag.server.device.engine import UpdateRun
from tests.conftest import find_free_port
from tests.e2e.editor import SOON, WIDE, OpenPage, choose
from tests.e2e.played import PlayedRun
from tests.quiet import QuietEngine, quiet_server

HANDLE, TARGET, FAR = (94.0, 150.0), (72.0, 110.0), (150.0, 60.0)

pytestmark = pytest.mark.usefixtures("quiet")

Quiet = tuple[str, QuietEngine]


def test_a_pair_that_arrived_is_pulled_on_by_its_target(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    editor = choose(open_page(), upload)
    editor.click(HANDLE)
    editor.click(TARGET)
    editor.button("Drag").click()
    run = PlayedRun(quiet[1], editor.page)
    run.step(3, 0.5)
    run.arrive(23, left=2.0)
    editor.expect_outcome("^arrived$")
    expect(editor.stage).to_contain_text("Reached the target")
    expect(editor.page.get_by_test_id("point-1")).to_contain_text("reached")
    # Right on the handle.
    editor.pull((TARGET[0] + 2, TARGET[1]), (FAR[0] + 2, FAR[1]))
    editor.expect_place("target", FAR)
    editor.expect_place("handle", (TARGET[0] + 2, TARGET[1]))
    expect(editor.stage).to_contain_text(re.compile(r"Point 1 has \d\d px to go. *Press Drag to continue"))
    editor.expect_sent()
    editor.page.reload()
    expect(editor.stage).to_contain_text("px to go")


def test_a_point_that_cannot_move_is_warned_of_at_once(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    editor = choose(open_page(), upload)
    editor.button("Paint").click()
    editor.pull((200, 60), (260, 60))
    editor.button("Points").click()
    editor.click(HANDLE)
    editor.click(TARGET)
    expect(editor.stage).to_contain_text("Point 1 is outside the editable area")
    expect(editor.page.get_by_test_id("point-1")).to_contain_text("outside the editable area")
    editor.pull(HANDLE, (230, 60))
    expect(editor.stage).not_to_contain_text("outside")


def test_the_picture_lies_still_when_the_timeline_appears(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    editor = choose(open_page(), upload)
    editor.click(HANDLE)
    editor.click(TARGET)
    before = editor.on_screen(0, 0), editor.number("scale")
    editor.button("Drag").click()
    run = PlayedRun(quiet[1], editor.page)
    for iteration in range(3):
        run.keep(iteration)
        run.step(iteration, iteration / 10)
    expect(editor.page.get_by_test_id("timeline")).to_be_visible()
    assert (editor.on_screen(0, 0), editor.number("scale")) == before
    editor.stop()


def test_a_point_aimed_elsewhere_while_the_result_is_rendered_continues_the_run(
    open_page: OpenPage, upload: Path, quiet: Quiet
) -> None:
    editor = choose(open_page(), upload)
    editor.click(HANDLE)
    editor.click(TARGET)
    editor.button("Drag").click()
    run = PlayedRun(quiet[1], editor.page)
    run.step(20, 1.0)
    run.render(1)
    expect(editor.stage).to_contain_text("Rendering")
    editor.pull(TARGET, FAR)
    editor.expect_place("target", FAR)
    aimed: list[tuple[float, float]] = []
    while aimed != [pytest.approx(FAR, abs=1.0)]:  # the target is sent on its way too
        update: UpdateRun = quiet[1].expect(UpdateRun, run.room)
        aimed = [drag.target for drag in update.desired.drags.values()]
    # The worker drags on, see the tests of its stages.
    run.step(21, 0.5)
    expect(editor.stage).to_contain_text("Dragging")
    run.arrive(30)
    expect(editor.stage).to_contain_text("in 30 iterations")


def test_the_quick_preview_is_seen_behind_the_first_previews(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    editor = choose(open_page(), upload)
    editor.click(HANDLE)
    editor.click(TARGET)
    expect(editor.page.get_by_test_id("quick-preview")).to_be_visible()
    editor.button("Drag").click()
    run = PlayedRun(quiet[1], editor.page)
    run.step(1, 0.0)
    expect(editor.canvas).to_have_attribute("data-showing", "preview")
    expect(editor.canvas).to_have_attribute("data-behind", "true")
    expect(editor.canvas).to_have_attribute("data-quick-preview", re.compile("."))
    expect(editor.page.get_by_test_id("showing")).to_have_text("Live preview")
    run.arrive(3)
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    expect(editor.canvas).to_have_attribute("data-behind", "false")


def test_status_and_timeline_count_the_same_iterations(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    editor = choose(open_page(), upload)
    editor.click(HANDLE)
    editor.click(TARGET)
    editor.button("Drag").click()
    run = PlayedRun(quiet[1], editor.page)
    for iteration in (0, 21, 23):
        run.keep(iteration)
        run.step(iteration, iteration / 23)
    run.arrive(23)
    expect(editor.stage).to_contain_text("in 23 iterations")
    expect(editor.page.get_by_test_id("timeline")).to_contain_text("Iteration 23")
    editor.pull(TARGET, FAR)
    editor.button("Drag").click()
    again = PlayedRun(quiet[1], editor.page)
    again.moments = run.moments
    again.keep(28)
    again.step(5, 1.0)
    again.arrive(5)
    expect(editor.stage).to_contain_text("in 5 iterations (28 in total)")
    expect(editor.page.get_by_test_id("timeline")).to_contain_text("Iteration 28")


def test_a_server_that_was_stopped_during_a_run_is_named(browser: Browser, upload: Path, tmp_path: Path) -> None:
    data, port = tmp_path / "data", find_free_port()
    with browser.new_context(viewport=WIDE) as context:
        context.set_default_timeout(SOON)
        page = context.new_page()
        with quiet_server(data, port=port) as (address, engine):
            page.goto(address)
            editor = choose(page, upload)
            editor.click(HANDLE)
            editor.click(TARGET)
            editor.button("Drag").click()
            PlayedRun(engine, page).step(3, 0.5)
            expect(editor.stage).to_contain_text("Dragging")
        expect(editor.stage).to_contain_text("The server was stopped")
        expect(editor.stage).to_contain_text("The run can be continued when it is back")
        with quiet_server(data, port=port):
            expect(editor.stage).to_contain_text("Interrupted")
            expect(editor.stage).to_contain_text("Press Drag to continue")


@pytest.mark.parametrize("suffix", ["bmp", "tiff", "gif", "avif", "webp"])
def test_pictures_of_every_readable_format_open(
    open_page: OpenPage, upload: Path, tmp_path: Path, quiet: Quiet, suffix: str
) -> None:
    path = tmp_path / f"bear.{suffix}"
    with Image.open(upload) as picture:
        picture.save(path)
    choose(open_page(), path)


def test_what_is_dropped_and_is_no_picture_is_named(open_page: OpenPage, quiet: Quiet, complaints: list[str]) -> None:
    page = open_page()
    page.evaluate(
        """() => {
            const dropped = new DataTransfer();
            dropped.items.add(new File(["%PDF-1.7"], "plan.pdf", { type: "application/pdf" }));
            window.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
        }"""
    )
    expect(page.get_by_test_id("toast")).to_contain_text("a PDF document")
    # The browser notes the refusal too.
    assert all("422" in complaint for complaint in complaints)
    complaints.clear()
