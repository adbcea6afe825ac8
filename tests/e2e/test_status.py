"""What the page says about points and pictures is what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from livedrag.server.device.messages import RunProgress, Seek, SeekCompleted, UpdateRun
from livedrag.server.document.protocol import Progress
from tests.conftest import find_free_port
from tests.e2e.editor import HANDLE, SOON, TARGET, WIDE, OpenPage, choose
from tests.e2e.played import PlayedRun
from tests.quiet import QuietEngine, quiet_server

FAR = (150.0, 60.0)

pytestmark = pytest.mark.usefixtures("quiet")

Quiet = tuple[str, QuietEngine]


def test_a_pair_that_arrived_is_pulled_on_by_its_target(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    editor = choose(open_page(), upload)
    editor.place_and_drag()
    run = PlayedRun(quiet[1], editor.page)
    run.step(3, 0.5)
    run.arrive(23, left=2.0)
    editor.expect_outcome("^arrived$")
    expect(editor.stage).to_contain_text("Reached the target")
    expect(editor.page.get_by_test_id("point-1")).to_contain_text("reached")
    # Right on the target, beside both, and right on the handle.
    for right, down in ((0, 0), (-3, 2), (5, -2), (2, 0)):
        editor.pull((TARGET[0] + right, TARGET[1] + down), (FAR[0] + right, FAR[1] + down))
        editor.expect_place("target", FAR)
        editor.expect_place("handle", (TARGET[0] + 2, TARGET[1]))
        if right != 2:
            editor.pull(FAR, TARGET)
            editor.expect_place("target", TARGET)
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
    expect(editor.stage).to_contain_text("Paint over it, or move the point.")
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
    editor.place_and_drag()
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
    editor.place_and_drag()
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


def test_an_earlier_step_has_not_reached_the_target(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    editor = choose(open_page(), upload)
    page, engine = editor.page, quiet[1]
    editor.place_and_drag()
    run = PlayedRun(engine, page)
    for iteration in (0, 10, 20):
        run.keep(iteration)
        run.step(iteration, iteration / 20)
    run.arrive(20)
    expect(editor.stage).to_contain_text("Reached the target")
    # The pictures of the timeline show where things move, not the whole picture.
    expect(page.get_by_test_id("timeline").locator("canvas").first).not_to_have_attribute("data-place", "0 0 1 1")
    page.get_by_label("Browse iterations").fill("1")
    editor.button("Return to this step").click()
    seek: Seek = engine.expect(Seek, run.room)
    tracked = {next(iter(seek.desired.drags)): (83.0, 130.0)}
    engine.tell(SeekCompleted(room=run.room, moment=2, tracked=tracked))
    editor.expect_place("handle", (83, 130))
    expect(editor.stage).not_to_contain_text("Reached the target")
    expect(editor.stage).to_contain_text("Point 1 has 23 px to go.")
    expect(page.get_by_test_id("point-1")).to_contain_text("23 px to go")


def test_what_can_help_is_said_where_the_content_did_not_follow(
    open_page: OpenPage, upload: Path, quiet: Quiet
) -> None:
    editor = choose(open_page(), upload)
    editor.place_and_drag()
    run = PlayedRun(quiet[1], editor.page)
    run.keep(80)
    run.arrive(80, left=30.0, color="gray", outcome="exhausted")
    expect(editor.stage).to_contain_text("Stopped at the limit.Press Drag to continue.")
    point = editor.page.get_by_test_id("point-1")
    expect(point).to_contain_text("30 px to go")
    expect(editor.button("Compare settings…").first).to_be_visible()
    # Once more, with another number of iterations.
    editor.button("Drag").click()
    again = PlayedRun(quiet[1], editor.page)
    expect(editor.stage).not_to_contain_text("Stopped at the limit")
    again.arrive(5)
    expect(editor.stage).to_contain_text("in 5 iterations")


def test_the_time_left_is_estimated_after_the_first_iterations(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    editor = choose(open_page(), upload)
    editor.place_and_drag()
    run = PlayedRun(quiet[1], editor.page)

    def tell(step: int, seconds_left: float) -> None:
        progress = Progress(
            run=run.start.run, stage="dragging", step=step, steps=40, seconds=1.0, seconds_left=seconds_left
        )
        quiet[1].tell(RunProgress(room=run.room, record=progress))

    tell(2, 30.0)
    expect(editor.stage).to_have_text("Draggingiteration 2/40")
    # However fast the first iterations were, that is not nearly done.
    tell(7, 0.4)
    expect(editor.stage).to_have_text("Draggingiteration 7/40")
    tell(20, 12.0)
    expect(editor.stage).to_contain_text("iteration 20/40 · 12 s left")
    tell(40, 0.2)
    expect(editor.stage).to_contain_text("iteration 40/40 · nearly done")
    run.arrive(40)
    editor.expect_outcome("^arrived$")


def test_other_settings_are_tried_side_by_side_and_the_better_result_is_kept(
    open_page: OpenPage, upload: Path, quiet: Quiet
) -> None:
    editor = choose(open_page(), upload)
    page, engine = editor.page, quiet[1]
    editor.click(HANDLE)
    editor.click(TARGET)
    expect(page.get_by_test_id("point-1")).to_be_visible()
    editor.button("Drag").click()
    first = PlayedRun(engine, page)
    first.keep(9)
    first.arrive(9, left=30.0, color="gray", outcome="exhausted")
    # Offered where the drag did not follow, and with the settings.
    page.get_by_test_id("points").locator("xpath=..").get_by_role("button", name="Compare settings…").click()
    dialog = page.get_by_role("dialog", name="Compare settings")
    expect(dialog.get_by_role("checkbox", checked=True)).to_have_count(2)
    expect(dialog.get_by_role("checkbox", name="Steps twice as large")).to_be_checked()
    dialog.get_by_role("checkbox", name="Preset: Official").uncheck()
    dialog.get_by_role("checkbox", name="Seed 1").check()
    dialog.get_by_role("button", name="Run 2 variants").click()

    larger = PlayedRun(engine, page)
    assert larger.start.desired.settings == {"latent_lr": 0.02}
    larger.moments = first.moments
    larger.keep(12, parent=1)
    larger.step(12, 0.9)
    # The comparison goes on while it is not looked at.
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    larger.arrive(12, left=1.0, color="green")
    seed = PlayedRun(engine, page)
    assert seed.start.desired.settings == {"seed": 1}
    editor.button("Show comparison").first.click()
    expect(dialog.locator("figure[data-state=running]")).to_contain_text("Seed 1")
    seed.moments = larger.moments
    seed.keep(80, parent=1)
    seed.arrive(80, left=25.0, color="red", outcome="exhausted")

    figures = dialog.locator("figure[data-state=done]")
    expect(figures).to_have_count(3)
    expect(figures.nth(0)).to_contain_text("Result so far")
    expect(figures.nth(0)).to_contain_text("30 px to go")
    expect(figures.nth(1)).to_contain_text("Reached the target in 12 iterations")
    editor.screenshot("trials")
    figures.nth(1).get_by_role("button", name="Keep this one").click()
    expect(dialog).to_have_count(0)
    expect(editor.stage).to_contain_text("in 12 iterations")
    page.get_by_text("Advanced").click()
    expect(page.get_by_role("spinbutton", name=re.compile("^Step size"))).to_have_value("0.02")
    expect(page.get_by_role("spinbutton", name=re.compile("^Seed"))).to_have_value("0")
    # Undo returns to the last of them.
    editor.button("Undo").click()
    expect(page.get_by_role("spinbutton", name=re.compile("^Seed"))).to_have_value("1")


def test_a_server_that_was_stopped_during_a_run_is_named(browser: Browser, upload: Path, tmp_path: Path) -> None:
    data, port = tmp_path / "data", find_free_port()
    with browser.new_context(viewport=WIDE) as context:
        context.set_default_timeout(SOON)
        page = context.new_page()
        with quiet_server(data, port=port) as (address, engine):
            page.goto(address)
            editor = choose(page, upload)
            editor.place_and_drag()
            PlayedRun(engine, page).step(3, 0.5)
            expect(editor.stage).to_contain_text("Dragging")
        expect(editor.stage).to_contain_text("The server was stopped")
        expect(editor.stage).to_contain_text("You can continue the run when it is back")
        with quiet_server(data, port=port):
            expect(editor.stage).to_contain_text("Interrupted")
            expect(editor.stage).to_contain_text("Press Drag to continue")


@pytest.mark.parametrize(
    "suffix", ["tiff", "webp", *(pytest.param(suffix, marks=pytest.mark.long) for suffix in ("bmp", "gif", "avif"))]
)
def test_pictures_of_every_readable_format_open(
    open_page: OpenPage, upload: Path, tmp_path: Path, quiet: Quiet, suffix: str
) -> None:
    path = tmp_path / f"bear.{suffix}"
    with Image.open(upload) as picture:
        picture.save(path)
    choose(open_page(), path)


def test_what_is_dropped_and_is_no_picture_is_named(open_page: OpenPage, quiet: Quiet, complaints: list[str]) -> None:
    page = open_page()
    expect(page.get_by_test_id("picture-file")).to_be_attached()
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
