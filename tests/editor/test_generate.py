from __future__ import annotations

import pytest
import torch

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, Point, SettingsError
from livedrag.editor.fitting.fit_step import FitStep
from livedrag.editor.generate import first_noise, generate
from livedrag.editor.picture import to_picture

QUICK = DragSettings(lora_steps=1, lora_batch=1, ddim_steps=6, max_iterations=2)


def test_without_guidance_words_alone_count(model: Diffusion) -> None:
    """A scale of 1 is the prediction with words, 0 the one without."""
    *_, alone = generate(model, "a cat", guidance=1.0, ddim_steps=3)
    *_, without = generate(model, "a cat", guidance=0.0, ddim_steps=3)
    *_, empty = generate(model, "", guidance=1.0, ddim_steps=3)
    torch.testing.assert_close(without.latent, empty.latent, atol=1e-4, rtol=0)
    assert (alone.latent - without.latent).abs().max() > 0.01


def test_the_noise_is_the_seeds(model: Diffusion) -> None:
    assert torch.equal(first_noise(model, 3), first_noise(model, 3))
    assert not torch.equal(first_noise(model, 3), first_noise(model, 4))
    assert first_noise(model, 0).std() == pytest.approx(1, abs=0.05)


def test_a_drawn_picture_is_dragged_from_its_own_latent(model: Diffusion) -> None:
    """Without a LoRA, denoising that latent gives the very picture back; there is no inversion."""
    drawing = list(generate(model, "a red apple", seed=5, guidance=4.0, ddim_steps=6))
    session = DragSession.from_generation(
        model,
        "a red apple",
        drawing,
        guidance=4.0,
        settings=QUICK.changed({"lora_steps": 0, "inversion_strength": 0.5}),
    )
    try:
        assert list(session.prepare()) == []
        assert session.prepared
        assert torch.equal(session.latent, drawing[2].latent)
        *_, last = session.render(preview_every=1)
        torch.testing.assert_close(last.predicted_x0, drawing[-1].predicted_x0, atol=1e-4, rtol=0)
    finally:
        session.close()


def test_a_drawn_session_goes_on_from_its_snapshot(model: Diffusion) -> None:
    drawing = list(generate(model, "a red apple", seed=5, ddim_steps=6))

    def finish(session: DragSession) -> bytes:
        for _ in session.drag(preview_every=0):
            pass
        for _ in session.render(preview_every=0):
            pass
        return session.result().tobytes()

    session = DragSession.from_generation(model, "a red apple", drawing, settings=QUICK)
    try:
        assert all(isinstance(step, FitStep) for step in session.prepare())
        session.add_drag("a", Drag(Point(100, 100), Point(130, 110)))
        snapshot = session.snapshot()
        expected = finish(session)
    finally:
        session.close()
    restored = DragSession.restore(model, to_picture(model.decode(drawing[-1].latent)), snapshot)
    try:
        assert finish(restored) == expected
    finally:
        restored.close()


def test_another_schedule_is_refused(model: Diffusion) -> None:
    drawing = list(generate(model, "a cat", ddim_steps=3))
    with pytest.raises(SettingsError, match="ddim_steps is 6, but the picture was generated in 3 steps"):
        DragSession.from_generation(model, "a cat", drawing, settings=QUICK)
