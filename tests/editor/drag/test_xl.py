"""A whole session with Stable Diffusion XL's layout: fitting, inversion, dragging, previews, results, snapshots."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, DragStep, Point
from livedrag.editor.cost import estimate, measure_shape
from livedrag.editor.drag.attention import controlled_layers
from livedrag.editor.generate import generate
from livedrag.editor.points import Size
from tests.pipelines import write_pipeline

PICTURE = Image.effect_noise((240, 120), 60).convert("RGB")
SETTINGS = DragSettings(
    lora_steps=2, lora_batch=1, lora_lr=0.01, ddim_steps=4, max_iterations=3, reference_control=True
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    folder = write_pipeline(tmp_path_factory.mktemp("tiny") / "little-xl", version="xl")
    return Diffusion.load(str(folder), device="cpu")


def new_session(model: Diffusion) -> DragSession:
    session = DragSession(model, PICTURE, prompt="a red cat", settings=SETTINGS, seed=3)
    session.add_drag("0", Drag(Point(60, 60), Point(120, 70)))
    mask = np.zeros((120, 240), dtype=bool)
    mask[:, 30:200] = True
    session.set_mask(mask)
    return session


def test_a_whole_edit_in_the_pictures_own_aspect(large: Diffusion) -> None:
    assert (large.kind, large.native_side, large.stride, large.latent_stride) == ("stable-diffusion-xl", 128, 32, 8)
    session = new_session(large)
    for _ in session.prepare():
        pass
    assert session.latent.shape[-2:] == (11, 22), "two to one, of the area that the model was trained on"
    latent = session.latent
    steps = list(session.drag(preview_every=1))
    assert (session.latent - latent).abs().max() > 0.01
    for quality in ("latent", "full"):
        preview = session.preview(next(step for step in steps if step.predicted_x0 is not None), 64, quality)
        assert preview is not None
        assert preview.size == (64, 32)
    for _ in session.render():
        pass
    result = np.asarray(session.result()).astype(int)
    assert result.shape == (120, 240, 3)
    assert np.array_equal(result[:, :20], np.asarray(PICTURE)[:, :20]), "outside the mask every pixel stays"
    assert (result[:, 60:150] != np.asarray(PICTURE)[:, 60:150]).any()
    session.close()


def test_reference_control_covers_the_penultimate_block(large: Diffusion) -> None:
    """The last one has no attention."""
    assert {name.partition(".")[0] for name in controlled_layers(large.unet)} == {"1"}


def test_a_restored_session_continues_bit_for_bit(large: Diffusion) -> None:
    session = new_session(large)
    for _ in session.prepare():
        pass
    next(iter(session.drag()))
    restored = DragSession.restore(large, PICTURE, session.snapshot())
    results = []
    for each in (session, restored):
        for _ in itertools.chain(each.drag(), each.render()):
            pass
        results.append(each.result().tobytes())
        each.close()
    assert results[0] == results[1]


def test_a_generated_picture_is_dragged_from_its_own_latent(large: Diffusion) -> None:
    steps = list(generate(large, "a red cat", seed=1, guidance=3.0, ddim_steps=4))
    session = DragSession.from_generation(large, "a red cat", steps, guidance=3.0, settings=SETTINGS)
    assert session.picture.size == (128, 128)
    session.add_drag("0", Drag(Point(40, 40), Point(80, 70)))
    moved = list(itertools.chain(session.prepare(), session.drag(), session.render()))
    assert any(isinstance(step, DragStep) for step in moved)
    assert session.result().size == (128, 128)
    session.close()


def test_a_session_holds_about_what_was_estimated(large: Diffusion) -> None:
    shape = measure_shape(large)
    session = new_session(large)
    for _ in itertools.chain(session.prepare(), session.drag(), session.render()):
        pass
    held = session.shared.nbytes + sum(shape.projection_bytes[name] for name in SETTINGS.lora_targets.split())
    session.close()
    assert 0.6 * held < estimate(SETTINGS, shape, Size(*PICTURE.size)).session < 1.7 * held
