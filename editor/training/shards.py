"""Weights in files of a limited size, written anew as training goes on: some machines give only small files back."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from livedrag.editor.training.pictures import TrainingError

MAX_SHARD_BYTES = 15 * 2**20
"""Of a file."""
NAME = "weights-{step:07d}-{number}-of-{count}.safetensors"
_PATTERN = re.compile(r"weights-(\d+)-(\d+)-of-(\d+)\.safetensors")


def save_shards(modules: nn.Module, folder: Path, step: int, *, max_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write all weights in half precision; those of earlier steps go once these are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in modules.state_dict().items():
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        if shards[-1] and size + half.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = half
        size += half.nbytes
    for number, shard in enumerate(shards, start=1):
        file = folder / NAME.format(step=step, number=number, count=len(shards))
        beside = file.with_suffix(".new")
        save_file(shard, beside)
        beside.replace(file)
    for file, (written, _, _) in _files(folder).items():
        if written < step:
            file.unlink()


def load_shards(folder: Path) -> dict[str, Tensor]:
    """The latest complete weights in a folder, in single precision.

    Raises:
        TrainingError: there are none.
    """
    files = _files(folder)
    for step in sorted({step for step, _, _ in files.values()}, reverse=True):
        these = {file: count for file, (written, _, count) in files.items() if written == step}
        if len(these) == next(iter(these.values())):
            return {name: tensor.float() for file in these for name, tensor in load_file(file).items()}
    raise TrainingError(f"there are no complete weights in {folder}: they must be named like {NAME}")


def _files(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Files of weights, with their step, number and how many there are of that step."""
    found = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        if match := _PATTERN.fullmatch(file.name):
            step, number, count = map(int, match.groups())
            found[file] = (step, number, count)
    return found
