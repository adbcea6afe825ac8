"""Single-file checkpoints in the original layout: which model they are, and where their configuration comes from.

The configurations of Stable Diffusion's own networks are in `CONFIGURATIONS`; a folder in the diffusers format that the
user names replaces any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from livedrag.editor.errors import ModelError
from livedrag.editor.models.files import read_json
from livedrag.editor.models.headers import PICKLES, Header, how_to_convert, read_header
from livedrag.editor.models.kinds import Architecture, FileKind, classify
from livedrag.editor.models.sources import (
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_XL,
    SUPPORTED_MODELS,
    TOKENIZERS,
    ModelSource,
    check_scheduler,
)
from livedrag.editor.models.vocabulary import find_vocabulary
from livedrag.editor.settings import OFFICIAL

CONFIGURATIONS = Path(__file__).resolve().parent / "configurations"
_PARTS: Mapping[Architecture, tuple[str, ...]] = {
    "1.x": ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    "2.x": ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    "xl": ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
}
_PAD_TOKENS: Mapping[tuple[Architecture, str], str] = {
    ("1.x", "tokenizer"): "<|endoftext|>",
    ("2.x", "tokenizer"): "!",
    ("xl", "tokenizer"): "<|endoftext|>",
    ("xl", "tokenizer_2"): "!",
}
_V_PREDICTION = {"v": "v_prediction", "epsilon": "epsilon"}
"""Values of ``modelspec.prediction_type`` in a checkpoint's metadata."""


def find_checkpoint(path: Path, config: Path | None, *, other_vae: bool) -> ModelSource:
    """A checkpoint as a model that can be opened.

    Args:
        path: of the file.
        config: folder in the diffusers format whose configurations replace livedrag's own; or with CLIP's tokenizer
            alone.
        other_vae: whether the user names another autoencoder.

    Raises:
        ModelError: it can't be used; the message says why.
    """
    header, kind = usable(path, "checkpoint")
    if not kind.has_vae and not other_vae:
        raise ModelError(f"{path} has no autoencoder (VAE) inside: name one with --vae PATH")
    parts, pads = {}, {}
    for part in _PARTS[kind.architecture]:
        if part in TOKENIZERS:
            try:
                vocabulary = find_vocabulary(part, config)
            except ModelError as error:
                raise ModelError(f"{path} can't be opened: {error}") from None
            parts[part] = vocabulary.folder
            if not vocabulary.own:
                pads[part] = _PAD_TOKENS[kind.architecture, part]
        else:
            parts[part] = _configuration(kind.architecture, part, config)
    _check_configurations(parts)
    own_schedule = parts["scheduler"].is_relative_to(CONFIGURATIONS)
    return ModelSource(
        name=path.stem,
        kind=STABLE_DIFFUSION_XL if kind.architecture == "xl" else STABLE_DIFFUSION,
        parts=parts,
        autoencoder="AutoencoderKL",
        defaults=OFFICIAL,
        needs_wide_range=bool(read_json(parts["unet"] / "config.json").get("upcast_attention")),
        checkpoint=path,
        pad_tokens=pads,
        prediction_type=_prediction_type(header) if own_schedule else "",
        zeros_for_no_prompt=kind.architecture == "xl",
    )


def usable(path: Path, wanted: str) -> tuple[Header, FileKind]:
    """A file's header and kind. Raises `ModelError` unless it can be used as the wanted kind."""
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"{path} is not opened, it may be an unsafe pickle: {how_to_convert(path)}")
    header = read_header(path)
    kind = classify(header)
    if kind.problem:
        raise ModelError(f"{path} can't be used: {kind.problem}")
    if kind.kind != wanted:
        article = "an" if kind.kind == "other" else "a"
        raise ModelError(f"{path} is {article} {kind.name or 'unknown file'}, not a {wanted}; {_where(kind)}")
    return header, kind


def _where(kind: FileKind) -> str:
    option = {"lora": "--lora", "vae": "--vae", "tiny autoencoder": "--tiny", "checkpoint": "--model"}.get(kind.kind)
    return f"use it with {option}" if option else SUPPORTED_MODELS


def _configuration(architecture: Architecture, part: str, config: Path | None) -> Path:
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    if config is not None and (config / part / name).is_file():
        return config / part
    return CONFIGURATIONS / architecture / part


def _check_configurations(parts: Mapping[str, Path]) -> None:
    for part, expected in (("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL")):
        path = parts[part] / "config.json"
        if (found := read_json(path).get("_class_name")) != expected:
            raise ModelError(f"{path} is of a {found}: for a checkpoint it must be of {expected}")
    check_scheduler(parts["scheduler"] / "scheduler_config.json")


def _prediction_type(header: Header) -> str:
    """What the file says that it predicts; empty if it doesn't."""
    if "v_pred" in header.shapes:
        return "v_prediction"
    for name in ("modelspec.prediction_type", "modelspec.predict_key"):
        if (value := header.metadata.get(name, "").lower()) in _V_PREDICTION:
            return _V_PREDICTION[value]
    return ""
