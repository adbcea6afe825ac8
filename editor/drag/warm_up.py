"""Warm-up: recording the CUDA graphs of a session's iterations before its first drag, while no one waits.

The UNet has state in Python that all sessions share, so graphs can't be recorded in another thread meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator

import torch

from livedrag.editor.drag.graphed import is_recorded, propose
from livedrag.editor.drag.handles import new_handle
from livedrag.editor.drag.iteration import carry
from livedrag.editor.drag.row_of_session import row_of, with_unedited
from livedrag.editor.drag.rows import Proposal, Row
from livedrag.editor.drag.state import SessionState
from livedrag.editor.models.graphs import EAGER_RUNS
from livedrag.editor.points import Drag, Point


def warm_up(state: SessionState) -> Generator[None, None, None]:
    """Run iterations, whose outcome is dropped, until those of the next run are recorded; yields after each.

    With the mask, the pins and as many handles as there are, or one. Nothing where the model has no graphs.
    """
    model, size = state.model, state.picture.size
    if model.graphs is None:
        return
    middle = Point(size[0] / 2, size[1] / 2)
    handles = carry(state, state.edit.handles or {"": new_handle(Drag(middle, Point(0, 0)), state.rasters)})
    try:
        for with_noise in (False, True):
            row = row_of(state, handles, with_noise=with_noise)
            yield from _record(state, row)
            if row.background is not None or row.pins is not None:
                yield from _record(state, with_unedited(row, _iterate(state, row)))
    except torch.OutOfMemoryError:
        model.graphs.clear()  # the run itself says so if it has no memory


def _record(state: SessionState, row: Row) -> Generator[None, None, None]:
    for _ in range(EAGER_RUNS + 1):
        if is_recorded(state.model, state.preparation.lora.merged, [row]):
            return
        _iterate(state, row)
        yield


def _iterate(state: SessionState, row: Row) -> Proposal:
    (proposal,) = propose(state.model, state.preparation.lora.merged, [row])
    return proposal
