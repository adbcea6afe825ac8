"""Region supervision: all that a drag moves is pulled along, by the displacement field of the drags.

The unedited features are carried along the field, a little further in each iteration, and the latent follows them. This
is the idea of DragFlow (arXiv 2510.02253), which carries a region by an affine map; the field is that of the instant
preview. Nothing is tracked: content is where the field says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from livedrag.editor.drag.handles import Handle, Handles, cell_and_offset, current_position
from livedrag.editor.drag.latent_warp import MIN_DISTANCE, working_drags
from livedrag.editor.drag.warp import WarpField
from livedrag.editor.points import Drag, Point, Rasters, Size, distance

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
    if mask is None or mask.any():
        y, x = np.mgrid[:rows, :columns].astype(np.float64)
        x, y = (x + 0.5) * size.width / columns - 0.5, (y + 0.5) * size.height / rows - 0.5
        dx, dy = WarpField(working_drags(handles, rasters, pins), mask, size).at(x, y)
    shift = np.stack([dx, dy], axis=-1)
    moved = torch.from_numpy(np.hypot(dx, dy) > MIN_SHIFT).to(unedited)
    return CarriedFeatures(_shifted(unedited, torch.from_numpy(shift).to(unedited), size), moved)


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


def _shifted(features: Tensor, shift: Tensor, size: Size) -> Tensor:
    """Features that show at each place what they had at the place plus a shift.

    Args:
        features: ``(1, C, h, w)``.
        shift: ``(h, w, 2)``, x and y in pixels of the working picture.
        size: of the working picture.
    """
    rows, columns = features.shape[-2:]
    row, column = (
        torch.arange(count, dtype=features.dtype, device=features.device).add(0.5) * 2 / count - 1
        for count in (rows, columns)
    )
    here = torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)
    grid = here + 2 * shift / shift.new_tensor([size.width, size.height])
    return grid_sample(features, grid[None], padding_mode="border", align_corners=False)
