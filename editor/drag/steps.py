"""What a session yields after each step of inversion, dragging and rendering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from livedrag.editor.points import Point


@dataclass(frozen=True)
class InversionStep:
    """After a step of DDIM inversion.

    Args:
        step: steps taken, of ``steps``.
        steps: of the whole inversion.
    """

    step: int
    steps: int


@dataclass(frozen=True)
class DragStep:
    """After an iteration of dragging.

    Args:
        iteration: iterations since the picture was prepared, or since the moment that was jumped to.
        handles: by drag: where this iteration found the content, in pixels of the picture.
        distances: by drag: from there to the target, in pixels of the picture.
        loss: motion supervision plus mask loss; 0 if the latent was not optimised.
        arrived: all handles have reached their targets; the loop ends here.
        predicted_x0: the clean latent predicted by this pass, ``(1, 4, H/8, W/8)``, if a preview was due.
        content: by drag: from where the picture shows its content to the target, in pixels of the picture, if it was
            searched; see `livedrag.editor.drag.content`. On CUDA it may be of a prediction some iterations before.
        lost: the drags whose content did not follow though it was tracked to its target.
    """

    iteration: int
    handles: dict[str, Point]
    distances: dict[str, float]
    loss: float
    arrived: bool
    predicted_x0: Tensor | None
    content: Mapping[str, float] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class RenderStep:
    """After a step of denoising.

    Args:
        step: steps taken, of ``steps``.
        steps: of the whole rendering.
        predicted_x0: the predicted clean latent, ``(1, 4, H/8, W/8)``, if a preview was due.
    """

    step: int
    steps: int
    predicted_x0: Tensor | None
