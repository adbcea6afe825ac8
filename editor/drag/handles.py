"""A handle point under way: where its content is, where it should go, and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from livedrag.editor.drag.tracking import take_templates, track_points
from livedrag.editor.points import Cell, Drag, Point, Rasters


@dataclass(frozen=True)
class Handle:
    """A drag under way.

    Args:
        start: as it was put down; what a reset goes back to.
        target: where the content should go.
        cell: the whole cell where the content is now.
        offset: from there to the exact place, kept while the cell moves.
        warp: where in the unedited picture the content came from, and where the warp has put it; see `latent_warp`.
        template: the feature it was put down on, ``(C,)``; None until the next features are read.
    """

    start: Drag
    target: Point
    cell: Cell
    offset: Cell
    warp: Drag
    template: Tensor | None = None


Handles = Mapping[str, Handle]
"""Handles by the name of their drag."""


def put_down(drag: Drag, rasters: Rasters, start: Drag | None = None, origin: Point | None = None) -> Handle:
    """A handle at a drag's handle point, without a template yet; ``origin`` is where its content came from."""
    cell, offset = cell_and_offset(drag.handle, rasters)
    return Handle(
        start=start or drag,
        target=drag.target,
        cell=cell,
        offset=offset,
        warp=Drag(origin or drag.handle, drag.handle),
    )


def cell_and_offset(point: Point, rasters: Rasters) -> tuple[Cell, Cell]:
    """The whole cell nearest to a point of the picture, and what leads from there to the point."""
    cell = rasters.nearest_cell(point)
    return cell, rasters.to_cell(point) - cell


def place(handle: Handle, rasters: Rasters) -> Point:
    """Where the content is now, in pixels of the picture."""
    return rasters.to_point(handle.cell + handle.offset)


def cells_and_targets(handles: Handles, rasters: Rasters, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Handles, on whole cells, and targets, shifted by the same fraction; ``(n, 2)`` each, on the CPU."""
    targets = [rasters.to_cell(handle.target) - handle.offset for handle in handles.values()]
    return _tensor([handle.cell for handle in handles.values()], dtype), _tensor(targets, dtype)


def follow(handles: Handles, features: Tensor, radius: int, rasters: Rasters, *, moved: bool) -> dict[str, Handle]:
    """The handles where these features show their templates; handles without a template take it from here.

    Args:
        handles: as they were found last.
        features: ``(1, C, h, w)``.
        radius: r2, of the tracking window.
        rasters: of the picture.
        moved: whether the latent has changed since the handles were found.
    """
    followed = dict(handles)
    known = {name: handle.template for name, handle in handles.items() if handle.template is not None}
    if known and moved:
        cells = _tensor([handles[name].cell for name in known], features.dtype).to(features.device)
        found = track_points(features, torch.stack(list(known.values())), cells, radius, rasters.cells)
        for name, (row, column) in zip(known, found.tolist(), strict=True):
            followed[name] = replace(handles[name], cell=Cell(row, column))
    new = [name for name in handles if name not in known]
    if new:
        cells = _tensor([handles[name].cell for name in new], features.dtype).to(features.device)
        for name, template in zip(new, take_templates(features, cells, rasters.cells), strict=True):
            followed[name] = replace(handles[name], template=template)
    return followed


def _tensor(cells: list[Cell], dtype: torch.dtype) -> Tensor:
    return torch.tensor([(cell.row, cell.column) for cell in cells], dtype=dtype).reshape(-1, 2)
