"""Model references: from what the user writes to a folder on disk that is safe to open and known to be supported.

* ``builtin``: the model that ships with livedrag;
* a folder in the diffusers format;
* a hub id with a pinned revision, ``owner/name@<commit>``: fetched once, then read from the cache, also offline.

Weights are read from safetensors only, never from pickles, and code that comes with a model is never run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from livedrag.editor.errors import ModelError, SettingsError
from livedrag.editor.models.files import DOWNLOAD_AGAIN, read_json
from livedrag.editor.settings import OFFICIAL, DragSettings, Setting

BUILTIN = Path(__file__).resolve().parent.parent / "weights"
DEFAULTS_FILE = "livedrag.json"
"""In a model's folder: the settings that suit it, by name; see `livedrag.editor.settings.DragSettings`."""
SUPPORTED_MODELS = (
    "supported are 'builtin' and Stable Diffusion 1.x and 2.x and their fine-tunes, "
    "as a diffusers folder with .safetensors weights or as owner/name@<commit> on the Hugging Face Hub"
)
PARTS = {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
AUTOENCODERS = ("AutoencoderKL", "AutoencoderDC")
NETWORKS = ("unet", "vae", "text_encoder", "tiny")
"""Folders with weights."""
TRAIN_TIMESTEPS = 1000
NOISE_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
"""What a scheduler's configuration must have: libraries would fill the gaps with numbers of other models."""
_HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?$")
_FOLDERS = (*PARTS, "vae", "scheduler", "tiny")
_FILES = [f"{part}/*{ending}" for part in _FOLDERS for ending in (".json", ".txt", ".safetensors")]
_VARIANTS = ["*.fp16.*", "*.bf16.*", "*.non_ema.*"]
"""Other versions of the same weights, downloaded only if there are no plain ones."""


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
        ModelError: there is no such model, it is not supported, or one of its configurations is damaged.
    """
    wanted = ["model_index.json", DEFAULTS_FILE, *_FILES]
    folder = BUILTIN if reference == "builtin" else _find_folder(reference, wanted)
    if not (folder / "model_index.json").exists():
        raise ModelError(f"{reference!r} is not a diffusers model: it has no model_index.json; {SUPPORTED_MODELS}")
    index = read_json(folder / "model_index.json")
    _check_index(index, folder)
    _check_configurations(index, folder)
    return ModelSource(
        name=_name(reference, folder),
        kind="builtin" if reference == "builtin" else "stable-diffusion",
        folder=folder,
        autoencoder=index["vae"][1],
        defaults=_read_defaults(folder / DEFAULTS_FILE),
        tiny=folder / "tiny" if (folder / "tiny").is_dir() else None,
        needs_wide_range=bool(read_json(folder / "unet" / "config.json").get("upcast_attention")),
    )


def _name(reference: str, folder: Path) -> str:
    if folder == BUILTIN:
        return "built-in"
    return reference.partition("@")[0] if folder.parent.name == "snapshots" else folder.resolve().name


def _read_defaults(path: Path) -> Mapping[str, Setting]:
    """The model's own defaults, else those of the authors' code."""
    if not path.exists():
        return OFFICIAL
    defaults = read_json(path)
    try:
        DragSettings.resolve(model_defaults=defaults)
    except SettingsError as error:
        raise ModelError(f"{path} has a setting that can't be used: {error}") from None
    return defaults


def find_tiny(reference: str) -> Path:
    """Folder of an ``AutoencoderTiny``, by folder or ``owner/name@<commit>``. Raises `ModelError`."""
    folder = _find_folder(reference, ["*.json", "*.safetensors"])
    kind = read_json(folder / "config.json").get("_class_name")
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
        return _download(hub["repo"], revision, wanted)
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"the model {reference!r} can't be downloaded: {reason}; {SUPPORTED_MODELS}") from error


def _download(repository: str, revision: str, wanted: list[str]) -> Path:
    """The files of a model in the cache; variants of weights only for parts that have no others."""
    folder = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, ignore_patterns=_VARIANTS))
    lacking = [part for part in _FOLDERS if (folder / part).is_dir() and not any((folder / part).glob("*.safetensors"))]
    variants = [f"{part}/*{ending}" for part in lacking if part in NETWORKS for ending in (".safetensors", ".json")]
    if variants:
        snapshot_download(repository, revision=revision, allow_patterns=variants)
    return folder


def _check_index(index: dict[str, Any], folder: Path) -> None:
    path = folder / "model_index.json"
    pipeline = index.get("_class_name")
    if pipeline != "StableDiffusionPipeline":
        raise ModelError(f"{path} is of a {_class_of(pipeline)}, which is not supported; {SUPPORTED_MODELS}")
    for part in (*PARTS, "vae", "scheduler"):
        if part not in index or not (folder / part).is_dir():
            raise ModelError(f"{folder} has no {part!r} folder: {DOWNLOAD_AGAIN}; {SUPPORTED_MODELS}")
    expected = {**{part: (name,) for part, name in PARTS.items()}, "vae": AUTOENCODERS}
    for part, names in expected.items():
        library, name = _library_and_class(index[part])
        if library not in ("diffusers", "transformers"):
            raise ModelError(
                f"{path} names its own code for {part!r} ({library}.{name}), which is never run; {SUPPORTED_MODELS}"
            )
        if name.removesuffix("Fast") not in names:
            raise ModelError(f"{path} has a {name} for {part!r}: it must be {' or '.join(names)}; {SUPPORTED_MODELS}")


def _library_and_class(entry: object) -> tuple[str, str]:
    match entry:
        case [str(library), str(name)]:
            return library, name
    return "unknown", str(entry)


def _check_configurations(index: dict[str, Any], folder: Path) -> None:
    """Each part's own configuration must be of the class that the index names."""
    for part in ("unet", "vae"):
        path, expected = folder / part / "config.json", index[part][1]
        name = read_json(path).get("_class_name")
        if name != expected:
            raise ModelError(f"{path} is of a {_class_of(name)}, not of {expected}: {DOWNLOAD_AGAIN}")
    path = folder / "text_encoder" / "config.json"
    text = read_json(path)
    if text.get("model_type") not in ("clip_text_model", "clip") and "CLIPTextModel" not in text.get(
        "architectures", ()
    ):
        raise ModelError(f"{path} is of a {text.get('model_type')!r}, not of a CLIPTextModel: {DOWNLOAD_AGAIN}")
    path = folder / "unet" / "config.json"
    channels = read_json(path).get("in_channels")
    if channels != 4:
        raise ModelError(f"{path} takes {channels} channels, as inpainting models do: it must be 4; {SUPPORTED_MODELS}")
    _check_scheduler(folder / "scheduler" / "scheduler_config.json")


def _check_scheduler(path: Path) -> None:
    scheduler = read_json(path)
    name = scheduler.get("_class_name")
    lacking = [key for key in NOISE_SCHEDULE if key not in scheduler]
    if lacking:
        raise ModelError(f"{path} of a {_class_of(name)} has no {lacking[0]!r}: {DOWNLOAD_AGAIN}; {SUPPORTED_MODELS}")
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(f"{path} predicts {prediction!r}: it must predict 'epsilon' or 'v_prediction'")
    if scheduler["num_train_timesteps"] != TRAIN_TIMESTEPS:
        raise ModelError(
            f"{path} has {scheduler['num_train_timesteps']!r} training timesteps: it must have {TRAIN_TIMESTEPS}"
        )


def _class_of(name: object) -> str:
    return " from ".join(reversed(name)) if isinstance(name, list) else str(name or "model without a class")
