"""Looking closer, comparing and typing, on a server whose runs are played by the test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, CDPSession, FloatRect, Locator, expect

from tests.e2e.editor import HANDLE, PHONE, SOON, TARGET, Editor, OpenPage, choose, open_sample
from tests.quiet import QuietEngine, quiet_server

pytestmark = pytest.mark.usefixtures("quiet")


def view_of(editor: Editor) -> tuple[float, float, float]:
    return editor.number("scale"), editor.number("offset-x"), editor.number("offset-y")


def expect_scale(editor: Editor, test: str) -> None:
    """Wait until the drawn scale passes a test, JavaScript over ``scale``."""
    editor.page.wait_for_function(
        f"() => {{ const {{ scale: text }} = document.querySelector('[data-testid=canvas]').dataset;"
        f" const scale = Number(text); return {test}; }}"
    )


def test_wheel_keys_and_buttons_zoom_and_the_hand_moves(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    fitting = view_of(editor)

    # What is under the pointer stays there.
    at = editor.on_screen(*HANDLE)
    page.mouse.move(*at)
    page.mouse.wheel(0, -240)
    expect_scale(editor, f"scale > {fitting[0] * 1.3}")
    assert editor.on_screen(*HANDLE) == pytest.approx(at, abs=1.0)

    page.keyboard.press("1")
    expect_scale(editor, "Math.abs(scale - 1) < 1e-6")
    expect(page.get_by_test_id("zoom")).to_have_text("100%")
    editor.button("Zoom in").click()
    expect_scale(editor, "Math.abs(scale - 1.25) < 1e-6")

    # Space and pull moves the view, whatever the tool, and puts no point down.
    before = view_of(editor)
    page.mouse.move(*editor.on_screen(100, 100))
    page.keyboard.down("Space")
    page.mouse.down()
    page.mouse.move(*[place + 40 for place in editor.on_screen(100, 100)], steps=4)
    page.mouse.up()
    page.keyboard.up("Space")
    page.wait_for_function(
        """([x, y]) => {
            const { offsetX, offsetY } = document.querySelector("[data-testid=canvas]").dataset;
            return Math.abs(offsetX - x) <= 1 && Math.abs(offsetY - y) <= 1;
        }""",
        arg=[before[1] + 40, before[2] + 40],
    )
    expect(editor.points).to_have_count(0)

    # Points land where one clicks, however the picture lies.
    editor.click(HANDLE)
    editor.click(TARGET)
    editor.expect_place("handle", HANDLE)
    editor.button("Zoom to fit").click()
    expect_scale(editor, f"Math.abs(scale - {fitting[0]}) < 1e-6")
    editor.expect_place("target", TARGET)


def test_two_fingers_zoom_and_put_nothing_down(open_page: OpenPage, upload: Path) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=3)
    editor = choose(page, upload)
    before = editor.number("scale")
    x, y = editor.on_screen(160, 128)
    hand: CDPSession = page.context.new_cdp_session(page)

    def touch(kind: str, *apart: float) -> None:
        points = (
            [{"x": x + side * apart[0], "y": y, "id": index} for index, side in enumerate((-1, 1))] if apart else []
        )
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 30)
    for apart in (40, 60, 75, 90):
        touch("touchMove", apart)
    touch("touchEnd")
    expect_scale(editor, f"scale > {before * 2}")
    expect(editor.points).to_have_count(0)
    # The canvas has as many pixels as the screen.
    drawn = editor.canvas.evaluate("canvas => canvas.width / canvas.clientWidth")
    assert drawn == pytest.approx(3, abs=0.02)
    editor.tap((160, 128))
    expect(page.get_by_test_id("hint")).to_have_text(re.compile("^Now tap"))
    editor.tap((180, 140))
    editor.expect_place("handle", (160, 128))


def test_on_a_phone_nothing_lies_over_the_picture(open_page: OpenPage) -> None:
    page = open_page(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    editor = open_sample(page, "teddy bear")
    badge = page.get_by_test_id("quick-preview")
    expect(badge.get_by_role("button", name="Keep quick preview")).to_be_visible()
    bottom = editor.on_screen(255, 255)[1]
    zoom = box_of(editor.button("Zoom in"))
    keep = box_of(badge)
    assert min(zoom["y"], keep["y"]) >= bottom
    assert zoom["x"] + zoom["width"] <= keep["x"]
    assert keep["x"] + keep["width"] <= PHONE["width"]
    # They are on the canvas's strip, not under what follows it.
    strip = box_of(page.locator(".stage"))
    assert keep["y"] + keep["height"] <= strip["y"] + strip["height"]


def test_a_small_laptop_has_room_for_everything(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 1280, "height": 720})
    open_sample(page, "teddy bear")
    # The model takes one row.
    name, change = box_of(page.get_by_test_id("model").locator("strong")), box_of(page.get_by_text("Change…"))
    assert change["y"] < name["y"] + name["height"] / 2 < change["y"] + change["height"]

    page.keyboard.press("b")
    expect(page.locator(".toolbar").get_by_text("Softness")).to_be_visible()

    page.get_by_role("button", name="Share").click()
    page.get_by_role("button", name="New edit link").click()
    expect(page.get_by_test_id("new-link")).to_be_visible()
    delete = page.get_by_role("button", name="Delete room…")
    # All of it, without scrolling.
    expect(delete).to_be_in_viewport(ratio=1)


def box_of(part: Locator) -> FloatRect:
    box = part.bounding_box()
    assert box is not None
    return box


def test_places_are_typed_duplicated_and_named(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    editor.click(HANDLE)
    editor.click(TARGET)
    page.get_by_label("Point 1, target, x in pixels").fill("50")
    page.get_by_label("Point 1, target, x in pixels").press("Enter")
    editor.expect_place("target", (50, 110))
    # Words that are given up are not sent.
    page.get_by_label("Point 1, target, y in pixels").fill("20")
    page.get_by_label("Point 1, target, y in pixels").press("Escape")
    expect(page.get_by_label("Point 1, target, y in pixels")).to_have_value("110")
    editor.canvas.focus()
    page.keyboard.press("d")
    expect(editor.points).to_have_count(2)
    copied = editor.place("handle", 2)
    assert copied != editor.place("handle", 1)


def test_what_is_typed_stays_whatever_the_others_do(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    editor.click(HANDLE)
    editor.click(TARGET)
    friend = Editor(open_page(page.url))
    friend.expect_place("target", TARGET)
    field, prompt = page.get_by_label("Point 1, target, x in pixels"), page.get_by_label("Prompt")
    field.fill("50")
    friend.page.get_by_label("Point 1, handle at").click()
    friend.page.get_by_label("Point 1, handle, x in pixels").fill("120")
    friend.page.get_by_label("Point 1, handle, x in pixels").press("Enter")
    editor.expect_place("handle", (120, 150))
    expect(field).to_have_value("50")
    field.press("Enter")
    friend.expect_place("target", (50, 110))
    prompt.fill("a bear")
    friend.page.get_by_label("Prompt").fill("somebody else's words")
    friend.page.get_by_label("Prompt").press("Enter")
    friend.expect_sent()
    prompt.press("End")
    prompt.press_sequentially(" in a wood")
    expect(prompt).to_have_value("a bear in a wood")
    prompt.press("Enter")
    expect(friend.page.get_by_label("Prompt")).to_have_value("a bear in a wood")


def test_original_and_result_side_by_side(open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine]) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    editor.place_and_drag()
    editor.stop()
    editor.expect_outcome("^stopped$")
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    result = editor.pixels()
    editor.button("Split view").click()
    bar = page.get_by_role("slider", name="Divider between original and result")
    # Left of what moves.
    expect(bar).to_have_attribute("aria-valuenow", re.compile("^1[45]$"))
    bar.press("End")
    expect(bar).to_have_attribute("aria-valuenow", "100")
    expect(editor.canvas).to_have_attribute("data-split", "1")
    original = editor.pixels()
    assert original != result
    # Pulled, it goes where the pointer goes.
    box, (x, _) = bar.bounding_box(), editor.on_screen(0, 0)
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(x, box["y"] + 60, steps=4)
    page.mouse.up()
    expect(bar).to_have_attribute("aria-valuenow", "0")
    page.keyboard.press("x")
    expect(bar).to_have_count(0)
    # Held down, the original alone.
    editor.canvas.focus()
    page.keyboard.down("c")
    expect(editor.canvas).to_have_attribute("data-showing", "original")
    page.keyboard.up("c")
    expect(editor.canvas).to_have_attribute("data-showing", "result")


def test_side_by_side_and_flicker(open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine]) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    expect(editor.button("Side by side")).to_be_disabled()
    editor.place_and_drag()
    editor.stop()
    editor.expect_outcome("^stopped$")
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    editor.canvas.focus()
    page.keyboard.press("s")
    shown = page.get_by_test_id("side-by-side").get_by_role("img")
    expect(shown).to_have_count(2)
    expect(shown.nth(0)).to_have_accessible_name("Original")
    expect(shown.nth(1)).to_have_accessible_name("Result")
    pixels = [canvas.evaluate("canvas => canvas.toDataURL()") for canvas in shown.all()]
    assert pixels[0] != pixels[1]
    left, right = (canvas.bounding_box() for canvas in shown.all())
    assert left is not None
    assert right is not None
    assert (left["y"], left["width"]) == (right["y"], right["width"])
    assert left["x"] + left["width"] <= right["x"]
    editor.screenshot("side-by-side")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("side-by-side")).to_have_count(0)
    # Original and result in turns, until the key is pressed again.
    page.keyboard.press("f")
    for showing in ("original", "result", "original", "result"):
        expect(editor.canvas).to_have_attribute("data-showing", showing)
    page.keyboard.press("f")
    expect(editor.button("Flicker")).to_have_attribute("aria-pressed", "false")
    expect(editor.canvas).to_have_attribute("data-showing", "result")


def test_a_setting_is_explained_changed_and_reset(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    page.get_by_role("radio", name=re.compile("^Paper")).check()
    page.get_by_text("Advanced").click()
    pace = page.get_by_role("spinbutton", name=re.compile("^Step size"))
    expect(pace).to_have_accessible_description(re.compile("per iteration"))
    pace.fill("0.02")
    pace.press("Enter")
    editor.expect_sent()
    page.reload()
    editor = Editor(page)
    expect(page.get_by_role("radio", name=re.compile("^Paper"))).to_be_checked()
    page.get_by_text("Advanced").click()
    expect(pace).to_have_value("0.02")
    editor.button("Reset Step size to its default").click()
    expect(pace).to_have_value("0.01")
    pace.fill("0.02")
    pace.press("Enter")
    editor.expect_sent()
    editor.button("Reset all").click()
    expect(pace).to_have_value("0.01")


def test_the_theme_is_chosen_and_remembered(open_page: OpenPage) -> None:
    page = open_page(color_scheme="light")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_test_id("more").click()
    page.get_by_role("radio", name="Dark").check()
    page.wait_for_function(f"light => {ground} !== light", arg=light)
    dark = page.evaluate(ground)
    page.reload()
    page.wait_for_function(f"dark => {ground} === dark", arg=dark)


def test_a_server_with_a_password_asks_for_it_once(browser: Browser, upload: Path, tmp_path: Path) -> None:
    with quiet_server(tmp_path / "guarded", password="sesame") as (address, _), browser.new_context() as context:
        context.set_default_timeout(SOON)
        page = context.new_page()
        page.goto(address)
        page.get_by_test_id("picture-file").set_input_files(upload)
        password = page.get_by_label("Password")
        password.fill("wrong")
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("alert")).not_to_have_text("")
        password.fill("sesame")
        page.get_by_role("button", name="Continue").click()
        page.wait_for_url(re.compile("/r/"))
        Editor(page)
        with browser.new_context() as elsewhere:
            elsewhere.set_default_timeout(SOON)
            friend = elsewhere.new_page()
            friend.goto(page.url)
            friend.get_by_label("Password").fill("sesame")
            friend.get_by_label("Password").press("Enter")
            Editor(friend)


def test_the_page_works_below_a_path(browser: Browser, tmp_path: Path) -> None:
    with quiet_server(tmp_path / "below", base_path="/drag") as (address, _), browser.new_context() as context:
        context.set_default_timeout(SOON)
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address.removesuffix('/drag')}/drag/")
        expect(page.get_by_test_id("showcase").locator("img")).to_have_js_property("naturalWidth", 448)
        editor = open_sample(page, "koala")
        assert "/drag/r/" in page.url
        expect(editor.points).to_have_count(1)
        page.reload()
        Editor(page)
        assert [url for url in asked if "/drag/" not in url and not url.startswith(("blob:", "data:"))] == []


OVERLAPS = """() => {
    const shown = [...document.querySelectorAll(".bar > *, .bar .quiet-button, .toolbar > *, .dock > *, .dock button")]
        .filter(element => element.checkVisibility() && element.getBoundingClientRect().width > 0);
    const wrong = [];
    for (const element of shown) {
        const { left, right, width } = element.getBoundingClientRect();
        if (left < -0.5 || right > innerWidth + 0.5) wrong.push(`${element.className} is cut off`);
        for (const other of shown) {
            if (other === element || element.contains(other) || other.contains(element)) continue;
            if (element.matches(".spring") || other.matches(".spring")) continue;
            const one = element.getBoundingClientRect(), two = other.getBoundingClientRect();
            const across = Math.min(one.right, two.right) - Math.max(one.left, two.left);
            const down = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
            if (across > 0.5 && down > 0.5) wrong.push(`${element.className} over ${other.className}`);
        }
    }
    for (const text of document.querySelectorAll(".stage-text > *")) {
        const cut = getComputedStyle(text).textOverflow === "ellipsis";
        if (!cut && text.scrollWidth > text.clientWidth) wrong.push(`${text.textContent} runs over its place`);
    }
    const rows = new Set([...document.querySelectorAll(".dock button")]
        .filter(button => button.checkVisibility() && !button.closest("[popover]"))
        .map(button => button.getBoundingClientRect())
        .map(({ top, bottom }) => Math.round((top + bottom) / 2)));
    if (rows.size > 1) wrong.push(`the dock has ${rows.size} rows`);
    if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page scrolls sideways");
    return wrong;
}"""


def test_nothing_overlaps_at_any_width(open_page: OpenPage, upload: Path) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    editor.pull(HANDLE, TARGET)
    wrong = {}
    for tool in ("Points", "Paint"):
        editor.button(tool).click()
        for width in (320, 360, 390, 600, 768, 880, 1024, 1280, 1440, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            wrong[tool, width] = page.evaluate(OVERLAPS)
    assert [f"{size}: {', '.join(found)}" for size, found in wrong.items() if found] == []
    # What has no button there is in a menu.
    page.set_viewport_size({"width": 360, "height": 740})
    page.get_by_label("Run").get_by_role("button", name="More").click()
    expect(page.get_by_role("button", name="Edit this further")).to_be_disabled()
    page.keyboard.press("Escape")


def test_a_phone_in_landscape_gives_the_picture_most_of_its_height(open_page: OpenPage, upload: Path) -> None:
    page = open_page(viewport={"width": 844, "height": 390}, has_touch=True, is_mobile=True)
    editor = choose(page, upload)
    for width in (568, 667, 740, 844, 932):
        page.set_viewport_size({"width": width, "height": 390})
        for tool in ("Points", "Paint"):
            editor.button(tool).tap()
            assert page.evaluate(OVERLAPS) == [], (width, tool)
            expect(page.get_by_test_id("connection")).to_be_in_viewport(ratio=1)
        if width >= 840:
            expect(page.locator(".brush-soft")).to_be_in_viewport(ratio=1)
        editor.button("Points").tap()
        assert box_of(page.locator(".stage"))["height"] > 200


def test_with_text_at_twice_its_size_everything_is_within_reach(open_page: OpenPage, upload: Path) -> None:
    page = open_page()
    session = page.context.new_cdp_session(page)
    session.send("Page.enable")
    session.send("Page.setFontSizes", {"fontSizes": {"standard": 32}})
    editor = choose(page, upload)
    editor.pull(HANDLE, TARGET)
    assert page.evaluate(OVERLAPS) == []
    zoom, badge = box_of(page.get_by_role("group", name="Zoom")), box_of(page.get_by_test_id("quick-preview"))
    assert zoom["x"] + zoom["width"] <= badge["x"]
    assert box_of(editor.button("Drag").locator("svg"))["height"] == 40
    assert box_of(page.locator(".stage"))["height"] > 300
    assert box_of(page.get_by_test_id("points"))["height"] > 30
    expect(page.get_by_test_id("points")).to_be_in_viewport(ratio=0.9)
    expect(editor.button("Drag")).to_be_in_viewport(ratio=1)


def test_escape_closes_a_menu_and_nothing_else(
    open_page: OpenPage, upload: Path, quiet: tuple[str, QuietEngine]
) -> None:
    """The focus is on the menu's button then, which is outside of the menu."""
    editor = choose(open_page(), upload)
    page = editor.page
    editor.pull(HANDLE, TARGET)
    editor.button("Drag").click()
    expect(editor.button("Stop")).to_be_visible()
    editor.button("Download").click()
    item = page.get_by_role("button", name="Room (ZIP)")
    expect(item).to_be_visible()
    page.keyboard.press("Escape")
    expect(item).to_be_hidden()
    # It has stopped nothing; pressed once more, it does.
    expect(editor.button("Stop")).to_be_enabled()
    assert not editor.stage.get_attribute("data-outcome")
    page.keyboard.press("Escape")
    editor.expect_outcome("^stopped$")
