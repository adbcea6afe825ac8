"""Where a model's weights came from, so that a result can say which ones made it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from livedrag.edit_metadata import Role, Weights
from livedrag.editor.models.files import WEIGHT_STEMS, find_weights
from livedrag.editor.models.sources import ModelSource
from livedrag.picture_metadata import hash_file


@dataclass(frozen=True)
class Origin:
    """Files with weights.

    Args:
        role: see `livedrag.edit_metadata.Weights`.
        name: shown to people.
        files: in the order of their parts.
        strength: of a LoRA.
    """

    role: Role
    name: str
    files: tuple[Path, ...]
    strength: float = 1.0

    @cached_property
    def sha256(self) -> str:
        """Of the file; of several, of their SHA-256 digits. Empty if they can't be read any more."""
        try:
            digests = [hash_file(path) for path in self.files]
        except OSError:
            return ""
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def weights(self) -> Weights:
        """As a result's metadata have it; reads the files the first time."""
        return Weights(self.role, self.name, self.sha256, self.strength)


def origins_of(source: ModelSource) -> tuple[Origin, ...]:
    """Where a model's weights are, and those of another autoencoder."""
    name = source.name.removesuffix(f" with {source.vae_name}") if source.vae_name else source.name
    parts = [part for part in WEIGHT_STEMS if part in source.parts and not (part == "vae" and source.other_vae)]
    files = _files(source.parts[part] for part in parts) if source.checkpoint is None else (source.checkpoint,)
    model = Origin("model", name, tuple(files))
    if source.other_vae is None:
        return (model,)
    other = source.other_vae
    return model, Origin("vae", source.vae_name, tuple(_files([other])) if other.is_dir() else (other,))


def lora_origins(loras: Sequence[tuple[Path, Path, float]]) -> tuple[Origin, ...]:
    """Of LoRAs, each as it was named, its file and its strength."""
    return tuple(Origin("lora", named.stem, (file,), strength) for named, file, strength in loras)


def _files(folders: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for folder in folders:
        stem = WEIGHT_STEMS.get(folder.name, WEIGHT_STEMS["vae"])
        found += find_weights(folder, stem).files
    return found
