"""The parts of one iteration: the UNet pass, tracking, the loss, and the warp that may take an iteration's place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from livedrag.editor.drag.handles import Handle, cells_and_targets, track_handles
from livedrag.editor.drag.latent_warp import LatentWarp, advance
from livedrag.editor.drag.motion import mask_loss, motion_supervision_loss
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.steps import DragStep
from livedrag.editor.drag.tracking import have_arrived
from livedrag.editor.models.ddim import ddim_step, predict_x0
from livedrag.editor.points import distance


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
    noise_gradient = state.edit.latent_mask is not None
    prediction = state.model.predict(
        latent, preparation.level.timestep, preparation.prompt, noise_gradient=noise_gradient
    )
    if state.iteration == 0:
        preparation.unedited_noise = prediction.noise.detach()
    return prediction.features, prediction.noise


def track(state: SessionState, features: Tensor) -> dict[str, Handle]:
    """The handles where these features ``(1, C, h, w)`` show their content."""
    return track_handles(
        state.edit.handles,
        features.detach(),
        state.settings.tracking_radius,
        state.rasters,
        moved=state.latent.moved,
    )


def still_moving(state: SessionState, handles: dict[str, Handle]) -> tuple[Tensor, Tensor]:
    """Cells and target cells of the handles that have not arrived, ``(n, 2)`` each, (row, column)."""
    cells, targets = cells_and_targets(handles, state.rasters, state.preparation.clean.dtype)
    moving = ~have_arrived(cells, targets, state.settings.arrival_distance)
    return cells[moving], targets[moving]


def total_loss(state: SessionState, features: Tensor, noise: Tensor | None, cells: Tensor, targets: Tensor) -> Tensor:
    """Motion supervision plus, if there is a mask, the mask loss; a scalar.

    Args:
        state: of the session.
        features: ``(1, C, h, w)``.
        noise: ``(1, 4, H/8, W/8)``; needed if there is a mask.
        cells: of the handles that are still moving, ``(n, 2)``, (row, column).
        targets: their targets, ``(n, 2)``, (row, column).
    """
    settings, preparation, mask = state.settings, state.preparation, state.edit.latent_mask
    cells, targets = cells.to(features.device), targets.to(features.device)
    loss = motion_supervision_loss(features, cells, targets, settings.supervision_radius, state.rasters.cells)
    if mask is None or noise is None:
        return loss
    level = preparation.level
    below = ddim_step(state.latent.value, noise, level.alpha, level.alpha_below)
    below_unedited = ddim_step(preparation.inverted, preparation.noise_of_unedited(), level.alpha, level.alpha_below)
    return loss + mask_loss(below, below_unedited, mask, settings.mask_weight)


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
