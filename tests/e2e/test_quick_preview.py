"""The quick preview as it is drawn: no edges, nothing beside a long drag, and its words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import expect

from tests.e2e.editor import Editor, OpenPage, choose
from tests.e2e.test_area import look

pytestmark = pytest.mark.usefixtures("quiet")

HANDLE, TARGET = (62.0, 150.0), (22.0, 62.0)
COLOUR = (120, 150, 90)


def shown(editor: Editor, side: int = 256) -> NDArray[np.int16]:
    """What the canvas shows of a square picture, ``(h, w, 3)``; -1 at its outermost pixels, outside of it, and
    along the drag, where points are drawn."""
    picture = np.asarray(look(editor), dtype=np.int16)
    scale, left, top = (editor.number(name) for name in ("scale", "offset-x", "offset-y"))
    scale *= side / 256
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    across, down = (x - left) / scale - 0.5, (y - top) / scale - 0.5
    inside = (across > 2) & (across < 253) & (down > 2) & (down < 253)
    part = np.clip(
        ((across - HANDLE[0]) * (TARGET[0] - HANDLE[0]) + (down - HANDLE[1]) * (TARGET[1] - HANDLE[1]))
        / ((TARGET[0] - HANDLE[0]) ** 2 + (TARGET[1] - HANDLE[1]) ** 2),
        0,
        1,
    )
    beside = np.hypot(
        across - HANDLE[0] - part * (TARGET[0] - HANDLE[0]), down - HANDLE[1] - part * (TARGET[1] - HANDLE[1])
    )
    picture[~inside | (beside < 14)] = -1
    return picture


@pytest.mark.parametrize(("painted", "side"), [(False, 256), (True, 256), (False, 1024)])
def test_the_quick_preview_has_no_edges(open_page: OpenPage, tmp_path: Path, painted: bool, side: int) -> None:
    """On a picture of one colour it cannot be seen, at any zoom."""
    Image.new("RGB", (side, side), COLOUR).save(tmp_path / "plain.png")
    page = open_page()
    editor = choose(page, tmp_path / "plain.png")
    if painted:
        page.keyboard.press("r")
        editor.pull((8, 30), (150, 200))
        editor.expect_sent()
        editor.button("Hide").click()
        editor.button("Points").click()
    times = side / 256
    editor.pull((HANDLE[0] * times, HANDLE[1] * times), (TARGET[0] * times, TARGET[1] * times))
    expect(page.get_by_test_id("quick-preview")).to_contain_text("Quick preview. Press Drag to render.")
    page.mouse.move(2, 2)
    for zoom in ("Zoom to fit", "Zoom in", "Zoom out"):
        editor.button(zoom).click()
        page.mouse.move(2, 2)
        picture = shown(editor, side)
        pixels = picture[picture[..., 0] >= 0]
        assert len(pixels) > 50_000
        # It is partly transparent at its edge, where levels are rounded more than once.
        assert np.abs(pixels - COLOUR).max() <= 3


def test_a_long_drag_leaves_what_lies_beside_it(open_page: OpenPage, samples: Path) -> None:
    page = open_page()
    editor = choose(page, samples / "teddy-bear.png")
    page.mouse.move(2, 2)
    before = shown(editor)
    editor.pull(HANDLE, TARGET)
    expect(page.get_by_test_id("quick-preview")).to_be_visible()
    page.mouse.move(2, 2)
    editor.screenshot("long-drag")
    after = shown(editor)
    changed = np.abs(after - before).max(2) > 8
    scale, left, top = (editor.number(name) for name in ("scale", "offset-x", "offset-y"))

    def share(box: tuple[int, int, int, int]) -> float:
        (x0, x1), (y0, y1) = ((np.array(ends) + 0.5) * scale for ends in (box[::2], box[1::2]))
        return float(changed[int(y0 + top) : int(y1 + top), int(x0 + left) : int(x1 + left)].mean())

    assert share((20, 60, 60, 130)) > 0.1, "the arm moves"
    assert share((140, 40, 250, 250)) < 0.01, "the other half of the bear does not"
