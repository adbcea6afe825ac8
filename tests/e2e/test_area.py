"""The editable area beyond the brush, and pins."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Page, expect

from livedrag.server.device.messages import Start
from tests.e2e.editor import QUICK, Editor, OpenPage, choose
from tests.e2e.played import room_of
from tests.quiet import QuietEngine


def mask_of(page: Page) -> Image.Image:
    """The mask that the server has: white may change."""
    response = page.request.get(f"/api/rooms/{room_of(page)}/mask")
    assert response.ok
    return Image.open(io.BytesIO(response.body()))


def white(mask: Image.Image, *places: tuple[int, int]) -> list[bool]:
    return [mask.getpixel(place) == 255 for place in places]


def coloured(folder: Path) -> Path:
    """A red square on teal, with a teal square in it."""
    picture = Image.new("RGB", (320, 256), "teal")
    picture.paste((220, 60, 40), (100, 60, 220, 180))
    picture.paste("teal", (140, 100, 180, 140))
    picture.save(folder / "square.png")
    return folder / "square.png"


def test_rectangle_lasso_and_similar_colours(
    open_page: OpenPage, tmp_path: Path, quiet: tuple[str, QuietEngine]
) -> None:
    page = open_page()
    editor = choose(page, coloured(tmp_path))
    page.keyboard.press("r")
    expect(editor.button("Rectangle")).to_have_attribute("aria-pressed", "true")
    editor.pull((20, 30), (80, 90))
    editor.expect_sent()
    assert white(mask_of(page), (25, 35), (75, 85), (50, 60), (85, 60), (50, 25)) == [True, True, True, False, False]

    editor.button("Erase").click()
    page.keyboard.press("l")
    corners = [(40, 50), (60, 50), (60, 70), (40, 70)]
    page.mouse.move(*editor.on_screen(*corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*editor.on_screen(*corner), steps=8)
    page.mouse.up()
    editor.expect_sent()
    assert white(mask_of(page), (25, 35), (50, 60), (64, 60)) == [True, False, True]

    editor.button("Clear").click()
    editor.button("Paint").click()
    page.keyboard.press("w")
    expect(page.get_by_test_id("hint")).to_contain_text("similar colour")
    editor.click((110, 70))
    editor.expect_sent()
    editor.screenshot("area-select")
    assert white(mask_of(page), (102, 62), (217, 177), (160, 120), (90, 70)) == [True, True, False, False]
    # The ground has a hole, and in it an island that is not connected.
    editor.button("Clear").click()
    editor.click((10, 10))
    editor.expect_sent()
    assert white(mask_of(page), (5, 250), (95, 70), (110, 70), (160, 120)) == [True, True, False, False]
    page.keyboard.press("Control+z")
    editor.expect_sent()
    assert mask_of(page).getextrema() == (255, 255)


def test_expand_shrink_and_feather(open_page: OpenPage, tmp_path: Path, quiet: tuple[str, QuietEngine]) -> None:
    page = open_page()
    editor = choose(page, coloured(tmp_path))
    page.keyboard.press("r")
    editor.pull((100, 100), (160, 160))
    page.get_by_label("Pixels", exact=True).fill("20")
    page.get_by_label("Pixels", exact=True).press("Enter")
    editor.button("Expand").click()
    editor.expect_sent()
    assert white(mask_of(page), (130, 130), (84, 130), (130, 176), (74, 130)) == [True, True, True, False]
    for _ in range(2):
        editor.button("Shrink").click()
    editor.expect_sent()
    assert white(mask_of(page), (130, 130), (115, 130)) == [True, False]
    editor.button("Points").click()
    editor.pull((115, 130), (140, 140))
    expect(page.get_by_text("Point 1 is outside the editable area.").first).to_be_visible()
    editor.button("Expand").click()
    expect(page.get_by_text("Point 1 is outside the editable area.")).to_have_count(0)

    page.locator(".mask-feather input").fill("9")
    editor.expect_sent()
    editor.button("Drag").click()
    assert quiet[1].expect(Start, room_of(page)).desired.settings["feather"] == 9


def test_the_area_is_visible_on_any_colour(open_page: OpenPage, tmp_path: Path, quiet: tuple[str, QuietEngine]) -> None:
    """Over the accent's own colour too: the tint has two colours."""
    page = open_page()
    accent = page.evaluate(
        """() => {
            const probe = document.body.appendChild(document.createElement("i"));
            probe.style.color = "var(--accent)";
            const parts = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number);
            probe.remove();
            return parts;
        }"""
    )
    for colour in (tuple(round(level) for level in accent), (255, 255, 255), (0, 0, 0)):
        Image.new("RGB", (320, 256), colour).save(tmp_path / "plain.png")
        editor = choose(page, tmp_path / "plain.png")
        page.keyboard.press("r")
        editor.pull((60, 60), (200, 200))
        editor.expect_sent()
        page.mouse.move(2, 2)
        levels = page.evaluate(
            """([[x0, y0], [x1, y1]]) => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
                const canvas = document.querySelector('[data-testid="canvas"]');
                const { left, top } = canvas.getBoundingClientRect();
                const density = canvas.width / canvas.clientWidth;
                const copy = new OffscreenCanvas(canvas.width, canvas.height);
                copy.getContext("2d").drawImage(canvas, 0, 0);
                const { data } = copy.getContext("2d").getImageData(
                    (x0 - left) * density, (y0 - top) * density, (x1 - x0) * density, (y1 - y0) * density);
                const sums = [];
                for (let at = 0; at < data.length; at += 4) sums.push(data[at] + data[at + 1] + data[at + 2]);
                done([Math.min(...sums), Math.max(...sums)]);
            })))""",
            [editor.on_screen(100, 100), editor.on_screen(140, 140)],
        )
        plain = sum(colour)
        assert max(abs(level - plain) for level in levels) > 60, f"the tint cannot be seen on {colour}"
        page.get_by_role("button", name="livedrag home").click()


LOOK = """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
    const canvas = document.querySelector('[data-testid="canvas"]');
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    copy.getContext("2d").drawImage(canvas, 0, 0);
    copy.convertToBlob().then(async blob => done([...new Uint8Array(await blob.arrayBuffer())]));
})))"""
"""The canvas as a PNG, once it is drawn."""


def look(editor: Editor) -> Image.Image:
    return Image.open(io.BytesIO(bytes(editor.page.evaluate(LOOK)))).convert("RGB")


def changed(before: Image.Image, after: Image.Image, levels: int = 24) -> int:
    """How many pixels differ by more than some levels of 255."""
    difference = ImageChops.difference(before, after).convert("L").point(lambda level: 255 * (level > levels))
    return difference.histogram()[255]


def test_a_stroke_looks_while_it_is_painted_as_it_does_afterwards(
    open_page: OpenPage, tmp_path: Path, quiet: tuple[str, QuietEngine]
) -> None:
    """Only what each move adds is painted meanwhile."""
    page = open_page()
    Image.new("RGB", (320, 256), "white").save(tmp_path / "plain.png")
    editor = choose(page, tmp_path / "plain.png")
    for tool, path in (
        ("Paint", [(40, 60), (120, 60), (160, 140), (80, 200), (60, 90)]),
        ("Paint", [(200, 40), (280, 120)]),
        ("Erase", [(30, 130), (250, 130), (250, 60)]),
    ):
        unpainted = look(editor)
        editor.button(tool).click()
        page.mouse.move(*editor.on_screen(*path[0]))
        page.mouse.down()
        for place in path[1:]:
            page.mouse.move(*editor.on_screen(*place), steps=12)
            look(editor)
        during = look(editor)
        page.mouse.up()
        editor.expect_sent()
        after = look(editor)
        assert changed(unpainted, during) > 2000
        assert changed(during, after) < 30


def test_a_mask_of_another_size_is_scaled_after_a_question(
    open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine], complaints: list[str]
) -> None:
    page = open_page()
    choose(page, upload)
    expect(page.get_by_text("white may change and black stays")).to_be_visible()
    half = Image.new("L", (160, 128), 0)
    half.paste(255, (0, 0, 80, 128))
    half.save(upload.with_name("half.png"))
    page.get_by_test_id("mask-file").set_input_files(upload.with_name("half.png"))
    question = page.get_by_role("alertdialog", name="This mask isn’t the same size as the picture")
    expect(question).to_contain_text("160 x 128 pixels, the picture 320 x 256")
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    assert mask_of(page).getextrema() == (255, 255)
    page.get_by_test_id("mask-file").set_input_files(upload.with_name("half.png"))
    page.get_by_role("button", name="Scale to fit").click()
    expect(page.get_by_text("Mask loaded")).to_be_visible()
    mask = mask_of(page)
    assert mask.size == (320, 256)
    assert white(mask, (10, 10), (150, 250), (170, 10)) == [True, True, False]
    complaints[:] = [text for text in complaints if "422" not in text]


def test_pins_are_placed_moved_removed_and_reach_the_run(
    open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine]
) -> None:
    page = open_page()
    editor = choose(page, upload)
    page.keyboard.press("n")
    editor.click((200, 100))
    pins = page.get_by_test_id("pins").get_by_role("listitem")
    expect(pins).to_have_text(["Pin 1 at 200, 100"])
    editor.pull((200, 100), (220, 120))
    expect(pins).to_have_text(["Pin 1 at 220, 120"])
    editor.click((60, 200))
    expect(pins).to_have_count(2)
    page.keyboard.press("Delete")
    expect(pins).to_have_count(1)
    page.keyboard.press("Control+z")
    expect(pins).to_have_text(["Pin 1 at 220, 120", "Pin 2 at 60, 200"])
    editor.button("Points").click()
    editor.pull((94, 150), (72, 110))
    expect(page.get_by_test_id("points").get_by_role("listitem")).to_have_count(1)
    editor.expect_sent()
    editor.screenshot("pins")
    editor.button("Drag").click()
    desired = quiet[1].expect(Start, room_of(page)).desired
    assert [place for pin in desired.pins.values() for place in pin] == pytest.approx([220, 120, 60, 200], abs=1)
    assert len(desired.drags) == 1


@pytest.mark.long
def test_a_run_with_a_pin_ends_by_its_points_alone(open_page: OpenPage, upload: Path) -> None:
    page = open_page()
    editor = choose(page, upload)
    page.keyboard.press("n")
    editor.click((200, 100))
    editor.button("Points").click()
    editor.pull((94, 150), (84, 130))
    editor.change_settings({**QUICK, "Max iterations": "3"})
    editor.button("Drag").click()
    editor.expect_outcome("arrived|exhausted")
    expect(Editor(page).canvas).to_have_attribute("data-showing", "result")
