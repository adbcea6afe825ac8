"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) as a function of tensors, so that a CUDA graph can take its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BETAS, EPSILON, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 0.01
"""Decay of the moments, what keeps the denominator from 0, and decay of the weights; as in torch."""


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of the gradients, one for each weight, of its shape."""

    first: list[Tensor]
    second: list[Tensor]

    @staticmethod
    def zeros(weights: Sequence[Tensor]) -> Moments:
        """Those before the first step."""
        first, second = ([torch.zeros_like(weight, requires_grad=False) for weight in weights] for _ in range(2))
        return Moments(first, second)


@dataclass(frozen=True, eq=False)
class AdamW:
    """What a step depends on, beside the weights and their gradients.

    Args:
        moments: before the step.
        length: of the step: the learning rate, corrected for the first moment's bias; a scalar.
        correction: square root of that for the second moment's bias; a scalar.
        decay: factor on the weights; a scalar.
    """

    moments: Moments
    length: Tensor
    correction: Tensor
    decay: Tensor


def step_numbers(learning_rate: float, step: int) -> tuple[float, float, float]:
    """Length, correction and decay of a step, the first being 1; see `AdamW`."""
    first, second = (1 - beta**step for beta in BETAS)
    return learning_rate / first, second**0.5, 1 - learning_rate * WEIGHT_DECAY


@torch.no_grad()
def adamw_step(weights: Sequence[Tensor], gradients: Sequence[Tensor], adam: AdamW) -> tuple[list[Tensor], Moments]:
    """One step, bit for bit as `torch.optim.AdamW` takes it on a CPU.

    Returns:
        The weights and the moments after it.
    """
    gradients = list(gradients)
    first = torch._foreach_lerp(adam.moments.first, gradients, 1 - BETAS[0])
    second = torch._foreach_mul(adam.moments.second, BETAS[1])
    torch._foreach_addcmul_(second, gradients, gradients, 1 - BETAS[1])
    denominators = torch._foreach_sqrt(second)
    torch._foreach_div_(denominators, adam.correction)
    torch._foreach_add_(denominators, EPSILON)
    stepped = torch._foreach_mul(list(weights), adam.decay)
    torch._foreach_addcdiv_(stepped, torch._foreach_mul(first, -adam.length), denominators)
    return list(stepped), Moments(list(first), list(second))
