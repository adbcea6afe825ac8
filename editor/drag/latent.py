"""The latent that is dragged, with its optimizer's state; and the check that a latent is finite."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from livedrag.editor.errors import NumericalError

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's decay of the moments, and what keeps its denominator from 0; as in torch."""


@dataclass(frozen=True, eq=False)
class Adam:
    """What a step of Adam depends on, beside the latent and its gradient.

    Args:
        moments: first and second, ``(2, 1, 4, H/8, W/8)``.
        length: of the step: the learning rate, corrected for the first moment's bias; a scalar.
        correction: square root of that for the second moment's bias; a scalar.
        mini: whether all numbers of the latent share one second moment, their mean (Adam-mini, arXiv 2406.16793, with
            the latent as its one block); a scalar. With one of its own each number takes steps of one size, however
            small its gradient, so that noise is added all around what is pulled.
    """

    moments: Tensor
    length: Tensor
    correction: Tensor
    mini: Tensor


@torch.no_grad()
def adam_step(latent: Tensor, gradient: Tensor, adam: Adam) -> tuple[Tensor, Tensor]:
    """One step of Adam (Kingma and Ba, arXiv 1412.6980), bit for bit as `torch.optim.Adam` takes it on a CPU.

    Returns:
        The latent and the moments after it.
    """
    first, second = adam.moments
    first = first.lerp(gradient, 1 - BETAS[0])
    second = (second * BETAS[1]).addcmul(gradient, gradient, value=1 - BETAS[1])
    scale = torch.where(adam.mini, second.mean(), second)
    denominator = scale.sqrt() / adam.correction + EPSILON
    return torch.addcdiv(latent, first * -adam.length, denominator), torch.stack([first, second])


class DraggedLatent:
    """The latent that Adam optimises, and nothing else.

    Args:
        start: ``(1, 4, H/8, W/8)``; copied.
        iteration: iterations that led to it.
        unedited: whether it is the unedited latent, to the last bit.

    Attributes:
        value: the latent now, ``(1, 4, H/8, W/8)``.
        steps: of Adam that led to it.
        iteration: iterations that led to it.
        moved: whether it has changed since the handles were tracked last.
        unedited: whether nothing has changed it: there may have been iterations in which nothing was to be moved.
    """

    def __init__(self, start: Tensor, iteration: int, *, unedited: bool) -> None:
        self.value = start.detach().clone()
        self.steps = 0
        self.iteration = iteration
        self.moved = False
        self.unedited = unedited
        self._moments = torch.zeros_like(torch.stack([start, start]))

    def adam(self, learning_rate: float, *, mini: bool = False, moments: Tensor | None = None) -> Adam:
        """Adam's state, and the numbers of its next step, on the CPU.

        Args:
            learning_rate: of the step.
            mini: as in `Adam`.
            moments: after the next step, for the step that follows it.
        """
        steps = self.steps + (1 if moments is None else 2)
        first, second = (1 - beta**steps for beta in BETAS)
        length, correction = torch.tensor([learning_rate / first, second**0.5], dtype=self.value.dtype)
        return Adam(self._moments if moments is None else moments, length, correction, torch.tensor(mini))

    def take(self, value: Tensor, moments: Tensor, *, loss: float, largest: float, learning_rate: float) -> None:
        """Take a step of Adam.

        Args:
            value: the latent after it.
            moments: Adam's, after it.
            loss: before it.
            largest: absolute number in the gradient.
            learning_rate: of the step.

        Raises:
            NumericalError: loss or gradient is not finite; the latent is unchanged.
        """
        if not (math.isfinite(loss) and math.isfinite(largest)):
            raise NumericalError(
                f"iteration {self.iteration + 1} gave a loss of {loss} and a gradient of {largest}: "
                f"try a latent_lr below {learning_rate:g}"
            )
        self.value, self._moments = value, moments
        self.steps += 1
        self.unedited = self.unedited and largest == 0

    def shift(self, change: Tensor) -> None:
        """Add to the latent, without a step of Adam."""
        self.unedited = self.unedited and not change.any()
        self.value = self.value + change

    def keep(self, latent: Tensor, mask: Tensor) -> None:
        """Take another latent where a mask is 0, without a step of Adam; it is already so if nothing has changed."""
        if not self.unedited:
            self.value = self.value + (latent - self.value) * (1 - mask)

    @property
    def adam_state(self) -> dict[str, Tensor]:
        """Adam's moments and steps, as `torch.optim.Adam` names them; empty before the first step."""
        if not self.steps:
            return {}
        first, second = self._moments
        return {"step": torch.tensor(float(self.steps)), "exp_avg": first, "exp_avg_sq": second}

    def load_adam(self, state: dict[str, Tensor]) -> None:
        """Take Adam's state from a snapshot."""
        self.steps = int(state["step"])
        self._moments = torch.stack([state["exp_avg"], state["exp_avg_sq"]]).to(self.value)


def check_finite(tensor: Tensor, what: str) -> Tensor:
    """The tensor itself. Raises `NumericalError` if a number in it is not finite; ``what`` says where it came from."""
    if not torch.isfinite(tensor).all():
        raise NumericalError(f"{what} gave numbers that are not finite; the state before it is unchanged")
    return tensor
