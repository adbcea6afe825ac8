from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, Point
from livedrag.editor.drag.content import ContentSearch, correlate, has_followed, near
from livedrag.editor.drag.warp import warp
from livedrag.editor.picture import to_working_tensor
from livedrag.editor.points import distance

QUICK = {"lora_steps": 0, "ddim_steps": 10, "inversion_strength": 0.2}
ARM = Drag(Point(62, 150), Point(40, 110))


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    """Smooth noise ``(3, 256, 256)``."""
    coarse = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic")[0].clamp(-1, 1)


def test_correlation_is_one_where_the_patch_is_whatever_its_light(noise: torch.Tensor) -> None:
    patch = noise[:, 90:111, 140:161]
    for picture in (noise, noise * 0.5 + 0.2, noise + torch.tensor([0.5, -0.5, 0.2])[:, None, None]):
        likeness = correlate(picture, patch)
        assert divmod(int(likeness.argmax()), 256 - 20) == (90, 140)
        assert likeness.max() == pytest.approx(1, abs=1e-3)


def test_faint_noise_is_not_taken_for_the_patch(noise: torch.Tensor) -> None:
    patch = noise[:, 90:111, 140:161]
    faint = torch.full_like(noise, 0.5)
    faint[:, 40:61, 40:61] += 0.01 * (patch - patch.mean())
    assert correlate(faint, patch).max() < 0.1


def session_on(model: Diffusion, picture: Image.Image) -> DragSession:
    settings = DragSettings.resolve(None, {}, QUICK)
    session = DragSession(model, picture, prompt="a teddy bear", settings=settings)
    for _ in session.prepare():
        pass
    return session


@pytest.fixture(scope="module")
def bear(samples: Path) -> Image.Image:
    return Image.open(samples / "teddy-bear.png").convert("RGB")


@pytest.fixture(scope="module")
def session(model: Diffusion, bear: Image.Image) -> Iterator[DragSession]:
    made = session_on(model, bear)
    made.add_drag("arm", ARM)
    yield made
    made.close()


def shown_in(session: DragSession, picture: Image.Image) -> dict[str, Point]:
    """Where content is found in a picture as the autoencoder gives it back."""
    state = session._state
    search = ContentSearch(state)
    x0 = state.model.encode(to_working_tensor(picture, state.rasters))
    return search.find(state.edit.handles, search.decode(x0))


def test_content_is_found_where_the_picture_shows_it(session: DragSession, bear: Image.Image) -> None:
    stayed, moved = shown_in(session, bear)["arm"], shown_in(session, warp(bear, [ARM]))["arm"]
    assert distance(stayed, ARM.handle) <= 6
    assert distance(moved, ARM.target) <= 6
    handle, rasters = session._state.edit.handles["arm"], session._state.rasters
    assert has_followed(handle, moved, rasters)
    assert not has_followed(handle, stayed, rasters)


def test_a_place_is_as_much_like_the_content_as_the_picture_shows(session: DragSession, bear: Image.Image) -> None:
    search, handles = ContentSearch(session._state), session._state.edit.handles
    pixels = search.decode(session.model.encode(to_working_tensor(bear, session._state.rasters)))
    origin = {name: handle.warp.handle for name, handle in handles.items()}
    here = search.likeness(handles, pixels, origin)
    assert all(value > 0.9 for value in here.values())
    away = search.likeness(handles, pixels, {name: Point(p.x + 30, p.y - 30) for name, p in origin.items()})
    assert all(away[name] < here[name] - 0.3 for name in handles)
    assert search.likeness(handles, pixels, dict.fromkeys(handles, Point(0, 255))).keys() == handles.keys()
    assert search.likeness(handles, pixels, {}) == {}


def test_places_are_pixels_of_the_uploaded_picture(model: Diffusion, bear: Image.Image) -> None:
    large = bear.resize((700, 700), Image.Resampling.LANCZOS).crop((0, 0, 700, 560))
    drag = Drag(Point(169.5, 410), Point(110, 301))
    session = session_on(model, large)
    session.add_drag("arm", drag)
    assert distance(shown_in(session, large)["arm"], drag.handle) <= 11
    assert distance(shown_in(session, warp(large, [drag]))["arm"], drag.target) <= 11
    assert near(session._state.rasters) == pytest.approx(10 / 256 * 700, rel=0.03)
    session.close()


def test_content_without_detail_cannot_be_found(model: Diffusion) -> None:
    flat = Image.new("RGB", (256, 256), (90, 140, 200))
    session = session_on(model, flat)
    session.add_drag("sky", Drag(Point(60, 60), Point(90, 90)))
    assert shown_in(session, flat) == {}
    session.close()


def test_content_that_moves_less_than_half_of_a_short_way_has_not_followed(session: DragSession) -> None:
    session.add_drag("short", Drag(Point(100, 100), Point(108, 100)))
    handle, rasters = session._state.edit.handles["short"], session._state.rasters
    session.remove_drag("short")
    assert not has_followed(handle, Point(103, 100), rasters)
    assert has_followed(handle, Point(105, 100), rasters)


def test_previews_come_with_the_distance_that_they_show(session: DragSession) -> None:
    """Whatever the check; a preview that needs no decoder has none."""
    session.reset()
    step = next(session.drag(preview_every=1))
    assert step.content["arm"] == pytest.approx(distance(ARM.handle, ARM.target), abs=2)
    assert session.preview(step) is not None
    session.reset()
    assert next(session.drag(preview_every=1, quality="latent")).content == {}
    session.reset()
    assert next(session.drag(preview_every=0)).content == {}
    session.reset()


def test_a_handle_placed_on_an_edited_picture_looks_for_what_it_was_placed_on(
    session: DragSession, bear: Image.Image
) -> None:
    """The picture is warped, and a handle put on what is at the target now: there it is found, not where it was."""
    state, search = session._state, ContentSearch(session._state)
    shown = warp(bear, [ARM])
    pixels = search.decode(state.model.encode(to_working_tensor(shown, state.rasters)))
    # Across the arm's outline: along it, content looks the same, and the place nearest to the target is taken.
    state.edit.add_drag("again", Drag(ARM.target, Point(30, 80)), edited=True)
    handles = search.with_looks(state.edit.handles, pixels)
    session.remove_drag("again")
    assert handles["again"].look is not None
    assert handles["arm"].look is None
    assert distance(search.find(handles, pixels)["again"], ARM.target) <= 6
    original = search.decode(state.model.encode(to_working_tensor(bear, state.rasters)))
    assert distance(search.find(handles, original)["again"], ARM.target) > 10
