from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from livedrag.editor import Diffusion, Drag, DragSession, Point
from livedrag.editor.models.ddim import denoising_step
from tests.editor.drag.test_passes import to_the_end
from tests.editor.drag.test_session import make_session, picture

LEVELS: dict[str, Any] = {"alternation": 3, "max_iterations": 6, "ddim_steps": 10}
"""Two iterations at each of three levels, of seven."""


@pytest.fixture
def session(tiny: Diffusion) -> Iterator[DragSession]:
    made = make_session(tiny, **LEVELS)
    for _ in made.prepare():
        pass
    yield made
    made.close()


def test_each_level_has_its_share_of_the_iterations(session: DragSession) -> None:
    state = session._state
    levels = [(step.iteration, state.level.timestep) for step in session.drag(preview_every=0)]
    timesteps = [level.timestep for level in state.preparation.levels[::-1]]
    assert levels == [(index + 1, timesteps[index // 2]) for index in range(6)] + [(6, timesteps[2])]


def test_in_between_the_latent_is_denoised_one_step_and_adam_starts_anew(session: DragSession, tiny: Diffusion) -> None:
    state = session._state
    run = session.drag(preview_every=0)
    list(itertools.islice(run, 2))
    with state.preparation.lora.active():
        below, _ = denoising_step(tiny, session.latent, state.preparation.prompt, state.level)
    next(run)
    assert state.latent.steps == 1
    assert (session.latent - below).abs().max() <= 1.001 * session.settings.latent_lr, "one step of Adam from there"
    assert torch.equal(state.reference.latent, state.denoising.unedited[0])  # type: ignore[union-attr]


def test_templates_are_those_of_the_unedited_picture_at_the_same_level(session: DragSession) -> None:
    session.change({"supervision_template": "first"})
    state = session._state
    run = session.drag(preview_every=0)
    seen = []
    for index, _ in enumerate(run):
        if index == 2:
            session.add_drag("later", Drag(Point(100, 100), Point(40, 100)))
        handle = state.edit.handles["a"]
        assert handle.template is not None
        assert handle.patch is not None
        upsampled = torch.nn.functional.interpolate(state.reference.features(), state.rasters.cells, mode="bilinear")
        torch.testing.assert_close(handle.template, upsampled[0, :, 20, 15], atol=1e-5, rtol=1e-4)
        seen.append(handle.template)
    assert not torch.allclose(seen[0], seen[-1], rtol=1e-2), "another level has other features"
    assert state.edit.handles["later"].template is not None


def test_rooms_that_share_passes_are_also_denoised_together(tiny: Diffusion) -> None:
    sessions = [make_session(tiny, **LEVELS) for _ in range(2)]
    for session in sessions:
        for _ in session.prepare():
            pass
    rows = to_the_end([session.shared.drag(0) for session in sessions])
    for session in sessions:
        session.close()
    # Six iterations and the last look; at each of two descents the unedited latents, and the edited ones.
    assert rows == [2] * (6 + 1 + 2 * 2)


def test_rendering_goes_on_from_the_level_that_was_reached(session: DragSession) -> None:
    list(session.drag(preview_every=0))
    assert session.render_steps == 7 - 2 + 7 - 2, "of the latent from the third level on; of the unedited one likewise"
    assert len(list(session.render())) == 10
    assert session.result().size == (128, 128)
    assert session.render_steps == 5


def test_reference_control_begins_where_dragging_ends(tiny: Diffusion) -> None:
    """The step after the last level is free, as in GoodDrag; without alternation, every step is controlled."""
    for alternation, free in ((3, 1), (1, 0)):
        session = make_session(tiny, **{**LEVELS, "alternation": alternation}, reference_control=True)
        for _ in itertools.chain(session.prepare(), session.drag(preview_every=0)):
            pass
        controlled: list[bool] = []
        processors = {type(processor) for processor in tiny.unet.attn_processors.values()}
        watch = tiny.unet.register_forward_pre_hook(
            lambda *_: controlled.append(  # noqa: B023
                {type(processor) for processor in tiny.unet.attn_processors.values()} != processors  # noqa: B023
            )
        )
        try:
            list(session.render(preview_every=0))
        finally:
            watch.remove()
        edited = controlled[-(7 - session._state.descended) :]
        assert edited == [False] * free + [True] * (len(edited) - free)
        session.close()


def test_a_snapshot_continues_bit_for_bit_at_every_level(tiny: Diffusion, session: DragSession) -> None:
    session.set_mask(np.pad(np.ones((128, 64), dtype=bool), ((0, 0), (0, 64))))
    for taken in (1, 2, 3, 5):
        session.reset()
        run = session.drag(preview_every=0)
        list(itertools.islice(run, taken))
        restored = DragSession.restore(tiny, picture(), session.snapshot())
        for mine, theirs in itertools.zip_longest(run, restored.drag(preview_every=0)):
            assert mine == theirs
            assert torch.equal(session.latent, restored.latent)
        assert [moment.descended for moment in restored.timeline] == [moment.descended for moment in session.timeline]
        for steps in zip(session.render(), restored.render(), strict=True):
            assert steps[0].step == steps[1].step
        assert session.result().tobytes() == restored.result().tobytes()
        restored.close()


def test_moments_know_their_level(session: DragSession) -> None:
    list(session.drag(preview_every=0))
    assert [moment.descended for moment in session.timeline] == [0, 0, 0, 1, 1, 2, 2]
    session.seek(3)
    assert session._state.descended == 1
    step = next(session.drag(preview_every=0))
    assert step.iteration == 4
    assert session._state.descended == 1, "a run never climbs again, and descends only with its own iterations"
    session.seek(0)
    assert session._state.descended == 0


def test_more_levels_than_were_inverted_are_as_many(tiny: Diffusion) -> None:
    session = make_session(tiny, alternation=50, max_iterations=6)
    for _ in itertools.chain(session.prepare(), session.drag(), session.render()):
        pass
    assert session._state.descended == 3
    session.close()


@pytest.mark.parametrize("settings", [{"supervision": "region"}, {"warp_share": 0.3}, {"background": "keep"}], ids=str)
def test_it_composes(tiny: Diffusion, settings: dict[str, Any]) -> None:
    session = make_session(tiny, **{**LEVELS, "max_iterations": 24, **settings})
    for _ in session.prepare():
        pass
    mask = np.pad(np.ones((128, 112), dtype=bool), ((0, 0), (0, 16)))
    session.set_mask(mask)
    for _ in session.drag():
        state = session._state
        if "background" in settings:
            assert state.edit.latent_mask is not None
            outside = (state.edit.latent_mask == 0).expand_as(state.latent.value)
            torch.testing.assert_close(session.latent[outside], state.reference.latent[outside])
    assert session._state.descended > 0
    assert all(np.isfinite(step.step) for step in session.render())
    session.close()
