"""The parts of an iteration that look at its outcome, and the warp that may take its place."""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Mapping
from dataclasses import replace

from torch import Tensor

from livedrag.editor.drag.arrival import active, checks_content
from livedrag.editor.drag.content import ContentSearch
from livedrag.editor.drag.handles import Handle, Handles, cells_and_targets, track_handles, with_patches
from livedrag.editor.drag.latent_warp import LatentWarp, advance, is_where_warped, needs_warp
from livedrag.editor.drag.passes import Answer, ForwardPass, Iterated, Request, forward
from livedrag.editor.drag.region import advance_content, has_held
from livedrag.editor.drag.row_of_session import tracking_is_due
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.steps import DragStep
from livedrag.editor.drag.tracking import have_arrived
from livedrag.editor.models.ddim import predict_x0
from livedrag.editor.points import Cell, distance


def predict(state: SessionState, *, with_noise: bool) -> Generator[Request, Answer, tuple[Tensor, Tensor | None]]:
    """One UNet pass of the dragged latent, without gradients.

    Args:
        state: of the session.
        with_noise: whether the noise is needed; without it the last up block does not run.

    Returns:
        Features ``(1, C, h, w)`` and noise ``(1, 4, H/8, W/8)``.
    """
    preparation, latent, timestep = state.preparation, state.latent.value, state.level.timestep
    request = ForwardPass(state.model, latent, timestep, preparation.prompt, preparation.lora, with_noise)
    outcome = yield from forward(request)
    note_unedited(state, outcome.features if state.edit.pins else None, outcome.noise)
    return outcome.features, outcome.noise


def note_unedited(state: SessionState, features: Tensor | None, noise: Tensor | None) -> None:
    """What a pass gave is that of the unedited latent, if nothing has changed yet.

    Args:
        state: of the session.
        features: ``(1, C, h, w)``, if there are any.
        noise: ``(1, 4, H/8, W/8)``, if there is any.
    """
    if not state.latent.unedited:
        return
    if noise is not None:
        state.reference.use_noise(noise)
    if features is not None:
        state.reference.use_features(features)


def may_be_held(state: SessionState, handles: Handles) -> bool:
    """Whether the content of any handle may be where the warp has put it; see `held_by_warp`."""
    settings = state.settings
    return settings.supervision != "region" and any(
        is_where_warped(handle, settings.warp_share, state.rasters) for handle in handles.values()
    )


def held_by_warp(
    state: SessionState, search: ContentSearch, handles: Handles
) -> Generator[Request, Answer, frozenset[str]]:
    """The handles whose content is where the warp has put it, rather than where the tracker would find it now.

    The warp is known to have put content there, and features have lookalikes near by. The picture decides: the tracker
    is believed if that is more like the content at its place.

    Args:
        state: of the session.
        search: of the session.
        handles: as they were tracked last.

    Returns:
        Their names.
    """
    settings, rasters = state.settings, state.rasters
    warped = {
        name: handle
        for name, handle in handles.items()
        if handle.template is not None and is_where_warped(handle, settings.warp_share, rasters)
    }
    if not warped or not may_be_held(state, warped) or not tracking_is_due(state):
        return frozenset()
    features, noise = yield from predict(state, with_noise=True)
    assert noise is not None
    tracked = track_handles(warped, features, settings.tracking_radius, rasters, moved=True)
    pixels = search.decode(predict_x0(state.latent.value, noise, state.level.alpha))
    here, elsewhere = (search.likeness(each, pixels, state.edit.positions(each)) for each in (warped, tracked))
    return frozenset(name for name, likeness in here.items() if likeness >= elsewhere[name])


def track_at_end(state: SessionState, features: Tensor, held: Collection[str] = ()) -> dict[str, Handle]:
    """The handles at the end of a run, where these features ``(1, C, h, w)`` show their content; with region
    supervision, where the field has carried it; those that are ``held`` where they are."""
    settings = state.settings
    if settings.supervision == "region":
        return state.edit.handles
    handles = {name: handle for name, handle in active(state, state.edit.handles).items() if name not in held}
    tracked = track_handles(handles, features, settings.tracking_radius, state.rasters, moved=state.latent.moved)
    if settings.supervision_template == "first":
        tracked = with_patches(tracked, features, settings.supervision_radius, state.rasters)
    return {**state.edit.handles, **tracked}


def carry(state: SessionState, handles: Handles) -> dict[str, Handle]:
    """With region supervision, the handles where the field carries them in this iteration; else as they are."""
    if state.settings.supervision != "region":
        return dict(handles)
    return advance_content(handles, state.settings.max_iterations, state.rasters)


def found_handles(handles: Handles, outcome: Iterated) -> dict[str, Handle]:
    """The handles where an iteration found their content; with region supervision, as they are."""
    points = outcome.proposal.points
    if points is None:
        return dict(handles)
    each = {}
    for index, (name, handle) in enumerate(handles.items()):
        template, patch = handle.template, handle.patch
        if template is None:
            template = points.templates[index]
        if points.patches is not None and (patch is None or patch.shape[-1] != points.patches.shape[-1]):
            patch = points.patches[index]
        each[name] = replace(handle, cell=Cell(*outcome.cells[index]), template=template, patch=patch)
    return each


def still_moving(state: SessionState, handles: Handles, outcome: Iterated) -> dict[str, Handle]:
    """Those that have not arrived in an iteration, or with region supervision have not been held at their target."""
    if outcome.proposal.points is None:
        return {name: handle for name, handle in handles.items() if not has_held(handle, state.settings.max_iterations)}
    return {name: handle for (name, handle), there in zip(handles.items(), outcome.arrived, strict=True) if not there}


def not_arrived(state: SessionState, handles: Handles) -> dict[str, Handle]:
    """The handles that are not at their target; without those that the run has given up."""
    handles = active(state, handles)
    cells, targets = cells_and_targets(handles, state.rasters, state.preparation.clean.dtype)
    arrived = have_arrived(cells, targets, state.settings.arrival_distance).tolist()
    return {name: handle for (name, handle), there in zip(handles.items(), arrived, strict=True) if not there}


def keep_background(state: SessionState) -> None:
    """Restore the unedited latent where the picture must not change, if that is how the background is kept."""
    mask = state.edit.latent_mask
    if mask is not None and state.settings.background == "keep":
        state.latent.keep(state.reference.latent, mask)


def warp_is_due(state: SessionState) -> bool:
    """Whether content is still to be warped, before motion supervision."""
    share = state.settings.warp_share
    return any(needs_warp(handle, share) for handle in active(state, state.edit.handles).values())


def warp_further(
    state: SessionState, latent_warp: LatentWarp, *, preview: bool
) -> Generator[Request, Answer, Tensor | None]:
    """An iteration that warps what the latent shows, and leaves its noise.

    Args:
        state: of the session; its handles and its latent move.
        latent_warp: of the session.
        preview: whether a predicted picture is due.

    Returns:
        The clean latent predicted before the warp, ``(1, 4, H/8, W/8)``, if a preview is due.
    """
    edit, latent, settings = state.edit, state.latent, state.settings
    x0: Tensor | None = None
    if preview or any(handle.template is None for handle in edit.handles.values()):
        features, noise = yield from predict(state, with_noise=True)
        edit.handles = track_handles(edit.handles, features, settings.tracking_radius, state.rasters, moved=False)
        if settings.supervision_template == "first":
            edit.handles = with_patches(edit.handles, features, settings.supervision_radius, state.rasters)
        if preview and noise is not None:
            x0 = predict_x0(latent.value, noise, state.level.alpha)
    further = edit.handles | advance(active(state, edit.handles), settings.warp_share, state.rasters)
    change = latent_warp.change(edit.handles, further, edit.working_mask, edit.pins)
    latent.shift(math.sqrt(state.level.alpha) * change)
    edit.handles = further
    return x0


def lost_drags(state: SessionState) -> tuple[str, ...]:
    """The drags whose content did not follow, by name."""
    if not checks_content(state):
        return ()
    return tuple(sorted(name for name, handle in state.edit.handles.items() if handle.lost))


def move_on(state: SessionState, *, loss: float, x0: Tensor | None, content: Mapping[str, float]) -> DragStep:
    """The latent has changed: count the iteration, and put it on the timeline."""
    latent = state.latent
    latent.iteration += 1
    latent.moved = True
    state.timeline.add(latent.iteration, state.edit.handles, latent.value, state.descended)
    return record_step(state, loss=loss, arrived=False, x0=x0, content=content)


def record_step(
    state: SessionState,
    *,
    loss: float,
    arrived: bool,
    x0: Tensor | None,
    content: Mapping[str, float],
) -> DragStep:
    """The state after an iteration, for those who iterate."""
    drags = state.edit.drags
    return DragStep(
        iteration=state.iteration,
        handles={name: drag.handle for name, drag in drags.items()},
        distances={name: distance(drag.handle, drag.target) for name, drag in drags.items()},
        loss=loss,
        arrived=arrived,
        predicted_x0=x0,
        content=dict(content),
        lost=lost_drags(state),
    )
