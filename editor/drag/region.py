"""Region supervision: all that a drag moves is pulled along, by the displacement field of the drags.

The unedited features are carried along the field, a little further in each iteration, and the latent follows them. This
is the idea of DragFlow (arXiv 2510.02253), which carries a region by an affine map; the field is that of the instant
preview. Nothing is tracked: content is where the field says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from livedrag.editor.drag.handles import Handle, Handles, cell_and_offset, current_position
from livedrag.editor.drag.latent_warp import MIN_DISTANCE, working_drags
from livedrag.editor.drag.warp import WarpField
from livedrag.editor.models.devices import send
from livedrag.editor.points import Drag, Point, Rasters, distance
from livedrag.editor.sampling import bilinear

ADVANCE, HOLD = 5 / 8, 1 / 4
"""Shares of a run in which content is carried to its target and held there; of 80, DragFlow's 50 and 20."""
MIN_SHIFT = 0.05
"""A place that the field moves by less than this does not move, in pixels of the working picture."""


@dataclass(frozen=True)
class CarriedFeatures:
    """What the features should become.

    Args:
        features: the unedited ones, carried along the field, ``(1, C, h, w)``.
        moved: 1 where the field moves something, ``(h, w)``.
    """

    features: Tensor
    moved: Tensor


def advance_content(handles: Handles, max_iterations: int, rasters: Rasters) -> dict[str, Handle]:
    """The handles one iteration further: content moves by its share of the way, or is held at its target.

    Args:
        handles: where the content is.
        max_iterations: of the run.
        rasters: of the picture.
    """
    steps = max(1, round(ADVANCE * max_iterations))
    return {name: _advanced(handle, steps, rasters) for name, handle in handles.items()}


def has_held(handle: Handle, max_iterations: int) -> bool:
    """Whether content has been held at its target for as long as it should be."""
    return handle.held >= max(1, round(HOLD * max_iterations))


def carry_features(
    unedited: Tensor,
    handles: Handles,
    mask: NDArray[np.bool_] | None,
    rasters: Rasters,
    pins: Iterable[Point] = (),
) -> CarriedFeatures:
    """The unedited features carried along the field that leads from where content came from to where it should be now.

    Args:
        unedited: ``(1, C, h, w)``.
        handles: where the content should be now.
        mask: at the working size, True may change; None: everything may.
        rasters: of the picture.
        pins: places that hold still.
    """
    rows, columns = unedited.shape[-2:]
    size = rasters.working
    dx, dy = np.zeros((2, rows, columns))
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    if mask is None or mask.any():
        column, row = (x + 0.5) * size.width / columns - 0.5, (y + 0.5) * size.height / rows - 0.5
        dx, dy = WarpField(working_drags(handles, rasters, pins), mask, size).at(column, row)
    # Each place shows what the unedited features have where the field points to, in [-1, 1].
    across = (2 * x + 1) / columns - 1 + 2 * dx / size.width
    down = (2 * y + 1) / rows - 1 + 2 * dy / size.height
    grid, moved = (
        send(torch.from_numpy(each).to(unedited.dtype), unedited.device)
        for each in (np.stack([across, down], axis=-1), np.hypot(dx, dy) > MIN_SHIFT)
    )
    return CarriedFeatures(bilinear(unedited, grid[None]), moved)


class Carrier:
    """Carries the features of one session; computes them anew only when drags, pins or mask have changed."""

    def __init__(self) -> None:
        self._latest: tuple[_Field, CarriedFeatures] | None = None

    def carry(
        self,
        unedited: Tensor,
        handles: Handles,
        mask: NDArray[np.bool_] | None,
        rasters: Rasters,
        pins: Sequence[Point] = (),
    ) -> CarriedFeatures:
        """See `carry_features`."""
        field = _Field(unedited, mask, tuple(handle.warp for handle in handles.values()), tuple(pins))
        if self._latest is None or not self._latest[0].equals(field):
            self._latest = field, carry_features(unedited, handles, mask, rasters, pins)
        return self._latest[1]


@dataclass(frozen=True, eq=False)
class _Field:
    """What features carried along a field depend on."""

    unedited: Tensor
    mask: NDArray[np.bool_] | None
    drags: tuple[Drag, ...]
    pins: tuple[Point, ...]

    def equals(self, other: _Field) -> bool:
        """Arrays are compared by identity: they are replaced, not changed."""
        same = self.unedited is other.unedited and self.mask is other.mask
        return same and (self.drags, self.pins) == (other.drags, other.pins)


def region_loss(features: Tensor, carried: CarriedFeatures) -> Tensor:
    """Mean L1 between features ``(1, C, h, w)`` and what they should become, over all that moves; a scalar."""
    difference = (features - carried.features).abs().mean(1)[0]
    return (difference * carried.moved).sum() / carried.moved.sum().clamp(min=1)


def _advanced(handle: Handle, steps: int, rasters: Rasters) -> Handle:
    content = current_position(handle, rasters)
    left = distance(content, handle.target)
    if left < MIN_DISTANCE:
        warp = Drag(handle.warp.handle, content)
        return replace(handle, warp=warp, held=handle.held + 1)
    step = max(distance(handle.warp.handle, handle.target), left) / steps * 2**handle.tries
    part = min(1.0, step / left)
    dx, dy = part * (handle.target.x - content.x), part * (handle.target.y - content.y)
    further = Point(content.x + dx, content.y + dy)
    cell, offset = cell_and_offset(further, rasters)
    return replace(handle, cell=cell, offset=offset, warp=Drag(handle.warp.handle, further))
