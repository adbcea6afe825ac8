"""Pins hold the features of their places; without pins nothing changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from livedrag.editor import Diffusion, DragSession, Point, PointError
from livedrag.editor.drag.handles import new_handle
from livedrag.editor.drag.latent_warp import find_origin, warp_picture
from livedrag.editor.drag.pins import pin_cells, pin_loss
from livedrag.editor.points import Rasters, Size, distance
from livedrag.editor.sampling import patch_offsets
from tests.editor.drag.test_session import DRAG, finish, make_session, picture

PIN = Point(70, 50)
"""On the way of `DRAG`."""
RASTERS = Rasters.fit(Size(128, 128), 128, 64)


def test_it_costs_what_has_changed_around_the_pins_and_nothing_else() -> None:
    unedited = torch.randn(1, 4, 8, 8)
    cells = pin_cells([PIN], RASTERS, unedited)
    features = unedited.clone().requires_grad_()
    loss = pin_loss(features, unedited, cells, patch_offsets(1, cells), RASTERS.cells)
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, features)
    assert not gradient.any()
    changed = (unedited + 0.5).requires_grad_()
    loss = pin_loss(changed, unedited, cells, patch_offsets(1, cells), RASTERS.cells)
    assert loss.item() == pytest.approx(9 * 0.5, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, changed)
    assert gradient[0, 0].count_nonzero() < 20


def test_cells_beyond_the_border_do_not_count() -> None:
    unedited = torch.zeros(1, 4, 8, 8)
    cells = pin_cells([Point(0, 0)], RASTERS, unedited)
    assert pin_loss(unedited + 1, unedited, cells, patch_offsets(1, cells), RASTERS.cells).item() == pytest.approx(4)


def change_at_pin(session: DragSession) -> float:
    """How much the features at `PIN` differ from the unedited ones."""
    state = session._state
    preparation = state.preparation
    with torch.no_grad(), preparation.lora.active():
        features = state.model.predict_features(session.latent, state.level.timestep, preparation.prompt)
    cells = pin_cells([PIN], state.rasters, features)
    return pin_loss(features, state.reference.features(), cells, patch_offsets(1, cells), state.rasters.cells).item()


def dragged(model: Diffusion, pins: list[Point], **overrides: Any) -> DragSession:
    session = make_session(model, **overrides)
    finish(session.prepare())
    session.set_pins(pins)
    finish(session.drag())
    return session


def test_a_pin_keeps_the_features_at_its_place(tiny: Diffusion) -> None:
    free, pinned = dragged(tiny, [], max_iterations=12), dragged(tiny, [PIN], max_iterations=12)
    assert change_at_pin(pinned) < 0.8 * change_at_pin(free)
    free.close()
    pinned.close()


def level(picture: Image.Image, at: tuple[int, int]) -> int:
    value = picture.convert("L").getpixel(at)
    assert isinstance(value, int)
    return value


def test_a_pin_holds_the_warp_too() -> None:
    moved = replace(new_handle(DRAG, RASTERS), warp=DRAG)
    levels = np.tile(np.arange(128, dtype=np.uint8)[None, :, None], (128, 1, 3))  # each column has its own level
    ramp = Image.fromarray(levels)
    at = (int(PIN.x), int(PIN.y))
    free, pinned = (warp_picture(ramp, {"a": moved}, None, RASTERS, pins) for pins in ([], [PIN]))
    assert abs(level(free, at) - at[0]) > 10
    assert level(pinned, at) == at[0]
    assert pinned.getpixel((90, 60)) == free.getpixel((90, 60))  # the target gets its content all the same
    assert distance(find_origin(PIN, {"a": moved}, None, RASTERS, [PIN]), PIN) < 1e-6
    assert distance(find_origin(PIN, {"a": moved}, None, RASTERS), PIN) > 10


def test_without_pins_every_bit_is_as_if_there_were_none(tiny: Diffusion) -> None:
    never, removed = make_session(tiny), make_session(tiny)
    removed.set_pins([PIN])
    removed.set_pins([])
    for session in (never, removed):
        finish(session.prepare())
        finish(session.drag())
    assert torch.equal(never.latent, removed.latent)
    never.close()
    removed.close()


def test_pins_are_in_snapshots(tiny: Diffusion) -> None:
    session = make_session(tiny, max_iterations=8)
    finish(session.prepare())
    session.set_pins([PIN, Point(5, 6)])
    list(islice(session.drag(), 3))
    again = DragSession.restore(tiny, picture(), session.snapshot())
    for one in (session, again):
        list(islice(one.drag(), 3))
    assert torch.equal(session.latent, again.latent)
    session.close()
    again.close()


def test_pins_count_for_nothing_but_themselves(tiny: Diffusion) -> None:
    session = make_session(tiny)
    session.set_pins([PIN])
    assert session.drags == {"a": DRAG}
    with pytest.raises(PointError, match="pin"):
        session.set_pins([Point(128, 3)])
    session.close()
