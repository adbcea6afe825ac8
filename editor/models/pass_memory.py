"""What one pass of a model's networks takes of the device's memory, estimated before it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from livedrag.editor.models.recomputing import recomputing
from livedrag.editor.models.trees import leaves

if TYPE_CHECKING:
    from livedrag.editor.models.diffusion import Diffusion
    from livedrag.editor.models.loading import Autoencoder

PEAK = 1.4
"""Peak memory of a pass by the bytes that it stores for its backward pass: measured 1.32 to 1.41."""
DECODER_TENSORS = 6
"""Tensors of the size of the last layer's output that an autoencoder's decoder holds at its peak; the encoder fewer."""
TILES = (768, 512, 256)
"""Sides of an autoencoder's tiles in pixels, of which the largest that fits is taken, or else the last."""
PICTURES = 3
"""Pictures in float32 that an autoencoder holds beside a tile: the tiles that are done, their rows, the result."""


@dataclass(frozen=True)
class PassBytes:
    """Bytes for each row of a pass: ``fixed``, and so many ``per_cell`` of its latent."""

    fixed: float
    per_cell: float

    def of(self, cells: int) -> float:
        """For a row of so many latent cells."""
        return self.fixed + self.per_cell * cells


@dataclass(frozen=True)
class PassMemory:
    """What a pass of the UNet stores for its backward pass.

    Args:
        stored: usually.
        recomputing: if it computes most of that a second time, with what one of its parts stores meanwhile.
    """

    stored: PassBytes
    recomputing: PassBytes


@dataclass(frozen=True)
class AutoencoderMemory:
    """What decoding or encoding a picture needs at its peak.

    Args:
        per_pixel: bytes.
        has_tiles: whether the autoencoder can work in tiles.
    """

    per_pixel: int
    has_tiles: bool

    @classmethod
    def of(cls, vae: Autoencoder) -> AutoencoderMemory:
        """Of an autoencoder."""
        channels = vae.config.get("block_out_channels") or vae.config["decoder_block_out_channels"]
        return cls(DECODER_TENSORS * int(channels[0]) * vae.dtype.itemsize, isinstance(vae, AutoencoderKL))

    def whole(self, height: int, width: int) -> int:
        """Bytes for a picture of so many pixels."""
        return self.per_pixel * height * width

    def tiled(self, height: int, width: int, tile: int = TILES[-1]) -> int:
        """The same, in tiles of so many pixels a side."""
        if not self.has_tiles:
            return self.whole(height, width)
        pictures = PICTURES * 3 * torch.float32.itemsize * height * width
        return min(self.whole(height, width), self.whole(min(tile, height), min(tile, width)) + pictures)


# Measuring -----------------------------------------------------------------------------------------------------------


def measure_pass(model: Diffusion, prompt: Tensor) -> PassMemory:
    """Measure a model's UNet, with passes of two small latents.

    Args:
        model: whose tensors may be on the device ``meta``, where they have sizes alone.
        prompt: text embedding, ``(1, L, D)``.
    """
    side = model.stride // model.latent_stride
    small, large = _Watch.of(model, side, prompt), _Watch.of(model, 2 * side, prompt)

    def line(measure: Callable[[_Watch], int]) -> PassBytes:
        low, high = measure(small), measure(large)
        per_cell = (high - low) / (3 * side**2)
        return PassBytes(low - per_cell * side**2, per_cell)

    return PassMemory(line(_Watch.stored), line(_Watch.kept))


Sizes = dict[int, int]
"""Bytes of storages, by where they are: what shares one is counted once."""


@dataclass
class _Watch:
    """What a pass stores outside of the parts that can be computed again, gives to each part, and stores in each."""

    weights: set[int]
    outside: Sizes = field(default_factory=dict)
    given: Sizes = field(default_factory=dict)
    parts: list[Sizes] = field(default_factory=list)

    @classmethod
    def of(cls, model: Diffusion, side: int, prompt: Tensor) -> _Watch:
        """Watch a pass of a latent of so many cells a side."""
        watch = cls({place_of(parameter) for parameter in model.unet.parameters()})
        latent = torch.zeros(1, 4, side, side, dtype=model.latent_dtype, device=model.device, requires_grad=True)
        with (
            torch.enable_grad(),
            model.eagerly(),
            recomputing(model.unet, watch.run_part),
            watch.storing(watch.outside),
        ):
            model.predict(latent, 0, prompt)
        return watch

    def run_part(self, part: nn.Module, *given: Any) -> Any:
        """Run a part of the network that can be computed again."""
        self.given |= {place_of(tensor): tensor.untyped_storage().nbytes() for tensor in leaves(given)}
        self.parts.append({})
        with self.storing(self.parts[-1]):
            return part(*given)

    def storing(self, sizes: Sizes) -> torch.autograd.graph.saved_tensors_hooks:
        """Within this block, note what is stored."""

        def note(tensor: Tensor) -> Tensor:
            if (place := place_of(tensor)) not in self.weights:
                sizes[place] = tensor.untyped_storage().nbytes()
            return tensor

        return torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)

    def stored(self) -> int:
        """Bytes that the whole pass stores."""
        every = dict(self.outside)
        for part in self.parts:
            every |= part
        return sum(every.values())

    def kept(self) -> int:
        """Bytes that are stored if the parts are computed again, one after the other."""
        kept = self.outside | self.given
        largest = max((_beside(part, kept) for part in self.parts), default=0)
        return sum(kept.values()) + largest


def _beside(part: Sizes, kept: Sizes) -> int:
    return sum(size for place, size in part.items() if place not in kept)


def place_of(tensor: Tensor) -> int:
    """Equal for tensors that share their storage, which may have no memory."""
    return int(tensor.untyped_storage()._cdata)
