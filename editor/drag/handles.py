"""A handle point on its way: where its content is now, where it should go, and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from livedrag.editor.drag.tracking import take_patches, take_templates, track_points
from livedrag.editor.points import Cell, Drag, Point, Rasters
from livedrag.editor.sampling import patch_offsets


@dataclass(frozen=True)
class Handle:
    """A drag on its way.

    Args:
        start: the drag as it was placed; a reset goes back to it.
        target: where the content should go, in pixels of the picture.
        cell: the whole cell where the content is now.
        offset: from that cell to the exact place, constant while the cell moves.
        warp: where in the unedited picture the content came from, and where the latent warp has moved it; see
            `livedrag.editor.drag.latent_warp`.
        template: the feature the handle was placed on, ``(C,)``; None until the next features are computed.
        patch: the features around it then, ``(C, (2 * r1 + 1) ** 2)``, if motion supervision pulls those.
        held: iterations of region supervision since its content was carried to the target.
        original: whether it was placed on the unedited picture.
        look: what the picture showed around it, ``(3, k, k)``, if it was placed on an edited one; see
            `livedrag.editor.drag.content`.
        confirmed: whether the picture showed its content at the target when it arrived.
        lost: whether the picture showed that its content had not followed when it last seemed to arrive.
        tries: how many times that happened in this run.
    """

    start: Drag
    target: Point
    cell: Cell
    offset: Cell
    warp: Drag
    template: Tensor | None = None
    patch: Tensor | None = None
    held: int = 0
    original: bool = True
    look: Tensor | None = None
    confirmed: bool = False
    lost: bool = False
    tries: int = 0


Handles = Mapping[str, Handle]
"""Handles by the name of their drag."""


def new_handle(
    drag: Drag, rasters: Rasters, start: Drag | None = None, origin: Point | None = None, *, original: bool = True
) -> Handle:
    """A handle placed at a drag's handle point, without a template yet.

    Args:
        drag: handle and target point, in pixels of the picture.
        rasters: of the picture.
        start: what a reset goes back to; by default the drag.
        origin: where in the unedited picture its content came from; by default the handle point.
        original: whether it is placed on the unedited picture.
    """
    cell, offset = cell_and_offset(drag.handle, rasters)
    return Handle(
        start=start or drag,
        target=drag.target,
        cell=cell,
        offset=offset,
        warp=Drag(origin or drag.handle, drag.handle),
        original=original,
    )


def cell_and_offset(point: Point, rasters: Rasters) -> tuple[Cell, Cell]:
    """The whole cell nearest to a point of the picture, and the offset from there to the point."""
    cell = rasters.nearest_cell(point)
    return cell, rasters.to_cell(point) - cell


def current_position(handle: Handle, rasters: Rasters) -> Point:
    """Where the content is now, in pixels of the picture."""
    return rasters.to_point(handle.cell + handle.offset)


def cells_and_targets(handles: Handles, rasters: Rasters, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Handles as whole cells, and their targets shifted by the same offset; ``(n, 2)`` each, on the CPU."""
    targets = [rasters.to_cell(handle.target) - handle.offset for handle in handles.values()]
    return cells_of([handle.cell for handle in handles.values()], dtype), cells_of(targets, dtype)


def cells_of(cells: Sequence[Cell], dtype: torch.dtype) -> Tensor:
    """Cells as ``(n, 2)``, on the CPU."""
    return torch.tensor([(cell.row, cell.column) for cell in cells], dtype=dtype).reshape(-1, 2)


def track_handles(
    handles: Handles, features: Tensor, radius: int, rasters: Rasters, *, moved: bool
) -> dict[str, Handle]:
    """Point tracking for all handles; new ones take their template from these features instead.

    Args:
        handles: as they were tracked last.
        features: ``(1, C, h, w)``.
        radius: r2, of the tracking window, in cells.
        rasters: of the picture.
        moved: whether the latent has changed since then.

    Returns:
        The handles at the cells that match their templates best.
    """
    tracked = dict(handles)
    known = {name: handle.template for name, handle in handles.items() if handle.template is not None}
    if known and moved:
        cells = cells_of([handles[name].cell for name in known], features.dtype).to(features.device)
        found = track_points(
            features, torch.stack(list(known.values())), cells, patch_offsets(radius, cells), rasters.cells
        )
        for name, (row, column) in zip(known, found.tolist(), strict=True):
            tracked[name] = replace(handles[name], cell=Cell(row, column))
    new = [name for name in handles if name not in known]
    if new:
        cells = cells_of([handles[name].cell for name in new], features.dtype).to(features.device)
        for name, template in zip(new, take_templates(features, cells, rasters.cells), strict=True):
            tracked[name] = replace(handles[name], template=template)
    return tracked


def with_patches(handles: Handles, features: Tensor, radius: int, rasters: Rasters) -> dict[str, Handle]:
    """The handles, each with a patch of this radius; those that have none take it from these features.

    Args:
        handles: just tracked in these features.
        features: ``(1, C, h, w)``.
        radius: r1, of motion supervision's patch, in cells.
        rasters: of the picture.
    """
    size = (2 * radius + 1) ** 2
    lacking = [name for name, handle in handles.items() if handle.patch is None or handle.patch.shape[-1] != size]
    if not lacking:
        return dict(handles)
    cells = cells_of([handles[name].cell for name in lacking], features.dtype).to(features.device)
    patches = take_patches(features, cells, patch_offsets(radius, cells), rasters.cells)
    taken = {name: replace(handles[name], patch=patch) for name, patch in zip(lacking, patches, strict=True)}
    return {**handles, **taken}
