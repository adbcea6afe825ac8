"""Model references: from what the user writes to files on disk that are safe to open and known to be supported.

* ``builtin``: the model that ships with livedrag;
* a folder in the diffusers format;
* a ``.safetensors`` checkpoint in the original layout, see `livedrag.editor.models.checkpoints`;
* a hub id with a pinned revision, ``owner/name@<commit>``: fetched once, then read from the cache, even offline.

Weights are read from safetensors only, never from pickles, and code that comes with a model is never run.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from livedrag.editor.errors import ModelError, SettingsError
from livedrag.editor.models.checkpoints import find_checkpoint, usable
from livedrag.editor.models.files import DOWNLOAD_AGAIN, WEIGHT_STEMS, find_weights, read_json
from livedrag.editor.models.headers import Header
from livedrag.editor.models.kinds import FileKind
from livedrag.editor.models.sources import (
    AUTOENCODERS,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_XL,
    SUPPORTED_MODELS,
    ModelSource,
    check_scheduler,
    class_of,
)
from livedrag.editor.settings import OFFICIAL, DragSettings, Setting

BUILTIN = Path(__file__).resolve().parent.parent / "weights"
DEFAULTS_FILE = "livedrag.json"
"""In a model's folder: the settings that suit it, by name; see `livedrag.editor.settings.DragSettings`."""
PARTS = {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
XL_PARTS = {**PARTS, "text_encoder_2": "CLIPTextModelWithProjection", "tokenizer_2": "CLIPTokenizer"}
PIPELINES = {
    "StableDiffusionPipeline": (STABLE_DIFFUSION, PARTS),
    "StableDiffusionXLPipeline": (STABLE_DIFFUSION_XL, XL_PARTS),
}
"""By the pipeline's class, the kind of model and the classes of its parts."""
_OTHER_PIPELINES = {
    "Inpaint": "an inpainting model",
    "Flux": "FLUX",
    "StableDiffusion3": "Stable Diffusion 3",
    "Img2Img": "an image-to-image pipeline, such as Stable Diffusion XL's refiner",
}
LORA_FILE = "pytorch_lora_weights.safetensors"
"""Name of a LoRA in a folder that diffusers wrote."""
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2", "tiny")
"""Folders with weights."""
_HUB_ID = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?$")
_FOLDERS = (*XL_PARTS, "vae", "scheduler", "tiny")
_FILES = [f"{part}/*{ending}" for part in _FOLDERS for ending in (".json", ".txt", ".safetensors")]
_VARIANTS = ["*.fp16.*", "*.bf16.*", "*.non_ema.*"]
"""Other versions of the same weights, downloaded only if there are no plain ones."""


def find_model(reference: str, *, config: Path | None = None, vae: Path | None = None) -> ModelSource:
    """Look up a model and check that it is supported.

    Args:
        reference: ``builtin``, a folder, a ``.safetensors`` checkpoint, or ``owner/name@<commit>``, which is downloaded
            if it isn't cached.
        config: folder with the tokenizer, and configurations if they are not the usual ones, of a checkpoint.
        vae: folder or file of the autoencoder that replaces the model's own.

    Raises:
        ModelError: there is no such model, it is not supported, or one of its files is damaged.
    """
    if config is not None and not config.is_dir():
        raise ModelError(f"--model-config {str(config)!r} is not a folder: {SUPPORTED_MODELS}")
    file = Path(reference).expanduser()
    if reference != "builtin" and file.is_file():
        source = find_checkpoint(file, config, other_vae=vae is not None)
    else:
        source = _find_in_folders(reference)
    return source if vae is None else _with_vae(source, vae)


def _find_in_folders(reference: str) -> ModelSource:
    wanted = ["model_index.json", DEFAULTS_FILE, *_FILES]
    folder = BUILTIN if reference == "builtin" else _find_folder(reference, wanted)
    if not (folder / "model_index.json").exists():
        raise ModelError(f"{reference!r} is not a diffusers model: it has no model_index.json; {SUPPORTED_MODELS}")
    index = read_json(folder / "model_index.json")
    kind, classes = _check_index(index, folder)
    _check_configurations(index, folder, classes)
    return ModelSource(
        name=_name(reference, folder),
        kind="builtin" if reference == "builtin" else kind,
        parts={part: folder / part for part in (*classes, "vae", "scheduler")},
        autoencoder=index["vae"][1],
        defaults=_read_defaults(folder / DEFAULTS_FILE),
        tiny=folder / "tiny" if (folder / "tiny").is_dir() else None,
        needs_wide_range=bool(read_json(folder / "unet" / "config.json").get("upcast_attention")),
        zeros_for_no_prompt=kind == STABLE_DIFFUSION_XL and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _with_vae(source: ModelSource, path: Path) -> ModelSource:
    """The model with another autoencoder. Raises `ModelError` if it does not fit."""
    path, needed = path.expanduser(), read_json(source.parts["unet"] / "config.json").get("in_channels")
    if source.autoencoder != "AutoencoderKL":
        raise ModelError(f"the model {source.name!r} has an autoencoder of its own kind: leave out --vae")
    folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
    if folder.is_dir():
        config = read_json(folder / "config.json")
        if (name := config.get("_class_name")) != "AutoencoderKL":
            raise ModelError(f"--vae {str(path)!r} is a {class_of(name)}: it must be an AutoencoderKL")
        find_weights(folder, WEIGHT_STEMS["vae"])
        channels = config.get("latent_channels", 4)
        changed = dataclasses.replace(source, parts={**source.parts, "vae": folder}, other_vae=folder)
    else:
        if not path.exists():
            raise ModelError(f"--vae {str(path)!r} does not exist: name a folder or a .safetensors file")
        _, kind = usable(path, "vae")
        channels = kind.latent_channels
        changed = dataclasses.replace(source, other_vae=path)
    if channels != needed:
        raise ModelError(
            f"--vae {str(path)!r} has latents of {channels} channels, but the unet of {source.name!r} takes {needed}: "
            "use an autoencoder of the same model"
        )
    return dataclasses.replace(changed, name=f"{source.name} with {path.stem}", vae_name=path.stem)


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
    if Path(reference).expanduser().is_file():
        raise ModelError(f"{reference!r} is a file: tiny previews need the diffusers folder of an AutoencoderTiny")
    folder = _find_folder(reference, ["*.json", "*.safetensors"])
    kind = read_json(folder / "config.json").get("_class_name")
    if kind != "AutoencoderTiny":
        raise ModelError(f"{reference!r} is a {kind}: tiny previews need an AutoencoderTiny")
    return folder


def find_lora(path: Path) -> tuple[Header, FileKind]:
    """The header and kind of a LoRA's file: the file itself, or the one in a folder that diffusers wrote.

    Raises:
        ModelError: there is none, or it is not a plain LoRA.
    """
    path = path.expanduser()
    file = path / LORA_FILE if path.is_dir() else path
    if not file.is_file():
        pickled = sorted(path.glob("*.bin")) if path.is_dir() else []
        if pickled:
            usable(pickled[0], "lora")
        raise ModelError(f"there is no LoRA {str(path)!r}: name a .safetensors file")
    return usable(file, "lora")


def _find_folder(reference: str, wanted: list[str]) -> Path:
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder
    hub = _HUB_ID.match(reference)
    if hub is None:
        raise ModelError(f"unknown model {reference!r}: there is no such file or folder; {SUPPORTED_MODELS}")
    revision = hub["revision"] or ""
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise ModelError(
            f"unknown model {reference!r}: no such file or folder, and a hub id needs '@' and a commit's 40 digits, "
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


def _check_index(index: dict[str, Any], folder: Path) -> tuple[str, Mapping[str, str]]:
    """The kind of model, and the classes of its parts."""
    path = folder / "model_index.json"
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in PIPELINES:
        known = next((name for part, name in _OTHER_PIPELINES.items() if part in str(pipeline)), None)
        hint = f" ({known})" if known else ""
        raise ModelError(f"{path} is of a {class_of(pipeline)}{hint}, which is not supported; {SUPPORTED_MODELS}")
    kind, classes = PIPELINES[pipeline]
    for part in (*classes, "vae", "scheduler"):
        if part not in index or not (folder / part).is_dir():
            raise ModelError(f"{folder} has no {part!r} folder: {DOWNLOAD_AGAIN}; {SUPPORTED_MODELS}")
    expected = {**{part: (name,) for part, name in classes.items()}, "vae": AUTOENCODERS}
    for part, names in expected.items():
        library, name = _library_and_class(index[part])
        if library not in ("diffusers", "transformers"):
            raise ModelError(
                f"{path} names its own code for {part!r} ({library}.{name}), which is never run; {SUPPORTED_MODELS}"
            )
        if name.removesuffix("Fast") not in names:
            raise ModelError(f"{path} has a {name} for {part!r}: it must be {' or '.join(names)}; {SUPPORTED_MODELS}")
    return kind, classes


def _library_and_class(entry: object) -> tuple[str, str]:
    match entry:
        case [str(library), str(name)]:
            return library, name
    return "unknown", str(entry)


def _check_configurations(index: dict[str, Any], folder: Path, classes: Mapping[str, str]) -> None:
    """Each part's own configuration must be of the class that the index names."""
    for part in ("unet", "vae"):
        path, expected = folder / part / "config.json", index[part][1]
        name = read_json(path).get("_class_name")
        if name != expected:
            raise ModelError(f"{path} is of a {class_of(name)}, not of {expected}: {DOWNLOAD_AGAIN}")
    for part in (part for part in classes if part.startswith("text_encoder")):
        path, expected = folder / part / "config.json", classes[part]
        text = read_json(path)
        if text.get("model_type") not in ("clip_text_model", "clip") and expected not in text.get("architectures", ()):
            raise ModelError(f"{path} is of a {text.get('model_type')!r}, not of a {expected}: {DOWNLOAD_AGAIN}")
    path = folder / "unet" / "config.json"
    channels = read_json(path).get("in_channels")
    if channels != 4:
        raise ModelError(f"{path} takes {channels} channels, as inpainting models do: it must be 4; {SUPPORTED_MODELS}")
    check_scheduler(folder / "scheduler" / "scheduler_config.json")
