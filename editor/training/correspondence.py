"""Training features to correspond: a place of one view should resemble the same content in the other view most.

As in Readout Guidance and Track4Gen (2412.06016), but on the raw features that dragging reads, compared as tracking
compares them, by mean absolute difference: the drag loop needs no new head.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, log_softmax

from livedrag.editor.training.flows import Flows
from livedrag.editor.training.pairs import PairBatch

PLACES = 64
"""Places of view B that are looked for in view A, of each pair."""
FLAT = 0.01
"""Added to the local contrast by which these are drawn."""
BLUR = 0.6
"""Standard deviation of the target, in feature cells: shifts of less than a cell have a slope."""
SHARPNESS = 8.0
"""What differences of features are multiplied by at first; learned."""
SPEED = 20.0
"""How much faster than the weights that is learned."""
NEAR, FAR = 10 / 128, 24 / 128
"""A place is found within 10 of 256 pixels; only those that moved by more than 24 are counted."""


MATCHED = 800
"""From this timestep on features need not correspond: no drag begins there."""
LOW, HIGH = 300, 700
FOUND_LOW, FOUND_HIGH = f"found below {LOW}", f"found from {LOW} to {HIGH}"
"""Shares of places moved far that are found, by timestep; watched, not trained on."""
CORRESPONDENCE = "correspondence"


class FeatureUNet(nn.Module):
    """A UNet that also returns the features that dragging reads, those of the penultimate up block.

    Args:
        unet: shared, not copied.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self._kept: list[Tensor] = []
        kept = self._kept
        blocks = unet.up_blocks
        assert isinstance(blocks, nn.ModuleList)
        blocks[-2].register_forward_hook(lambda _block, _inputs, output: kept.append(output))

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction ``(B, 4, h, w)`` and features ``(B, C, h, w)``."""
        self._kept.clear()
        predicted: Tensor = self.unet(latents, timesteps, text, return_dict=False)[0]
        return predicted, self._kept.pop()


class Likeness(nn.Module):
    """How like features are: the negative mean absolute difference, times a learned sharpness."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(SHARPNESS) / SPEED))

    def forward(self, features: Tensor, wanted: Tensor) -> Tensor:
        """Likeness ``(N, Q, h * w)`` of each wanted feature ``(N, Q, C)`` to each cell of ``(N, C, h, w)``."""
        cells = features.flatten(2).mT.contiguous()
        return torch.cdist(wanted, cells, p=1) * (-(SPEED * self.logarithm).exp() / wanted.shape[-1])


def draw_places(contrast: Tensor, generator: torch.Generator, count: int = PLACES) -> Tensor:
    """Places ``(N, count, 2)`` from -1 to 1, in different cells drawn by contrast ``(N, h, w)``, anywhere in them."""
    height, width = contrast.shape[1:]
    weights = contrast.flatten(1) + FLAT
    spread = -torch.rand(weights.shape, generator=generator, device=weights.device).clamp(min=1e-9).log()
    cells = (spread / weights).topk(count, largest=False).indices  # without replacement, by exponential races
    within = torch.rand(*cells.shape, 2, generator=generator, device=weights.device)
    across, down = (cells % width + within[..., 0]) / width, (cells // width + within[..., 1]) / height
    return torch.stack([across, down], dim=-1) * 2 - 1


def sample_features(features: Tensor, places: Tensor) -> Tensor:
    """Features ``(N, C, h, w)`` between cells, at places ``(N, Q, 2)``: ``(N, Q, C)``."""
    sampled = grid_sample(features, places[:, None], padding_mode="border", align_corners=False)
    return sampled[:, :, 0].mT


def cell_places(height: int, width: int, device: torch.device) -> Tensor:
    """The middles of all cells, ``(h * w, 2)``, row by row, from -1 to 1."""
    rows, columns = torch.meshgrid(
        (torch.arange(height, device=device) + 0.5) * 2 / height - 1,
        (torch.arange(width, device=device) + 0.5) * 2 / width - 1,
        indexing="ij",
    )
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


def correspondence(
    likeness: Likeness, features: tuple[Tensor, Tensor], flows: Flows, places: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Look for places of view B among all cells of view A.

    Args:
        features: of views A and B, ``(N, C, h, w)`` each.
        flows: from B to A.
        places: of B, ``(N, Q, 2)``.

    Returns:
        each ``(N,)``: the mean cross-entropy over the places that are in view A; how many moved far; and how many of
        those are found.
    """
    here, there = features
    height, width = here.shape[-2:]
    truth = flows.at(places[:, None])[:, 0]
    logits = likeness(here, sample_features(there, places))
    cells = cell_places(height, width, here.device)
    across, down = (truth[:, :, None] - cells).square().unbind(-1)
    squares = across * (width / 2) ** 2 + down * (height / 2) ** 2  # in cells
    target = torch.softmax(-squares / (2 * BLUR**2), dim=-1)
    visible = (truth.abs().amax(-1) < 1).float()
    entropies = -(target * log_softmax(logits, dim=-1)).sum(-1)
    loss = (entropies * visible).sum(1) / visible.sum(1).clamp(min=1)
    with torch.no_grad():
        missed = (cells[logits.argmax(-1)] - truth).norm(dim=-1)
        far = visible * ((truth - places).norm(dim=-1) > FAR)
        found = far * (missed < NEAR)
    return loss, far.sum(1), found.sum(1)


def match(
    likeness: Likeness, features: Tensor, pairs: PairBatch, timesteps: Tensor, random: np.random.Generator
) -> dict[str, Tensor]:
    """The loss of correspondence, and the shares of places that are found, by name.

    Args:
        features: ``(2 N, C, h, w)``, of views A, then of views B.
        pairs: that they are of.
        timesteps: ``(N,)``, of both views.
        random: of the places.
    """
    here, there = features.unflatten(0, (2, -1))
    generator = torch.Generator(features.device).manual_seed(int(random.integers(2**63)))
    places = draw_places(pairs.contrast, generator)
    entropies, far, found = correspondence(likeness, (here, there), pairs.flows, places)
    matched = (timesteps < MATCHED).float()
    low, high = timesteps < LOW, (timesteps >= LOW) & (timesteps < HIGH)
    return {
        CORRESPONDENCE: (entropies * matched).sum() / matched.sum().clamp(min=1),
        FOUND_LOW: (found * low).sum() / (far * low).sum().clamp(min=1),
        FOUND_HIGH: (found * high).sum() / (far * high).sum().clamp(min=1),
    }
