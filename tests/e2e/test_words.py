"""A picture generated from a prompt: requested, previewed, cancelled, generated again, and dragged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from livedrag.server.device.messages import ReleaseSession
from tests.e2e.editor import A_RUN, PHONE, QUICK, Editor, OpenPage, take_picture
from tests.e2e.played import PlayedGeneration, ask_for
from tests.quiet import QuietEngine, png

Quiet = tuple[str, QuietEngine]


def test_a_picture_appears_is_generated_again_and_opened(open_page: OpenPage, quiet: Quiet) -> None:
    page, engine = open_page(), quiet[1]
    sheet = page.get_by_test_id("generation")
    ask_for(page, "a red apple")
    first = PlayedGeneration(engine)
    expect(page.get_by_label("Prompt")).to_be_focused()
    first.tell("queued", 2, 40.0)
    expect(sheet).to_contain_text("Waiting in the queue 2 pictures ahead · 40 s left")
    first.tell("generating", 10, 12.0)
    expect(sheet).to_contain_text("Generating 12 s left")
    expect(sheet.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "20")
    first.show("maroon")
    expect(sheet.get_by_role("img")).to_have_js_property("naturalWidth", 64)
    first.end(png(256, 256, "red"))
    # The first can be used while the others follow.
    expect(sheet.get_by_role("status")).to_have_text("Generated 1 of 4")
    expect(sheet.get_by_role("img")).to_have_js_property("naturalWidth", 256)
    expect(sheet.get_by_role("button", name="Edit this picture")).to_be_enabled()
    ids = {first.id}
    for color in ("green", "blue"):
        another = PlayedGeneration(engine)
        ids.add(another.id)
        another.end(png(256, 256, color))
    fourth = PlayedGeneration(engine)
    fourth.tell("generating", 20, 8.0)
    expect(sheet.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "40")
    # They are there to choose from, with their seeds; cancelling one leaves the others.
    candidates = page.get_by_test_id("candidates").get_by_role("button")
    expect(candidates).to_have_count(3)
    expect(candidates.nth(0)).to_have_attribute("aria-pressed", "true")
    take_picture(page, "candidates-following")
    page.get_by_role("button", name="Cancel").click()
    engine.expect(ReleaseSession, fourth.id)
    expect(sheet.get_by_role("status")).to_have_text("Generated")
    assert len(ids) == 3
    # The prompt can be edited for the next ones; these stay until those are requested.
    expect(page.get_by_label("Prompt")).to_be_editable()
    candidates.nth(1).click()
    expect(candidates.nth(1)).to_have_attribute("aria-pressed", "true")
    seed = re.search(r"seed (\d+)", candidates.nth(1).get_attribute("aria-label") or "")
    assert seed is not None
    expect(sheet).to_contain_text(f"“a red apple”, seed {seed[1]}")
    take_picture(page, "candidates")
    sheet.get_by_role("button", name="1 more").click()
    PlayedGeneration(engine).tell("generating", 5, None)
    # What is chosen is opened, and what was still to come is given up.
    expect(candidates.nth(1)).to_have_attribute("aria-pressed", "true")
    sheet.get_by_role("button", name="Edit this picture").click()
    page.wait_for_url(re.compile("/r/"))
    editor = Editor(page)
    expect(page.get_by_label("Prompt")).to_have_value("a red apple")
    editor.click((100, 100))
    editor.click((140, 100))
    expect(editor.points).to_have_count(1)


def test_it_is_cancelled_and_failures_are_said(open_page: OpenPage, quiet: Quiet) -> None:
    page, engine = open_page(viewport=PHONE, has_touch=True, is_mobile=True), quiet[1]
    ask_for(page, "a green frog")
    given_up = PlayedGeneration(engine)
    given_up.tell("generating", 5, None)
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "10")
    page.get_by_role("button", name="Cancel").tap()
    engine.expect(ReleaseSession, given_up.id)
    expect(page.get_by_test_id("generation")).to_have_count(0)
    expect(page.get_by_test_id("showcase")).to_be_visible()
    expect(page.get_by_label("Prompt")).to_have_value("a green frog")

    page.get_by_label("Prompt").press("Enter")
    PlayedGeneration(engine).end(None, "The device ran out of memory.")
    expect(page.get_by_test_id("generation").get_by_role("alert")).to_have_text("The device ran out of memory.")
    page.get_by_role("button", name="Try again").tap()
    PlayedGeneration(engine).end(png(256, 256, "green"))
    expect(page.get_by_role("button", name="Edit this picture")).to_be_visible()


def test_suggestions_fill_in_prompts_that_the_model_draws_well(open_page: OpenPage, samples: Path) -> None:
    page = open_page()
    expect(page.get_by_role("button", name="Pause animation")).to_be_visible()
    suggestions = page.get_by_role("group", name="Suggestions").get_by_role("button")
    expect(suggestions).to_have_count(6)
    drawn = {
        sample["prompt"] for sample in json.loads((samples.parent / "samples.json").read_text()) if "seed" in sample
    }
    for index in range(6):
        suggestions.nth(index).click()
        assert page.get_by_label("Prompt").input_value() in drawn


@pytest.mark.long
def test_a_picture_from_words_is_dragged(open_page: OpenPage) -> None:
    """With the built-in model, from the first word to the first preview of a drag."""
    page = open_page()
    ask_for(page, "a red apple")
    sheet = page.get_by_test_id("generation")
    expect(sheet.get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile("[1-9]"), timeout=A_RUN)
    expect(sheet).to_have_attribute("data-phase", "done", timeout=A_RUN)
    sheet.get_by_role("button", name="Edit this picture").click()
    page.wait_for_url(re.compile("/r/"))
    editor = Editor(page)
    editor.change_settings(QUICK)
    editor.place_and_drag((128, 128), (128, 20))
    editor.expect_preview()
    editor.stop()
    editor.expect_outcome("^(stopped|arrived|exhausted)$")
    expect(editor.canvas).to_have_attribute("data-showing", "result")
