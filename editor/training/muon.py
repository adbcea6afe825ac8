"""Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon): momentum whose update of each matrix has all
its singular values near one. torch's own takes plain matrices only, in bfloat16, which CPUs without it are slow at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST = 16
"""Matrices with fewer rows or columns, such as a network's last layer, are left to AdamW."""
COEFFICIENTS = ((3.4445, -4.7750, 2.0315),) * 5
"""Of the odd quintic that is applied again and again, as its author gives them."""
SIZE = 0.2
"""Root mean square of an update at a learning rate of one: AdamW's, so that both take the same rate (2502.16982)."""


class Muon(torch.optim.Optimizer):
    """For matrices, and for kernels of convolutions as matrices with a row for each output.

    Args:
        params: as of `split`.
        lr: learning rate, of AdamW's scale.
        momentum: Nesterov's.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # torch's has overloads for closures: nobody here passes one
        """Take one step."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._momentum(parameter, group["momentum"])
                    alike[update.shape[0], update.shape[1]].append((parameter, update))
            for (rows, columns), members in alike.items():
                updates = orthogonal(torch.stack([update for _, update in members]))
                size = group["lr"] * SIZE * max(rows, columns) ** 0.5
                for (parameter, _), update in zip(members, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.view(parameter.shape), alpha=-size)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum).flatten(1)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values of about one (0.7 to 1.2), by Newton and Schulz.

    All is a polynomial of the product of a matrix with its own transpose, so that only small squares are multiplied.

    Args:
        matrices: ``(N, rows, columns)``.
    """
    lying = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    wide: Tensor = lying / lying.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    square = wide @ wide.mT
    one = torch.eye(square.shape[1])
    factor = whole = one
    for step, (first, third, fifth) in enumerate(COEFFICIENTS):
        if step > 0:
            square = factor @ square @ factor
        factor = first * one + third * square + fifth * (square @ square)
        whole = factor if step == 0 else factor @ whole
    wide = whole @ wide
    return wide if matrices.shape[1] <= matrices.shape[2] else wide.mT


def split(modules: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters for `Muon`, and those for AdamW: vectors, embeddings and matrices with a side below `SMALLEST`."""
    embedded = {id(child.weight) for child in modules.modules() if isinstance(child, nn.Embedding)}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in modules.parameters():
        large = parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= SMALLEST
        (matrices if large and id(parameter) not in embedded else others).append(parameter)
    return matrices, others
