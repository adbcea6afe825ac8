from __future__ import annotations

import torch
from torch import Tensor, nn

from livedrag.editor.training.muon import COEFFICIENTS, Muon, orthogonal, split


def step_by_step(matrix: Tensor) -> Tensor:
    """Newton and Schulz as written, on the whole matrix."""
    x: Tensor = matrix.double() / matrix.double().norm()
    for first, third, fifth in COEFFICIENTS:
        square = x @ x.T
        x = first * x + (third * square + fifth * square @ square) @ x
    return x


def test_small_squares_give_what_whole_matrices_give() -> None:
    generator = torch.Generator().manual_seed(0)
    stacks = [torch.randn(*shape, generator=generator) for shape in ((3, 24, 90), (1, 90, 24), (2, 32, 32))]
    for found_of, stack in zip(orthogonal(stacks), stacks, strict=True):
        for found, matrix in zip(found_of, stack, strict=True):
            torch.testing.assert_close(found.double(), step_by_step(matrix), atol=2e-3, rtol=0)
            values = torch.linalg.svdvals(found)
            assert values.max() < 1.25
            assert values.median() > 0.65


def test_vectors_embeddings_and_last_layers_are_left_to_adam() -> None:
    modules = nn.Sequential(nn.Embedding(50, 32), nn.Conv2d(3, 32, 3), nn.GroupNorm(4, 32), nn.Conv2d(32, 4, 3))
    matrices, others = split(modules)
    assert [tuple(matrix.shape) for matrix in matrices] == [(32, 3, 3, 3)]
    assert len(others) == len(list(modules.parameters())) - 1


def test_it_finds_a_known_kernel() -> None:
    torch.manual_seed(0)
    wanted = nn.Conv2d(16, 16, 3).requires_grad_(False)
    found = nn.Conv2d(16, 16, 3)
    found.weight.data = found.weight.data.to(memory_format=torch.channels_last)
    optimizer = Muon(split(found)[0], lr=0.02, weight_decay=0)
    pictures = torch.randn(4, 16, 8, 8)

    def loss() -> Tensor:
        return nn.functional.mse_loss(nn.functional.conv2d(pictures, found.weight, wanted.bias), wanted(pictures))

    before = float(loss().detach())
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 60)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert float(loss().detach()) < before / 20
