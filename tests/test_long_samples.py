"""The gallery's suggestions, each made by the built-in model with its own settings and judged by other means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, Point
from livedrag.editor.generate import generate
from livedrag.editor.picture import to_tensor
from livedrag.editor.points import Size, distance
from livedrag.editor.training.trials import distance_left

ROOT = Path(__file__).resolve().parent.parent
LISTED: list[dict[str, Any]] = json.loads((ROOT / "static/samples.json").read_text())

DRAWN = [sample for sample in LISTED if "seed" in sample]

pytestmark = pytest.mark.long


@pytest.mark.parametrize("sample", DRAWN, ids=[sample["name"] for sample in DRAWN])
def test_the_model_draws_what_is_kept(sample: dict[str, Any], model: Diffusion, samples: Path) -> None:
    *_, last = generate(model, sample["prompt"], seed=sample["seed"], guidance=sample["guidance"])
    with Image.open(samples / f"{sample['name']}.png") as kept:
        off = model.decode(last.latent).float() - to_tensor(kept, Size(*kept.size))
    assert off.square().mean() < 0.01  # another machine's rounding, and the file's compression


@pytest.mark.parametrize("sample", LISTED, ids=[sample["name"] for sample in LISTED])
def test_what_is_suggested_works(sample: dict[str, Any], model: Diffusion, samples: Path) -> None:
    with Image.open(samples / f"{sample['name']}.png") as opened:
        picture = opened.convert("RGB")
    with Image.open(samples / f"{sample['name']}-mask.png") as opened:
        mask = np.asarray(opened)
    drags = [Drag(Point(*drag["handle"]), Point(*drag["target"])) for drag in sample["drags"]]
    session = DragSession(model, picture, prompt=sample["prompt"])
    session.set_mask(mask)
    for number, drag in enumerate(drags):
        session.add_drag(str(number), drag)
    for _ in session.prepare():
        pass
    for _ in session.drag(preview_every=0):
        pass
    for _ in session.render(preview_every=0):
        pass
    before, after = (to_tensor(one, Size(*picture.size))[0] for one in (picture, session.result()))
    for drag in drags:
        assert distance_left(before, before, drag, mask > 0) == pytest.approx(distance(drag.handle, drag.target), abs=1)
        assert distance_left(before, after, drag, mask > 0) <= distance(drag.handle, drag.target) / 2
    session.close()
