from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from livedrag.editor import Diffusion, NumericalError
from livedrag.editor.drag.passes import alone
from livedrag.editor.fitting.fit_step import ROWS_PER_PASS, FitPass, fit_passes
from livedrag.editor.fitting.lora import Lora
from tests.fitting import fit_step


def make_lora(
    model: Diffusion,
    seed: int = 0,
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out"),
    learning_rate: float = 0.01,
) -> Lora:
    generator = torch.Generator().manual_seed(seed)
    return Lora(model, rank=4, targets=targets, learning_rate=learning_rate, generator=generator)


@pytest.fixture
def lora(tiny: Diffusion) -> Iterator[Lora]:
    made = make_lora(tiny)
    yield made
    made.remove()


def noise_of(model: Diffusion) -> torch.Tensor:
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model.predict(latent, 400, model.embed_prompt("a cat")).noise


def test_fitting_makes_the_model_know_the_picture(model: Diffusion, samples: Path) -> None:
    """The loss over fixed draws falls in fifty steps on a picture the built-in model has to learn."""
    from PIL import Image

    from livedrag.editor.picture import to_tensor
    from livedrag.editor.points import Size

    lora = make_lora(model, learning_rate=0.003)
    try:
        latent = model.encode(to_tensor(Image.open(samples / "koala.png"), Size(256, 256)).flip(-2))
        text = model.embed_prompt("a koala")

        def loss() -> float:
            total = 0.0
            with torch.no_grad(), lora.active():
                for timestep in (100, 300, 500, 700):
                    generator = torch.Generator().manual_seed(timestep)
                    noise = torch.randn(latent.shape, generator=generator)
                    alpha = model.schedule.alphas[timestep]
                    noisy = alpha**0.5 * latent + (1 - alpha) ** 0.5 * noise
                    error = (model.predict(noisy, timestep, text).noise - noise).pow(2).mean().item()
                    total += error / alpha  # in velocity, which this model predicts
            return total

        before, generator = loss(), torch.Generator().manual_seed(0)
        for _ in range(50):
            fit_step(lora, latent, text, 2, generator)
        after = loss()
        assert after < 0.95 * before
    finally:
        lora.remove()


def test_only_the_adapter_changes_and_only_while_active(tiny: Diffusion, lora: Lora) -> None:
    base = {name: tensor.clone() for name, tensor in tiny.unet.state_dict().items() if "lora" not in name}
    before = noise_of(tiny)
    for _ in range(3):
        fit_step(lora, torch.randn(1, 4, 16, 16), tiny.embed_prompt("a cat"), 2, torch.Generator())
    assert torch.equal(noise_of(tiny), before)
    with lora.active():
        assert not torch.equal(noise_of(tiny), before)
    assert torch.equal(noise_of(tiny), before)
    after = tiny.unet.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in base.items())


def test_nothing_requires_grad_but_the_adapter_in_training(tiny: Diffusion, lora: Lora) -> None:
    def requiring() -> int:
        return sum(parameter.requires_grad for parameter in tiny.unet.parameters())

    assert requiring() == 0
    with lora.active():
        assert requiring() == 0
    seen: list[int] = []
    watch = tiny.unet.register_forward_pre_hook(lambda *_: seen.append(requiring()))
    fit_step(lora, torch.randn(1, 4, 16, 16), tiny.embed_prompt("a cat"), 2, torch.Generator())
    watch.remove()
    assert seen == [len(lora.parameters())]
    assert seen[0] > 0
    assert requiring() == 0


@pytest.mark.parametrize("targets", [("to_q",), ("to_q", "to_k", "to_v", "to_out")], ids=["others", "the same"])
def test_two_pictures_on_one_model_do_not_mix(tiny: Diffusion, lora: Lora, targets: tuple[str, ...]) -> None:
    latent, text = torch.randn(1, 4, 16, 16), tiny.embed_prompt("a cat")
    fit_step(lora, latent, text, 2, torch.Generator().manual_seed(1))
    fit_step(lora, latent, text, 2, torch.Generator().manual_seed(2))
    with lora.active():
        alone = noise_of(tiny)
    other = make_lora(tiny, seed=9, targets=targets)
    try:
        fit_step(other, -latent, text, 2, torch.Generator().manual_seed(4))
        with lora.active():
            assert torch.equal(noise_of(tiny), alone)
        with other.active():
            assert not torch.equal(noise_of(tiny), alone)
        fit_step(lora, latent, text, 2, torch.Generator().manual_seed(5))  # in the others' place, by PEFT
        with other.active():
            theirs = noise_of(tiny)
        with lora.active():
            alone = noise_of(tiny)
        with other.active():
            assert torch.equal(noise_of(tiny), theirs)
    finally:
        other.remove()
    with lora.active():
        assert torch.equal(noise_of(tiny), alone)


def test_in_use_it_says_what_it_says_in_fitting(tiny: Diffusion, lora: Lora) -> None:
    """Added into the weights it is the same function as beside them, and follows every step of fitting."""
    latent, text = torch.randn(1, 4, 16, 16), tiny.embed_prompt("a cat")
    for seed in range(3):
        fit_step(lora, latent, text, 2, torch.Generator().manual_seed(seed))
        with lora.unmerged():
            beside = noise_of(tiny)
        with lora.active():
            assert not any("lora" in name for name, _ in tiny.unet.named_modules())
            torch.testing.assert_close(noise_of(tiny), beside, rtol=1e-4, atol=1e-5)


def test_the_same_seed_fits_the_same_weights(tiny: Diffusion) -> None:
    fitted = []
    for _ in range(2):
        lora, generator = make_lora(tiny, seed=5), torch.Generator().manual_seed(6)
        latent = torch.randn(1, 4, 16, 24, generator=generator)  # not square: rows are random crops
        losses = [fit_step(lora, latent, tiny.embed_prompt(""), 2, generator) for _ in range(3)]
        fitted.append((losses, [parameter.detach().clone() for parameter in lora.parameters()]))
        lora.remove()
    (first_losses, first), (second_losses, second) = fitted
    assert first_losses == second_losses
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def passes_of_a_step(
    lora: Lora, latent: torch.Tensor, text: torch.Tensor, batch: int, losses: list[float]
) -> Iterator[FitPass]:
    """What a step yields between its passes; adds its loss to the others."""
    losses.append((yield from alone(fit_passes(lora, latent, text, batch, torch.Generator().manual_seed(1)))))


def test_a_large_batch_takes_several_passes_with_the_gradient_of_one(
    tiny: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    latent, text, batch = torch.randn(1, 4, 16, 16), tiny.embed_prompt("a cat"), 2 * ROWS_PER_PASS + 1
    gradients, steps = [], []
    losses: list[float] = []
    for rows in (batch, ROWS_PER_PASS):
        monkeypatch.setattr("livedrag.editor.fitting.fit_step.ROWS_PER_PASS", rows)
        lora = make_lora(tiny, seed=5)
        steps.append(list(passes_of_a_step(lora, latent, text, batch, losses)))
        gradients.append(lora.moments.first)
        lora.remove()
    assert [step.rows for step in steps[1]] == [ROWS_PER_PASS, 2 * ROWS_PER_PASS]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-7)


def test_diverging_is_an_error_and_leaves_the_weights(tiny: Diffusion, lora: Lora) -> None:
    before = [parameter.detach().clone() for parameter in lora.parameters()]
    with pytest.raises(NumericalError, match="nan"):
        fit_step(lora, torch.full((1, 4, 16, 16), torch.nan), tiny.embed_prompt(""), 1, torch.Generator())
    assert all(torch.equal(one, two) for one, two in zip(before, lora.parameters(), strict=True))
