"""First stage: the autoencoder, 8x down, 4 channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, mse_loss

from livedrag.editor.similarity import peak_signal_to_noise
from livedrag.editor.training.pictures import SIDE, Collection
from livedrag.editor.training.scenes import crops, draw_scenes, render, still_scene, whole
from livedrag.editor.training.stage import CPU, Stage, tile

STRIDE = 8
WHOLE = 0.7
"""From this part of the training on, whole pictures are seen, with whose statistics the normalisations will work."""
CROP = 128
NOISE = 0.05
"""Of what is added to the latent, in its own standard deviations: so that latents a little off decode to
pictures a little off, and what matters in a latent is large enough for the UNet to see."""
EDGES = 0.5
"""Weight of the difference of gradients."""
SQUARES = 4.0
"""Weight of the squared difference, which is what the signal-to-noise ratio measures."""


def new_autoencoder() -> AutoencoderDC:
    """The network, with random weights.

    Its shortcuts around every change of resolution carry colours from the first step on. An `AutoencoderKL` of the same
    cost, which more tools open, learns four times more slowly: after 300 steps of the same training its loss was 0.76,
    this one's 0.21.
    """
    channels = (32, 64, 64, 128)
    layers = (0, 1, 1, 2)
    none = ((),) * len(channels)
    return AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=32,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=none,
        decoder_qkv_multiscales=none,
        upsample_block_type="pixel_shuffle",
        downsample_block_type="pixel_unshuffle",
        decoder_act_fns="silu",
        decoder_norm_types="rms_norm",
    )


class AutoencoderStage(Stage):
    """Scenes through a latent and back.

    Args:
        pictures: to make scenes of.
        shown: held-out pictures for the sheet.
    """

    name = "autoencoder"
    rate = 1.5e-3

    def __init__(
        self, pictures: Collection, shown: Collection, *, device: torch.device = CPU, batch: int = 8, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self._pictures, self._shown, self._batch, self._seed = pictures, shown, batch, seed
        self._device, self._atlas = device, pictures.atlas.to(device)
        vae = new_autoencoder().to(device=device, memory_format=torch.channels_last)
        self.modules = nn.ModuleDict({"vae": vae})

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        """Colours and gradients on one batch."""
        random = np.random.default_rng((self._seed, step))
        side, count = (CROP, self._batch) if progress < WHOLE else (SIDE, max(1, self._batch // 4))
        corners = torch.from_numpy(random.integers(0, SIDE - side + 1, (count, 2))).to(self._device)
        scenes = render(draw_scenes(self._pictures, random, count), self._atlas, crops(corners, side))
        scenes = scenes.contiguous(memory_format=torch.channels_last)
        vae: Any = self.modules["vae"]
        latents = vae.encode(scenes).latent
        noise = torch.from_numpy(random.standard_normal(latents.shape, dtype=np.float32)).to(self._device)
        shown = vae.decode(latents + NOISE * latents.std().detach() * noise).sample
        return {
            "colour": (shown - scenes).abs().mean() + SQUARES * mse_loss(shown, scenes),
            "edges": EDGES * edge_loss(shown, scenes),
        }

    def sheet(self, averaged: nn.ModuleDict) -> Image.Image:
        """Held-out pictures above what comes back of them."""
        scenes = torch.stack([still_scene(self._shown[index]) for index in _spread(len(self._shown), 16)])
        scenes = scenes.to(self._device)
        back = reconstruct(averaged["vae"], scenes)
        rows = [part for start in (0, 8) for part in (scenes[start : start + 8], back[start : start + 8])]
        return tile(torch.cat(rows), columns=8)


def edge_loss(shown: Tensor, scenes: Tensor) -> Tensor:
    """Mean absolute difference of the gradients of two batches, at full and half size."""
    total = shown.new_zeros(())
    for factor in (1, 2):
        off = avg_pool2d(shown - scenes, factor) if factor > 1 else shown - scenes
        total = total + off.diff(dim=-1).abs().mean() + off.diff(dim=-2).abs().mean()
    return total


@torch.no_grad()
def reconstruct(vae: Any, scenes: Tensor) -> Tensor:
    """Pictures ``(N, 3, H, W)`` in [-1, 1] through the latent and back, one at a time."""
    return torch.cat([vae.decode(vae.encode(scene[None]).latent).sample for scene in scenes])


def signal_to_noise(shown: Tensor, truth: Tensor) -> Tensor:
    """PSNR in decibels of each picture of a batch ``(N, 3, H, W)`` in [-1, 1]."""
    return peak_signal_to_noise((shown.clamp(-1, 1) - truth).square().flatten(1).mean(1))


@torch.no_grad()
def latent_scale(vae: Any, pictures: Collection, *, count: int = 200, seed: int = 0) -> float:
    """What latents are multiplied by for unit variance."""
    numbers = draw_scenes(pictures, np.random.default_rng((seed, 1)), count)
    scenes = render(numbers, pictures.atlas, whole()).to(vae.device)
    return float(1 / torch.cat([vae.encode(scene[None]).latent for scene in scenes]).std())


def _spread(length: int, count: int) -> Sequence[int]:
    return [index * length // count for index in range(min(count, length))]
