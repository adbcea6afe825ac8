"""Iterations from CUDA graphs: rows are filled up, so that one graph serves many of them.

Handles and pins are filled up to a power of two, and so are the radii of patches. What was added counts for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from livedrag.editor.drag.rows import Patch, Pins, Points, Proposal, Row, Tracked, iterate
from livedrag.editor.models.adapters import Adapter, Recordable
from livedrag.editor.models.diffusion import Diffusion

T = TypeVar("T")
R = TypeVar("R")


def propose(model: Diffusion, adapter: Adapter, rows: Sequence[Row]) -> list[Proposal]:
    """One iteration of each row; see `livedrag.editor.drag.rows.iterate`.

    Args:
        model: of the rows.
        adapter: their LoRA, or LoRAs.
        rows: with latents of one shape.
    """
    if model.graphs is None or not isinstance(adapter, Recordable):
        with model.adapter.using(adapter), model.eagerly():
            return iterate(model, rows)
    proposals = run_with(model, adapter, "iteration", partial(iterate, model), [filled_up(row) for row in rows])
    return [cut(proposal, row) for proposal, row in zip(proposals, rows, strict=True)]


def run_with(model: Diffusion, adapter: Adapter, name: str, function: Callable[[T], R], given: T) -> R:
    """What a function gives while the UNet has an adapter; from a graph if the model has one.

    Args:
        model: whose UNet the function runs.
        adapter: a LoRA, or LoRAs.
        name: of the function.
        function: see `livedrag.editor.models.graphs.GraphedFunction`.
        given: its argument, a tree of tensors.
    """
    with model.adapter.using(adapter), model.eagerly():
        if model.graphs is None or not isinstance(adapter, Recordable):
            return function(given)
        model.adapter.apply_requested()  # a graph reads merged weights where they are

        def run(pair: tuple[T, list[Tensor]]) -> R:
            own, tensors = pair
            if not tensors:
                return function(own)
            with model.adapter.using(adapter.with_tensors(tensors)):
                return function(own)

        return model.graphs.run(_kind(model, adapter, name), run, (given, list(adapter.tensors)))


def is_recorded(model: Diffusion, adapter: Adapter, rows: Sequence[Row]) -> bool:
    """Whether there is a graph for an iteration of these rows; see `propose`."""
    if model.graphs is None or not isinstance(adapter, Recordable):
        return False
    given = [filled_up(row) for row in rows], list(adapter.tensors)
    return model.graphs.holds(_kind(model, adapter, "iteration"), given)


def _kind(model: Diffusion, adapter: Recordable, name: str) -> tuple[Hashable, ...]:
    return (name, adapter.layout, id(model.extra_layers))


def filled_up(row: Row) -> Row:
    """The row with as many handles and pins, and as large patches, as its graph has."""
    points = None if row.points is None else _fill_points(row.points)
    return replace(row, points=points, pins=None if row.pins is None else _fill_pins(row.pins))


def cut(proposal: Proposal, row: Row) -> Proposal:
    """What belongs to the row itself, of what was proposed for it when it was filled up."""
    if proposal.points is None or row.points is None:
        return proposal
    found, count, cells = proposal.points, len(row.points.cells), len(row.points.pulled.offsets)
    tracked = Tracked(
        cells=found.cells[:count],
        arrived=found.arrived[:count],
        templates=found.templates[:count],
        patches=None if found.patches is None else found.patches[:count, :, :cells],
    )
    return replace(proposal, points=tracked)


def _fill_points(points: Points) -> Points:
    count = _power_of_two(len(points.cells))
    pulled = _fill_patch(points.pulled)
    patches, patched = points.patches, points.patched
    if patches is not None and patched is not None:
        patched = _fill(patched, count)
        patches = _fill(_fill(patches.movedim(-1, 0), len(pulled.offsets)).movedim(0, -1), count)
    return Points(
        cells=_fill(points.cells, count),
        targets=_fill(points.targets, count),
        steps=_fill(points.steps, count),
        counts=_fill(points.counts, count),
        tracked=_fill(points.tracked, count),
        known=_fill(points.known, count),
        templates=_fill(points.templates, count),
        window=_fill_patch(points.window),
        pulled=pulled,
        arrival_distance=points.arrival_distance,
        patched=patched,
        patches=patches,
    )


def _fill_pins(pins: Pins) -> Pins:
    count = _power_of_two(len(pins.cells))
    return replace(
        pins, cells=_fill(pins.cells, count), counts=_fill(pins.counts, count), patch=_fill_patch(pins.patch)
    )


def _fill_patch(patch: Patch) -> Patch:
    radius = (math.isqrt(len(patch.offsets)) - 1) // 2
    cells = (2 * _power_of_two(radius) + 1) ** 2
    return Patch(_fill(patch.offsets, cells), _fill(patch.counts, cells))


def _fill(tensor: Tensor, count: int) -> Tensor:
    """With zeros, or False, up to so many rows."""
    if len(tensor) == count:
        return tensor
    return torch.cat([tensor, tensor.new_zeros(count - len(tensor), *tensor.shape[1:])])


def _power_of_two(number: int) -> int:
    """The next one; 0 stays 0."""
    return 1 << (number - 1).bit_length() if number else 0
