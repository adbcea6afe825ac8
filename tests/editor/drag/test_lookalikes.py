"""After the warp, a tracker that is tempted by what looks alike is overruled by the picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, Point
from livedrag.editor.drag.content import ContentSearch
from livedrag.editor.drag.handles import Handle, current_position
from livedrag.editor.drag.row_of_session import row_of
from livedrag.editor.drag.rows import find
from livedrag.editor.points import Cell, distance

LACE = Drag(Point(128, 128), Point(110, 142))
QUICK = {"lora_steps": 0, "ddim_steps": 10, "inversion_strength": 0.2}


def laces() -> Image.Image:
    """Bars that all look alike, side by side."""
    picture = Image.new("RGB", (256, 256), (150, 80, 40))
    pen = ImageDraw.Draw(picture)
    for number in range(-6, 7):
        x = 128 + 14 * number
        pen.rounded_rectangle((x - 3, 112, x + 3, 144), 3, fill=(240, 235, 225))
    return picture.filter(ImageFilter.GaussianBlur(1))


@pytest.fixture
def session(model: Diffusion) -> Iterator[DragSession]:
    """Moves one of the bars beyond the place of the next one."""
    made = DragSession(model, laces(), settings=DragSettings.resolve(None, model.defaults, QUICK))
    for _ in made.prepare():
        pass
    rows, columns = np.mgrid[:256, :256]
    made.set_mask(np.hypot(columns - LACE.handle.x, rows - LACE.handle.y) < 50)
    made.add_drag("lace", LACE)
    yield made
    made.close()


def lace(session: DragSession) -> Handle:
    return session._state.edit.handles["lace"]


@torch.no_grad()
def tracked(session: DragSession) -> Point:
    """Where the tracker would find the bar now."""
    state = session._state
    state.latent.moved = True
    points = row_of(state, state.edit.handles, with_noise=False).points
    assert points is not None
    features = state.model.predict(state.latent.value, state.level.timestep, state.preparation.prompt).features
    ((row, column),) = find(points, features, state.rasters.cells).tolist()
    return state.rasters.to_point(Cell(row, column) + lace(session).offset)


def test_warped_content_is_not_looked_for_where_something_looks_like_it(session: DragSession) -> None:
    *_, last = session.drag(preview_every=0)
    assert distance(tracked(session), LACE.target) > 8, "the tracker is tempted, or this tests nothing"
    assert last.arrived
    assert last.distances["lace"] == pytest.approx(0, abs=0.01)
    assert session._state.latent.steps == 0, "nothing pulled at what had arrived"


def test_a_tracker_that_the_picture_agrees_with_is_believed(
    session: DragSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def likeness(self: object, handles: object, pixels: object, places: dict[str, Point]) -> dict[str, float]:
        return {name: distance(place, LACE.target) for name, place in places.items()}

    monkeypatch.setattr(ContentSearch, "likeness", likeness)
    session.change({"max_iterations": 16})
    list(session.drag(preview_every=0))
    assert session._state.latent.steps > 0


def test_without_a_warp_the_tracker_is_not_doubted(session: DragSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def likeness(*_: object) -> dict[str, float]:
        pytest.fail("the picture was asked")

    monkeypatch.setattr(ContentSearch, "likeness", likeness)
    session.change({"warp_share": 0.0, "max_iterations": 4})
    list(session.drag(preview_every=0))


def test_a_run_that_ends_with_its_warp_reports_where_that_has_put_content(session: DragSession) -> None:
    steps = list(session.drag(preview_every=0))
    session.reset()
    session.change({"max_iterations": steps[-1].iteration})
    *_, last = session.drag(preview_every=0)
    assert last.iteration == steps[-1].iteration
    assert last.arrived
    assert current_position(lace(session), session._state.rasters).x == pytest.approx(LACE.target.x)
