"""A session's part in an iteration: its state as the tensors that `livedrag.editor.drag.rows` computes with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from livedrag.editor.drag.handles import Handle, Handles, cells_and_targets
from livedrag.editor.drag.latent import Adam
from livedrag.editor.drag.pins import pin_cells
from livedrag.editor.drag.region import CarriedFeatures
from livedrag.editor.drag.rows import Background, Patch, Pins, Points, Proposal, Row
from livedrag.editor.drag.state import SessionState
from livedrag.editor.models.devices import send_all
from livedrag.editor.models.features import BeyondFeatures
from livedrag.editor.sampling import patch_offsets


def needs_mask_loss(state: SessionState) -> bool:
    """Whether the loss has a part that keeps what must not change."""
    return state.edit.latent_mask is not None and state.settings.background == "loss"


def tracking_is_due(state: SessionState, later: int = 0) -> bool:
    """Whether this iteration, or one so many ``later``, tracks the content; if not, it pulls it from where it was
    tracked last."""
    latent, every = state.latent, state.settings.steps_per_tracking
    begins, moved = not latent.steps + later, latent.moved or later > 0
    return moved and (begins or (state.iterations_done + later) % every == 0)


def row_of(state: SessionState, handles: Handles, *, with_noise: bool, held: Collection[str] = ()) -> Row:
    """What an iteration of a session depends on, on its device.

    Args:
        state: of the session.
        handles: that are pulled, as they were tracked last; or where the field carries them in this iteration.
        with_noise: whether the noise is needed, whatever the loss is.
        held: names of those that are not tracked.
    """
    latent, level, edit = state.latent, state.level, state.edit
    region = _region(state, handles)
    row = Row(
        latent=latent.value,
        timestep=torch.tensor([level.timestep]),
        prompt=state.preparation.prompt,
        alpha=_number(state, level.alpha),
        alpha_below=_number(state, level.alpha_below),
        adam=_adam(state),
        beyond=_beyond(state, with_noise=with_noise),
        raster=state.rasters.cells,
        points=_points(state, handles, held) if region is None else None,
        region=region,
        pins=_pins(state) if edit.pins else None,
        background=_background(state, edit.latent_mask) if needs_mask_loss(state) else None,
    )
    return send_all(row, latent.value.device)


def row_after(state: SessionState, row: Row, proposal: Proposal, handles: Handles, *, with_noise: bool) -> Row:
    """What the iteration after the next depends on, if the next one takes the step that is proposed for it, and nothing
    else changes; nothing here waits for the device.

    Args:
        state: of the session, before that step.
        row: of the next iteration.
        proposal: for it.
        handles: that are pulled in the one after it: with region supervision, where the field carries them then.
        with_noise: whether the noise is needed in the one after it.
    """
    following = replace(
        with_unedited(row, proposal),
        latent=proposal.latent,
        adam=_adam(state, proposal.moments),
        beyond=_beyond(state, with_noise=with_noise),
        points=None if row.points is None else _points_after(state, row.points, proposal),
        region=_region(state, handles),
    )
    return send_all(following, proposal.latent.device)


def with_unedited(row: Row, proposal: Proposal) -> Row:
    """The row with what an iteration of the unedited latent finds out about it, if that was not known."""
    background, pins = row.background, row.pins
    if background is not None and background.noise is None:
        background = replace(background, noise=proposal.noise)
    if pins is not None and pins.features is None:
        pins = replace(pins, features=proposal.features)
    return replace(row, background=background, pins=pins)


def _adam(state: SessionState, moments: Tensor | None = None) -> Adam:
    """Of the next step, or with its ``moments`` after it, of the one that follows."""
    settings = state.settings
    return state.latent.adam(settings.latent_lr, mini=settings.latent_optimizer == "adam_mini", moments=moments)


def _points_after(state: SessionState, points: Points, proposal: Proposal) -> Points:
    """The handles where an iteration found them, all with their templates, and patches where those are pulled."""
    found = proposal.points
    assert found is not None
    return replace(
        points,
        cells=found.cells,
        tracked=torch.full_like(points.tracked, tracking_is_due(state, 1)),
        known=torch.ones_like(points.known),
        templates=found.templates,
        patched=None if points.patched is None else torch.ones_like(points.patched),
        patches=found.patches,
    )


def _beyond(state: SessionState, *, with_noise: bool) -> BeyondFeatures:
    return "gradient" if needs_mask_loss(state) else "no gradient" if with_noise else "nothing"


def _region(state: SessionState, handles: Handles) -> CarriedFeatures | None:
    """What region supervision wants the features to become."""
    if state.settings.supervision != "region":
        return None
    edit, unedited = state.edit, state.reference.features()
    return state.carrier.carry(unedited, handles, edit.working_mask, state.rasters, edit.pins)


def _points(state: SessionState, handles: Handles, held: Collection[str]) -> Points:
    settings, latent = state.settings, state.latent
    each, dtype = list(handles.values()), latent.value.dtype
    cells, targets = cells_and_targets(handles, state.rasters, dtype)
    blank = latent.value.new_zeros(state.model.feature_channels)
    known = torch.tensor([handle.template is not None for handle in each])
    followed = torch.tensor([name not in held for name in handles])
    pulled = _patch(settings.supervision_radius, cells)
    points = Points(
        cells=cells,
        targets=targets,
        steps=torch.tensor([[settings.supervision_step * 2.0**handle.tries] for handle in each], dtype=dtype),
        counts=torch.ones(len(each), dtype=torch.bool),
        tracked=known & followed if tracking_is_due(state) else torch.zeros_like(known),
        known=known,
        templates=torch.stack([blank if handle.template is None else handle.template for handle in each]),
        window=_patch(settings.tracking_radius, cells),
        pulled=pulled,
        arrival_distance=torch.tensor(settings.arrival_distance, dtype=dtype),
    )
    if settings.supervision_template != "first":
        return points
    return _with_patches(points, each, blank)


def _with_patches(points: Points, handles: list[Handle], blank: Tensor) -> Points:
    """With the patches that the handles were placed on, which are pulled; of another radius they are taken anew."""
    cells = len(points.pulled.offsets)
    own = [handle.patch if handle.patch is not None and handle.patch.shape[-1] == cells else None for handle in handles]
    empty = blank[:, None].expand(-1, cells)
    patches = torch.stack([empty if patch is None else patch for patch in own])
    return replace(points, patched=torch.tensor([patch is not None for patch in own]), patches=patches)


def _pins(state: SessionState) -> Pins:
    cells = pin_cells(state.edit.pins, state.rasters, torch.empty(0, dtype=state.latent.value.dtype))
    return Pins(
        cells=cells,
        counts=torch.ones(len(cells), dtype=torch.bool),
        patch=_patch(state.settings.supervision_radius, cells),
        features=None if state.latent.unedited else state.reference.features(),
    )


def _background(state: SessionState, mask: Tensor | None) -> Background:
    assert mask is not None
    weight = torch.tensor(state.settings.mask_weight, dtype=mask.dtype)
    noise = None if state.latent.unedited else state.reference.noise()
    return Background(mask, weight, state.reference.latent, noise)


def _patch(radius: int, like: Tensor) -> Patch:
    offsets = patch_offsets(radius, like)
    return Patch(offsets, torch.ones(len(offsets), dtype=torch.bool))


def _number(state: SessionState, alpha: float) -> Tensor:
    """A cumulative alpha as a scalar, in double precision, since 1 - alpha may be small; Apple's GPUs have none."""
    double = state.model.device.type != "mps"
    return torch.tensor(alpha, dtype=torch.float64 if double else state.latent.value.dtype)
