"""Products of matrices in the place of convolutions are the same layers, forward and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from livedrag.editor import Diffusion
from livedrag.editor.models.convolution import MAX_PIXELS, MIN_WEIGHTS, MatmulConv2d, use_matrix_products
from tests.pipelines import write_pipeline


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(5, 7, 3, padding=1),
        nn.Conv2d(5, 7, 1),
        nn.Conv2d(5, 7, 3, stride=2, padding=1),
        nn.Conv2d(5, 7, (3, 5), stride=(1, 2), padding=(0, 2)),
    ],
    ids=["same size", "pointwise", "half the size", "uneven"],
)
def test_it_is_the_same_layer(layer: nn.Conv2d, rows: int) -> None:
    layer = layer.double().requires_grad_(False)
    product = MatmulConv2d(layer)
    maps = torch.randn(rows, 5, 5, 7, dtype=torch.float64, requires_grad=True)
    expected, found = layer(maps), product(maps)
    assert found.grad_fn.name() != expected.grad_fn.name(), "it is computed in another way"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    pull = torch.randn_like(expected)
    (expected_gradient,) = torch.autograd.grad(expected, maps, pull)
    (gradient,) = torch.autograd.grad(found, maps, pull)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-12)


def test_large_maps_are_left_to_the_library() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1)
    product = MatmulConv2d(layer)
    side = int(MAX_PIXELS**0.5)
    small, large = torch.randn(1, 3, side, side), torch.randn(1, 3, side + 1, side)
    assert product(small).grad_fn.name() != layer(small).grad_fn.name()
    assert product(large).grad_fn.name() == layer(large).grad_fn.name()
    assert torch.equal(product(large), layer(large))


def test_only_plain_layers_of_many_weights_are_replaced_and_names_stay() -> None:
    heavy = nn.Conv2d(700, 700, 3, padding=1)
    assert heavy.weight.numel() > MIN_WEIGHTS
    network = nn.Sequential(
        heavy,
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(700, 700, 3, dilation=2)),
        nn.Conv2d(700, 700, 3, padding="same"),
    )
    before = network.state_dict()
    use_matrix_products(network)
    replaced = [name for name, layer in network.named_modules() if isinstance(layer, MatmulConv2d)]
    assert replaced == ["0"]
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_whole_network_says_the_same_with_the_same_gradient(tmp_path: Path, rows: int) -> None:
    folder = write_pipeline(tmp_path / "model")
    model = Diffusion.load(str(folder), device="cpu", dtype=torch.float64)
    text = model.embed_prompt("a cat")
    latent = torch.randn(rows, 4, 16, 16, dtype=torch.float64, requires_grad=True)

    def said() -> tuple[torch.Tensor, torch.Tensor]:
        prediction = model.predict(latent, 300, text)
        (gradient,) = torch.autograd.grad(prediction.noise.sum() + prediction.features.sum(), latent)
        return prediction.noise, gradient

    noise, gradient = said()
    use_matrix_products(model.unet, min_weights=0)
    assert any(isinstance(layer, MatmulConv2d) for layer in model.unet.modules())
    noise_again, gradient_again = said()
    torch.testing.assert_close(noise_again, noise, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient_again, gradient, rtol=1e-9, atol=1e-10)
