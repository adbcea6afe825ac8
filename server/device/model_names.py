"""Names of models, without torch: what rooms may choose, and what they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from livedrag.server.document.checks import Refused, check_choice
from livedrag.server.document.protocol import CatalogEntry, ModelChoice, ModelInfo

WHAT = {"model": "model", "lora": "LoRA", "vae": "VAE"}


def base_of(choice: ModelChoice) -> ModelChoice:
    """The model that rooms with other LoRAs share."""
    return replace(choice, loras=())


def base_name(choice: ModelChoice) -> str:
    """Of the weights that a choice needs, for the placement of rooms; empty: of the server's own model."""
    return f"{choice.name} {choice.vae}".strip()


def offers(catalog: Sequence[CatalogEntry], choice: ModelChoice) -> bool:
    """Whether a worker with this catalog can load a choice, as far as one knows; an empty catalog says nothing."""
    usable = {(entry.kind, entry.name) for entry in catalog if not entry.problem}
    wanted = [("model", choice.name), ("vae", choice.vae), *(("lora", lora.name) for lora in choice.loras)]
    return not catalog or all((kind, name) in usable for kind, name in wanted if name)


def resolved(choice: ModelChoice, catalog: Iterable[CatalogEntry]) -> ModelChoice:
    """A choice with the names as the catalog has them; people may write the end of one, without its ending.

    Raises:
        Refused: a name is not in the catalog, may be several, or can't be used.
    """
    entries = list(catalog)
    loras = tuple(replace(lora, name=_find(entries, "lora", lora.name)) for lora in choice.loras)
    found = ModelChoice(
        name=_find(entries, "model", choice.name) if choice.name else "",
        loras=loras,
        vae=_find(entries, "vae", choice.vae) if choice.vae else "",
    )
    check_choice(found)
    if not found.vae and any(entry.needs_vae for entry in entries if entry.name == found.name):
        raise Refused("invalid", f"the model {found.name!r} has no autoencoder (VAE) inside: choose a VAE with it")
    return found


def infos_of(catalog: Iterable[CatalogEntry]) -> dict[str, ModelInfo]:
    """By name, what is known of the models that rooms may choose."""
    return {entry.name: entry.info for entry in catalog if entry.info is not None}


def _find(entries: Sequence[CatalogEntry], kind: str, name: str) -> str:
    fitting = [entry for entry in entries if entry.kind == kind]
    exact = [entry for entry in fitting if entry.name == name]
    found = exact or [entry for entry in fitting if _is_called(entry, name)]
    what = WHAT[kind]
    if len(found) > 1:
        places = " and ".join(repr(entry.name) for entry in found[:5])
        raise Refused("unknown", f"the {what} {name!r} may be {places}: write more of the name")
    if not found:
        unusable = [entry for entry in entries if entry.problem and entry.kind in (kind, "other")]
        other = next((entry for entry in unusable if _is_called(entry, name)), None)
        if other is not None:
            raise Refused("unknown", f"{name!r} can't be used: {other.problem}")
        near = difflib.get_close_matches(name, [entry.name for entry in fitting if not entry.problem], n=3, cutoff=0.4)
        others = f": there is {', '.join(map(repr, near))}" if near else ""
        raise Refused("unknown", f"there is no {what} {name[:200]!r} on this server{others}")
    [entry] = found
    if entry.problem:
        raise Refused("unknown", f"the {what} {entry.name!r} can't be used: {entry.problem}")
    return entry.name


def _is_called(entry: CatalogEntry, name: str) -> bool:
    """Whether a name is that of an entry or the end of it, with or without the ending."""
    return any(f"/{full}".endswith(f"/{name}") for full in (entry.name, entry.name.rpartition(".")[0]) if full)
