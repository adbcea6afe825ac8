"""Alternating between dragging and denoising (GoodDrag, arXiv 2404.07206).

The latent is dragged at several noise levels, one after the other, and denoised one step in between, so that each
perturbation stays small and the next step can bring it back to what pictures look like.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import replace

import torch

from livedrag.editor.drag.handles import Handle, cell_and_offset, cells_of
from livedrag.editor.drag.passes import Answer, Request, next_step
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.tracking import take_patches, take_templates
from livedrag.editor.sampling import patch_offsets


def levels_due(state: SessionState, later: int = 0) -> int:
    """How many levels below the first the latent should be dragged in this iteration, or in one so many ``later``; it
    never rises again."""
    settings = state.settings
    levels = min(settings.alternation, len(state.preparation.levels))
    return max(state.descended, min(levels - 1, (state.iterations_done + later) * levels // settings.max_iterations))


def descend(state: SessionState) -> Generator[Request, Answer, None]:
    """Denoise the latent, and the unedited one, down to the level at which it is due to be dragged; yields what that
    asks of the UNet."""
    due = levels_due(state)
    if state.descended == due:
        return
    denoising = state.denoising
    assert denoising is not None
    latent = state.latent.value
    for index in range(state.descended, due):
        with contextlib.closing(denoising.reconstruct(index + 1)) as unedited:
            while (yield from next_step(unedited)) is not None:
                pass
        latent, _ = yield from denoising.step(latent, index, control=False)
    state.go_on_from(latent, state.iteration, due)
    state.latent.unedited = torch.equal(latent, state.reference.latent)
    state.latent.moved = True
    state.edit.handles = {name: _at_this_level(state, handle) for name, handle in state.edit.handles.items()}


def _at_this_level(state: SessionState, handle: Handle) -> Handle:
    """A handle that looks for what it was placed on as it is at this level; if that was an edited picture, for what is
    there now."""
    if not handle.original:
        return replace(handle, template=None, patch=None)
    features, rasters, radius = state.reference.features(), state.rasters, state.settings.supervision_radius
    origin, _ = cell_and_offset(handle.warp.handle, rasters)
    cells = cells_of([origin], features.dtype).to(features.device)
    template = take_templates(features, cells, rasters.cells)[0]
    needs_patch = state.settings.supervision_template == "first"
    patch = take_patches(features, cells, patch_offsets(radius, cells), rasters.cells)[0] if needs_patch else None
    return replace(handle, template=template, patch=patch)
