"""Percentage of correct keypoints (PCK): how often a model's features find a place again that has moved far.

On pictures that were never trained on, at corners a person would take hold of, searched over the whole picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.training.correspondence import cell_places, sample_features
from livedrag.editor.training.flows import BENDS, Flows, draw_flows
from livedrag.editor.training.pictures import SIDE, Collection
from livedrag.editor.training.scenes import draw_anchors, render, still_scenes, whole
from livedrag.editor.training.trials import corners

TIMESTEPS = (60, 180, 300, 415, 530, 650)
NOISE_SEEDS = 3
CORRECT, MOVED = 10, 24
"""Pixels of 256 within which a place is found, and which it has moved by at least."""
MARGIN = 0.95
"""A place counts only if it is within this part of both views."""
TOGETHER = 8


@dataclass(frozen=True)
class Keypoints:
    """A picture, a moved copy, and places of which both views show the same.

    Args:
        caption: of the picture.
        views: ``(2, 3, 256, 256)`` in [-1, 1].
        here, there: places ``(Q, 2)`` of the first and of the second view, from -1 to 1.
    """

    caption: str
    views: Tensor
    here: Tensor
    there: Tensor


def make_keypoints(pictures: Collection, indices: Sequence[int], *, seed: int = 0) -> list[Keypoints]:
    """The corners of these pictures that are still seen after a random flow, and far from where they were."""
    made = []
    for index in indices:
        random = np.random.default_rng((seed, 4, index))
        scenes = still_scenes(pictures, [index])
        flows = draw_flows(random, draw_anchors(scenes, random, BENDS))
        views = torch.cat([render(scenes, pictures.atlas, places) for places in (whole(), flows.at(whole()))])
        solid = torch.from_numpy(np.ascontiguousarray(pictures[index][3]))
        found = torch.tensor([(point.x, point.y) for point in corners(views[0], solid)]).reshape(-1, 2)
        here = (found + 0.5) * 2 / SIDE - 1
        there = invert(flows, here[None])[0]
        returns = (flows.at(there[None, None])[0, 0] - here).norm(dim=-1) < 1 / SIDE
        seen = torch.stack([here, there]).abs().amax((0, 2)) < MARGIN
        moved = (there - here).norm(dim=-1) * SIDE / 2 > MOVED
        kept = returns & seen & moved
        if kept.any():
            made.append(Keypoints(pictures.emojis[index].caption, views, here[kept], there[kept]))
    return made


def invert(flows: Flows, places: Tensor, *, iterations: int = 60) -> Tensor:
    """Where places ``(N, Q, 2)`` of view A are in view B, by Newton's method with the affine part's slope."""
    slope = flows.numbers[:, :6].unflatten(1, (2, 3))[..., :2].inverse()
    found = places
    for _ in range(iterations):
        found = found - 0.5 * (flows.at(found[:, None])[:, 0] - places) @ slope.mT
    return found


@torch.no_grad()
def percentages_of_correct_keypoints(
    model: Diffusion, keypoints: Sequence[Keypoints], *, timesteps: Sequence[int] = TIMESTEPS
) -> dict[int, float]:
    """By timestep, the percentage of keypoints whose most similar feature cell is at the right place.

    The noise of both views is the same for every other picture, and independent for the others; averaged over
    `NOISE_SEEDS` draws of it.
    """
    latents = torch.stack([torch.cat([model.encode(view[None]) for view in each.views]) for each in keypoints])
    prompts = torch.cat([model.embed_prompt(each.caption) for each in keypoints])
    alphas = torch.tensor(model.schedule.alphas)
    correct = dict.fromkeys(timesteps, 0)
    for seed in range(NOISE_SEEDS):
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
        noise[::2, 1] = noise[::2, 0]
        for timestep in timesteps:
            noisy = alphas[timestep].sqrt() * latents + (1 - alphas[timestep]).sqrt() * noise
            for start in range(0, len(keypoints), TOGETHER):
                rows = slice(start, start + TOGETHER)
                prompt = prompts[rows].repeat_interleave(2, dim=0)
                features = model.predict_features(noisy[rows].flatten(0, 1), timestep, prompt).unflatten(0, (-1, 2))
                correct[timestep] += sum(map(count_correct, features.float().cpu(), keypoints[rows]))
    total = NOISE_SEEDS * sum(len(each.here) for each in keypoints)
    return {timestep: 100 * count / total for timestep, count in correct.items()}


def count_correct(features: Tensor, keypoints: Keypoints) -> int:
    """How many keypoints features ``(2, C, h, w)`` of both views find, by mean absolute difference over all cells."""
    wanted = sample_features(features[:1], keypoints.here[None])[0]
    differences = torch.cdist(wanted, features[1].flatten(1).mT.contiguous(), p=1)
    height, width = features.shape[2:]
    nearest = cell_places(height, width, features.device)[differences.argmin(1)]
    missed = (nearest - keypoints.there).norm(dim=-1) * SIDE / 2
    return int((missed < CORRECT).sum())
