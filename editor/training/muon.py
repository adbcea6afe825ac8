"""Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon): momentum whose update of each matrix has all
its singular values near one. torch's own takes plain matrices only, in bfloat16, which CPUs without it are slow at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
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
            alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape[0], parameter[0].numel()].append(parameter)
            updates = orthogonal([self._momentum(members, group["momentum"]) for members in alike.values()])
            for ((rows, columns), members), update in zip(alike.items(), updates, strict=True):
                size = group["lr"] * SIZE * max(rows, columns) ** 0.5
                shaped = [each.view(member.shape) for each, member in zip(update, members, strict=True)]
                torch._foreach_mul_(members, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(members, shaped, alpha=-size)

    def _momentum(self, members: list[Tensor], momentum: float) -> Tensor:
        """What parameters of one shape should move along, ``(N, rows, columns)``."""
        gradients = [member.grad for member in members if member.grad is not None]
        momenta = []
        for member in members:
            state: dict[str, Any] = self.state[member]
            if not state:
                state["momentum"] = torch.zeros_like(member)
            momenta.append(state["momentum"])
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        return torch.stack([ahead.flatten(1) for ahead in torch._foreach_lerp(gradients, momenta, momentum)])


def orthogonal(stacks: Sequence[Tensor]) -> list[Tensor]:
    """The nearest matrices with singular values of about one (0.7 to 1.2), by Newton and Schulz.

    All is a polynomial of the product of a matrix with its own transpose, so that only small squares are multiplied,
    all of one size together.

    Args:
        stacks: each ``(N, rows, columns)``.
    """
    lying = [stack if stack.shape[1] <= stack.shape[2] else stack.mT for stack in stacks]
    wide = [stack / stack.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12) for stack in lying]
    alike: dict[int, list[int]] = defaultdict(list)
    for index, stack in enumerate(wide):
        alike[stack.shape[1]].append(index)
    found = list(stacks)
    for indices in alike.values():
        wholes = _polynomial(torch.cat([wide[index] @ wide[index].mT for index in indices]))
        for index, whole in zip(indices, wholes.split([len(wide[index]) for index in indices]), strict=True):
            straight = whole @ wide[index]
            found[index] = straight if lying[index] is stacks[index] else straight.mT
    return found


def _polynomial(square: Tensor) -> Tensor:
    """The factor of the matrices, from their squares ``(N, side, side)``."""
    one = torch.eye(square.shape[1], device=square.device)
    factor = whole = one
    for step, (first, third, fifth) in enumerate(COEFFICIENTS):
        if step > 0:
            square = factor @ square @ factor
        factor = first * one + third * square + fifth * (square @ square)
        whole = factor if step == 0 else factor @ whole
    return whole


def split(modules: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters for `Muon`, and those for AdamW: vectors, embeddings and matrices with a side below `SMALLEST`."""
    embedded = {id(child.weight) for child in modules.modules() if isinstance(child, nn.Embedding)}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in modules.parameters():
        large = parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= SMALLEST
        (matrices if large and id(parameter) not in embedded else others).append(parameter)
    return matrices, others
