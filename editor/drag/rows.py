"""One iteration of the paper as a function of tensors: for one session, or for several that share the pass of the UNet.

All that differs from iteration to iteration, and from session to session, is in its arguments, and nothing in it waits
for the device, so that it can run from a CUDA graph. What it gives is a proposal: the caller looks at where the content
is, and takes the step or leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from livedrag.editor.drag.latent import Adam, adam_step
from livedrag.editor.drag.motion import mask_loss, motion_supervision_loss
from livedrag.editor.drag.pins import pin_loss
from livedrag.editor.drag.region import CarriedFeatures, region_loss
from livedrag.editor.drag.tracking import have_arrived, take_patches, take_templates, track_points
from livedrag.editor.models.ddim import ddim_step
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.features import BeyondFeatures


@dataclass(frozen=True, eq=False)
class Patch:
    """The cells around a point.

    Args:
        offsets: of the cells, ``(k, 2)``, (row, column).
        counts: whether each is of the patch, ``(k,)``; others only fill it up.
    """

    offsets: Tensor
    counts: Tensor


@dataclass(frozen=True, eq=False)
class Points:
    """Handles that motion supervision pulls.

    Args:
        cells: where they were tracked last, whole cells ``(n, 2)``.
        targets: cells ``(n, 2)``, fractions allowed.
        steps: how far each is pulled, in cells, ``(n, 1)``.
        counts: whether each is a handle, ``(n,)``; others only fill up the rows.
        tracked: whether each is tracked in this iteration, ``(n,)``.
        known: whether each has a template, ``(n,)``; others take theirs from this iteration's features.
        templates: ``(n, C)``.
        window: r2, of point tracking.
        pulled: r1, of motion supervision.
        arrival_distance: in cells, a scalar.
        patched: whether each has a patch, ``(n,)``; None: the patches at the handles now are pulled.
        patches: that are pulled, ``(n, C, k)``.
    """

    cells: Tensor
    targets: Tensor
    steps: Tensor
    counts: Tensor
    tracked: Tensor
    known: Tensor
    templates: Tensor
    window: Patch
    pulled: Patch
    arrival_distance: Tensor
    patched: Tensor | None = None
    patches: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Pins:
    """Places that hold still.

    Args:
        cells: whole cells ``(n, 2)``.
        counts: whether each is a pin, ``(n,)``; others only fill up the rows.
        patch: around each.
        features: of the unedited latent, ``(1, C, h, w)``; None: this is the unedited latent.
    """

    cells: Tensor
    counts: Tensor
    patch: Patch
    features: Tensor | None


@dataclass(frozen=True, eq=False)
class Background:
    """What the mask loss keeps.

    Args:
        mask: M, ``(1, 1, H/8, W/8)``, 1 where the picture may change.
        weight: lambda, a scalar.
        latent: the unedited one, ``(1, 4, H/8, W/8)``.
        noise: predicted for it, ``(1, 4, H/8, W/8)``; None: this is the unedited latent.
    """

    mask: Tensor
    weight: Tensor
    latent: Tensor
    noise: Tensor | None


@dataclass(frozen=True, eq=False)
class Row:
    """All that an iteration of a session depends on, but for the network.

    What is compared with the unedited latent, while it is that latent, must equal it to the last bit: of another pass
    it would differ by rounding, and the gradient of an absolute value is as large for that.

    Args:
        latent: ``(1, 4, H/8, W/8)``.
        timestep: 0 to 999, ``(1,)``.
        prompt: text embedding, ``(1, L, D)``.
        alpha: cumulative alpha there, a scalar.
        alpha_below: of the next cleaner level, a scalar.
        adam: its state and this step's numbers.
        beyond: what of the pass runs after the features.
        raster: rows and columns of cells.
        points: handles to be pulled, or
        region: what the features should become.
        pins: if any.
        background: if a loss keeps it.
    """

    latent: Tensor
    timestep: Tensor
    prompt: Tensor
    alpha: Tensor
    alpha_below: Tensor
    adam: Adam
    beyond: BeyondFeatures
    raster: tuple[int, int]
    points: Points | None = None
    region: CarriedFeatures | None = None
    pins: Pins | None = None
    background: Background | None = None


@dataclass(frozen=True, eq=False)
class Tracked:
    """Handles as this iteration's features show them.

    Args:
        cells: whole cells ``(n, 2)``.
        arrived: whether each is at its target, ``(n,)``.
        templates: ``(n, C)``.
        patches: that are pulled, ``(n, C, k)``; None: those at the handles now.
    """

    cells: Tensor
    arrived: Tensor
    templates: Tensor
    patches: Tensor | None


@dataclass(frozen=True, eq=False)
class Proposal:
    """What an iteration of a session leads to.

    Args:
        latent: after the step, ``(1, 4, H/8, W/8)``.
        moments: Adam's, after the step, ``(2, 4, H/8, W/8)``.
        loss: before it, a scalar.
        largest: absolute number in the gradient, a scalar; not finite if any is not.
        noise: predicted before it, ``(1, 4, H/8, W/8)``, if the pass went so far.
        features: before it, ``(1, C, h, w)``, if there are pins.
        points: before it.
    """

    latent: Tensor
    moments: Tensor
    loss: Tensor
    largest: Tensor
    noise: Tensor | None
    features: Tensor | None
    points: Tracked | None


def iterate(model: Diffusion, rows: Sequence[Row]) -> list[Proposal]:
    """One iteration of each row; none changes what another one gets.

    Args:
        model: with the LoRA, or LoRAs, of the rows.
        rows: with latents of one shape.
    """
    # 1. One UNet pass: the features, and the noise if the mask or a preview needs it.
    latents = [row.latent.detach().requires_grad_() for row in rows]
    with torch.enable_grad():
        timesteps, prompts = (
            torch.cat(each) for each in zip(*((row.timestep, row.prompt) for row in rows), strict=True)
        )
        beyond = [row.beyond for row in rows]
        features, outputs = model.predict_rows(torch.cat(latents), timesteps, prompts, beyond)
        noises = _noises(model, rows, latents, outputs)

        # 2. to 5. Point tracking, motion supervision and the mask loss, of each row by itself.
        losses: list[Tensor] = []
        tracked: list[Tracked | None] = []
        for row, latent, own, noise in zip(rows, latents, features.split(1), noises, strict=True):
            found = None if row.points is None else track(row.points, own.detach(), row.raster)
            losses.append(total_loss(row, latent, own, noise, found))
            tracked.append(found)

        # 6. One backward pass of all losses, each of which depends on its own latent alone, and one step of Adam.
        gradients = torch.autograd.grad([loss * model.loss_scale for loss in losses], latents)
    return [
        _propose(row, gradient / model.loss_scale, loss.detach(), noise, own, found)
        for row, gradient, loss, noise, own, found in zip(
            rows, gradients, losses, noises, features.detach().split(1), tracked, strict=True
        )
    ]


def _noises(
    model: Diffusion, rows: Sequence[Row], latents: Sequence[Tensor], outputs: Tensor | None
) -> list[Tensor | None]:
    """The noise of each row that goes beyond the features."""
    each = iter([] if outputs is None else outputs.split(1))
    return [
        None if row.beyond == "nothing" else model.schedule.to_noise(next(each), latent, row.alpha)
        for row, latent in zip(rows, latents, strict=True)
    ]


@torch.no_grad()
def track(points: Points, features: Tensor, raster: tuple[int, int]) -> Tracked:
    """Where these features ``(1, C, h, w)`` show the content of each handle."""
    cells = torch.where(points.tracked[:, None], find(points, features, raster), points.cells)
    templates = torch.where(points.known[:, None], points.templates, take_templates(features, cells, raster))
    patches = points.patches
    if patches is not None and points.patched is not None:
        taken = take_patches(features, cells, points.pulled.offsets, raster)
        patches = torch.where(points.patched[:, None, None], patches, taken)
    arrived = have_arrived(cells, points.targets, points.arrival_distance)
    return Tracked(cells, arrived, templates, patches)


def find(points: Points, features: Tensor, raster: tuple[int, int]) -> Tensor:
    """The cells that match the handles' templates best, ``(n, 2)``."""
    window = points.window
    return track_points(features, points.templates, points.cells, window.offsets, raster, counts=window.counts)


def total_loss(row: Row, latent: Tensor, features: Tensor, noise: Tensor | None, tracked: Tracked | None) -> Tensor:
    """Motion supervision, plus what holds the pins, plus, if there is a mask, the mask loss; a scalar.

    Args:
        row: of the session.
        latent: that requires grad, ``(1, 4, H/8, W/8)``.
        features: ``(1, C, h, w)``.
        noise: ``(1, 4, H/8, W/8)``; needed for the mask loss.
        tracked: the row's points.
    """
    if row.region is not None:
        loss = region_loss(features, row.region)
    else:
        assert row.points is not None
        assert tracked is not None
        points, patch = row.points, row.points.pulled
        moving = points.counts & ~tracked.arrived
        loss = motion_supervision_loss(
            features,
            tracked.cells,
            points.targets,
            patch.offsets,
            row.raster,
            step=points.steps,
            templates=tracked.patches,
            counts=moving[:, None] & patch.counts,
        )
    if (pins := row.pins) is not None:
        unedited = features.detach() if pins.features is None else pins.features
        counts = pins.counts[:, None] & pins.patch.counts
        loss = loss + pin_loss(features, unedited, pins.cells, pins.patch.offsets, row.raster, counts=counts)
    if (kept := row.background) is None or noise is None:
        return loss
    unedited_noise = noise.detach() if kept.noise is None else kept.noise
    below = ddim_step(latent, noise, row.alpha, row.alpha_below)
    below_unedited = ddim_step(kept.latent, unedited_noise, row.alpha, row.alpha_below)
    return loss + mask_loss(below, below_unedited, kept.mask, kept.weight)


def _propose(
    row: Row, gradient: Tensor, loss: Tensor, noise: Tensor | None, features: Tensor, tracked: Tracked | None
) -> Proposal:
    latent, moments = adam_step(row.latent, gradient, row.adam)
    return Proposal(
        latent=latent,
        moments=moments,
        loss=loss,
        largest=gradient.abs().max(),
        noise=None if noise is None else noise.detach(),
        features=None if row.pins is None else features,
        points=tracked,
    )
