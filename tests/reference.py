"""The published method, transcribed slowly and literally: DragDiffusion (arXiv 2306.14435), sections 3.2 to 3.4.

Whole feature maps are upsampled, one point is handled at a time, and the UNet is walked through by its own parts.
Nothing is shared with the product's loop. ``(row, column)`` throughout, on the half-resolution raster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import interpolate

Place = tuple[float, float]


@dataclass(frozen=True)
class Trace:
    """What the loop went through: the latent after each step, and the handles as found before it."""

    latents: list[Tensor]
    handles: list[list[Place]]
    arrived: bool


def unet_pass(
    unet: UNet2DConditionModel, latent: Tensor, timestep: int, text: Tensor, pooled: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Output and the penultimate up block's features of one pass.

    Stable Diffusion XL also takes the pooled text embedding, and the picture's size: that of the original, what was
    cropped of it at the top and the left, and that of the target, each rows before columns, in pixels.
    """
    time = unet.time_embedding(unet.time_proj(torch.full((len(latent),), timestep, device=latent.device)).to(latent))
    if pooled is not None:
        rows, columns = 8 * latent.shape[2], 8 * latent.shape[3]
        numbers = torch.tensor([rows, columns, 0, 0, rows, columns], device=latent.device)
        waves = unet.add_time_proj(numbers).flatten().to(latent)
        time = time + unet.add_embedding(torch.cat([pooled, waves[None]], dim=1))
    hidden = unet.conv_in(latent)
    skips = [hidden]
    for block in unet.down_blocks:
        if getattr(block, "has_cross_attention", False):
            hidden, new = block(hidden, time, encoder_hidden_states=text)
        else:
            hidden, new = block(hidden, time)
        skips += new
    hidden = unet.mid_block(hidden, time, encoder_hidden_states=text)
    features = hidden
    for index, block in enumerate(unet.up_blocks):
        here, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
        size = skips[-1].shape[2:] if skips else None  # what follows has it, odd sides too
        if getattr(block, "has_cross_attention", False):
            hidden = block(hidden, tuple(here), time, encoder_hidden_states=text, upsample_size=size)
        else:
            hidden = block(hidden, tuple(here), time, upsample_size=size)
        if index == len(unet.up_blocks) - 2:
            features = hidden
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden))), features


def one_step_down(latent: Tensor, output: Tensor, alpha: float, alpha_below: float, prediction_type: str) -> Tensor:
    """The deterministic DDIM step."""
    a, b = math.sqrt(alpha), math.sqrt(1 - alpha)
    if prediction_type == "epsilon":
        clean, noise = (latent - b * output) / a, output
    else:
        clean, noise = a * latent - b * output, a * output + b * latent
    return math.sqrt(alpha_below) * clean + math.sqrt(1 - alpha_below) * noise


def bilinear(image: Tensor, row: float, column: float) -> Tensor:
    """Value of ``(C, H, W)`` at a fractional place; beyond the border, the border's."""
    row, column = min(max(row, 0.0), image.shape[1] - 1.0), min(max(column, 0.0), image.shape[2] - 1.0)
    top, left = math.floor(row), math.floor(column)
    bottom, right = min(top + 1, image.shape[1] - 1), min(left + 1, image.shape[2] - 1)
    down, along = row - top, column - left
    return (
        image[:, top, left] * (1 - down) * (1 - along)
        + image[:, top, right] * (1 - down) * along
        + image[:, bottom, left] * down * (1 - along)
        + image[:, bottom, right] * down * along
    )


def is_flat(here: Place, ahead: Place, raster: tuple[int, int], features: Tensor) -> bool:
    """Whether the upsampled map is the same at both places: each coordinate equal, or beyond the outermost feature's
    centre on the same side, from where on the map is constant (whole cells; between them it is interpolated)."""
    for axis in (0, 1):
        centre = raster[axis] / features.shape[2 + axis] / 2 - 0.5
        before = max(here[axis], ahead[axis]) <= math.floor(centre)
        after = min(here[axis], ahead[axis]) >= raster[axis] - 1 - math.floor(centre)
        if not (before or after or here[axis] == ahead[axis]):
            return False
    return True


def drag(
    unet: UNet2DConditionModel,
    latent: Tensor,
    text: Tensor,
    handles: Sequence[Place],
    targets: Sequence[Place],
    mask: Tensor | None,
    *,
    timestep: int,
    alpha: float,
    alpha_below: float,
    prediction_type: str,
    raster: tuple[int, int],
    iterations: int,
    learning_rate: float = 0.01,
    supervision_radius: int = 1,
    tracking_radius: int = 3,
    mask_weight: float = 0.1,
    arrival_distance: float = 2.0,
    supervision_step: float = 1.0,
    supervision_template: str = "current",
    steps_per_tracking: int = 1,
    background: str = "loss",
    pooled: Tensor | None = None,
) -> Trace:
    """Drag a latent for some iterations, or until all handles are there.

    The last but one and the three before it are not in the paper. GoodDrag (2404.07206) pulls what was at the first
    handle, by up to four cells, in three steps per tracking; DragFlow puts the background back after every step.
    ``pooled`` is Stable Diffusion XL's pooled text embedding.
    """
    rows, columns = raster
    points = list(handles)
    with torch.no_grad():
        output, features = unet_pass(unet, latent, timestep, text, pooled)
        start = interpolate(features, raster, mode="bilinear")[0]
        below_start = one_step_down(latent, output, alpha, alpha_below, prediction_type)
    templates = [start[:, int(row), int(column)] for row, column in points]

    inverted, latent = latent, latent.clone().requires_grad_()
    optimizer = torch.optim.Adam([latent], lr=learning_rate)
    trace = Trace([], [], arrived=False)
    for iteration in range(iterations):
        output, features = unet_pass(unet, latent, timestep, text, pooled)
        below = one_step_down(latent, output, alpha, alpha_below, prediction_type)
        current = interpolate(features, raster, mode="bilinear")[0]

        if iteration > 0 and iteration % steps_per_tracking == 0:
            for index, (row, column) in enumerate(points):
                best, place = math.inf, (row, column)
                for r in range(int(row) - tracking_radius, int(row) + tracking_radius + 1):
                    for c in range(int(column) - tracking_radius, int(column) + tracking_radius + 1):
                        if 0 <= r < rows and 0 <= c < columns:
                            difference = (current[:, r, c] - templates[index]).abs().sum().item()
                            # Beyond the outermost feature's centre the map is constant: ties but for rounding.
                            if difference < best * (1 - 1e-9):
                                best, place = difference, (float(r), float(c))
                points[index] = place
        trace.handles.append(list(points))
        left = [math.dist(point, target) for point, target in zip(points, targets, strict=True)]
        if all(distance < arrival_distance for distance in left):
            return Trace(trace.latents, trace.handles, arrived=True)

        loss = latent.new_zeros(())
        for first, (row, column), target, distance in zip(handles, points, targets, left, strict=True):
            if distance < arrival_distance:
                continue
            length = min(supervision_step, max(distance, 1.0))
            step = (length * (target[0] - row) / distance, length * (target[1] - column) / distance)
            for r in range(int(row) - supervision_radius, int(row) + supervision_radius + 1):
                for c in range(int(column) - supervision_radius, int(column) + supervision_radius + 1):
                    place = (r + step[0], c + step[1])
                    if not (0 <= r < rows and 0 <= c < columns):
                        continue
                    if supervision_template == "first":
                        wanted = bilinear(start, r - row + first[0], c - column + first[1])
                    elif is_flat((r, c), place, raster, features):
                        continue  # there only rounding would differ, and an L1 has no slope at nought
                    else:
                        wanted = current[:, r, c].detach()
                    loss = loss + (bilinear(current, *place) - wanted).abs().mean()
        if mask is not None and background == "loss":
            loss = loss + mask_weight * ((below - below_start) * (1 - mask)).abs().sum()

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if mask is not None and background == "keep":
            with torch.no_grad():
                latent.copy_(torch.where(mask == 1, latent, inverted))
        trace.latents.append(latent.detach().clone())
    return trace


def good_drag(
    unet: UNet2DConditionModel,
    latent: Tensor,
    text: Tensor,
    handles: Sequence[Place],
    targets: Sequence[Place],
    mask: Tensor | None,
    *,
    levels: Sequence[tuple[int, float, float]],
    prediction_type: str,
    raster: tuple[int, int],
    trackings_per_level: int,
    steps_per_tracking: int = 3,
    learning_rate: float = 0.02,
    supervision_radius: int = 4,
    tracking_radius: int = 12,
    supervision_step: float = 4.0,
    mask_weight: float = 0.1,
    arrival_distance: float = 2.0,
) -> Trace:
    """GoodDrag (arXiv 2404.07206), algorithm 1: drag at one noise level, denoise a step, drag at the next one.

    Args:
        levels: at which to drag, noisiest first: timestep, cumulative alpha, cumulative alpha one step further down.
    """
    rows, columns = raster
    points = list(handles)
    trace = Trace([], [], arrived=False)
    undragged = latent
    for level, (timestep, alpha, alpha_below) in enumerate(levels):
        # What the undragged latent is at this level, and what becomes of it.
        with torch.no_grad():
            output, features = unet_pass(unet, undragged, timestep, text)
            original = interpolate(features, raster, mode="bilinear")[0]
            undragged_below = one_step_down(undragged, output, alpha, alpha_below, prediction_type)

        latent = latent.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([latent], lr=learning_rate)
        for step in range(trackings_per_level * steps_per_tracking):
            output, features = unet_pass(unet, latent, timestep, text)
            below = one_step_down(latent, output, alpha, alpha_below, prediction_type)
            current = interpolate(features, raster, mode="bilinear")[0]

            if step % steps_per_tracking == 0 and (level, step) != (0, 0):
                for number, (row, column) in enumerate(points):
                    wanted = original[:, int(handles[number][0]), int(handles[number][1])]
                    likeliest, place = math.inf, (row, column)
                    for r in range(int(row) - tracking_radius, int(row) + tracking_radius + 1):
                        for c in range(int(column) - tracking_radius, int(column) + tracking_radius + 1):
                            if not (0 <= r < rows and 0 <= c < columns):
                                continue
                            difference = (current[:, r, c] - wanted).abs().sum().item()
                            if difference < likeliest * (1 - 1e-9):  # ties but for rounding: the first
                                likeliest, place = difference, (float(r), float(c))
                    points[number] = place
            trace.handles.append(list(points))
            ways = [(target[0] - point[0], target[1] - point[1]) for point, target in zip(points, targets, strict=True)]
            if all(math.hypot(*way) < arrival_distance for way in ways):
                return Trace(trace.latents, trace.handles, arrived=True)

            loss = latent.new_zeros(())
            for (first_row, first_column), (row, column), way in zip(handles, points, ways, strict=True):
                distance = math.hypot(*way)
                if distance < arrival_distance:
                    continue
                stride = min(supervision_step, distance) / distance
                for down in range(-supervision_radius, supervision_radius + 1):
                    for across in range(-supervision_radius, supervision_radius + 1):
                        if 0 <= row + down < rows and 0 <= column + across < columns:
                            there = bilinear(current, row + down + stride * way[0], column + across + stride * way[1])
                            here = bilinear(original, first_row + down, first_column + across)
                            loss = loss + (there - here).abs().mean()
            if mask is not None:
                loss = loss + mask_weight * ((below - undragged_below) * (1 - mask)).abs().sum()

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            trace.latents.append(latent.detach().clone())

        with torch.no_grad():
            output, _ = unet_pass(unet, latent, timestep, text)
            latent = one_step_down(latent, output, alpha, alpha_below, prediction_type)
            undragged = undragged_below
    return trace
