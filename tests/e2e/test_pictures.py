"""My pictures: the rooms that a browser knows, on the start page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from livedrag.server.device.messages import Start
from tests.e2e.editor import QUICK, Editor, OpenPage, choose, take_picture
from tests.e2e.played import room_of
from tests.quiet import QuietEngine


def start_page(page: Page) -> None:
    page.get_by_role("button", name="livedrag home").click()
    expect(page.get_by_test_id("my-pictures")).to_be_visible()


def manage(page: Page, name: str) -> None:
    page.get_by_role("button", name=f"Rename, duplicate or delete {name}").click()


def test_every_room_is_remembered_named_and_found(
    open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine]
) -> None:
    page = open_page()
    for number in range(1, 11):
        picture = upload.with_name(f"holiday {number}.png")
        picture.write_bytes(upload.read_bytes())
        choose(page, picture)
        expect(page.get_by_label("Name of the picture")).to_have_value(f"holiday {number}")
        start_page(page)
    shown = page.get_by_test_id("my-pictures").get_by_role("listitem")
    expect(shown).to_have_count(10)
    take_picture(page, "my-pictures")
    page.get_by_label("Search by name").fill("day 1")
    expect(shown).to_have_text(["holiday 10", "holiday 1"])
    shown.nth(1).get_by_role("link").click()
    Editor(page)
    expect(page).to_have_title("holiday 1 · livedrag")
    page.get_by_label("Name of the picture").fill("The beach")
    page.get_by_label("Name of the picture").press("Enter")
    start_page(page)
    expect(shown.first).to_have_text("The beach")
    page.reload()
    expect(shown).to_have_count(10)
    expect(shown.first.locator("img")).to_have_attribute("src", re.compile("^data:image"))

    manage(page, "The beach")
    page.get_by_label("Name", exact=True).fill("A better beach")
    page.get_by_label("Name", exact=True).press("Enter")
    expect(page.get_by_role("heading", name="A better beach")).to_be_visible()
    take_picture(page, "my-pictures-manage")
    page.get_by_role("button", name="Remove from list…").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Remove from list…")).to_be_focused()
    page.get_by_role("button", name="Delete…", exact=True).click()
    page.get_by_role("button", name="Delete for everyone").click()
    expect(shown).to_have_count(9)
    manage(page, "holiday 2")
    page.get_by_role("button", name="Remove from list…").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(shown).to_have_count(8)


def test_a_duplicate_has_points_and_result_and_is_another_room(
    open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine]
) -> None:
    page = open_page()
    editor = choose(page, upload)
    first = room_of(page)
    editor.pull((94, 150), (72, 110))
    editor.expect_sent()
    start_page(page)
    manage(page, "bear")
    page.get_by_role("button", name="Duplicate", exact=True).click()
    expect(page.get_by_text("Created “bear (copy)”")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("link", name="bear (copy)").click()
    copy = Editor(page)
    assert room_of(page) != first
    copy.expect_place("target", (72, 110))
    copy.button("Drag").click()
    (drag,) = quiet[1].expect(Start, room_of(page)).desired.drags.values()
    assert drag.handle == pytest.approx((94, 150), abs=1)


@pytest.mark.long
def test_a_duplicate_of_a_prepared_room_is_not_prepared_again(open_page: OpenPage, upload: Path) -> None:
    page = open_page()
    editor = choose(page, upload)
    editor.pull((94, 150), (84, 130))
    editor.change_settings({**QUICK, "Max iterations": "2"})
    editor.button("Drag").click()
    editor.expect_outcome("arrived|exhausted")
    start_page(page)
    manage(page, "bear")
    page.get_by_role("button", name="Duplicate", exact=True).click()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("link", name="bear (copy)").click()
    copy = Editor(page)
    expect(copy.canvas).to_have_attribute("data-showing", "result")
    page.evaluate(
        """() => {
            const status = document.querySelector('[data-testid="stage"]');
            window.statuses = [];
            new MutationObserver(() => statuses.push(status.textContent))
                .observe(status, { childList: true, subtree: true, characterData: true });
        }"""
    )
    copy.button("Drag").click()
    page.wait_for_function("() => statuses.some(text => /Dragging|Rendering/.test(text))")
    copy.expect_outcome("arrived|exhausted")
    statuses = page.evaluate("statuses")
    assert not [text for text in statuses if re.search("Learning|Analysing", text)]
