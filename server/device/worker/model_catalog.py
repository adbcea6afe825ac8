"""ModelCatalog: the models, LoRAs and autoencoders that rooms may choose, by name. Only headers are read here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from livedrag.editor import Diffusion, EditorError, ModelError
from livedrag.editor.model_options import WantedModel
from livedrag.editor.models.catalog import Entry, scan
from livedrag.editor.models.checkpoints import find_checkpoint
from livedrag.editor.models.references import find_model
from livedrag.server.device.worker.room_settings import NO_CAPS, ModelSettings
from livedrag.server.document.protocol import CatalogEntry, ModelChoice

BUILTIN = "builtin"
Kind = Literal["model", "lora", "vae", "other"]
KINDS: Mapping[str, Kind] = {"checkpoint": "model", "diffusers folder": "model", "lora": "lora", "vae": "vae"}
"""What an entry of a folder is for a room; others are listed, but can't be chosen."""


@dataclass(frozen=True)
class ModelCatalog:
    """What rooms of a server may choose.

    Args:
        default: the model that the server was started with, with its LoRAs; rooms that choose no name have it.
        entries: by kind and name.
        settings: of each model, by name.
        paths: by name, of all that can be used.
    """

    default: WantedModel
    entries: tuple[CatalogEntry, ...] = ()
    settings: Mapping[str, ModelSettings] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)

    def settings_of(self, name: str) -> ModelSettings:
        """Of the model with this name. Raises `ModelError` if it is not in the catalog."""
        if (found := self.settings.get(name)) is None:
            raise _missing("model", name)
        return found

    def wanted(self, choice: ModelChoice) -> WantedModel:
        """What to open. Raises `ModelError` for a name that is not in the catalog."""
        wanted = self.default
        if choice.name:
            self.settings_of(choice.name)
            wanted = replace(wanted, reference=self._path("model", choice.name), vae=None, loras=(), tiny=None)
        if choice.vae:
            wanted = replace(wanted, vae=Path(self._path("VAE", choice.vae)))
        loras = [(Path(self._path("LoRA", lora.name)), lora.weight) for lora in choice.loras]
        return replace(wanted, loras=(*wanted.loras, *loras))

    def _path(self, what: str, name: str) -> str:
        if (path := self.paths.get(name)) is None:
            raise _missing(what, name)
        return path


def _missing(what: str, name: str) -> ModelError:
    return ModelError(f"there is no {what} {name!r} on this server (any more): choose another one")


def read_catalog(default: WantedModel, folder: Path | None, caps: Mapping[str, int] = NO_CAPS) -> ModelCatalog:
    """The catalog of a server.

    Args:
        default: the model that it was started with.
        folder: of ComfyUI or A1111; None: rooms have the built-in model beside the default.
        caps: largest values of settings, by name.

    Raises:
        ModelError: there is no such folder.
    """
    found = [] if folder is None else scan(folder)
    entries: list[CatalogEntry] = []
    settings: dict[str, ModelSettings] = {}
    paths = {entry.name: str(entry.path) for entry in found if not entry.problem and entry.kind in KINDS}
    models = [Entry(BUILTIN, Path(), "diffusers folder"), *found]
    for entry in models:
        kind: Kind = KINDS.get(entry.kind, "other")
        problem, info = entry.problem, None
        if kind == "model" and not problem:
            reference = BUILTIN if entry.name == BUILTIN else str(entry.path)
            try:
                if entry.needs_vae:
                    source = find_checkpoint(entry.path, default.config, other_vae=True)
                else:
                    source = find_model(reference, config=default.config)
            except EditorError as error:
                problem = str(error).removeprefix(f"{entry.path} ")
                paths.pop(entry.name, None)
            else:
                paths[entry.name] = reference
                settings[entry.name] = ModelSettings(source.name, source.kind, source.defaults, caps)
                info = settings[entry.name].info
        entries.append(
            CatalogEntry(
                name=entry.name,
                kind=kind,
                architecture=entry.architecture,
                bytes=entry.nbytes,
                problem=problem,
                info=info,
                needs_vae=entry.needs_vae,
            )
        )
    return ModelCatalog(default, tuple(entries), settings, paths)


Opener = Callable[[WantedModel, Callable[[int, int], None]], Diffusion]
"""Opens a model on the worker's device, and reports how many of its networks are open."""
