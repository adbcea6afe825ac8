"""Several people in one room, each in a browser of their own, on a server whose runs are played by the test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from livedrag.server.device.messages import (
    PreparationProgress,
    Prepare,
    ReleaseSession,
    ResetSession,
    Seek,
    SeekCompleted,
    WorkerRestarted,
    WorkerRestarting,
)
from tests.e2e.editor import ELSEWHERE, HANDLE, PHONE, TARGET, Editor, OpenPage, choose
from tests.e2e.played import PlayedRun, room_of
from tests.quiet import QuietEngine

pytestmark = pytest.mark.usefixtures("quiet")

Quiet = tuple[str, QuietEngine]


def new_link(page: Page, to: str) -> str:
    """The owner makes a link ``to`` "edit" or to "view", and gives it away."""
    page.get_by_role("button", name="Share", exact=True).click()
    page.get_by_role("button", name=f"New {to} link").click()
    link = page.get_by_test_id("new-link")
    expect(link).to_have_value(re.compile("#."))
    expect(page.get_by_test_id("qr")).to_be_visible()
    address = link.input_value()
    page.get_by_role("button", name="Close").click()
    return address


def toast(page: Page, text: str) -> None:
    """Wait until a toast has said ``text``, whether it is still there or not."""
    page.wait_for_function("text => window.toldToasts.some(told => told.includes(text))", arg=text)


def test_two_edit_stop_and_aim_each_others_run(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    bo = Editor(open_page(new_link(ada.page, "edit")))
    toast(ada.page, "joined")
    expect(ada.page.get_by_test_id("avatars")).to_be_visible()

    ada.click(HANDLE)
    ada.click(TARGET)
    bo.expect_place("target", TARGET)
    ada.button("Drag").click()
    expect(bo.button("Stop")).to_be_visible()
    run = PlayedRun(quiet[1], ada.page)
    run.step(3, 0.2)
    for one in (ada, bo):
        expect(one.canvas).to_have_attribute("data-showing", "preview")
        one.expect_place("handle", (89.6, 142.0))

    bo.pull(TARGET, ELSEWHERE)
    ada.expect_place("target", ELSEWHERE)
    for iteration in range(4, 9):
        run.step(iteration, iteration / 10)
        # Where a page is slow, only the latest of what waits is told it: it has to have come before the next goes out.
        for one in (ada, bo):
            expect(one.canvas).to_have_attribute("data-iteration", str(iteration))
    expect(ada.page.get_by_test_id("chart")).to_be_visible()
    expect(bo.page.get_by_test_id("chart")).to_be_visible()
    bo.stop()
    for one in (ada, bo):
        one.expect_outcome("^stopped$")
        expect(one.canvas).to_have_attribute("data-showing", "result")
    ada.page.get_by_text("History").click()
    expect(ada.page.get_by_test_id("activity")).to_contain_text("pressed Stop")


def test_undo_takes_back_ones_own(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    bo = Editor(open_page(new_link(ada.page, "edit")))
    expect(ada.button("Undo")).to_be_disabled()
    ada.click(HANDLE)
    ada.click(TARGET)
    expect(bo.points).to_have_count(1)
    bo.click((200, 100))
    bo.click((230, 120))
    expect(ada.points).to_have_count(2)

    # Ada's undo is about Ada's point, though Bo's came later.
    ada.button("Undo").click()
    expect(ada.points).to_have_count(1)
    expect(bo.points).to_have_count(1)
    bo.expect_place("handle", (200, 100))
    ada.button("Redo").click()
    expect(bo.points).to_have_count(2)
    bo.page.keyboard.press("Control+z")
    expect(ada.points).to_have_count(1)
    ada.expect_place("handle", HANDLE)


def test_a_viewer_sees_everything_and_has_no_tools(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    ada.click(HANDLE)
    ada.click(TARGET)
    viewer = Editor(open_page(new_link(ada.page, "view"), viewport=PHONE, has_touch=True, is_mobile=True))
    page = viewer.page
    expect(page.get_by_test_id("view-only")).to_have_text("View only")
    expect(page.get_by_role("group", name="Tools")).to_have_count(0)
    for name in ("Drag", "Undo", "Redo", "Reset", "Load mask…", "Remove point 1"):
        expect(viewer.button(name)).to_have_count(0)
    page.touchscreen.tap(*viewer.on_screen(200, 100))
    page.touchscreen.tap(*viewer.on_screen(230, 120))
    ada.button("Drag").click()
    run = PlayedRun(quiet[1], ada.page)
    run.step(3, 0.3)
    expect(viewer.canvas).to_have_attribute("data-showing", "preview")
    expect(viewer.points).to_have_count(1)
    viewer.screenshot("viewer-phone")

    # Roles change under people's hands.
    ada.page.get_by_role("button", name="Share", exact=True).click()
    ada.page.get_by_test_id("people").get_by_role("combobox").select_option("editor")
    toast(page, "You can edit now")
    expect(viewer.button("Stop")).to_be_visible()
    expect(page.get_by_test_id("view-only")).to_have_count(0)


def test_a_revoked_link_puts_people_out(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    link = new_link(ada.page, "edit")
    bo = Editor(open_page(link))
    expect(ada.page.get_by_test_id("avatars")).to_be_visible()
    ada.page.get_by_role("button", name="Share", exact=True).click()
    revoke = ada.page.get_by_role("button", name="Revoke link: Can edit")
    expect(revoke).to_have_count(1)
    revoke.click()
    question = ada.page.get_by_role("alertdialog")
    expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    # Esc closes the question alone, and leads back.
    ada.page.keyboard.press("Escape")
    expect(question).to_have_count(0)
    expect(revoke).to_be_focused()
    revoke.click()
    question.get_by_role("button", name="Revoke", exact=True).click()
    expect(bo.page.get_by_role("heading", name="Can't open this picture")).to_be_visible()
    expect(revoke).to_have_count(0)


def test_the_others_are_seen_pointing(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    bo = Editor(open_page(new_link(ada.page, "edit")))
    bo.page.get_by_role("button", name="Share", exact=True).click()
    bo.page.get_by_role("textbox", name="Your name").fill("Bo")
    bo.page.get_by_role("textbox", name="Your name").press("Enter")
    bo.page.get_by_role("button", name="Close").click()
    expect(ada.page.get_by_test_id("avatars")).to_have_attribute("aria-label", re.compile("Bo"))
    ada.page.get_by_role("button", name="Share", exact=True).click()
    expect(ada.page.get_by_test_id("people").locator(".avatar")).to_have_count(2)
    discs = ada.page.get_by_test_id("people").locator(".avatar").all_text_contents()
    assert len(set(discs)) == 2, discs
    ada.page.get_by_role("button", name="Close").click()
    pointers = ada.page.locator(".canvas-pointers")
    before = pointers.evaluate("canvas => canvas.toDataURL()")
    bo.page.mouse.move(*bo.on_screen(200, 100))
    bo.page.mouse.move(*bo.on_screen(210, 110), steps=3)
    ada.page.wait_for_function(
        "() => document.querySelector('[data-testid=canvas]').dataset.pointing === '1'",
    )
    ada.screenshot("pointing")
    assert pointers.evaluate("canvas => canvas.toDataURL()") != before


def test_one_goes_offline_works_on_and_comes_back(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    ada.click(HANDLE)
    ada.click(TARGET)
    bo = Editor(open_page(new_link(ada.page, "edit")))
    page = bo.page
    page.context.set_offline(True)
    banner = page.get_by_test_id("connection-banner")
    expect(banner).to_be_visible()
    bo.click((200, 100))
    bo.click((230, 120))
    expect(bo.page.get_by_test_id("point-2")).to_have_attribute("data-waiting", "true")
    expect(banner).to_contain_text("1 change waiting")
    bo.screenshot("offline")
    ada.pull(TARGET, ELSEWHERE)
    page.context.set_offline(False)
    expect(banner).to_have_count(0)
    expect(bo.page.get_by_test_id("point-2")).to_have_attribute("data-waiting", "false")
    bo.expect_place("target", ELSEWHERE)
    expect(ada.points).to_have_count(2)
    toast(page, "Reconnected")


def test_the_timeline_is_looked_through_and_gone_on_from(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    bo = Editor(open_page(new_link(ada.page, "edit")))
    page = ada.page
    ada.place_and_drag()
    run = PlayedRun(quiet[1], page)
    for iteration in range(6):
        run.keep(iteration * 5)
        run.step(iteration * 5, iteration / 6)
    ada.stop()
    ada.expect_outcome("^stopped$")
    timeline = page.get_by_test_id("timeline")
    expect(timeline).to_have_attribute("data-moments", "6")

    # Looking is for oneself alone.
    page.get_by_label("Browse iterations").fill("2")
    expect(ada.canvas).to_have_attribute("data-showing", "moment")
    expect(page.get_by_test_id("showing")).to_have_text("Iteration 10")
    expect(bo.canvas).to_have_attribute("data-showing", "result")
    ada.screenshot("timeline")
    ada.button("Return to this step").click()
    seek: Seek = quiet[1].expect(Seek, run.room)
    assert seek.moment == 3
    point = next(iter(seek.desired.drags))
    quiet[1].tell(SeekCompleted(room=run.room, moment=3, tracked={point: (88.0, 140.0)}))
    for one in (ada, bo):
        one.expect_place("handle", (88, 140))
        expect(one.canvas).to_have_attribute("data-showing", "moment")

    # Another branch leaves from there; the first is still to be found.
    branch = run.keep(11, parent=3)
    assert branch == 7
    size = page.get_by_test_id("timeline").bounding_box()
    page.get_by_test_id("open-branches").click()
    ways = page.get_by_test_id("branches").get_by_role("button", name=re.compile("Return to its end"))
    expect(ways).to_have_count(2)
    expect(ways.nth(0)).to_have_accessible_name(re.compile("Branch 1: from the start to iteration 25"))
    expect(ways.nth(1)).to_have_accessible_name(
        re.compile("Branch 2: from iteration 10 to iteration 11.*Current branch")
    )
    ada.screenshot("branches")
    # Named by one, named for all; left out of the list, and back by undo.
    page.get_by_label("Name of Branch 1").fill("chin up")
    page.get_by_label("Name of Branch 1").press("Enter")
    bo.page.get_by_test_id("open-branches").click()
    expect(bo.page.get_by_role("button", name=re.compile("chin up: from the start"))).to_be_visible()
    page.get_by_role("button", name="Remove chin up from the list").click()
    expect(bo.page.get_by_test_id("open-branches")).to_have_count(0)
    expect(ada.button("Undo")).to_have_attribute("title", "Undo: change a branch (Ctrl+Z)")
    ada.button("Undo").click()
    expect(page.get_by_test_id("open-branches")).to_be_visible()
    assert page.get_by_test_id("timeline").bounding_box() == size
    page.get_by_label("Browse iterations").fill("0")
    expect(page.get_by_test_id("showing")).to_have_text("Iteration 0")
    ada.button("Play").click()
    expect(page.get_by_test_id("showing")).to_have_text("Iteration 11")
    expect(ada.button("Play")).to_be_visible()
    page.get_by_test_id("open-branches").click()
    ways.nth(0).click()
    back: Seek = quiet[1].expect(Seek, run.room)
    assert back.moment == 6


def test_what_the_engine_does_is_said(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    page, engine = ada.page, quiet[1]
    room = room_of(page)
    ada.click(HANDLE)
    ada.click(TARGET)
    engine.tell(PreparationProgress(room=room, stage="loading", step=0, steps=1))
    expect(ada.stage).to_contain_text("Loading the model")
    engine.tell(PreparationProgress(room=room, stage="fitting", step=20, steps=80, seconds_left=12.0))
    expect(ada.stage).to_contain_text("Learning your picture 20/80")
    engine.tell(PreparationProgress(room=room, stage="inverting", step=3, steps=22))
    expect(ada.stage).to_contain_text("Analysing your picture 3/22")
    engine.tell(PreparationProgress(room=room, stage="ready", step=1, steps=1))
    expect(ada.stage).not_to_contain_text("Learning")
    engine.tell(WorkerRestarting(message="The device has stopped answering.", rooms=(room,)))
    toast(page, "The device has stopped answering.")
    expect(ada.stage).to_contain_text("The engine is restarting")
    engine.tell(WorkerRestarted(rooms=(room,)))
    toast(page, "The engine is running again")
    expect(ada.stage).to_contain_text("Press Drag")


def test_undo_brings_back_what_runs_and_resets_have_changed(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    page, engine = ada.page, quiet[1]
    bo = Editor(open_page(new_link(page, "edit")))
    unedited = ada.pixels()
    ada.place_and_drag()
    run = PlayedRun(engine, page)
    for iteration in range(3):
        run.keep(iteration)
        run.step(iteration, iteration / 3)
    run.arrive(3)
    for one in (ada, bo):
        one.expect_outcome("^arrived$")
        expect(one.canvas).to_have_attribute("data-showing", "result")
    expect(ada.stage).to_contain_text("Reached the target")
    result = ada.pixels()
    assert result != unedited

    # The run is undone like an edit, for everyone, and the point stays.
    expect(ada.button("Undo")).to_have_attribute("title", "Undo: run (Ctrl+Z)")
    ada.canvas.focus()
    page.keyboard.press("Control+z")
    engine.expect(ResetSession, run.room)
    for one in (ada, bo):
        expect(one.canvas).to_have_attribute("data-showing", "original")
        one.expect_place("handle", HANDLE)
        expect(one.points).to_have_count(1)
    ada.button("Redo").click()
    seek: Seek = engine.expect(Seek, run.room)
    assert seek.moment == 3
    for one in (ada, bo):
        expect(one.canvas).to_have_attribute("data-showing", "result")
        one.expect_place("handle", TARGET)
    assert ada.pixels() == result

    # So is a reset.
    ada.button("Reset").click()
    expect(ada.canvas).to_have_attribute("data-showing", "original")
    page.keyboard.press("Control+z")
    expect(ada.canvas).to_have_attribute("data-showing", "result")
    expect(ada.stage).to_contain_text("Reached the target")

    # Once Bo has changed something, it is not Ada's to undo any more; what she did before is.
    bo.click((200, 100))
    bo.click((230, 120))
    expect(ada.points).to_have_count(2)
    ada.button("Undo").click()
    toast(page, "others have changed the picture")
    expect(ada.canvas).to_have_attribute("data-showing", "result")


def test_a_result_is_edited_further_and_that_is_undone(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    page, engine = ada.page, quiet[1]
    expect(ada.button("Edit this further")).to_be_disabled()
    ada.place_and_drag()
    run = PlayedRun(engine, page)
    run.keep(0)
    run.keep(3)
    run.arrive(3)
    ada.expect_outcome("^arrived$")
    expect(ada.canvas).to_have_attribute("data-showing", "result")
    result = ada.pixels()
    ada.button("Edit this further").click()
    expect(ada.points).to_have_count(0)
    expect(ada.canvas).to_have_attribute("data-showing", "original")
    expect(page.get_by_test_id("timeline")).to_have_count(0)
    assert ada.pixels() == result
    engine.expect(ReleaseSession, run.room)
    prepare: Prepare = engine.expect(Prepare, run.room)
    assert prepare.picture.sha256 != run.start.picture.sha256
    page.reload()
    ada = Editor(page)
    expect(ada.points).to_have_count(0)
    ada.button("Undo").click()
    seek: Seek = engine.expect(Seek, run.room)
    assert (seek.moment, seek.picture) == (2, run.start.picture.sha256)
    expect(ada.points).to_have_count(1)
    ada.expect_place("handle", TARGET)
    expect(ada.canvas).to_have_attribute("data-showing", "result")
    expect(ada.stage).to_contain_text("Reached the target")
