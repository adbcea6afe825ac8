from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, Point
from livedrag.editor.drag import detail
from livedrag.editor.drag.detail import agreement, carry_detail, displace, estimate_displacement
from livedrag.editor.drag.warp import WarpField, warp
from livedrag.editor.picture import compose, soften, to_picture, to_tensor
from livedrag.editor.points import Rasters, Size

SIDE, SCALE = 128, 4
FULL = SIDE * SCALE
DRAG = Drag(Point(200, 240), Point(260, 270))
SMALL = Size(SIDE, SIDE)
RASTERS = Rasters(Size(FULL, FULL), SMALL)


def textured(width: int, height: int, seed: int = 0) -> Image.Image:
    """Detail of every size: some that the working picture can hold, and some that it cannot."""
    rng = np.random.default_rng(seed)
    layers = np.full((height, width, 3), 128.0)
    for size, strength in ((2, 14), (4, 14), (16, 26), (64, 32)):
        noise = rng.normal(128, strength, (height // size + 1, width // size + 1, 3)).clip(0, 255).astype(np.uint8)
        scaled = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        layers += np.asarray(scaled).astype(float) - 128
    return Image.fromarray(layers.clip(0, 255).astype(np.uint8))


def soft(picture: Image.Image, size: Size = SMALL) -> Tensor:
    """The working picture as a model that loses some sharpness gives it back."""
    tensor = to_tensor(picture, size)
    return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(tensor, (1,) * 4, mode="replicate"), 3, 1)


def square_mask(*, inside: int = 0) -> NDArray[np.bool_]:
    """Without so many pixels at its edge, where the uploaded picture blends in."""
    mask = np.zeros((FULL, FULL), dtype=bool)
    mask[100 + inside : 420 - inside, 80 + inside : 440 - inside] = True
    return mask


def decibels(picture: Image.Image, truth: Image.Image, where: NDArray[np.bool_]) -> float:
    off = (np.asarray(picture).astype(float) - np.asarray(truth))[where] / 255
    return -10 * math.log10((off**2).mean() + 1e-12)


def sharpness(picture: Image.Image, where: NDArray[np.bool_]) -> float:
    """Mean squared difference of neighbours."""
    grey = np.asarray(picture.convert("L")).astype(float)
    energy = np.diff(grey, axis=0)[:, :-1] ** 2 + np.diff(grey, axis=1)[:-1] ** 2
    return float(energy[where[:-1, :-1]].mean())


def changed(one: Image.Image, other: Image.Image) -> NDArray[np.bool_]:
    different: NDArray[np.bool_] = (np.asarray(one) != np.asarray(other)).any(-1)
    return different


@pytest.mark.parametrize(
    "assumed",
    [[DRAG], [Drag(DRAG.handle, Point(245, 275))], []],
    ids=["the drag is known", "it went elsewhere", "it is unknown"],
)
def test_content_that_only_moved_stays_as_sharp_as_uploaded(assumed: list[Drag]) -> None:
    uploaded, mask = textured(FULL, FULL), square_mask()
    truth = warp(uploaded, [DRAG], mask)
    moved = changed(uploaded, truth)
    unedited, edited = soft(uploaded), soft(truth)
    plain = compose(uploaded, edited, unedited, mask, RASTERS)
    carried = carry_detail(uploaded, edited, unedited, mask, RASTERS, [assumed])
    assert decibels(carried, truth, moved) > decibels(plain, truth, moved) + 4
    moved &= square_mask(inside=40)
    assert sharpness(plain, moved) < 0.3 * sharpness(truth, moved)
    assert sharpness(carried, moved) > 0.7 * sharpness(truth, moved)
    assert np.array_equal(np.asarray(carried)[~mask], np.asarray(uploaded)[~mask])


def test_the_displacement_of_a_known_warp_is_found() -> None:
    picture, drag = textured(SIDE, SIDE, seed=3), Drag(Point(50, 60), Point(60, 66))
    truth = warp(picture, [drag])
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    wanted = torch.from_numpy(np.stack(WarpField([drag], None, Size(SIDE, SIDE)).at(x, y))).float()
    before, after = (to_tensor(each, Size(SIDE, SIDE)) for each in (picture, truth))
    lossless = torch.zeros(1, 1, SIDE, SIDE)
    found = estimate_displacement(before, after, torch.zeros(1, 2, SIDE, SIDE))[0]
    off = (found - wanted).norm(dim=0)[wanted.norm(dim=0) > 1]
    assert off.median() < 0.25
    assert agreement(before, after, found[None], lossless).median() > 0.9
    unmoved = agreement(before, after, torch.zeros_like(found)[None], lossless)[0, 0]
    assert unmoved[wanted.norm(dim=0) > 5].median() < 0.1


def test_of_several_moves_the_one_that_explains_the_edit_counts() -> None:
    uploaded, mask = textured(FULL, FULL), square_mask()
    unedited, edited = soft(uploaded), soft(warp(uploaded, [DRAG], mask))
    elsewhere = [Drag(DRAG.handle, Point(200, 180))]
    results = [
        carry_detail(uploaded, edited, unedited, mask, RASTERS, moves).tobytes()
        for moves in ([[DRAG]], [[DRAG], elsewhere], [elsewhere, [DRAG]])
    ]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_is_warped_to_its_target_is_there_whatever_the_tracker_says(
    tiny: Diffusion, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    settings = {"lora_steps": 0, "ddim_steps": 4, "max_iterations": 20, "warp_share": share}
    session = DragSession(tiny, textured(64, 64), settings=DragSettings.resolve(None, {}, settings))
    session.add_drag("a", Drag(Point(30, 30), Point(42, 34)))
    for steps in (session.prepare(), session.drag(0), session.render(0)):
        for _ in steps:
            pass
    given: list[list[Drag]] = []

    def note(picture: Image.Image, *arguments: Any, **_: float) -> Image.Image:
        given.extend(arguments[-1])
        return picture

    monkeypatch.setattr("livedrag.editor.drag.result.carry_detail", note)
    session.result()
    edit = session._state.edit
    assert given == ([edit.aimed] if share else [edit.moved, edit.aimed])
    session.close()


def test_what_the_model_lost_of_content_that_moved_is_still_there() -> None:
    """A thin line, of which the edited picture shows nothing where all around it moved as the drag says."""
    picture = np.array(textured(FULL, FULL))
    picture[200:280, 204:212] = 255
    uploaded, mask = Image.fromarray(picture), square_mask()
    without = warp(textured(FULL, FULL), [DRAG], mask)
    truth = warp(uploaded, [DRAG], mask)
    line = np.abs(np.asarray(truth).astype(int) - np.asarray(without)).max(-1) > 80
    unedited, edited = soft(uploaded), soft(without)
    result = carry_detail(uploaded, edited, unedited, mask, RASTERS, [[DRAG]])
    assert line.sum() > 300
    assert decibels(result, truth, line) > 30
    painted = carry_detail(uploaded, edited, unedited, mask, RASTERS, [])  # no drag says that it moved
    assert decibels(painted, truth, line) < 15


def test_what_only_moved_is_not_seen_twice_at_the_edge_of_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blending moved with unmoved content there would show both: where all is carried, nothing is blended."""
    monkeypatch.setattr(detail, "agreement", lambda *_: torch.ones(1, 1, SIDE, SIDE))
    uploaded, mask = textured(FULL, FULL), square_mask()
    mask[:, 285:] = False
    truth = warp(uploaded, [DRAG], mask)
    unedited, edited = to_tensor(uploaded, SMALL), to_tensor(truth, SMALL)
    result, unblended = (
        carry_detail(uploaded, edited, unedited, mask, RASTERS, [[DRAG]], feather=feather) for feather in (2.0, 0.0)
    )
    fading = soften(mask, 2.0 * SCALE)[..., None]
    both = (1 - fading) * np.asarray(uploaded) + fading * np.asarray(unblended)
    edge = mask & (fading[..., 0] < 0.95) & changed(uploaded, truth)
    assert decibels(Image.fromarray(both.round().astype(np.uint8)), unblended, edge) < 40
    assert decibels(result, unblended, edge) > 60


def test_where_nothing_else_may_be_estimated_a_displacement_is_the_drags_own() -> None:
    picture, drag = textured(SIDE, SIDE, seed=3), Drag(Point(50, 60), Point(60, 66))
    before, after = to_tensor(picture, SMALL), to_tensor(warp(picture, [drag]), SMALL)
    freedom = torch.ones(1, 1, SIDE, SIDE)
    freedom[..., 60:] = 0
    found = estimate_displacement(before, after, torch.zeros(1, 2, SIDE, SIDE), freedom)[0].norm(dim=0)
    assert found[55:65, 55:60].min() > 5
    assert not found[:, 60:].any()


def test_a_light_rim_that_the_model_adds_around_what_moved_is_not_shown() -> None:
    """Nor a ground of a slightly different colour; a new thing is."""
    side, scale = np.mgrid[:SIDE, :SIDE], 127.5
    ground, thing = np.array([236, 222, 240]), np.array([200, 100, 40])

    def disc(x: int, radius: int) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = np.hypot(side[1] - x, side[0] - 64) < radius
        return inside

    uploaded = Image.fromarray(np.where(disc(40, 16)[..., None], thing, ground).astype(np.uint8))
    unedited = to_tensor(uploaded, SMALL)
    painted = np.where(disc(90, 19)[..., None], ground + 14, ground - 3)
    painted = np.where(disc(90, 16)[..., None], thing, painted)
    painted[10:20, 100:110] = [20, 40, 200]
    edited = torch.from_numpy(painted / scale - 1).permute(2, 0, 1)[None].float()
    result = np.asarray(carry_detail(uploaded, edited, unedited, None, Rasters(SMALL, SMALL), [])).astype(int)
    assert (result <= ground + 3).all()
    around = ~disc(40, 20) & ~disc(90, 20)
    around[5:25, 95:115] = False
    assert np.abs(result[around] - ground).max() <= 1
    assert np.abs(result[15, 105] - [20, 40, 200]).max() <= 3
    assert np.abs(result[64, 90] - thing).max() <= 3


def test_what_the_model_cannot_reproduce_it_need_not_agree_on() -> None:
    """A difference as large as what it loses anyway is no edit: the uploaded picture's own pixels are shown still."""
    uploaded = textured(FULL, FULL)
    working = to_tensor(uploaded, SMALL)
    unedited = torch.nn.functional.avg_pool2d(working, 7, 1, 3, count_include_pad=False)
    edited = 2 * unedited - working
    still, lossless = torch.zeros(1, 2, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
    error = detail.reconstruction_error(working, unedited)
    assert agreement(unedited, edited, still, error).mean() > agreement(unedited, edited, still, lossless).mean() + 0.2


def test_a_drag_that_moved_nothing_changes_nothing() -> None:
    """The drag is where the estimate begins, not what it ends with."""
    uploaded = textured(FULL, FULL)
    working = soft(uploaded)
    assert not changed(carry_detail(uploaded, working, working, None, RASTERS, [[DRAG]]), uploaded).any()
    elsewhere = working.clone()
    elsewhere[..., 100:110, 10:20] = 0.9
    result = carry_detail(uploaded, elsewhere, working, None, RASTERS, [[DRAG]])
    assert changed(result, uploaded)[400:440, 40:80].all()
    assert not changed(result, uploaded)[:300, 130:].any()


def test_the_model_paints_what_comes_from_nowhere() -> None:
    uploaded, mask = textured(FULL, FULL), square_mask()
    unedited = soft(uploaded)
    edited = unedited.clone()
    edited[:, :, 50:80, 50:80] = torch.tensor([0.9, -0.9, -0.9])[:, None, None]
    result = np.asarray(carry_detail(uploaded, edited, unedited, mask, RASTERS, [[DRAG]])).astype(int)
    painted = np.array(to_picture(edited))[64, 64].astype(int)
    assert np.abs(result[220:300, 220:300] - painted).max() <= 6


def test_a_few_rows_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded, mask = textured(FULL, FULL), square_mask()
    unedited, edited = soft(uploaded), soft(warp(uploaded, [DRAG], mask))
    at_once = []
    for rows in (7, 10_000):
        monkeypatch.setattr(detail, "ROWS", rows)
        at_once.append(np.asarray(carry_detail(uploaded, edited, unedited, mask, RASTERS, [[DRAG]])).astype(int))
    assert np.abs(at_once[0] - at_once[1]).max() <= 1  # positions in a strip round differently


@pytest.mark.parametrize(("width", "height"), [(254, 250), (64, 63), (700, 400)])
def test_any_size_and_margin(width: int, height: int) -> None:
    """Smaller than the working picture, larger, and with a margin."""
    uploaded = textured(width, height)
    rasters = Rasters.fit(Size(width, height), 128, 8)
    drag = Drag(Point(width * 0.4, height * 0.5), Point(width * 0.5, height * 0.55))
    truth = warp(uploaded, [drag])
    margin = ((0, rasters.margin.height), (0, rasters.margin.width), (0, 0))
    unedited, edited = (
        soft(Image.fromarray(np.pad(np.asarray(each), margin, "edge")), rasters.working) for each in (uploaded, truth)
    )
    result = carry_detail(uploaded, edited, unedited, None, rasters, [[drag]])
    moved = changed(uploaded, truth)
    assert result.size == uploaded.size
    assert decibels(result, truth, moved) > decibels(uploaded, truth, moved) + 3


def test_a_mask_of_one_pixel_and_a_change_outside_it() -> None:
    uploaded = textured(FULL, FULL)
    mask = np.zeros((FULL, FULL), dtype=bool)
    mask[300, 300] = True
    unedited = soft(uploaded)
    edited = unedited.clone()
    edited[..., 10:20, 10:20] = 1
    assert not changed(carry_detail(uploaded, edited, unedited, mask, RASTERS, [[DRAG]]), uploaded).any()


def test_displacing_by_whole_pixels_shifts() -> None:
    picture = to_tensor(textured(20, 16), Size(20, 16))
    flow = torch.zeros(1, 2, 16, 20)
    flow[:, 0], flow[:, 1] = 3, -2
    assert torch.allclose(displace(picture, flow)[..., 2:, :17], picture[..., :14, 3:], atol=1e-4)


def test_the_setting_turns_it_off(tiny: Diffusion) -> None:
    """During a run too, and then the result is that of `compose`, byte for byte."""
    settings = DragSettings.resolve(None, {}, {"lora_steps": 1, "ddim_steps": 4, "max_iterations": 2, "latent_lr": 0.3})
    uploaded = textured(200, 200)
    session = DragSession(tiny, uploaded, settings=settings)
    session.add_drag("a", Drag(Point(90, 90), Point(130, 120)))
    for steps in (session.prepare(), session.drag(0), session.render(0)):
        for _ in steps:
            pass
    carried = session.result()
    session.change({"detail": "model"})
    state = session._state
    assert state.denoising is not None
    assert state.denoising.rendered is not None
    edited, unedited = (tiny.decode(each) for each in (state.denoising.rendered, state.denoising.unedited[-1]))
    assert session.result().tobytes() == compose(uploaded, edited, unedited, None, state.rasters).tobytes()
    assert session.result().tobytes() != carried.tobytes()
    session.close()


@pytest.mark.long
def test_12_megapixels_in_bounded_memory() -> None:
    """In a process of its own, whose peak is its own: the picture in floats, twice, would be 288 MB."""
    code = """
import resource, numpy as np
from tests.editor.drag.test_detail import *
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
small, size = Size(296, 224), Size(4000, 3000)
uploaded = textured(500, 375).resize((4000, 3000))
mask = np.zeros((3000, 4000), dtype=bool)
mask[400:2600, 400:3600] = True
drag = Drag(Point(1500, 1400), Point(1900, 1600))
truth = warp(uploaded, [drag], mask)
unedited, edited = soft(uploaded, small), soft(truth, small)
before = peak()
result = carry_detail(uploaded, edited, unedited, mask, Rasters(size, small), [[drag]])
assert changed(result, uploaded).any()
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 280
