"""The README's pictures, the landing's animation and the icons, recorded from the page itself.

``LIVEDRAG_SCREENSHOT=1 python -m pytest tests/e2e/test_show.py`` renews them; ``LIVEDRAG_SHOW=name`` names another
sample than the teddy bear.
"""

from __future__ import annotations

import io
import os

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.conftest import ROOT
from tests.e2e.editor import A_RUN, Editor, OpenPage, open_sample

STATIC = ROOT / "static"
PUBLIC = ROOT / "frontend" / "public"
ICONS = {
    # Name, side in pixels, and the share of it that the drawing takes; a maskable icon is cropped to some shape.
    "icon-192": (192, 1.0),
    "icon-512": (512, 1.0),
    "icon-maskable-512": (512, 0.8),
    "apple-touch-icon": (180, 0.9),
}
ANIMATIONS = ROOT / "frontend" / "src" / "animations"
SHOWN = os.environ.get("LIVEDRAG_SHOW", "teddy-bear")
SIDE = 448
"""Of the animation, in pixels."""
MAX_FRAMES = 48

pytestmark = pytest.mark.skipif(
    "LIVEDRAG_SCREENSHOT" not in os.environ, reason="LIVEDRAG_SCREENSHOT=1 renews the pictures of README and landing"
)


def picture_of(page: Page, editor: Editor) -> Image.Image:
    """What the canvas shows of the picture, points included, and nothing around it."""
    # What was announced has been laid out and drawn by the frame after next.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    left, top = editor.on_screen(-0.5, -0.5)
    side = 256 * editor.number("scale")
    shot = page.screenshot(clip={"x": left, "y": top, "width": side, "height": side})
    with Image.open(io.BytesIO(shot)) as picture:
        return picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def test_renew_the_icons(browser: Browser) -> None:
    drawing = (PUBLIC / "icon.svg").read_text()
    for name, (side, share) in ICONS.items():
        with browser.new_page(viewport={"width": side, "height": side}) as page:
            background = "transparent" if share == 1 else "#5850d6"
            page.set_content(
                f"<body style='margin: 0; height: 100vh; display: grid; place-items: center; background: {background}'>"
                f"<div style='width: {side * share}px; line-height: 0'>{drawing}</div>"
            )
            page.screenshot(path=PUBLIC / f"{name}.png", omit_background=True)


def test_renew_the_show(open_page: OpenPage) -> None:
    page = open_page(color_scheme="light")
    editor = open_sample(page, SHOWN.replace("-", ".*"))
    page.keyboard.press("Escape")
    editor.button("Hide").click()
    page.mouse.move(5, 5)
    page.keyboard.down("c")
    frames = [picture_of(page, editor)]
    page.keyboard.up("c")
    editor.button("Drag").click()
    editor.expect_preview()
    shown = -1.0
    while editor.canvas.get_attribute("data-showing") == "preview":
        page.wait_for_function(
            "shown => { const { frame, showing } = document.querySelector('[data-testid=canvas]').dataset;"
            " return Number(frame) > shown || showing !== 'preview'; }",
            arg=shown,
            timeout=A_RUN,
        )
        shown = editor.number("frame")
        frames.append(picture_of(page, editor))
        if len(frames) == 6:
            page.screenshot(path=STATIC / "screenshot.png")
    editor.expect_outcome("^(arrived|exhausted)$")
    frames.append(picture_of(page, editor))
    page.screenshot(path=STATIC / "screenshot-result.png")
    step = max(1, len(frames) // MAX_FRAMES)
    kept = [frames[0], *frames[1:-1:step], frames[-1]]
    durations = [900, *[max(60, 2400 // len(kept))] * (len(kept) - 2), 1800]
    ANIMATIONS.mkdir(exist_ok=True)
    first, *rest = kept
    first.save(
        ANIMATIONS / f"{SHOWN}.webp",
        save_all=True,
        append_images=rest,
        duration=durations,
        loop=0,
        quality=72,
        method=6,
    )
