"""Passes that need less memory, wherever the usual ones would not fit into what is free on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from diffusers import AutoencoderKL
from torch import Tensor

from livedrag.editor.models.loading import Autoencoder
from livedrag.editor.models.pass_memory import PEAK, TILES, AutoencoderMemory
from livedrag.editor.models.recomputing import recomputing

if TYPE_CHECKING:
    from livedrag.editor.models.diffusion import Diffusion

USABLE = 0.9
"""Share of the free memory that is counted on: estimates are not exact, and allocators waste some."""
TILED = "memory was short, so the autoencoder worked in tiles"
"""Why a result can't be made again exactly."""


class LowMemory:
    """Decides before a pass whether it has to save memory.

    Args:
        free: gives the bytes that are free on the device now; None: memory is never saved, as on CPUs.
    """

    def __init__(self, free: Callable[[], int] | None) -> None:
        self._free = free
        self._tiled = False

    @property
    def problems(self) -> tuple[str, ...]:
        """Why what was made since `forget_problems` can't be repeated exactly where more memory is free."""
        return (TILED,) if self._tiled else ()

    def forget_problems(self) -> None:
        """What is made from now on is another session's."""
        self._tiled = False

    @property
    def can_save(self) -> bool:
        """Whether passes save memory where they have to."""
        return self._free is not None

    def fits(self, needed: float) -> bool:
        """Whether so many bytes are free now."""
        return self._free is None or needed <= USABLE * self._free()

    @contextlib.contextmanager
    def coding(self, vae: Autoencoder, height: int, width: int) -> Iterator[None]:
        """Within this block, an autoencoder works in tiles and row by row if it has to, for a picture of so many
        pixels."""
        tile = self._tile(vae, height, width)
        if tile is None or not isinstance(vae, AutoencoderKL):
            yield
            return
        self._tiled = True
        before = vae.tile_sample_min_size, vae.tile_latent_min_size
        vae.tile_sample_min_size = tile
        vae.tile_latent_min_size = tile // 2 ** (len(vae.config["block_out_channels"]) - 1)
        vae.enable_tiling()
        vae.enable_slicing()
        try:
            yield
        finally:
            vae.disable_tiling()
            vae.disable_slicing()
            vae.tile_sample_min_size, vae.tile_latent_min_size = before

    def _tile(self, vae: Autoencoder, height: int, width: int) -> int | None:
        """Pixels of a tile's side; None: the whole picture fits."""
        memory = AutoencoderMemory.of(vae)
        if self.fits(memory.whole(height, width)):
            return None
        return next((tile for tile in TILES if self.fits(memory.tiled(height, width, tile))), TILES[-1])


def must_save_memory(model: Diffusion, noisy: Tensor) -> bool:
    """Whether a pass of these latents ``(B, 4, h, w)``, with its backward pass, does not fit into what is free."""
    rows, _, height, width = noisy.shape
    memory = model.low_memory
    return memory.can_save and not memory.fits(PEAK * rows * model.pass_memory.stored.of(height * width))


def saving_memory(model: Diffusion, noisy: Tensor) -> contextlib.AbstractContextManager[None]:
    """Within this block, such passes save memory if they have to."""
    return recomputing(model.unet) if must_save_memory(model, noisy) else contextlib.nullcontext()
