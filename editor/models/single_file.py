"""Networks from files in the original layout, converted by diffusers' own single-file loading, offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from safetensors.torch import load_file
from torch import Tensor, nn

from livedrag.editor.errors import ModelError
from livedrag.editor.models.files import DOWNLOAD_AGAIN
from livedrag.editor.models.kinds import (
    CLIP,
    OPEN_CLIP,
    UNET,
    VAE_PREFIXES,
    XL_CLIP,
    XL_OPEN_CLIP,
)

_BEGINNINGS: Mapping[str, tuple[str, ...]] = {
    "unet": (UNET,),
    "vae": VAE_PREFIXES[:1],
    "text_encoder": (CLIP, OPEN_CLIP, XL_CLIP),
    "text_encoder_2": (XL_OPEN_CLIP,),
}
"""By part, how the names of its tensors begin in a checkpoint."""


class SingleFile:
    """A file whose tensors are read when a part needs them.

    Args:
        path: of a safetensors file that was found to be whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors: dict[str, Tensor] | None = None

    def unet(self, config: Path, dtype: torch.dtype) -> UNet2DConditionModel:
        """The UNet of a checkpoint, as a folder with its configuration describes it."""
        return self._load(UNet2DConditionModel, self._part("unet"), config, "unet", dtype)

    def vae(self, config: Path, dtype: torch.dtype) -> AutoencoderKL:
        """The autoencoder of a checkpoint, or of a file of its own, in the original layout or diffusers'."""
        tensors = self._part("vae")
        if not tensors:
            prefix = next(prefix for prefix in VAE_PREFIXES if f"{prefix}decoder.conv_in.weight" in self._all())
            tensors = {name.removeprefix(prefix): tensor for name, tensor in self._all().items()}
        else:
            tensors = {name.removeprefix(VAE_PREFIXES[0]): tensor for name, tensor in tensors.items()}
        return self._load(AutoencoderKL, tensors, config, "vae", dtype)

    def text_encoder(self, network: Any, part: str, config: Path, dtype: torch.dtype) -> Any:
        """A text encoder of a checkpoint, of this class."""
        loaded = create_diffusers_clip_model_from_ldm(
            network, self._part(part), config=str(config), local_files_only=True
        )
        return self._whole(loaded, part, dtype)

    def _all(self) -> dict[str, Tensor]:
        if self._tensors is None:
            self._tensors = load_file(self._path)
        return self._tensors

    def _part(self, part: str) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self._all().items() if name.startswith(_BEGINNINGS[part])}

    def _load(self, network: Any, tensors: dict[str, Tensor], config: Path, part: str, dtype: torch.dtype) -> Any:
        try:
            return network.from_single_file(tensors, config=str(config)).to(dtype)
        except NotImplementedError:  # weights that were not in the file have no data, and can't be moved
            raise ModelError(
                f"{self._path} lacks tensors of the {part}: it is of another model, or damaged; {DOWNLOAD_AGAIN}"
            ) from None

    def _whole(self, network: Any, part: str, dtype: torch.dtype) -> Any:
        """The network, unless some of its weights were not in the file: they have no data."""
        missing = sorted(name for name, tensor in _tensors_of(network) if tensor.is_meta)
        if missing:
            count = f"{len(missing)} tensor{'s' if missing[1:] else ''}"
            raise ModelError(
                f"{self._path} lacks {count} of the {part} ({missing[0]!r}{', ...' if missing[1:] else ''}): "
                f"it is of another model, or damaged; {DOWNLOAD_AGAIN}"
            )
        return network.to(dtype)


def _tensors_of(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]
