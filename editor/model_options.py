"""The options of the command line that say which model to use, and what of them to open."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from livedrag.editor.errors import SettingsError
from livedrag.editor.models_command import ENVIRONMENT, models_folder

if TYPE_CHECKING:
    from livedrag.editor.models.diffusion import Diffusion
    from livedrag.editor.models.sources import ModelSource

MAX_WEIGHT = 10.0
"""Of a LoRA, either way; some are made to be used with negative weights."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add(
        "--model",
        default="builtin",
        metavar="REF",
        help="'builtin', a diffusers folder, a .safetensors checkpoint, owner/name@<commit>, or a name in --models "
        "(default: %(default)s)",
    )
    add(
        "--model-config",
        type=Path,
        metavar="DIR",
        help="for a checkpoint: folder with CLIP's tokenizer, such as a diffusers folder (default: the hub's cache)",
    )
    add("--vae", metavar="PATH", help="autoencoder that replaces the model's own: a folder, a file or a name")
    add(
        "--lora",
        action="append",
        default=[],
        metavar="PATH[:WEIGHT]",
        help="LoRA of kohya's scripts or diffusers, a file or a name, and how strong it is, usually 0 to 1 "
        "(default: 1); repeatable",
    )
    add(
        "--models",
        type=Path,
        metavar="DIR",
        help=f"folder of ComfyUI or A1111 with your models (default: {ENVIRONMENT} in the environment, if any)",
    )
    add("--device", help="torch device such as cuda:1 (default: the best available)")


def load_model(options: argparse.Namespace, prompt: str, *, tiny: str | None = None) -> Diffusion:
    """Open the model that the options name; says so if it does not read the whole prompt.

    Raises:
        ModelError: there is no such model, or it can't be used.
        SettingsError: a LoRA's weight is out of range.
    """
    wanted = find_wanted(
        options.model,
        config=options.model_config,
        vae=options.vae,
        loras=options.lora,
        tiny=tiny,
        models=options.models or models_folder(),
    )
    model = wanted.open(options.device)
    if ignored := model.prompts.ignored_part(prompt):
        sys.stderr.write(
            f"livedrag {options.command}: the prompt is too long for the model, "
            f"which ignores everything from {ignored.split()[0]!r} on\n"
        )
    return model


@dataclass(frozen=True)
class WantedModel:
    """A model that was found to be usable, as far as that shows without torch.

    Args:
        reference: of the model.
        config: folder with the tokenizer and configurations of a checkpoint.
        vae: folder or file of the autoencoder that replaces the model's own.
        loras: files with their weights.
        tiny: folder or Hub id of a tiny autoencoder.
    """

    reference: str
    config: Path | None
    vae: Path | None
    loras: tuple[tuple[Path, float], ...]
    tiny: str | None

    def source(self) -> ModelSource:
        """Where its parts are. Raises `ModelError`."""
        from livedrag.editor.models.references import find_model

        return find_model(self.reference, config=self.config, vae=self.vae)

    def without_loras(self) -> WantedModel:
        """The model alone, with its autoencoder."""
        return replace(self, loras=())

    def open(self, device: str | None) -> Diffusion:
        """Open it on a device. Raises `ModelError`, also if there is not enough memory for it."""
        from livedrag.editor.cost import check_weights
        from livedrag.editor.models.devices import pick_device
        from livedrag.editor.models.diffusion import Diffusion

        check_weights(self.source(), pick_device(device))
        model = Diffusion.load(self.reference, device=device, tiny=self.tiny, config=self.config, vae=self.vae)
        return model.with_loras(self.loras) if self.loras else model


def find_wanted(
    model: str,
    *,
    config: Path | None = None,
    vae: str | None = None,
    loras: Sequence[str] = (),
    tiny: str | None = None,
    models: Path | None = None,
) -> WantedModel:
    """Look up a model with all that goes with it, without importing torch, which takes seconds.

    Args:
        model: reference, or a name in ``models``.
        config: folder with the tokenizer and configurations of a checkpoint.
        vae: path or name of another autoencoder.
        loras: paths or names, as ``PATH[:WEIGHT]``.
        tiny: folder, Hub id or name of a tiny autoencoder.
        models: folder in which names are looked up.

    Raises:
        ModelError: something does not exist or can't be used.
        SettingsError: a LoRA's weight is out of range.
    """
    from livedrag.editor.models.references import find_lora, find_model, find_tiny

    wanted = WantedModel(
        reference=look_up(model, models, "--model"),
        config=config,
        vae=None if vae is None else Path(look_up(vae, models, "--vae")),
        loras=tuple((Path(look_up(name, models, "--lora")), weight) for name, weight in map(parse_lora, loras)),
        tiny=None if tiny is None else look_up(tiny, models, "--tiny"),
    )
    find_model(wanted.reference, config=config, vae=wanted.vae)
    if wanted.tiny is not None:
        find_tiny(wanted.tiny)
    for path, _ in wanted.loras:
        find_lora(path)
    return wanted


def parse_lora(text: str) -> tuple[str, float]:
    """``PATH[:WEIGHT]`` as path and weight. Raises `SettingsError` for a weight out of range."""
    path, colon, written = text.rpartition(":")
    try:
        weight = float(written)
    except ValueError:
        return text, 1.0
    if not colon:
        return text, 1.0
    if not abs(weight) <= MAX_WEIGHT:
        raise SettingsError(f"--lora {text!r} has the weight {written}: it must be {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}")
    return path, weight


def look_up(name: str, folder: Path | None, option: str) -> str:
    """What an option's value means: itself if it is a path, a hub id or ``builtin``, else a model in the folder."""
    if folder is None or name == "builtin" or "@" in name or Path(name).expanduser().exists():
        return name
    from livedrag.editor.models.catalog import find

    return str(find(folder.expanduser(), name, option))
