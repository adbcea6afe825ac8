"""Content that is warped on its way: how far, along which line, and what a latent becomes by it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, Point
from livedrag.editor.drag.handles import Handle, current_position, new_handle
from livedrag.editor.drag.latent_warp import LatentWarp, advance, find_origin, is_where_warped, needs_warp, warp_picture
from livedrag.editor.drag.warp import warp
from livedrag.editor.picture import to_tensor
from livedrag.editor.points import Cell, Rasters, Size, distance

SIZE = Size(150, 100)
RASTERS = Rasters(SIZE, Size(96, 64))
CELL = 150 / 48
"""Pixels."""
DRAG = Drag(Point(40, 60), Point(70, 20))


def warp_steps(share: float, drag: Drag = DRAG) -> list[Handle]:
    handles = [new_handle(drag, RASTERS)]
    while needs_warp(handles[-1], share):
        handles.append(advance({"a": handles[-1]}, share, RASTERS)["a"])
    return handles


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_content_goes_a_cell_an_iteration_and_no_further_than_its_share(share: float) -> None:
    places = [current_position(handle, RASTERS) for handle in warp_steps(share)]
    steps = [distance(one, other) for one, other in itertools.pairwise(places)]
    assert steps[:-1] == pytest.approx([CELL] * (len(steps) - 1))
    assert 0 < steps[-1] <= CELL + 1e-9
    assert sum(steps) == pytest.approx(share * 50)
    assert (places[-1].x, places[-1].y) == pytest.approx((40 + share * 30, 60 - share * 40))


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_it_is_known_that_the_warp_has_put_content_where_it_is(share: float) -> None:
    steps = warp_steps(share)
    assert [is_where_warped(handle, share, RASTERS) for handle in steps] == [False] * (len(steps) - 1) + [True]
    elsewhere = replace(steps[-1], cell=steps[-1].cell + Cell(0, 1))
    assert not is_where_warped(elsewhere, share, RASTERS)
    assert not is_where_warped(steps[-1], 0.0, RASTERS)


def test_without_a_share_nothing_is_warped() -> None:
    assert len(warp_steps(0.0)) == 1


def test_where_content_came_from_is_known() -> None:
    end = {"a": warp_steps(1.0)[-1]}
    assert find_origin(DRAG.handle, {"a": new_handle(DRAG, RASTERS)}, None, RASTERS) == DRAG.handle
    back = find_origin(DRAG.target, end, None, RASTERS)
    assert (back.x, back.y) == pytest.approx((DRAG.handle.x, DRAG.handle.y))
    assert find_origin(Point(140, 95), end, None, RASTERS) == Point(140, 95)


def test_a_region_smaller_than_a_pixel_of_the_working_picture_stays() -> None:
    working, _ = pictures()
    nothing = np.zeros((64, 96), dtype=bool)
    assert warp_picture(working, {"a": warp_steps(1.0)[-1]}, nothing, RASTERS) is working


def pictures() -> tuple[Image.Image, Image.Image]:
    """At the working size of 96 x 64, and as uploaded."""
    levels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(levels).resize((150, 100), Image.Resampling.BICUBIC)
    return picture.resize((96, 64), Image.Resampling.LANCZOS), picture


def prepared(model: Diffusion, **settings: float) -> DragSession:
    short = {"lora_steps": 2, "lora_batch": 1, "ddim_steps": 6, "warp_share": 1.0, **settings}
    session = DragSession(model, pictures()[1], settings=DragSettings.resolve(None, {}, short))
    for _ in session.prepare():
        pass
    return session


def warp_to_the_end(session: DragSession) -> None:
    """Until nothing is warped any more."""
    for _ in session.drag(preview_every=0):
        if not any(needs_warp(handle, session.settings.warp_share) for handle in session._state.edit.handles.values()):
            return


def test_what_the_latent_shows_is_warped_and_its_noise_stays(small: Diffusion) -> None:
    session = prepared(small)
    unedited = session.latent
    session.add_drag("a", DRAG)
    steps = []
    for step in session.drag(preview_every=4):
        steps.append(step)
        if step.distances["a"] < 1e-6:
            break
    rasters = session._state.rasters
    assert len(steps) == math.ceil(50 * rasters.columns / 150)
    assert [step.iteration for step in steps] == list(range(1, len(steps) + 1))
    assert [step.predicted_x0 is not None for step in steps[:6]] == [True, False, False, False, True, False]
    assert all(step.loss == 0 and not step.arrived for step in steps)

    working = LatentWarp(small, session.picture, rasters).working
    across, down = (one / other for one, other in zip(working.size, (150, 100), strict=True))
    ends = [Point((p.x + 0.5) * across - 0.5, (p.y + 0.5) * down - 0.5) for p in (DRAG.handle, DRAG.target)]
    shown = warp(working, [Drag(*ends)])
    clean, moved = (small.encode(to_tensor(picture, rasters.working)) for picture in (working, shown))
    expected = unedited + math.sqrt(session._state.preparation.level.alpha) * (moved - clean)
    torch.testing.assert_close(session.latent, expected, atol=1e-4, rtol=0)
    session.close()


def test_motion_supervision_takes_over(small: Diffusion) -> None:
    session = prepared(small, warp_share=0.5, max_iterations=30)
    session.add_drag("a", DRAG)
    losses = [step.loss for step in session.drag(preview_every=0)]
    first = next(index for index, loss in enumerate(losses) if loss > 0)
    assert first == math.ceil(25 * session._state.rasters.columns / 150)
    assert all(loss > 0 for loss in losses[first:-1])
    session.close()


def test_a_shorter_way_ends_sooner_and_another_target_is_followed(small: Diffusion) -> None:
    session = prepared(small)
    session.add_drag("long", DRAG)
    session.add_drag("short", Drag(Point(120, 80), Point(126, 80)))
    run = session.drag(preview_every=0)
    for _ in range(4):
        step = next(run)
    assert step.distances["short"] == pytest.approx(0, abs=1e-6)
    assert step.distances["long"] > 30
    session.set_target("long", Point(90, 80))
    warp_to_the_end(session)
    assert session._state.edit.handles["long"].warp.handle == DRAG.handle
    end = session._state.edit.handles["long"].warp.target
    assert (end.x, end.y) == pytest.approx((90, 80))
    session.close()


def test_a_handle_on_warped_content_knows_where_that_came_from(small: Diffusion) -> None:
    session = prepared(small)
    session.add_drag("a", DRAG)
    warp_to_the_end(session)
    session.add_drag("b", Drag(DRAG.target, Point(100, 20)))
    origin = session._state.edit.handles["b"].warp.handle
    assert (origin.x, origin.y) == pytest.approx((DRAG.handle.x, DRAG.handle.y))
    session.reset()
    assert session._state.edit.handles["a"].warp == Drag(DRAG.handle, DRAG.handle)
    session.close()


def test_it_goes_on_from_a_snapshot_bit_for_bit_and_from_a_moment_nearly(small: Diffusion) -> None:
    session = prepared(small, max_iterations=12)
    session.add_drag("a", DRAG)
    session.set_mask(np.pad(np.ones((90, 140)), 5))
    run = session.drag(preview_every=3)
    for _ in range(5):
        next(run)
    other = DragSession.restore(small, pictures()[1], session.snapshot())
    for _ in run:
        pass
    for _ in other.drag(preview_every=3):
        pass
    assert torch.equal(session.latent, other.latent)
    assert session.drags == other.drags

    other.seek(5)
    for _ in other.drag(preview_every=3, iterations_done=5):
        pass
    torch.testing.assert_close(session.latent, other.latent, atol=0.02, rtol=0)
    for one in (session, other):
        one.close()
