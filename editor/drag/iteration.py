"""The parts of one iteration: the UNet pass, tracking, the loss, and the warp that may take an iteration's place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from livedrag.editor.drag.handles import Handle, cells_and_targets, track_handles, with_patches
from livedrag.editor.drag.latent_warp import LatentWarp, advance
from livedrag.editor.drag.motion import mask_loss, motion_supervision_loss
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.steps import DragStep
from livedrag.editor.drag.tracking import have_arrived
from livedrag.editor.models.ddim import ddim_step, predict_x0
from livedrag.editor.points import distance


def needs_mask_loss(state: SessionState) -> bool:
    """Whether the loss has a part that keeps what must not change."""
    return state.edit.latent_mask is not None and state.settings.background == "loss"


def predict(state: SessionState, *, with_noise: bool) -> tuple[Tensor, Tensor | None]:
    """One UNet pass of the dragged latent.

    Args:
        state: of the session.
        with_noise: whether the noise is needed; without it the last up block does not run.

    Returns:
        Features ``(1, C, h, w)`` and noise ``(1, 4, H/8, W/8)``.
    """
    preparation, latent = state.preparation, state.latent.value
    if not with_noise:
        return state.model.predict_features(latent, preparation.level.timestep, preparation.prompt), None
    prediction = state.model.predict(
        latent, preparation.level.timestep, preparation.prompt, noise_gradient=needs_mask_loss(state)
    )
    if state.iteration == 0:
        preparation.unedited_noise = prediction.noise.detach()
    return prediction.features, prediction.noise


def track(state: SessionState, features: Tensor, *, last: bool = False) -> dict[str, Handle]:
    """The handles where these features show their content.

    Args:
        state: of the session.
        features: ``(1, C, h, w)``.
        last: whether the run ends here; else handles are tracked every ``steps_per_tracking`` iterations.
    """
    settings, features = state.settings, features.detach()
    due = last or state.iterations_done % settings.steps_per_tracking == 0
    handles = track_handles(
        state.edit.handles, features, settings.tracking_radius, state.rasters, moved=state.latent.moved and due
    )
    if settings.supervision_template == "current":
        return handles
    return with_patches(handles, features, settings.supervision_radius, state.rasters)


def still_moving(state: SessionState, handles: dict[str, Handle]) -> dict[str, Handle]:
    """The handles that have not arrived."""
    cells, targets = cells_and_targets(handles, state.rasters, state.preparation.clean.dtype)
    arrived = have_arrived(cells, targets, state.settings.arrival_distance).tolist()
    return {name: handle for (name, handle), there in zip(handles.items(), arrived, strict=True) if not there}


def total_loss(state: SessionState, features: Tensor, noise: Tensor | None, moving: dict[str, Handle]) -> Tensor:
    """Motion supervision plus, if there is a mask, the mask loss; a scalar.

    Args:
        state: of the session.
        features: ``(1, C, h, w)``.
        noise: ``(1, 4, H/8, W/8)``; needed for the mask loss.
        moving: the handles that have not arrived.
    """
    settings, preparation, mask = state.settings, state.preparation, state.edit.latent_mask
    cells, targets = (
        tensor.to(features.device) for tensor in cells_and_targets(moving, state.rasters, preparation.clean.dtype)
    )
    patches = [handle.patch for handle in moving.values() if handle.patch is not None]
    loss = motion_supervision_loss(
        features,
        cells,
        targets,
        settings.supervision_radius,
        state.rasters.cells,
        step=settings.supervision_step,
        templates=torch.stack(patches) if settings.supervision_template == "first" else None,
    )
    if mask is None or noise is None or not needs_mask_loss(state):
        return loss
    level = preparation.level
    below = ddim_step(state.latent.value, noise, level.alpha, level.alpha_below)
    below_unedited = ddim_step(preparation.inverted, preparation.noise_of_unedited(), level.alpha, level.alpha_below)
    return loss + mask_loss(below, below_unedited, mask, settings.mask_weight)


def keep_background(state: SessionState) -> None:
    """Restore the unedited latent where the picture must not change, if that is how the background is kept."""
    mask = state.edit.latent_mask
    if mask is not None and state.settings.background == "keep":
        state.latent.shift((state.preparation.inverted - state.latent.value) * (1 - mask))


@torch.no_grad()
def warp_further(state: SessionState, latent_warp: LatentWarp, *, preview: bool) -> Tensor | None:
    """An iteration that warps what the latent shows, and leaves its noise.

    Args:
        state: of the session; its handles and its latent move.
        latent_warp: of the session.
        preview: whether a predicted picture is due.

    Returns:
        The clean latent predicted before the warp, ``(1, 4, H/8, W/8)``, if a preview is due.
    """
    preparation, edit, latent = state.preparation, state.edit, state.latent
    level = preparation.level
    x0: Tensor | None = None
    if preview or any(handle.template is None for handle in edit.handles.values()):
        with preparation.lora.active():
            prediction = state.model.predict(latent.value, level.timestep, preparation.prompt)
        if latent.iteration == 0:
            preparation.unedited_noise = prediction.noise
        radius = state.settings.tracking_radius
        edit.handles = track_handles(edit.handles, prediction.features, radius, state.rasters, moved=False)
        if state.settings.supervision_template == "first":
            patch_radius = state.settings.supervision_radius
            edit.handles = with_patches(edit.handles, prediction.features, patch_radius, state.rasters)
        x0 = predict_x0(latent.value, prediction.noise, level.alpha) if preview else None
    further = advance(edit.handles, state.settings.warp_share, state.rasters)
    latent.shift(math.sqrt(level.alpha) * latent_warp.change(edit.handles, further, edit.working_mask))
    edit.handles = further
    return x0


def move_on(state: SessionState, *, loss: float, x0: Tensor | None) -> DragStep:
    """The latent has changed: count the iteration, and put it on the timeline."""
    latent = state.latent
    latent.iteration += 1
    latent.moved = True
    state.timeline.add(latent.iteration, state.edit.handles, latent.value)
    return record_step(state, loss=loss, arrived=False, x0=x0)


def record_step(state: SessionState, *, loss: float, arrived: bool, x0: Tensor | None) -> DragStep:
    """The state after an iteration, for those who iterate."""
    drags = state.edit.drags
    return DragStep(
        iteration=state.iteration,
        handles={name: drag.handle for name, drag in drags.items()},
        distances={name: distance(drag.handle, drag.target) for name, drag in drags.items()},
        loss=loss,
        arrived=arrived,
        predicted_x0=x0,
    )
