"""The latent that is dragged, with its optimiser; and the check that a latent is finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from livedrag.editor.drag.passes import Gradient
from livedrag.editor.errors import NumericalError


class DraggedLatent:
    """The latent that Adam optimises, and nothing else.

    Args:
        start: ``(1, 4, H/8, W/8)``; copied.
        iteration: iterations that led to it.
        learning_rate: of Adam.
        unedited: whether it is the unedited latent, to the last bit.

    Attributes:
        value: the latent now, ``(1, 4, H/8, W/8)``; requires grad.
        optimizer: Adam on it.
        iteration: iterations that led to it.
        moved: whether it has changed since the handles were tracked last.
        unedited: whether nothing has changed it: there may have been iterations in which nothing was to be moved.
    """

    def __init__(self, start: Tensor, iteration: int, learning_rate: float, *, unedited: bool) -> None:
        self.value = start.detach().clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.value], lr=learning_rate)
        self.iteration = iteration
        self.moved = False
        self.unedited = unedited

    def step(self, gradient: Gradient, learning_rate: float) -> None:
        """One step of Adam.

        Args:
            gradient: of the loss with respect to `value`.
            learning_rate: of this step.

        Raises:
            NumericalError: loss or gradient is not finite; the latent is unchanged.
        """
        if not (math.isfinite(gradient.loss) and math.isfinite(gradient.largest)):
            raise NumericalError(
                f"iteration {self.iteration + 1} gave a loss of {gradient.loss} and a gradient of {gradient.largest}: "
                f"try a latent_lr below {learning_rate:g}"
            )
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.value.grad = gradient.value
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.unedited = self.unedited and gradient.largest == 0

    @torch.no_grad()
    def shift(self, change: Tensor) -> None:
        """Add to the latent in place, without a step of Adam."""
        self.unedited = self.unedited and not change.any()
        self.value += change

    def load_adam(self, state: dict[str, Tensor]) -> None:
        """Take Adam's moments from a snapshot."""
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": {0: state}})


def check_finite(tensor: Tensor, what: str) -> Tensor:
    """The tensor itself. Raises `NumericalError` if a number in it is not finite; ``what`` says where it came from."""
    if not torch.isfinite(tensor).all():
        raise NumericalError(f"{what} gave numbers that are not finite; the state before it is unchanged")
    return tensor
