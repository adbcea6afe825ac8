"""Being in a room with others: names, whose move and whose run it is, views that are followed, links that change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.editor import HANDLE, TARGET, Editor, OpenPage, choose
from tests.e2e.played import PlayedRun
from tests.e2e.test_together import Quiet, new_link, toast

pytestmark = pytest.mark.usefixtures("quiet")


def test_joining_asks_for_a_name_once(open_page: OpenPage, upload: Path) -> None:
    ada = choose(open_page(), upload)
    link = new_link(ada.page, "edit")
    bo = Editor(open_page(link)).page
    field = bo.get_by_label("What should others call you?")
    expect(field).to_have_value("Guest 2")
    expect(ada.page.get_by_label("What should others call you?")).to_have_count(0)
    field.fill("Bo")
    field.press("Enter")
    expect(field).to_have_count(0)
    expect(ada.page.get_by_role("button", name="Follow Bo")).to_be_visible()
    bo.reload()
    Editor(bo)
    expect(bo.get_by_test_id("avatars")).to_be_visible()
    expect(field).to_have_count(0)

    carl = Editor(open_page(link)).page
    expect(carl.get_by_label("What should others call you?")).to_have_value("Guest 3")
    carl.get_by_role("button", name="Skip").click()
    carl.reload()
    Editor(carl)
    expect(carl.get_by_test_id("avatars")).to_be_visible()
    expect(carl.get_by_label("What should others call you?")).to_have_count(0)


def test_whose_move_replaced_mine_and_who_pressed_drag(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    bo = Editor(open_page(new_link(ada.page, "edit")))
    bo.page.get_by_label("What should others call you?").fill("Bo")
    bo.button("Save name").click()
    ada.pull(HANDLE, TARGET)
    bo.expect_place("target", TARGET)
    bo.pull(TARGET, (60, 130))
    ada.expect_place("target", (60, 130))
    toast(ada.page, "Bo moved point 1, which you had placed.")
    assert not bo.page.evaluate("toldToasts.some(told => told.includes('moved point'))")

    bo.button("Drag").click()
    run = PlayedRun(quiet[1], ada.page)
    expect(ada.page.get_by_test_id("run-by")).to_have_text(re.compile("Bo pressed Drag"))
    run.step(3, 0.2)
    expect(ada.canvas).to_have_attribute("data-showing", "preview")
    expect(ada.page.get_by_test_id("showing")).to_have_text(re.compile("Live preview.*Bo pressed Drag"))
    expect(bo.page.get_by_test_id("run-by")).to_have_count(0)
    run.arrive(5)
    ada.expect_outcome("arrived")
    expect(ada.page.get_by_test_id("run-by")).to_have_count(0)


def expect_scale(editor: Editor, scale: float) -> None:
    editor.page.wait_for_function(
        "scale => Math.abs(Number(document.querySelector('[data-testid=canvas]').dataset.scale) / scale - 1) < 0.05",
        arg=scale,
    )


def test_following_what_another_person_sees(open_page: OpenPage, upload: Path) -> None:
    ada = choose(open_page(), upload)
    bo = Editor(open_page(new_link(ada.page, "view")))
    bo.button("Skip").click()
    for _ in range(3):
        ada.button("Zoom in").click()
    bo.page.get_by_role("button", name=re.compile("^Follow ")).click()
    expect(bo.page.get_by_test_id("following")).to_be_visible()
    expect_scale(bo, ada.number("scale"))
    ada.button("Zoom in").click()
    expect_scale(bo, ada.number("scale"))
    bo.button("Zoom out").click()
    expect(bo.page.get_by_test_id("following")).to_have_count(0)
    ada.button("Zoom to fit").click()
    expect(bo.canvas).not_to_have_attribute("data-scale", str(ada.number("scale")))
    bo.page.get_by_role("button", name=re.compile("^Follow ")).click()
    bo.button("Stop following").click()
    expect(bo.page.get_by_test_id("following")).to_have_count(0)


def test_revoking_the_last_owner_link_makes_a_new_one(open_page: OpenPage, upload: Path) -> None:
    ada = choose(open_page(), upload)
    page = ada.page
    before = page.url
    page.get_by_role("button", name="Share", exact=True).click()
    page.get_by_role("button", name="Revoke link: Owner").click()
    page.get_by_role("button", name="Revoke", exact=True).click()
    link = page.get_by_test_id("new-link")
    expect(link).to_have_value(re.compile("#."))
    expect(page.get_by_test_id("links").get_by_role("listitem")).to_have_count(1)
    expect(page).not_to_have_url(before)
    assert page.url == link.input_value()
    again = Editor(open_page(page.url)).page
    again.get_by_role("button", name="Share", exact=True).click()
    expect(again.get_by_role("button", name="New edit link")).to_be_visible()
    page.reload()
    Editor(page)
    page.get_by_role("button", name="livedrag home").click()
    expect(page.get_by_test_id("my-pictures").get_by_role("link").first).to_have_attribute(
        "href", re.compile(re.escape(again.url.split("#")[1]))
    )


def test_removing_a_person_asks_first_and_tells_them(open_page: OpenPage, upload: Path) -> None:
    ada = choose(open_page(), upload)
    page = ada.page
    bo = Editor(open_page(new_link(page, "edit")))
    bo.page.get_by_label("What should others call you?").fill("Bo")
    bo.button("Save name").click()
    page.get_by_role("button", name="Share", exact=True).click()
    remove = page.get_by_role("button", name="Remove Bo from the room")
    remove.click()
    question = page.get_by_role("alertdialog")
    expect(question).to_contain_text("Remove Bo from the room? Their link no longer lets them in.")
    page.keyboard.press("Escape")
    expect(question).to_have_count(0)
    expect(remove).to_be_focused()
    expect(page.get_by_role("dialog", name="Share")).to_be_visible()
    # Links say when they were last used.
    expect(page.get_by_test_id("links").get_by_role("listitem").last).to_contain_text("last used")
    remove.click()
    question.get_by_role("button", name="Remove", exact=True).click()
    expect(bo.page.get_by_text("the owner removed you from this room: ask them for access").first).to_be_visible()
    expect(remove).to_have_count(0)
