"""Model references: from what the user writes to a folder on disk that is safe to open and known to be supported.

* ``builtin``: the model that ships with livedrag;
* a folder in the diffusers format;
* a hub id with a pinned revision, ``owner/name@<commit>``: fetched once, then read from the cache, also offline.

Weights are read from safetensors only, never from pickles, and code that comes with a model is never run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from livedrag.editor.errors import ModelError
from livedrag.editor.settings import Setting

BUILTIN = Path(__file__).resolve().parent.parent / "weights"
DEFAULTS_FILE = "livedrag.json"
"""In a model's folder: the settings that suit it, by name; see `livedrag.editor.settings.DragSettings`."""
SUPPORTED_MODELS = (
    "supported are 'builtin' and Stable Diffusion 1.x and 2.x and their fine-tunes, "
    "as a diffusers folder with .safetensors weights or as owner/name@<commit> on the Hugging Face Hub"
)
PARTS = {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
AUTOENCODERS = ("AutoencoderKL", "AutoencoderDC")
_HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?$")
_FILES = [
    f"{part}/*{ending}" for part in (*PARTS, "vae", "scheduler", "tiny") for ending in (".json", ".txt", ".safetensors")
]
_VARIANTS = ["*.fp16.*", "*.bf16.*", "*.non_ema.*"]
"""Other versions of the same weights, which are not downloaded."""


@dataclass(frozen=True)
class ModelSource:
    """A model that can be opened.

    Args:
        name: shown to people.
        kind: ``builtin`` or ``stable-diffusion``.
        folder: in the diffusers format.
        autoencoder: class name of its ``vae``.
        defaults: the settings that suit it, by name.
        tiny: folder of its own tiny autoencoder, if it has one.
        needs_wide_range: its attention overflows float16.
    """

    name: str
    kind: str
    folder: Path
    autoencoder: str
    defaults: Mapping[str, Setting]
    tiny: Path | None
    needs_wide_range: bool


def find_model(reference: str) -> ModelSource:
    """Look up a model and check that it is supported.

    Args:
        reference: ``builtin``, a folder, or ``owner/name@<commit>``, which is downloaded if it isn't cached.

    Raises:
        ModelError: there is no such model, or it is not supported.
    """
    folder = (
        BUILTIN if reference == "builtin" else _find_folder(reference, ["model_index.json", DEFAULTS_FILE, *_FILES])
    )
    index = _read_json(folder / "model_index.json", reference)
    _check_parts(index, folder, reference)
    return ModelSource(
        name=_name(reference, folder),
        kind="builtin" if reference == "builtin" else "stable-diffusion",
        folder=folder,
        autoencoder=index["vae"][1],
        defaults=_read_json(folder / DEFAULTS_FILE, reference) if (folder / DEFAULTS_FILE).exists() else {},
        tiny=folder / "tiny" if (folder / "tiny").is_dir() else None,
        needs_wide_range=bool(_read_json(folder / "unet" / "config.json", reference).get("upcast_attention")),
    )


def _name(reference: str, folder: Path) -> str:
    if folder == BUILTIN:
        return "built-in"
    return reference.partition("@")[0] if folder.parent.name == "snapshots" else folder.resolve().name


def find_tiny(reference: str) -> Path:
    """Folder of an ``AutoencoderTiny``, by folder or ``owner/name@<commit>``. Raises `ModelError`."""
    folder = _find_folder(reference, ["*.json", "*.safetensors"])
    kind = _read_json(folder / "config.json", reference).get("_class_name")
    if kind != "AutoencoderTiny":
        raise ModelError(f"{reference!r} is a {kind}: tiny previews need an AutoencoderTiny")
    return folder


def _find_folder(reference: str, wanted: list[str]) -> Path:
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{reference!r} is a single file, which is not supported; {SUPPORTED_MODELS}")
    hub = _HUB_ID.match(reference)
    if hub is None:
        raise ModelError(f"unknown model {reference!r}: there is no such folder; {SUPPORTED_MODELS}")
    revision = hub["revision"] or ""
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise ModelError(
            f"unknown model {reference!r}: no such folder, and a hub id needs '@' and a commit's 40 digits, "
            f"so that it always names the same weights; {SUPPORTED_MODELS}"
        )
    try:
        return Path(snapshot_download(hub["repo"], revision=revision, allow_patterns=wanted, ignore_patterns=_VARIANTS))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(f"the model {reference!r} cannot be downloaded: {error}; {SUPPORTED_MODELS}") from error


def _read_json(path: Path, reference: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fault = f"{reference!r} is no diffusers model: {path.name} cannot be read ({error})"
        raise ModelError(f"{fault}; {SUPPORTED_MODELS}") from None
    return content


def _check_parts(index: dict[str, Any], folder: Path, reference: str) -> None:
    pipeline = index.get("_class_name")
    if pipeline != "StableDiffusionPipeline":
        raise ModelError(
            f"{reference!r} is a {_class_of(pipeline)}: it cannot be used for dragging; {SUPPORTED_MODELS}"
        )
    for part in (*PARTS, "vae", "scheduler"):
        if part not in index or not (folder / part).is_dir():
            raise ModelError(f"{reference!r} has no {part!r} folder; {SUPPORTED_MODELS}")
    expected = {**{part: (name,) for part, name in PARTS.items()}, "vae": AUTOENCODERS}
    for part, names in expected.items():
        library, name = index[part]
        if library not in ("diffusers", "transformers"):
            raise ModelError(
                f"{reference!r} has its own code for {part!r} ({library}.{name}): it is never run; {SUPPORTED_MODELS}"
            )
        if name.removesuffix("Fast") not in names:
            raise ModelError(
                f"{reference!r} has a {name} for {part!r}: it must be {' or '.join(names)}; {SUPPORTED_MODELS}"
            )
    unet = _read_json(folder / "unet" / "config.json", reference)
    if unet.get("in_channels") != 4:
        fault = f"the UNet of {reference!r} takes {unet.get('in_channels')} channels (inpainting ones take 9)"
        raise ModelError(f"{fault}; {SUPPORTED_MODELS}")
    prediction = _read_json(folder / "scheduler" / "scheduler_config.json", reference).get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(f"{reference!r} predicts {prediction!r}: it must predict 'epsilon' or 'v_prediction'")
    for part in ("unet", "vae", "text_encoder"):
        if not any((folder / part).glob("*.safetensors")):
            fault = f"{reference!r} has no .safetensors weights in {part!r}: pickled weights are never opened"
            raise ModelError(f"{fault}; {SUPPORTED_MODELS}")


def _class_of(name: object) -> str:
    return " from ".join(reversed(name)) if isinstance(name, list) else str(name or "model without a class")
