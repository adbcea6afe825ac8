"""A small network that turns what a UNet's blocks know into features that correspond between views.

As the readout heads of Readout Guidance (arXiv 2312.02150): the UNet stays as it is, and predicts as before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

GROUPS = 8
"""Of the normalisations."""
TIME_WIDTH, TIME_HIDDEN, LONGEST_PERIOD = 32, 64, 1000


class FeatureHead(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' classes are not typed
    """Adds to the features of the penultimate up block what makes the same content look alike wherever it is.

    Args:
        in_channels: of what `read_blocks` names, in that order; multiples of 8. The last is the number of features.
        channels: inside; a multiple of 8.
        depth: residual layers, each a depthwise convolution of 3 x 3 and two of 1 x 1.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, in_channels: Sequence[int] = (48, 256, 256, 96), channels: int = 96, depth: int = 4) -> None:
        super().__init__()
        self.normalise = nn.ModuleList(nn.GroupNorm(GROUPS, each) for each in in_channels)
        self.enter = nn.ModuleList(nn.Conv2d(each, channels, 1) for each in in_channels)
        self.time = nn.Sequential(
            nn.Linear(TIME_WIDTH, TIME_HIDDEN), nn.SiLU(), nn.Linear(TIME_HIDDEN, 2 * channels * depth)
        )
        self.layers = nn.ModuleList(HeadLayer(channels) for _ in range(depth))
        self.leave = nn.Conv2d(channels, in_channels[-1], 1)
        for last in (self.time[2], self.leave):  # at first the features stay what they are
            _fill_with_zeros(last)

    def forward(self, read: Sequence[Tensor], timestep: int | Tensor) -> Tensor:
        """Features ``(B, C, h, w)``.

        Args:
            read: what the blocks gave, ``(B, C_i, h_i, w_i)`` each; the last one are the features to improve.
            timestep: 0 to 999, one for all rows or ``(B,)``.
        """
        features = read[-1]
        side = features.shape[-2:]
        entered = [enter(norm(each)) for enter, norm, each in zip(self.enter, self.normalise, read, strict=True)]
        hidden = sum(each if each.shape[-2:] == side else interpolate(each, side, mode="bilinear") for each in entered)
        assert isinstance(hidden, Tensor)
        for layer, (scale, shift) in zip(self.layers, self._modulations(timestep, features), strict=True):
            hidden = layer(hidden, scale, shift)
        improved: Tensor = features + self.leave(hidden)
        return improved

    def _modulations(self, timestep: int | Tensor, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of each layer, a scale and a shift of its channels, ``(B or 1, channels, 1, 1)``."""
        timesteps = torch.as_tensor(timestep, device=features.device).reshape(-1)
        embedded = get_timestep_embedding(timesteps, TIME_WIDTH, downscale_freq_shift=0, max_period=LONGEST_PERIOD)
        numbers = self.time(embedded.to(features.dtype)).unflatten(1, (len(self.layers), 2, -1, 1, 1))
        return [(each[:, 0], each[:, 1]) for each in numbers.unbind(1)]


class HeadLayer(nn.Module):
    """A residual layer: a depthwise convolution, normalised and modulated by the timestep, then two of 1 x 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)
        _fill_with_zeros(self.narrow)

    def forward(self, hidden: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """``(B, channels, h, w)``, of the same shape as ``hidden``."""
        mixed = self.norm(self.spread(hidden)) * (1 + scale) + shift
        added: Tensor = hidden + self.narrow(silu(self.widen(mixed)))
        return added


def _fill_with_zeros(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def read_blocks(unet: UNet2DConditionModel) -> list[nn.Module]:
    """The layers whose outputs a head is given: the first, the middle, and the up blocks to the penultimate."""
    return [unet.conv_in, unet.mid_block, *unet.up_blocks[:-1]]


def read_channels(unet: UNet2DConditionModel) -> list[int]:
    """How many channels each of `read_blocks` gives."""
    widths = list(unet.config.block_out_channels)
    return [widths[0], widths[-1], *reversed(widths[1:])]
