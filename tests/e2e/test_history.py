"""What can be undone besides edits, and what not any more; branches by their pictures; results dropped in a room."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from livedrag.edit_metadata import EditMetadata, EditRun, EditState, PlacedDrag, SourcePicture
from livedrag.picture_metadata import save_png
from livedrag.server.device.messages import Seek, SeekCompleted
from tests.e2e.editor import ELSEWHERE, HANDLE, TARGET, Editor, OpenPage, choose
from tests.e2e.played import PlayedRun, room_of
from tests.e2e.test_dropped import drop
from tests.e2e.test_together import Quiet, new_link, toast

pytestmark = pytest.mark.usefixtures("quiet")


def played(editor: Editor, quiet: Quiet) -> PlayedRun:
    """A run with three moments that ended at its target."""
    editor.button("Drag").click()
    run = PlayedRun(quiet[1], editor.page)
    for iteration in (0, 10, 20):
        run.keep(iteration)
        run.step(iteration, iteration / 20)
    run.arrive(20)
    editor.expect_outcome("^arrived$")
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    return run


def return_to_second(editor: Editor, run: PlayedRun, quiet: Quiet) -> None:
    """Return to the run's second moment, half of the way."""
    editor.page.get_by_label("Browse iterations").fill("1")
    editor.button("Return to this step").click()
    seek: Seek = quiet[1].expect(Seek, run.room)
    assert seek.moment == 2
    halfway = (HANDLE[0] + TARGET[0]) / 2, (HANDLE[1] + TARGET[1]) / 2
    quiet[1].tell(SeekCompleted(room=run.room, moment=2, tracked={next(iter(seek.desired.drags)): halfway}))
    editor.expect_place("handle", halfway)


def test_returning_to_a_step_is_undone_like_an_edit(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    editor = choose(open_page(), upload)
    editor.pull(HANDLE, TARGET)
    run = played(editor, quiet)
    result = editor.pixels()
    return_to_second(editor, run, quiet)
    expect(editor.stage).not_to_contain_text("Reached the target")
    expect(editor.button("Undo")).to_have_attribute("title", "Undo: jump to a step (Ctrl+Z)")
    editor.button("Undo").click()
    back: Seek = quiet[1].expect(Seek, run.room)
    assert back.moment == 3
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    editor.expect_place("handle", TARGET)
    expect(editor.stage).to_contain_text("Reached the target")
    assert editor.pixels() == result


@pytest.mark.parametrize("what", ["run", "jump"])
def test_a_run_is_not_undone_once_another_person_has_run_or_jumped(
    open_page: OpenPage, upload: Path, quiet: Quiet, what: str
) -> None:
    ada = choose(open_page(), upload)
    bo = Editor(open_page(new_link(ada.page, "edit")))
    ada.pull(HANDLE, TARGET)
    bo.expect_place("target", TARGET)
    run = played(ada, quiet)
    expect(bo.canvas).to_have_attribute("data-showing", "result")
    if what == "run":
        bo.button("Drag").click()
        again = PlayedRun(quiet[1], bo.page)
        again.moments = run.moments
        again.keep(25)
        again.arrive(5)
        expect(ada.stage).to_contain_text("in 5 iterations")
    else:
        return_to_second(bo, run, quiet)
        expect(ada.stage).not_to_contain_text("Reached the target")
    showing = ada.canvas.get_attribute("data-showing")
    ada.button("Undo").click()
    toast(ada.page, "others have changed the picture")
    expect(ada.canvas).to_have_attribute("data-showing", str(showing))


def test_what_everyone_did_is_one_history(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    bo = Editor(open_page(new_link(ada.page, "edit")))
    bo.page.get_by_label("What should others call you?").fill("Bo")
    bo.button("Save name").click()
    ada.pull(HANDLE, TARGET)
    bo.expect_place("target", TARGET)
    bo.pull(TARGET, ELSEWHERE)
    ada.expect_place("target", ELSEWHERE)
    played(bo, quiet)
    bo.button("Undo").click()
    expect(ada.canvas).to_have_attribute("data-showing", "original")
    for one, name in ((ada, "Bo"), (bo, "You")):
        one.page.get_by_text("History").click()
        history = one.page.get_by_test_id("activity").get_by_role("listitem")
        expect(history).to_contain_text(
            ["undid a change", "reached the target", f"{name} pressed Drag", f"{name} moved point 1", "added point 1"]
        )
        expect(history.nth(2)).to_have_class("is-undone")


def test_branches_show_pictures_of_their_own(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    editor = choose(open_page(), upload)
    editor.pull(HANDLE, TARGET)
    run = played(editor, quiet)
    return_to_second(editor, run, quiet)
    run.keep(40, parent=2)
    editor.page.get_by_test_id("open-branches").click()
    pictures = editor.page.get_by_test_id("branches").locator("canvas")
    expect(pictures).to_have_count(2)
    for picture in pictures.all():
        # Only what moves is shown, not the whole picture.
        expect(picture).not_to_have_attribute("data-place", "0 0 1 1")
        expect(picture).to_have_js_property("width", 88)
    editor.page.wait_for_function(
        """() => {
            const [one, other] = document.querySelectorAll("[data-testid=branches] canvas");
            return one.toDataURL() !== other.toDataURL();
        }"""
    )


def test_a_result_dropped_in_a_room_may_be_restored_as_a_new_one(
    open_page: OpenPage, upload: Path, tmp_path: Path
) -> None:
    page = open_page()
    choose(page, upload)
    room = room_of(page)
    said = EditMetadata(
        "livedrag",
        SourcePicture("0" * 64, "1" * 64, 320, 256),
        (),
        "",
        {},
        0,
        "a bear",
        (EditRun((EditState(0, {"0": PlacedDrag(HANDLE, TARGET)}),), 3),),
        room="",
    )
    with (tmp_path / "result.png").open("wb") as file:
        save_png(Image.new("RGB", (320, 256), "coral"), file, said)
    drop(page, tmp_path / "result.png", "image/png")
    question = page.get_by_role("dialog", name="Open “result.png”?")
    expect(question).to_be_visible()
    assert room_of(page) == room
    question.get_by_role("button", name="Open as a new picture").click()
    page.wait_for_url(lambda url: room not in url)
    editor = Editor(page)
    editor.expect_place("target", TARGET)
    expect(page.get_by_label("Prompt")).to_have_value("a bear")
    page.wait_for_function("() => toldToasts.some(told => told.startsWith('Restored'))")
