"""A picture's LoRA as a file: written as diffusers names it, and read again, also from DragDiffusion's own code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from torch import Tensor

from livedrag.editor.errors import ModelError
from livedrag.editor.fitting.lora import Lora
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.lora_files import Update, read_lora
from livedrag.editor.settings import PROJECTIONS, Setting


@dataclass(frozen=True)
class FittedLora:
    """A LoRA that was fitted to a picture before.

    Args:
        rank: of the LoRA.
        targets: names of the attention projections that it changes, such as ``to_q``.
        layers: by the layer's name, as diffusers names it.
    """

    rank: int
    targets: tuple[str, ...]
    layers: Mapping[str, Update]

    @property
    def settings(self) -> dict[str, Setting]:
        """The settings of a session that uses it instead of fitting one."""
        return {"lora_rank": self.rank, "lora_targets": " ".join(self.targets), "lora_steps": 0}

    def put_into(self, lora: Lora) -> None:
        """Give its weights to a session's LoRA of the same rank and targets. Raises `ModelError` if they don't fit."""
        if unknown := sorted(self.layers.keys() - set(lora.names)):
            raise ModelError(f"the picture's LoRA has a layer that this model lacks, {unknown[0]!r}: it is for another")
        down, up = [], []
        for name, own_down, own_up in zip(lora.names, lora.down, lora.up, strict=True):
            update = self.layers.get(name)
            if update is None:
                down.append(own_down.detach().clone())
                up.append(torch.zeros_like(own_up))
                continue
            down.append(_padded(update.down, own_down, name, 0))
            up.append(_padded(update.up, own_up, name, 1))
        lora.load_weights(down, up)


def _padded(given: Tensor, like: Tensor, name: str, dim: int) -> Tensor:
    """With zeros up to the rank of ``like``: files may have layers of different ranks."""
    if given.ndim != 2 or given.shape[1 - dim] != like.shape[1 - dim]:
        raise ModelError(
            f"the picture's LoRA is for another model: its layer {name!r} has {given.shape[1 - dim]} channels, "
            f"that of this model {like.shape[1 - dim]}"
        )
    whole = torch.zeros_like(like)
    whole.narrow(dim, 0, given.shape[dim]).copy_(given)
    return whole


def read_fitted_lora(path: Path, model: Diffusion) -> FittedLora:
    """Read a picture's LoRA, as `save_fitted_lora` or the authors' code wrote it.

    Args:
        path: a ``.safetensors`` file, or a folder with a ``pytorch_lora_weights.safetensors``.
        model: that it was fitted on.

    Raises:
        ModelError: there is none, it is damaged, or it changes more than the UNet's attention.
    """
    file = read_lora(path, model.unet.config)
    layers = file.layers.get("unet", {})
    targets = {name: next((each for each in PROJECTIONS if _changes(name, each)), None) for name in layers}
    other = next((name for name, target in targets.items() if target is None), None)
    if other is None and file.layers.keys() != {"unet"}:
        other = f"the {next(network for network in file.layers if network != 'unet')}"
    if other is not None:
        raise ModelError(
            f"{file.path} is not a picture's LoRA, which changes the UNet's attention alone; it changes {other}: "
            "use it with --lora"
        )
    found = set(targets.values())
    rank = max(len(update.down) for update in layers.values())
    return FittedLora(rank, tuple(each for each in PROJECTIONS if each in found), layers)


def _changes(layer: str, projection: str) -> bool:
    return layer.endswith(f".{'to_out.0' if projection == 'to_out' else projection}")


def save_fitted_lora(lora: Lora, path: Path) -> None:
    """Write a picture's LoRA as a ``.safetensors`` file that diffusers' ``load_lora_weights`` opens."""
    tensors: dict[str, Tensor] = {}
    for name, down, up in zip(lora.names, lora.down, lora.up, strict=True):
        tensors[f"{name}.lora.down.weight"] = down.detach().cpu().contiguous()
        tensors[f"{name}.lora.up.weight"] = up.detach().cpu().contiguous()
    StableDiffusionLoraLoaderMixin.save_lora_weights(path.parent, unet_lora_layers=tensors, weight_name=path.name)
