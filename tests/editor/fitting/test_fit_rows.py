"""A step of fitting as a function of tensors: AdamW's numbers are torch's, and the device is waited for once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from livedrag.editor import Diffusion
from livedrag.editor.drag.passes import answer
from livedrag.editor.fitting.adamw import AdamW, Moments, adamw_step, step_numbers
from livedrag.editor.fitting.fit_step import ROWS_PER_PASS, FitGradients, FitRequest, Fitted, fit_passes
from livedrag.editor.fitting.lora import Lora
from livedrag.editor.models.graphs import Graphs
from tests.fitting import fit_step
from tests.strict_recorder import WAITS, StrictRecorder, Watched

BATCHES = [2, 2 * ROWS_PER_PASS + 1]
RATE = 0.02


@pytest.fixture(scope="module", params=[torch.float32, torch.float64])
def tiny_of(request: pytest.FixtureRequest, tiny_folder: Path) -> Diffusion:
    return Diffusion.load(str(tiny_folder), device="cpu", dtype=request.param)


def make_lora(model: Diffusion, rank: int = 4, seed: int = 0) -> Lora:
    generator = torch.Generator().manual_seed(seed)
    return Lora(model, rank=rank, targets=("to_q", "to_out"), learning_rate=RATE, generator=generator)


def torch_adamw(lora: Lora) -> tuple[list[torch.nn.Parameter], torch.optim.AdamW]:
    """Weights like these, and torch's own optimizer of them."""
    weights = [torch.nn.Parameter(parameter.detach().clone()) for parameter in lora.parameters()]
    return weights, torch.optim.AdamW(weights, lr=RATE)


def gradients_of(model: Diffusion, lora: Lora, latents: torch.Tensor, batch: int, seed: int) -> list[torch.Tensor]:
    """Of the step that the seed draws, added up pass by pass; the LoRA does not change."""
    passes = fit_passes(lora, latents, model.embed_prompt("a cat"), batch, torch.Generator().manual_seed(seed))
    summed: list[torch.Tensor] = []
    step = next(passes)
    while True:
        if not isinstance(step, FitRequest):
            step = next(passes)
            continue
        asked = FitRequest(lora, step.noisy, step.timesteps, step.prompt, step.wanted, batch)
        (own,) = answer([asked])
        assert isinstance(own, FitGradients)
        summed = [a + b for a, b in zip(summed, own.values, strict=True)] if summed else own.values
        if step.ends:
            passes.close()
            return summed
        step = passes.send(own)


def latents_of(model: Diffusion) -> torch.Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7)).to(model.latent_dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_of_adamw_is_torchs(dtype: torch.dtype) -> None:
    weights = [torch.randn(3, 5, dtype=dtype), torch.randn(7, dtype=dtype)]
    theirs = [torch.nn.Parameter(weight.clone()) for weight in weights]
    optimizer = torch.optim.AdamW(theirs, lr=RATE)
    moments = Moments.zeros(weights)
    for step in range(1, 8):
        gradients = [torch.randn_like(weight) for weight in weights]
        numbers = torch.tensor(step_numbers(RATE, step), dtype=dtype)
        weights, moments = adamw_step(weights, gradients, AdamW(moments, *numbers))
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        for index, parameter in enumerate(theirs):
            assert torch.equal(weights[index], parameter)
            assert torch.equal(moments.first[index], optimizer.state[parameter]["exp_avg"])
            assert torch.equal(moments.second[index], optimizer.state[parameter]["exp_avg_sq"])


@pytest.mark.parametrize("batch", BATCHES, ids=["one pass", "several passes"])
@pytest.mark.parametrize("graphed", [False, True], ids=["eager", "graphed"])
def test_a_fit_gives_the_weights_and_moments_that_torchs_adamw_gives(
    tiny_of: Diffusion, batch: int, graphed: bool
) -> None:
    model, latents, lora = tiny_of, latents_of(tiny_of), make_lora(tiny_of)
    weights, optimizer = torch_adamw(lora)
    recorder = StrictRecorder()
    graphs, prompt = Graphs(recorder, eager_runs=1) if graphed else None, model.embed_prompt("a cat")
    try:
        for seed in range(4):
            for weight, gradient in zip(weights, gradients_of(model, lora, latents, batch, seed), strict=True):
                weight.grad = gradient
            optimizer.step()
            model.graphs = graphs
            fit_step(lora, latents, prompt, batch, torch.Generator().manual_seed(seed))
            model.graphs = None
            assert all(torch.equal(own, theirs) for own, theirs in zip(lora.parameters(), weights, strict=True))
        for index, (theirs, state) in enumerate(zip(weights, map(optimizer.state.get, weights), strict=True)):
            own_state = lora.state()
            assert torch.equal(own_state[f"{index}.weight"], theirs)
            assert state is not None
            assert {name.partition(".")[2] for name in own_state if name.startswith(f"{index}.")} == {"weight", *state}
            assert all(torch.equal(own_state[f"{index}.{name}"], value) for name, value in state.items())
            assert all(own_state[f"{index}.{name}"].dtype == value.dtype for name, value in state.items())
    finally:
        model.graphs = None
        lora.remove()
    assert recorder.recorded == (0 if not graphed else 1 if batch == 2 else 3)


def test_a_state_of_torchs_adamw_goes_on_bit_for_bit(tiny_of: Diffusion) -> None:
    """As earlier versions stored it, in snapshots."""
    model, latents, lora = tiny_of, latents_of(tiny_of), make_lora(tiny_of)
    weights, optimizer = torch_adamw(lora)
    other = make_lora(model, seed=3)

    def step_of_torchs(seed: int) -> None:
        for weight, gradient in zip(weights, gradients_of(model, other, latents, 2, seed), strict=True):
            weight.grad = gradient
        optimizer.step()

    try:
        other.load_weights(lora.down, lora.up)
        step_of_torchs(0)
        state = {f"{index}.weight": weight.detach().clone() for index, weight in enumerate(weights)}
        for index, weight in enumerate(weights):
            state.update({f"{index}.{name}": value.clone() for name, value in optimizer.state[weight].items()})
        other.load_state(state)
        assert other.state().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in other.state().items())
        step_of_torchs(1)
        fit_step(other, latents, model.embed_prompt("a cat"), 2, torch.Generator().manual_seed(1))
        assert all(torch.equal(own, theirs) for own, theirs in zip(other.parameters(), weights, strict=True))
        other.load_weights(lora.down, lora.up)
        assert {name.partition(".")[2] for name in other.state()} == {"weight"}, "AdamW starts anew"
    finally:
        lora.remove()
        other.remove()


@pytest.mark.parametrize("count", [1, 2], ids=["alone", "together"])
def test_a_pass_of_fitting_waits_for_the_device_once(
    tiny_of: Diffusion, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loras = tiny_of, [make_lora(tiny_of, rank=2 + seed, seed=seed) for seed in range(count)]
    prompt, reads = model.embed_prompt("a cat"), []
    to_list = torch.Tensor.tolist

    def note(tensor: torch.Tensor) -> Any:
        reads.append(tensor.shape)
        return to_list(tensor)

    noisy, wanted = torch.randn(2, 2, 4, 16, 16, dtype=model.latent_dtype)
    try:
        requests = [FitRequest(lora, noisy, torch.tensor([5, 800]), prompt, wanted, 2, ends=True) for lora in loras]
        answer(requests)
        monkeypatch.setattr(torch.Tensor, "tolist", note)
        with Watched(WAITS):
            fitted = answer(requests)
        assert reads == [torch.Size([2 * count])]
        assert all(isinstance(each, Fitted) and each.norm > 0 for each in fitted)
    finally:
        for lora in loras:
            lora.remove()
