"""Files that are dropped or pasted in a room, and exported rooms."""

from __future__ import annotations

import base64
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from livedrag.edit_metadata import EditMetadata, EditRun, EditState, PlacedDrag, SourcePicture
from livedrag.picture_metadata import save_png
from tests.e2e.editor import Editor, OpenPage, choose
from tests.e2e.played import room_of

pytestmark = pytest.mark.usefixtures("quiet")


def drop(page: Page, file: Path, kind: str, how: str = "drop", *, dismissing: bool = False) -> None:
    """Drop or paste a file on the page, as a browser would.

    ``dismissing``: close the open dialog first, in the same task; the browser tells the page in a later one.
    """
    page.evaluate(
        """([data, name, type, how, dismissing]) => {
            if (dismissing) document.querySelector("dialog[open]").close();
            const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
            const files = new DataTransfer();
            files.items.add(new File([bytes], name, { type }));
            const event = how === "paste"
                ? new ClipboardEvent("paste", { clipboardData: files, bubbles: true })
                : new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true });
            document.body.dispatchEvent(event);
        }""",
        [base64.b64encode(file.read_bytes()).decode(), file.name, kind, how, dismissing],
    )


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_is_not_opened_in_a_room_without_a_question(open_page: OpenPage, upload: Path, how: str) -> None:
    page = open_page()
    choose(page, upload)
    room = room_of(page)
    drop(page, upload, "image/png", how)
    dialog = page.get_by_role("dialog", name="Open “bear.png”?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert room_of(page) == room
    drop(page, upload, "image/png", how)
    page.get_by_role("button", name="Open as a new picture").click()
    page.wait_for_url(lambda url: room not in url)
    Editor(page)
    page.get_by_role("button", name="livedrag home").click()
    expect(page.get_by_test_id("my-pictures").get_by_role("listitem")).to_have_count(2)


def test_a_file_pasted_just_after_a_question_was_dismissed_is_asked_about(
    open_page: OpenPage, upload: Path, tmp_path: Path
) -> None:
    page = open_page()
    choose(page, upload)
    drop(page, upload, "image/png", "paste")
    expect(page.get_by_role("dialog", name="Open “bear.png”?")).to_be_visible()
    other = tmp_path / "other.png"
    shutil.copy(upload, other)
    drop(page, other, "image/png", "paste", dismissing=True)
    expect(page.get_by_role("dialog", name="Open “other.png”?")).to_be_visible()
    # Both of the browser's messages have arrived by now.
    page.evaluate("() => new Promise(done => setTimeout(() => requestAnimationFrame(done), 100))")
    expect(page.get_by_role("dialog", name="Open “other.png”?")).to_be_visible()


def test_a_picture_is_replaced_and_undo_brings_it_back(open_page: OpenPage, upload: Path, tmp_path: Path) -> None:
    page = open_page()
    editor = choose(page, upload)
    room = room_of(page)
    editor.pull((94, 150), (72, 110))
    editor.button("Paint").click()
    editor.pull((60, 60), (160, 160))
    editor.expect_sent()
    friend = Editor(open_page(page.url))
    other = tmp_path / "green.png"
    Image.new("RGB", (200, 300), "green").save(other)
    drop(page, other, "image/png", "paste")
    page.get_by_role("button", name="Replace this picture").click()
    for each in (editor, friend):
        # No point and no mask of the picture before, which had another size.
        expect(each.points).to_have_count(0)
        expect(each.page.get_by_text("Everything may change.")).to_be_visible()
    expect(page.get_by_test_id("zoom")).to_be_visible()
    assert room_of(page) == room
    page.reload()
    editor = Editor(page)
    expect(editor.points).to_have_count(0)
    # The server's history outlives the page; the button says what it would undo.
    expect(editor.button("Undo")).to_have_attribute("title", "Undo: replace picture (Ctrl+Z)")
    editor.button("Undo").click()
    for each in (editor, friend):
        each.expect_place("target", (72, 110))
        expect(each.page.get_by_text("Only the painted area may change.")).to_be_visible()
    editor.button("Redo").click()
    expect(friend.points).to_have_count(0)


def test_an_exported_room_opens_on_the_start_page(open_page: OpenPage, upload: Path, tmp_path: Path) -> None:
    page = open_page()
    editor = choose(page, upload)
    first = room_of(page)
    editor.pull((94, 150), (72, 110))
    editor.expect_sent()
    with page.expect_download() as downloading:
        editor.button("Download").click()
        page.get_by_role("button", name="Room (ZIP)").click()
    exported = tmp_path / "room.zip"
    downloading.value.save_as(exported)
    page.get_by_role("button", name="livedrag home").click()
    again = choose(page, exported)
    assert room_of(page) != first
    again.expect_place("target", (72, 110))
    expect(page.get_by_label("Name of the picture")).to_have_value("bear")

    drop(page, exported, "application/zip")
    expect(page.get_by_role("dialog", name="Open “room.zip”?")).to_contain_text("exported room")
    second = room_of(page)
    page.get_by_role("button", name="Restore the room").click()
    page.wait_for_url(lambda url: second not in url)
    Editor(page).expect_place("target", (72, 110))


def test_a_file_that_is_no_exported_room_is_refused(open_page: OpenPage, tmp_path: Path, complaints: list[str]) -> None:
    page = open_page()
    (tmp_path / "wrong.zip").write_bytes(b"PK\3\4 and no more")
    page.get_by_test_id("picture-file").set_input_files(tmp_path / "wrong.zip")
    expect(page.get_by_text("this is not an exported room")).to_be_visible()
    complaints[:] = [text for text in complaints if "422" not in text]


def test_a_result_restores_its_edit(open_page: OpenPage, upload: Path, tmp_path: Path, complaints: list[str]) -> None:
    """On its original if one has joined that room, else on itself; what it says may be wrong."""
    page = open_page()
    editor = choose(page, upload)
    room = room_of(page)
    picture = page.request.get(f"{page.url.split('/r/')[0]}/api/rooms/{room}/picture").body()
    state = EditState(0, {"0": PlacedDrag((94, 150), (72, 110))})
    source = SourcePicture("0" * 64, hashlib.sha256(picture).hexdigest(), 320, 256)
    said = EditMetadata("livedrag", source, (), "", {}, 0, "a bear", (EditRun((state,), 3),), room=room)
    results = {"all": said, "alone": replace(said, room=""), "lie": replace(said, preset="evil")}
    for name, metadata in results.items():
        with (tmp_path / f"{name}.png").open("wb") as file:
            save_png(Image.new("RGB", (320, 256), "coral"), file, metadata)
    for name, points, toast in (
        ("all", 1, "Restored the picture, points, mask, prompt and settings"),
        ("alone", 1, "they are placed on the result itself"),
        ("lie", 0, "evil"),
    ):
        page.get_by_role("button", name="livedrag home").click()
        expect(page.get_by_test_id("picture-file")).to_be_attached()
        drop(page, tmp_path / f"{name}.png", "image/png")
        page.wait_for_url("**/r/**")
        editor = Editor(page)
        expect(editor.points).to_have_count(points)
        page.wait_for_function("text => toldToasts.some(told => told.includes(text))", arg=toast)
    assert all("422" in complaint for complaint in complaints)
    complaints.clear()  # the console's note of the refusal
