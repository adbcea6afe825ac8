"""What a session costs, held against what it really holds, and the refusal of what there is no memory for."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, ModelError, Point, SettingsError, cost
from livedrag.editor.cost import (
    MAX_CELLS,
    Memory,
    ModelShape,
    check_cost,
    check_free,
    check_weights,
    estimate,
    gigabytes,
    measure_shape,
    peak_bytes,
)
from livedrag.editor.fitting.fit_step import ROWS_PER_PASS
from livedrag.editor.fitting.lora import Lora
from livedrag.editor.models.pass_memory import measure_pass
from livedrag.editor.models.references import find_model
from livedrag.editor.points import Size
from tests.fitting import fit_step

SIZE = Size(96, 64)
PLENTY = Memory(2**40, 2**40)


@pytest.fixture(scope="module")
def shape(small: Diffusion) -> ModelShape:
    return measure_shape(small)


def settings_of(**changes: Any) -> DragSettings:
    return DragSettings(**{"warp_share": 0.0, "lora_steps": 2, "ddim_steps": 4, "max_iterations": 3, **changes})


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora_rank": 128}, {"lora_copies": 3}, {"reference_control": True}, {"lora_targets": "to_q"}],
    ids=lambda changes: next(iter(changes), "defaults"),
)
def test_a_session_holds_about_what_was_estimated(small: Diffusion, shape: ModelShape, changes: dict[str, Any]) -> None:
    settings = settings_of(**changes)
    session = DragSession(small, Image.new("RGB", (96, 64), "teal"), settings=settings)
    session.add_drag("d", Drag(Point(30, 30), Point(70, 40)))
    for _ in itertools.chain(session.prepare(), session.drag(), session.render()):
        pass
    held = session.shared.nbytes + sum(shape.projection_bytes[name] for name in settings.lora_targets.split())
    session.close()
    assert 0.6 * held < estimate(settings, shape, SIZE).session < 1.7 * held


def test_a_pass_stores_about_what_was_estimated(small: Diffusion, shape: ModelShape) -> None:
    """A fitting step, whose LoRA layers store a little more than the pass that was measured."""
    stored: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    lora = Lora(small, rank=16, targets=("to_q", "to_v"), learning_rate=1e-4, generator=torch.Generator())
    latent, text = torch.randn(1, 4, 16, 16), small.embed_prompt("")
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            fit_step(lora, latent, text, ROWS_PER_PASS, torch.Generator())
    finally:
        lora.remove()
    weights = sum(parameter.nbytes for parameter in small.unet.parameters())
    assert sum(stored.values()) == pytest.approx(
        ROWS_PER_PASS * shape.pass_memory.stored.of(16 * 16) + weights, rel=0.4
    )


def test_a_model_measures_the_same_after_use(small: Diffusion, shape: ModelShape) -> None:
    lora = Lora(small, rank=16, targets=("to_q", "to_v"), learning_rate=1e-4, generator=torch.Generator())
    lora.remove()
    assert measure_pass(small, small.embed_prompt("")) == shape.pass_memory


def test_the_estimate_grows_with_what_costs(shape: ModelShape) -> None:
    base = estimate(settings_of(), shape, SIZE)
    assert estimate(settings_of(lora_rank=32), shape, SIZE).session > base.session
    assert estimate(settings_of(lora_copies=9), shape, SIZE).session > base.session
    assert estimate(settings_of(reference_control=True), shape, SIZE).session > base.session
    assert estimate(settings_of(supervision_radius=32), shape, SIZE, drags=64).step > base.step
    assert estimate(settings_of(lora_batch=64), shape, SIZE).step == base.step, "a larger batch takes more passes"


@pytest.mark.parametrize(
    ("changes", "drags", "memory", "advice"),
    [
        ({"lora_rank": 256}, 1, Memory(2**23, 2**40), "lora_rank is 256, use a smaller one"),
        ({"lora_copies": 64, "lora_rank": 1}, 1, Memory(2**19, 2**40), "lora_copies is 64, use a smaller one"),
        ({"reference_control": True, "ddim_steps": 300}, 1, Memory(2**24, 2**40), "turn reference_control off"),
        ({}, 1, Memory(2**40, 2**20), "use a smaller model, or a device with more memory"),
        ({"supervision_radius": 32}, 64, PLENTY, "use smaller radii or fewer drags"),
        ({"tracking_radius": 64}, 7, PLENTY, "use smaller radii or fewer drags"),
    ],
)
def test_what_costs_too_much_is_refused_by_name(
    shape: ModelShape, changes: dict[str, Any], drags: int, memory: Memory, advice: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        check_cost(settings_of(**changes), shape, SIZE, drags, memory)
    assert advice in str(refusal.value)


class OnGpu:
    """A model as if it were on a GPU."""

    def __init__(self, model: Diffusion) -> None:
        self._model, self.device = model, torch.device("cuda:0")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def test_what_does_not_fit_into_a_gpu_is_refused_before_it_starts(
    small: Diffusion, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the command line does: the model before it is loaded, the session before it is prepared."""
    free = 2**23
    monkeypatch.setattr(cost, "free_bytes", lambda _: free)
    model: Any = OnGpu(small)
    needed = gigabytes(peak_bytes(estimate(settings_of(), measure_shape(small), SIZE)))
    with pytest.raises(SettingsError, match=rf"needs about {needed} .*, and 7 MB are available: use a smaller model"):
        check_free(settings_of(), model, SIZE, 1)
    check_free(settings_of(), small, SIZE, 1)
    source, free = find_model(str(tiny_folder)), 2**10
    monkeypatch.setattr(cost, "best_dtype", lambda *_, **__: torch.float16)
    with pytest.raises(ModelError, match=r"the model 'model' needs about \d+ \w+, 0 MB are free on 'cuda:0': choose"):
        check_weights(source, torch.device("cuda:0"))
    check_weights(source, torch.device("cpu"))
    free = 2**40
    check_free(settings_of(), model, SIZE, 1)
    check_weights(source, torch.device("cuda:0"))


def test_what_people_use_is_not_refused(shape: ModelShape) -> None:
    check_cost(settings_of(), shape, SIZE, 64, PLENTY)
    assert estimate(settings_of(supervision_radius=4, tracking_radius=12), shape, SIZE, drags=64).cells < MAX_CELLS


def test_a_model_that_saves_memory_is_refused_only_if_that_is_not_enough(shape: ModelShape) -> None:
    saving, large = replace(shape, saves_memory=True), Size(256, 256)
    usual_cost, saving_cost = (estimate(settings_of(), each, large) for each in (shape, saving))
    assert saving_cost.step < usual_cost.step
    assert saving_cost.session == usual_cost.session
    between = Memory(2**40, (peak_bytes(saving_cost) + peak_bytes(usual_cost)) // 2)
    check_cost(settings_of(), saving, large, 1, between)
    with pytest.raises(SettingsError, match=r"needs about .* and .* are available"):
        check_cost(settings_of(), shape, large, 1, between)
    with pytest.raises(SettingsError, match=gigabytes(peak_bytes(saving_cost))):
        check_cost(settings_of(), saving, large, 1, Memory(2**40, peak_bytes(saving_cost) - 1))
