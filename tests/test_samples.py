"""The sample pictures: what is listed is composed, and every suggested drag makes sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

LISTED: list[dict[str, Any]] = json.loads((Path(__file__).resolve().parent.parent / "static/samples.json").read_text())
NAMES = [sample["name"] for sample in LISTED]


def test_there_are_enough_with_different_names() -> None:
    assert len(set(NAMES)) == len(NAMES)
    drawn = [sample["name"] for sample in LISTED if "seed" in sample]
    assert len(drawn) >= 8, "of the built-in model's own"
    kept = (Path(__file__).resolve().parent.parent / "static/drawn").iterdir()
    assert {path.stem for path in kept} == set(drawn)


@pytest.mark.parametrize("sample", LISTED, ids=NAMES)
class TestSample:
    def test_picture_and_mask_lie_where_the_list_says(self, sample: dict[str, Any], samples: Path) -> None:
        assert sample["picture"] == f"/samples/{sample['name']}.png"
        assert sample["mask"] == f"/samples/{sample['name']}-mask.png"
        with Image.open(samples / f"{sample['name']}.png") as picture:
            assert (picture.mode, picture.size) == ("RGB", (256, 256))
        with Image.open(samples / f"{sample['name']}-mask.png") as mask:
            assert (mask.mode, mask.size) == ("L", (256, 256))

    def test_the_mask_is_the_box(self, sample: dict[str, Any], samples: Path) -> None:
        with Image.open(samples / f"{sample['name']}-mask.png") as opened:
            mask = np.asarray(opened)
        left, top, right, bottom = sample["box"]
        assert (mask[top:bottom, left:right] == 255).all()
        assert np.count_nonzero(mask) == (right - left) * (bottom - top)

    def test_every_drag_starts_on_the_thing_and_stays_in_the_mask(self, sample: dict[str, Any], samples: Path) -> None:
        with Image.open(samples / f"{sample['name']}.png") as opened:
            picture = np.asarray(opened).astype(int)
        left, top, right, bottom = sample["box"]
        assert sample["drags"]
        for drag in sample["drags"]:
            for x, y in (drag["handle"], drag["target"]):
                assert left <= x < right
                assert top <= y < bottom
            assert drag["handle"] != drag["target"]
            x, y = drag["handle"]
            assert np.abs(picture[y, x] - picture[0, 0]).max() > 2, "the handle lies on the background"

    def test_it_has_words_for_people(self, sample: dict[str, Any]) -> None:
        assert sample["title"]
        assert sample["prompt"]
        assert ("MIT" if "code_point" in sample else "built-in model") in sample["credit"]
