"""Pairs of views of one scene, as latents, with the exact flow between them: always fresh ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from livedrag.editor.training.flows import BENDS, NUMBERS, Flows, draw_flows
from livedrag.editor.training.pictures import SIDE, Collection
from livedrag.editor.training.scenes import draw_anchors, draw_scenes, render, send, whole

LATENT = (4, SIDE // 8, SIDE // 8)


@dataclass(frozen=True)
class PairBatch:
    """N pairs of views A and B of one scene each.

    Args:
        latents: ``(2, N, 4, 32, 32)``, of views A, then of views B.
        flows: from places of B to places of A.
        contrast: ``(N, 32, 32)``, local contrast of view B.
        tokens: ``(N, T)``, of the scene's words.
    """

    latents: Tensor
    flows: Flows
    contrast: Tensor
    tokens: Tensor


class Pairs:
    """The latest pairs, in a device's memory; the oldest give way to fresh ones. Each group is drawn by its number.

    Args:
        pictures: to make scenes of.
        vae: the finished autoencoder, on the device.
        scale: what its latents are multiplied by.
        tokens: turns captions into rows of numbers ``(N, T)``.
        capacity: pairs in memory, a multiple of `together`.
        together: pairs that are drawn and encoded at once.
        half: whether to encode in bfloat16.
    """

    def __init__(
        self,
        pictures: Collection,
        vae: Any,
        scale: float,
        tokens: Callable[[tuple[str, ...]], Tensor],
        *,
        capacity: int,
        together: int,
        half: bool = False,
        seed: int = 0,
    ) -> None:
        assert capacity % together == 0
        self.vae, self.scale, self.drawn = vae, scale, 0
        self._pictures, self._tokens, self._seed = pictures, tokens, seed
        self._capacity, self._together, self._half = capacity, together, half
        self._device: torch.device = vae.device
        self._atlas = pictures.atlas.to(self._device)
        width = tokens(("",)).shape[1]
        self._latents = torch.zeros(2, capacity, *LATENT, dtype=torch.float16, device=self._device)
        self._flows = torch.zeros(capacity, NUMBERS, device=self._device)
        self._contrast = torch.zeros(capacity, *LATENT[1:], dtype=torch.float16, device=self._device)
        self._words = torch.zeros(capacity, width, dtype=torch.int32, device=self._device)

    def __len__(self) -> int:
        return min(self.drawn, self._capacity)

    @torch.no_grad()
    def grow(self, count: int) -> None:
        """Draw and encode pairs until there have been so many in all, or a few more."""
        while self.drawn < count:
            start = self.drawn % self._capacity
            rows = slice(start, start + self._together)
            random = np.random.default_rng((self._seed, 2, self.drawn))
            views, flows, captions = draw_pairs(self._pictures, self._atlas, random, self._together)
            self._latents[:, rows] = self._encode(views)
            self._flows[rows] = flows.numbers
            self._contrast[rows] = local_contrast(views[1])
            self._words[rows] = send(self._tokens(captions).int(), self._device)
            self.drawn += self._together

    def draw(self, random: np.random.Generator, count: int) -> PairBatch:
        """Random ones of the pairs in memory."""
        chosen = send(torch.from_numpy(random.integers(0, len(self), count)), self._device)
        return PairBatch(
            self._latents[:, chosen].float(),
            Flows(self._flows[chosen]),
            self._contrast[chosen].float(),
            self._words[chosen].long(),
        )

    def state_dict(self) -> dict[str, Any]:
        """All pairs in memory, so that training goes on with the same ones."""
        used = len(self)
        return {
            "drawn": self.drawn,
            "latents": self._latents[:, :used].cpu().clone(),  # of a view all memory would be saved
            "flows": self._flows[:used].cpu().clone(),
            "contrast": self._contrast[:used].cpu().clone(),
            "words": self._words[:used].cpu().clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the pairs of `state_dict`."""
        self.drawn = state["drawn"]
        used = len(self)
        self._latents[:, :used] = state["latents"].to(self._device)
        self._flows[:used] = state["flows"].to(self._device)
        self._contrast[:used] = state["contrast"].to(self._device)
        self._words[:used] = state["words"].to(self._device)

    def _encode(self, views: Tensor) -> Tensor:
        """Views ``(2, N, 3, 256, 256)`` to latents ``(2, N, 4, 32, 32)``."""
        pixels = views.flatten(0, 1)
        if self._device.type == "cuda":
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            latents = self.vae.encode(pixels).latent
        scaled: Tensor = (latents.float() * self.scale).unflatten(0, (2, -1))
        return scaled


def draw_pairs(
    pictures: Collection, atlas: Tensor, random: np.random.Generator, count: int
) -> tuple[Tensor, Flows, tuple[str, ...]]:
    """So many random pairs, on the device of the atlas.

    Returns:
        views ``(2, N, 3, 256, 256)`` in [-1, 1], the flows from B to A, and words for the scenes.
    """
    scenes = draw_scenes(pictures, random, count)
    flows = Flows(send(draw_flows(random, draw_anchors(scenes, random, BENDS)).numbers, atlas.device))
    places = whole(atlas.device).expand(count, -1, -1, -1)
    views = torch.stack([render(scenes, atlas, places), render(scenes, atlas, flows.at(places))])
    return views, flows, scenes.captions


def local_contrast(views: Tensor) -> Tensor:
    """Standard deviation of grey within 16 x 16 pixels around each latent cell: ``(N, H / 8, W / 8)``."""
    grey = views.mean(1, keepdim=True)
    mean, square = (avg_pool2d(part, 16, 8, 4, count_include_pad=False) for part in (grey, grey.square()))
    return (square - mean.square()).clamp(min=0).sqrt()[:, 0]
