from __future__ import annotations

import itertools
import resource
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from livedrag.editor import (
    Diffusion,
    Drag,
    DragSession,
    DragSettings,
    DragStep,
    EditorError,
    FitPass,
    FitStep,
    InversionStep,
    MaskError,
    NumericalError,
    PictureError,
    Point,
    PointError,
    RenderStep,
    SettingsError,
)
from livedrag.editor.drag.preparation import is_known, is_measured
from livedrag.editor.drag.snapshot_format import Snapshot
from livedrag.editor.fitting.fit_step import ROWS_PER_PASS
from tests.other_kinds import photograph
from tests.pipelines import write_pipeline

SHORT = {"lora_steps": 2, "lora_batch": 1, "ddim_steps": 6, "max_iterations": 6}
DRAG = Drag(Point(30, 40), Point(90, 60))


def picture(width: int = 128, height: int = 128) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height))


def make_session(model: Diffusion, seed: int = 0, drag: Drag | None = DRAG, **overrides: object) -> DragSession:
    settings = DragSettings.resolve(None, {}, {**SHORT, **overrides})  # type: ignore[dict-item]
    session = DragSession(model, picture(), prompt="a cat", settings=settings, seed=seed)
    if drag is not None:
        session.add_drag("a", drag)
    return session


@pytest.fixture
def session(tiny: Diffusion) -> Iterator[DragSession]:
    made = make_session(tiny)
    finish(made.prepare())
    yield made
    made.close()


def finish(steps: Iterator[object]) -> list[object]:
    return list(steps)


def test_preparing_fits_then_inverts_and_goes_on_where_it_was_left(tiny: Diffusion) -> None:
    straight, stopped = make_session(tiny), make_session(tiny)
    steps = finish(straight.prepare())
    assert [type(step) for step in steps] == [FitStep] * 2 + [InversionStep] * 4
    assert [(step.step, step.steps) for step in steps[2:]] == [(i, 4) for i in (1, 2, 3, 4)]  # type: ignore[attr-defined]
    for part in (1, 2, 1, 10):
        preparation = stopped.prepare()
        list(itertools.islice(preparation, part))
        preparation.close()
    assert stopped.prepared
    assert torch.equal(stopped.latent, straight.latent)
    assert not finish(stopped.prepare())
    straight.close()
    stopped.close()


def test_a_fitting_step_that_is_left_between_its_passes_is_taken_anew(tiny: Diffusion) -> None:
    batch = ROWS_PER_PASS + 1
    straight, stopped = make_session(tiny, lora_batch=batch), make_session(tiny, lora_batch=batch)
    steps = finish(straight.prepare())
    assert [type(step) for step in steps][:4] == [FitPass, FitStep] * 2
    for part in (1, 3):
        preparation = stopped.prepare()
        list(itertools.islice(preparation, part))
        preparation.close()
    resumed = DragSession.restore(tiny, picture(), stopped.snapshot())
    finish(resumed.prepare())
    assert torch.equal(resumed.latent, straight.latent)
    for session in (straight, stopped, resumed):
        session.close()


def test_nothing_can_be_dragged_before_it_is_prepared(tiny: Diffusion) -> None:
    session = make_session(tiny)
    for call in (lambda: next(session.drag()), lambda: next(session.render()), session.result):
        with pytest.raises(EditorError, match=r"prepare|render"):
            call()


def test_no_weight_requires_grad_at_any_step(tiny: Diffusion, session: DragSession) -> None:
    """Nor does anything else a session puts on the model outlive the step."""
    parts = (tiny.unet, tiny.vae, tiny.text_encoder)
    processors = dict(tiny.unet.attn_processors)
    passes: list[bool] = []

    def none_requires_grad() -> bool:
        return not any(parameter.requires_grad for part in parts for parameter in part.parameters())

    session.set_mask(np.eye(128, dtype=bool))
    watch = tiny.unet.register_forward_pre_hook(lambda *_: passes.append(none_requires_grad()))
    try:
        for _ in itertools.chain(session.drag(2), session.render()):
            assert none_requires_grad()
            assert tiny.unet.attn_processors == processors
            assert torch.is_grad_enabled()
    finally:
        watch.remove()
    assert len(passes) == 6 + 1 + 8
    assert all(passes)


def test_the_last_block_runs_only_for_masks_and_previews(tiny: Diffusion, session: DragSession) -> None:
    """And then without a graph, unless there is a mask."""
    graphs: list[bool] = []
    watch = tiny.unet.up_blocks[-1].register_forward_hook(lambda _, __, output: graphs.append(output.requires_grad))
    try:
        finish(session.drag(preview_every=0))
        assert graphs == []
        finish(session.drag(preview_every=2))
        assert graphs == [False] * 4, "for three previews, and once for the unedited latent"
        graphs.clear()
        session.set_mask(np.eye(128, dtype=bool))
        finish(session.drag(preview_every=0))
        assert graphs == [True] * 6, "at each iteration; the unedited latent's is known"
    finally:
        watch.remove()


def test_the_picture_is_encoded_and_the_prompt_embedded_once(tiny: Diffusion) -> None:
    ran: list[str] = []
    watched = {"picture": tiny.vae.encoder, "prompt": tiny.text_encoder}
    watches = [part.register_forward_pre_hook(lambda *_, name=name: ran.append(name)) for name, part in watched.items()]
    try:
        session = make_session(tiny)
        finish(itertools.chain(session.prepare(), session.drag(), session.render()))
        session.close()
    finally:
        for watch in watches:
            watch.remove()
    assert sorted(ran) == ["picture", "prompt"]


def test_templates_are_of_where_and_when_a_handle_was_put_down(tiny: Diffusion, session: DragSession) -> None:
    """On the original its features, later those of the latent as it is then; and kept while the content moves."""

    def feature(at: Point) -> torch.Tensor:
        preparation = session._state.preparation
        with torch.no_grad(), preparation.lora.active():
            features = tiny.predict_features(session.latent, preparation.level.timestep, preparation.prompt)
        upsampled = torch.nn.functional.interpolate(features, (64, 64), mode="bilinear")
        return upsampled[0, :, round((at.y + 0.5) / 2 - 0.5), round((at.x + 0.5) / 2 - 0.5)]

    def template(name: str) -> torch.Tensor:
        kept = session._state.edit.handles[name].template
        assert kept is not None
        return kept

    session.change({"latent_lr": 0.1})
    later, again = Point(100, 100), Point(64, 30)
    originals = {at: feature(at) for at in (DRAG.handle, later, again)}
    steps = session.drag(0)
    next(steps)
    next(steps)
    session.add_drag("b", Drag(later, Point(40, 100)))
    session.set_handle("a", again)
    currents = {at: feature(at) for at in (later, again)}
    next(steps)
    for name, at in (("b", later), ("a", again)):
        torch.testing.assert_close(template(name), currents[at])
        assert not torch.allclose(template(name), originals[at], rtol=1e-2, atol=1e-3)
    kept = template("b")
    next(steps)
    assert template("b") is kept
    session.reset()
    session.set_handle("a", DRAG.handle)
    next(session.drag(0))
    torch.testing.assert_close(template("a"), originals[DRAG.handle])


@pytest.mark.parametrize(
    "changed", [{"supervision_radius": 3}, {"mask_weight": 50.0}, {"arrival_distance": 250.0}], ids=str
)
def test_what_is_changed_counts_from_the_next_iteration(session: DragSession, changed: dict[str, float]) -> None:
    session.set_mask(np.pad(np.ones((128, 64), dtype=bool), ((0, 0), (0, 64))))
    runs = []
    for change in ({}, changed):
        session.reset()
        steps = session.drag(0)
        list(itertools.islice(steps, 2))
        before = session.latent
        session.change(change)
        step = next(steps)
        runs.append((before, session.latent, step.arrived))
    (before, after, arrived), (before_too, after_change, arrived_then) = runs
    assert torch.equal(before, before_too)
    assert (arrived, arrived_then) == (False, "arrival_distance" in changed)
    assert not torch.equal(after, after_change)


def test_steps_say_where_the_content_is(session: DragSession) -> None:
    steps = list(session.drag(preview_every=2))
    assert [step.iteration for step in steps] == [1, 2, 3, 4, 5, 6, 6]  # the budget's end is looked at once more
    assert [step.predicted_x0 is not None for step in steps] == [True, False, True, False, True, False, False]
    assert steps[0].handles == {"a": Point(30, 40)}
    assert steps[0].distances["a"] == pytest.approx(np.hypot(60, 20))
    assert all(step.loss > 0 for step in steps[:-1])
    assert session.drags["a"].handle == steps[-1].handles["a"]


def test_the_same_seed_gives_the_same_run_and_another_does_not(tiny: Diffusion) -> None:
    def run(seed: int) -> tuple[torch.Tensor, bytes]:
        session = make_session(tiny, seed)
        finish(itertools.chain(session.prepare(), session.drag(), session.render()))
        latent, result = session.latent, session.result().tobytes()
        session.close()
        return latent, result

    (latent, result), (again, result_again), (other, _) = run(1), run(1), run(2)
    assert torch.equal(latent, again)
    assert result == result_again
    assert not torch.equal(latent, other)


def test_two_sessions_interleaved_give_what_each_gives_alone(tiny: Diffusion) -> None:
    def whole(session: DragSession) -> Iterator[object]:
        return itertools.chain(session.prepare(), session.drag(2), session.render())

    kinds = [{"seed": 1}, {"seed": 2, "reference_control": True, "lora_targets": "to_q to_v", "latent_lr": 0.02}]
    alone = []
    for kind in kinds:
        session = make_session(tiny, **kind)  # type: ignore[arg-type]
        finish(whole(session))
        alone.append((session.latent, session.result().tobytes()))
        session.close()
    sessions = [make_session(tiny, **kind) for kind in kinds]  # type: ignore[arg-type]
    for _ in itertools.zip_longest(*map(whole, sessions)):
        pass
    for session, (latent, result) in zip(sessions, alone, strict=True):
        assert torch.equal(session.latent, latent)
        assert session.result().tobytes() == result
        session.close()


def test_a_new_target_counts_from_the_next_iteration(tiny: Diffusion) -> None:
    """The re-aimed run equals the other up to the re-aiming and differs right after it."""
    runs = []
    for redirect in (False, True):
        session = make_session(tiny)
        finish(session.prepare())
        latents = []
        for step in session.drag():
            latents.append(session.latent)
            if redirect and step.iteration == 3:
                session.set_target("a", Point(30, 120))
        runs.append(latents)
        session.close()
    equal = [torch.equal(one, other) for one, other in zip(*runs, strict=True)]
    assert equal[:4] == [True, True, True, False]


def test_everything_else_may_change_between_two_iterations(session: DragSession) -> None:
    for step in session.drag():
        if step.iteration == 1:
            session.add_drag("b", Drag(Point(100, 100), Point(60, 100)))
        if step.iteration == 2:
            assert set(step.handles) == {"a", "b"}
            session.set_mask(np.eye(128, dtype=bool))
            session.set_handle("a", Point(64, 64))
        if step.iteration == 3:
            assert step.handles["a"] == Point(64, 64)  # put down, not tracked yet
            session.remove_drag("b")
            session.change({"latent_lr": 0.5, "max_iterations": 5, "tracking_radius": 1})
        if step.iteration == 4:
            assert set(step.handles) == {"a"}
    assert session.iteration == 5


def test_a_bigger_learning_rate_moves_more_from_the_next_iteration(session: DragSession) -> None:
    steps = session.drag()
    before = session.latent
    next(steps)
    small = (session.latent - before).abs().max()
    session.change({"latent_lr": 0.5})
    before = session.latent
    next(steps)
    assert (session.latent - before).abs().max() > 10 * small


def test_stopping_and_going_on_is_the_run_without_the_stop(tiny: Diffusion) -> None:
    straight, stopped = make_session(tiny), make_session(tiny)
    finish(itertools.chain(straight.prepare(), straight.drag()))
    finish(stopped.prepare())
    run = stopped.drag()
    list(itertools.islice(run, 2))
    run.close()
    finish(stopped.render())
    assert stopped.result().size == (128, 128)
    stopped.change({"max_iterations": 4})
    finish(stopped.drag())
    assert torch.equal(stopped.latent, straight.latent)
    straight.close()
    stopped.close()


def test_reset_is_the_beginning(session: DragSession) -> None:
    start = session.latent
    first = [session.latent for _ in session.drag()]
    finish(session.render())
    session.set_target("a", Point(10, 10))
    session.reset()
    assert torch.equal(session.latent, start)
    assert session.drags["a"] == Drag(DRAG.handle, Point(10, 10))
    assert session.iteration == 0
    session.set_target("a", DRAG.target)
    with pytest.raises(EditorError, match="no result"):
        session.result()
    assert all(torch.equal(a, b) for a, b in zip(first, [session.latent for _ in session.drag()], strict=True))


def test_arriving_ends_the_run_and_a_new_drag_goes_on_from_there(session: DragSession) -> None:
    session.set_target("a", Point(31, 40))
    (step,) = session.drag()
    assert step.arrived
    assert step.loss == 0
    before = session.latent
    session.add_drag("b", Drag(Point(100, 100), Point(40, 100)))
    assert len(list(session.drag())) == 7
    assert not torch.equal(session.latent, before)


def test_without_an_edit_the_result_is_the_upload(session: DragSession) -> None:
    finish(session.render())
    assert session.result().tobytes() == picture().tobytes()


def test_outside_the_mask_the_result_is_the_upload(session: DragSession) -> None:
    mask = np.zeros((128, 128), dtype=np.uint8)
    mask[20:100, 20:100] = 255
    session.set_mask(mask)
    session.change({"latent_lr": 0.2})
    finish(itertools.chain(session.drag(), session.render()))
    changed = (np.asarray(session.result()) != np.asarray(picture())).any(-1)
    assert changed.any()
    assert not changed[mask == 0].any()


def test_a_12_megapixel_picture_is_edited_at_its_size(tiny: Diffusion) -> None:
    """Outside the mask every pixel is the uploaded one, although the model never sees more than 128 x 128 or so."""
    uploaded = Image.fromarray(np.random.default_rng(1).integers(0, 256, (3000, 4000, 3), dtype=np.uint8))
    mask = np.zeros((3000, 4000), dtype=bool)
    mask[500:2500, 600:3000] = True
    settings = DragSettings.resolve(None, {}, {**SHORT, "latent_lr": 0.2})
    session = DragSession(tiny, uploaded, settings=settings)
    session.add_drag("a", Drag(Point(1200, 1500), Point(2200, 1500)))
    session.set_mask(mask)
    finish(itertools.chain(session.prepare(), session.drag(0), session.render(0)))
    result = session.result()
    session.close()
    assert result.size == (4000, 3000)
    changed = (np.asarray(result) != np.asarray(uploaded)).any(-1)
    assert changed[mask].any()
    assert not changed[~mask].any()


def test_a_mask_holds_back_what_may_not_change(tiny: Diffusion) -> None:
    moved = []
    for weight in (0.0, 100.0):
        session = make_session(tiny, mask_weight=weight)
        session.set_mask(np.pad(np.ones((128, 64), dtype=bool), ((0, 0), (0, 64))))
        finish(session.prepare())
        start = session.latent
        finish(session.drag())
        moved.append((session.latent - start)[..., 8:].abs().mean().item())
        session.close()
    assert moved[1] < moved[0]


def test_a_kept_background_is_the_unedited_latent_after_every_iteration(tiny: Diffusion) -> None:
    session = make_session(tiny, background="keep", mask_weight=0.0)
    mask = np.zeros((128, 128), dtype=bool)
    mask[:, :64] = True
    session.set_mask(mask)
    finish(session.prepare())
    unedited = session.latent
    for step in session.drag(preview_every=0):
        assert torch.allclose(session.latent[..., 8:], unedited[..., 8:], atol=1e-6)
        assert step.arrived or not torch.equal(session.latent[..., :8], unedited[..., :8])
    session.close()


def test_handles_stay_between_two_trackings(tiny: Diffusion) -> None:
    session = make_session(tiny, steps_per_tracking=3, latent_lr=0.5, tracking_radius=8, max_iterations=9)
    finish(session.prepare())
    places = [step.handles["a"] for step in session.drag(preview_every=0)]
    session.close()
    changed = [index for index in range(1, len(places)) if places[index] != places[index - 1]]
    assert changed
    assert all(index % 3 == 0 for index in changed)


def test_the_first_template_is_what_the_handle_was_placed_on(tiny: Diffusion) -> None:
    """It does not drift with the latent, and survives a snapshot bit for bit."""
    session = make_session(tiny, supervision_template="first", latent_lr=0.5)
    finish(session.prepare())
    steps = session.drag(preview_every=0)
    next(steps)
    placed = session._state.edit.handles["a"].patch
    assert placed is not None
    assert placed.shape[-1] == 9
    next(steps)
    assert session._state.edit.handles["a"].patch is placed
    restored = DragSession.restore(tiny, picture(), session.snapshot())
    kept = restored._state.edit.handles["a"].patch
    assert kept is not None
    assert torch.equal(kept, placed)
    next(steps)
    next(restored.drag(preview_every=0))
    assert torch.equal(session.latent, restored.latent)
    session.close()
    restored.close()


def test_reference_control_is_used_and_the_second_render_is_shorter(tiny: Diffusion) -> None:
    results = []
    for control in (False, True):
        session = make_session(tiny, reference_control=control, latent_lr=0.1)
        finish(itertools.chain(session.prepare(), session.drag()))
        assert session.render_steps == 8
        first = finish(session.render())
        once = session.result().tobytes()
        assert session.render_steps == 4
        assert len(finish(session.render())) == len(first) - 4
        assert session.result().tobytes() == once
        results.append(once)
        session.close()
    assert results[0] != results[1]


def test_control_without_room_to_keep_gives_the_same(tiny: Diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for budget in (2**30, 0):
        monkeypatch.setattr("livedrag.editor.drag.denoising.REFERENCE_BUDGET", budget)
        session = make_session(tiny, reference_control=True)
        finish(itertools.chain(session.prepare(), session.drag(), session.render()))
        results.append(session.result().tobytes())
        session.close()
    assert results[0] == results[1]


def test_previews_are_small_pictures_in_both_stages(session: DragSession) -> None:
    steps: Iterator[DragStep | RenderStep] = itertools.chain(session.drag(1), session.render(1))
    for step in steps:
        preview = session.preview(step, longest_side=64)
        assert (preview is None) == (step.predicted_x0 is None)
        if preview is not None:
            assert preview.size == (64, 64)


def test_previews_do_not_change_the_run(tiny: Diffusion) -> None:
    latents = []
    for every in (0, 1):
        session = make_session(tiny)
        finish(session.prepare())
        for step in session.drag(every):
            session.preview(step)
        latents.append(session.latent)
        session.close()
    assert torch.equal(*latents)


def test_numbers_that_are_not_finite_end_the_run_with_the_last_good_latent(
    tiny: Diffusion, session: DragSession
) -> None:
    steps = session.drag()
    next(steps)
    good, drags = session.latent, session.drags
    session.add_drag("b", Drag(Point(100, 100), Point(40, 100)))
    weight = tiny.unet.conv_in.weight
    kept = weight.clone()
    try:
        weight.data.fill_(torch.nan)
        with pytest.raises(NumericalError, match="nan"):
            next(steps)
    finally:
        weight.data.copy_(kept)
    assert torch.equal(session.latent, good)
    assert session.drags["a"] == drags["a"]
    finish(session.drag())
    assert torch.isfinite(session.latent).all()
    for name in ("a", "b"):
        template = session._state.edit.handles[name].template
        assert template is not None
        assert torch.isfinite(template).all()


@pytest.mark.parametrize("done", [3, 6, 16], ids=["inverting", "rendering the unedited", "rendering"])
def test_numbers_that_are_not_finite_end_the_other_stages_too(tiny: Diffusion, done: int) -> None:
    session = make_session(tiny)
    steps = itertools.chain(session.prepare(), session.drag(0), session.render())
    list(itertools.islice(steps, done))
    weight = tiny.unet.conv_out.weight
    kept = weight.clone()
    try:
        weight.data.fill_(torch.nan)
        with pytest.raises(NumericalError, match=r"not finite|nan"):
            finish(steps)
    finally:
        weight.data.copy_(kept)
    finish(itertools.chain(session.prepare(), session.drag(0), session.render()))
    assert torch.isfinite(session.latent).all()
    assert np.asarray(session.result()).any()
    session.close()


def test_bad_input_is_said_and_changes_nothing(tiny: Diffusion, session: DragSession) -> None:
    before = session.drags
    faults = [
        (lambda: session.add_drag("b", Drag(Point(500, 1), Point(1, 1))), PointError, "500"),
        (lambda: session.set_target("zork", Point(1, 1)), PointError, "'zork'"),
        (lambda: session.set_handle("a", DRAG.target), PointError, "both at"),
        (lambda: session.remove_drag("zork"), PointError, "'zork'"),
        (lambda: session.set_mask(np.zeros((5, 7))), MaskError, "7 x 5"),
        (lambda: session.set_mask(np.zeros((128, 128))), MaskError, "lets nothing change"),
        (lambda: make_session(tiny, seed=-1), SettingsError, "seed is -1"),
        (lambda: session.change({"lora_rank": 4}), SettingsError, "lora_rank can.t change"),
        (lambda: session.change({"zork": 4}), SettingsError, "'zork'"),
        (lambda: DragSession(tiny, Image.new("RGB", (900, 10))), PictureError, "900 x 10"),
    ]
    for call, kind, words in faults:
        with pytest.raises(kind, match=words):
            call()  # type: ignore[no-untyped-call]
    assert session.drags == before
    session.remove_drag("a")
    with pytest.raises(PointError, match="nothing to drag"):
        next(session.drag())


@pytest.mark.parametrize("size", [(300, 100), (70, 200)], ids=str)
def test_any_aspect_ratio_comes_back_at_its_size(tiny: Diffusion, size: tuple[int, int]) -> None:
    session = DragSession(tiny, picture(*size), settings=DragSettings.resolve(None, {}, {**SHORT, "latent_lr": 0.1}))
    session.add_drag("a", Drag(Point(10, 20), Point(50, 60)))
    finish(itertools.chain(session.prepare(), session.drag(), session.render()))
    assert session.result().size == picture(*size).size
    session.close()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_weights_with_full_precision_latents(
    tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype
) -> None:
    """What runs on CUDA, here on the CPU: latents, LoRA and optimisers stay in float32."""
    folder = write_pipeline(tmp_path_factory.mktemp("half") / "model", version=2)
    model = Diffusion.load(str(folder), device="cpu", dtype=dtype)
    session = make_session(model, reference_control=True)
    session.set_mask(np.pad(np.ones((128, 64), dtype=bool), ((0, 0), (0, 64))))
    finish(session.prepare())
    start = session.latent
    previews = [session.preview(step) for step in session.drag(2)]
    finish(session.render())
    assert session.latent.dtype == start.dtype == torch.float32
    assert not torch.equal(session.latent, start)
    assert torch.isfinite(session.latent).all()
    assert any(previews)
    assert session.result().size == (128, 128)
    assert all(value.dtype != dtype for value in Snapshot.from_bytes(session.snapshot()).get("lora").values())
    session.close()


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.long
def test_memory_does_not_grow_over_500_iterations(tiny: Diffusion) -> None:
    session = make_session(tiny, max_iterations=500, arrival_distance=0.5)
    finish(session.prepare())
    sizes = {}
    for target in itertools.cycle([Point(100, 100), Point(20, 20)]):  # there and back, whenever it arrives
        session.set_target("a", target)
        for step in session.drag():
            session.preview(step)
            if step.iteration % 50 == 0:
                sizes[step.iteration] = resident_megabytes()
            if step.iteration >= 500:
                break
        if session.iteration >= 500:
            break
    session.close()
    assert len(sizes) == 10
    assert sizes[500] - sizes[100] < 30, sizes


def test_the_built_in_model_moves_an_arm(model: Diffusion, samples: Path) -> None:
    """The tracked handle gets to its target on a picture and drag from the gallery."""
    settings = DragSettings.resolve(None, model.defaults, {"lora_steps": 20})
    session = DragSession(model, Image.open(samples / "teddy-bear.png"), prompt="a teddy bear", settings=settings)
    session.add_drag("arm", Drag(Point(62, 150), Point(40, 110)))
    session.set_mask(np.asarray(Image.open(samples / "teddy-bear-mask.png").convert("L")))
    finish(session.prepare())
    steps = list(session.drag(preview_every=0))
    assert steps[-1].distances["arm"] < 0.5 * steps[0].distances["arm"]
    session.close()


def test_reconstruction_tells_pictures_that_the_model_knows_from_others(model: Diffusion, samples: Path) -> None:
    """By the default preparation but for fewer steps of LoRA, which help both alike."""
    settings = DragSettings.resolve(None, model.defaults, {"lora_steps": 10})
    known: dict[str, float] = {}
    pictures = {"a teddy bear": Image.open(samples / "teddy-bear.png"), "a cat": photograph("a cat")}
    for prompt, each in pictures.items():
        session = DragSession(model, each, prompt=prompt, settings=settings)
        with pytest.raises(EditorError, match="not prepared yet"):
            next(session.reconstruct())
        finish(session.prepare())
        before, reconstruction = session.render_steps, session.reconstruct()
        assert len([None for _ in until_value(reconstruction, known, prompt)]) == settings.inversion_steps
        assert session.render_steps == before - settings.inversion_steps, "rendering need not do it again"
        session.close()
    assert {prompt: is_known("builtin", value) for prompt, value in known.items()} == {
        "a teddy bear": True,
        "a cat": False,
    }
    assert is_measured("builtin", settings)
    assert not is_measured("builtin", DragSettings()), "so much noise says nothing about the picture"
    assert not is_measured("stable-diffusion", settings)


def until_value(steps: Generator[RenderStep, None, float], values: dict[str, float], name: str) -> Iterator[RenderStep]:
    values[name] = yield from steps
