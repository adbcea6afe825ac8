"""The parts of one iteration: the UNet pass, tracking, the loss, and the warp that may take an iteration's place."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping

import torch
from torch import Tensor

from livedrag.editor.drag.arrival import active, checks_content
from livedrag.editor.drag.handles import Handle, cells_and_targets, track_handles, with_patches
from livedrag.editor.drag.latent_warp import LatentWarp, advance, needs_warp
from livedrag.editor.drag.motion import mask_loss, motion_supervision_loss
from livedrag.editor.drag.passes import Answer, ForwardPass, Request, forward
from livedrag.editor.drag.pins import pin_cells, pin_loss
from livedrag.editor.drag.region import advance_content, carry_features, has_held, region_loss
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.steps import DragStep
from livedrag.editor.drag.tracking import have_arrived
from livedrag.editor.models.ddim import ddim_step, predict_x0
from livedrag.editor.models.features import BeyondFeatures
from livedrag.editor.points import distance


def needs_mask_loss(state: SessionState) -> bool:
    """Whether the loss has a part that keeps what must not change."""
    return state.edit.latent_mask is not None and state.settings.background == "loss"


def predict(
    state: SessionState, *, with_noise: bool, gradient: bool = True
) -> Generator[Request, Answer, tuple[Tensor, Tensor | None]]:
    """One UNet pass of the dragged latent.

    Args:
        state: of the session.
        with_noise: whether the noise is needed; without it the last up block does not run.
        gradient: whether a loss will be computed of the outcome.

    Returns:
        Features ``(1, C, h, w)`` and noise ``(1, 4, H/8, W/8)``.
    """
    preparation, latent, timestep = state.preparation, state.latent.value, state.level.timestep
    beyond: BeyondFeatures = "nothing"
    if with_noise:
        beyond = "gradient" if needs_mask_loss(state) else "no gradient"
    request = ForwardPass(state.model, latent, timestep, preparation.prompt, preparation.lora, beyond, gradient)
    outcome = yield from forward(request)
    if state.latent.unedited:
        # Nothing has changed yet. What is compared with this must equal it to the last bit: of another pass it would
        # differ by rounding, and the gradient of an absolute value is as large for that.
        if outcome.noise is not None:
            state.reference.use_noise(outcome.noise.detach())
        if state.edit.pins:
            state.reference.use_features(outcome.features.detach())
    return outcome.features, outcome.noise


def track(state: SessionState, features: Tensor, *, last: bool = False) -> dict[str, Handle]:
    """The handles where these features show their content; with region supervision, where the field carries it next.

    Args:
        state: of the session.
        features: ``(1, C, h, w)``.
        last: whether the run ends here; else handles are tracked every ``steps_per_tracking`` iterations.
    """
    settings, features = state.settings, features.detach()
    if settings.supervision == "region":
        if last:
            return state.edit.handles
        carried = active(state, state.edit.handles)
        return {**state.edit.handles, **advance_content(carried, settings.max_iterations, state.rasters)}
    begins = not state.latent.optimizer.state
    due = last or begins or state.iterations_done % settings.steps_per_tracking == 0
    handles, moved = active(state, state.edit.handles), state.latent.moved and due
    tracked = track_handles(handles, features, settings.tracking_radius, state.rasters, moved=moved)
    if settings.supervision_template == "first":
        tracked = with_patches(tracked, features, settings.supervision_radius, state.rasters)
    return {**state.edit.handles, **tracked}


def still_moving(state: SessionState, handles: dict[str, Handle], *, last: bool = False) -> dict[str, Handle]:
    """The handles that have not arrived, or with region supervision have not been held at their target before the last
    iteration; without those that the run has given up."""
    handles = active(state, handles)
    if state.settings.supervision == "region" and not last:
        most = state.settings.max_iterations
        return {name: handle for name, handle in handles.items() if not has_held(handle, most)}
    cells, targets = cells_and_targets(handles, state.rasters, state.preparation.clean.dtype)
    arrived = have_arrived(cells, targets, state.settings.arrival_distance).tolist()
    return {name: handle for (name, handle), there in zip(handles.items(), arrived, strict=True) if not there}


def total_loss(
    state: SessionState, features: Tensor, noise: Tensor | None, handles: dict[str, Handle], moving: dict[str, Handle]
) -> Tensor:
    """Motion supervision, plus what holds the pins, plus, if there is a mask, the mask loss; a scalar.

    Args:
        state: of the session.
        features: ``(1, C, h, w)``.
        noise: ``(1, 4, H/8, W/8)``; needed for the mask loss.
        handles: where this iteration found the content, or carries it.
        moving: those that have not arrived.
    """
    settings, mask = state.settings, state.edit.latent_mask
    if settings.supervision == "region":
        unedited, carried = state.reference.features(), active(state, handles)
        loss = region_loss(
            features, carry_features(unedited, carried, state.edit.working_mask, state.rasters, state.edit.pins)
        )
    else:
        loss = _points_loss(state, features, moving)
    if state.edit.pins:
        loss = loss + _pins_loss(state, features)
    if mask is None or noise is None or not needs_mask_loss(state):
        return loss
    level, reference = state.level, state.reference
    below = ddim_step(state.latent.value, noise, level.alpha, level.alpha_below)
    below_unedited = ddim_step(reference.latent, reference.noise(), level.alpha, level.alpha_below)
    return loss + mask_loss(below, below_unedited, mask, settings.mask_weight)


def _points_loss(state: SessionState, features: Tensor, moving: dict[str, Handle]) -> Tensor:
    settings = state.settings
    cells, targets = (
        tensor.to(features.device) for tensor in cells_and_targets(moving, state.rasters, state.preparation.clean.dtype)
    )
    patches = [handle.patch for handle in moving.values() if handle.patch is not None]
    step: float | Tensor = settings.supervision_step
    if any(handle.tries for handle in moving.values()):
        step = step * cells.new_tensor([[2.0**handle.tries] for handle in moving.values()])
    return motion_supervision_loss(
        features,
        cells,
        targets,
        settings.supervision_radius,
        state.rasters.cells,
        step=step,
        templates=torch.stack(patches) if settings.supervision_template == "first" else None,
    )


def _pins_loss(state: SessionState, features: Tensor) -> Tensor:
    """What the pins cost that have moved."""
    cells = pin_cells(state.edit.pins, state.rasters, features)
    return pin_loss(features, state.reference.features(), cells, state.settings.supervision_radius, state.rasters.cells)


def keep_background(state: SessionState) -> None:
    """Restore the unedited latent where the picture must not change, if that is how the background is kept."""
    mask = state.edit.latent_mask
    if mask is not None and state.settings.background == "keep" and not state.latent.unedited:
        state.latent.shift((state.reference.latent - state.latent.value) * (1 - mask))


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
        features, noise = yield from predict(state, with_noise=True, gradient=False)
        edit.handles = track_handles(edit.handles, features, settings.tracking_radius, state.rasters, moved=False)
        if settings.supervision_template == "first":
            edit.handles = with_patches(edit.handles, features, settings.supervision_radius, state.rasters)
        if preview and noise is not None:
            x0 = predict_x0(latent.value.detach(), noise, state.level.alpha)
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
