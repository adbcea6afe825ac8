"""The files of a model: which of them to open, and whether they are whole. Errors name the file and say what to do.

A download that was cut short, a Git LFS pointer in the place of a file, or a tokenizer without its vocabulary would
otherwise fail deep inside a library, or load silently and give wrong pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from livedrag.editor.errors import ModelError

DOWNLOAD_AGAIN = "download the model again"
_LFS_POINTER = b"version https://git-lfs"
_PREFERRED_VARIANTS = ("fp16", "bf16")
_END_OF_WORD = "</w>"
WEIGHT_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""By part, the name of its weights without ``.safetensors``."""


@dataclass(frozen=True)
class WeightFiles:
    """A network's weights.

    Args:
        files: one file, or several shards.
        variant: such as ``fp16``, if only a variant of the weights is there; None for the plain ones.
    """

    files: tuple[Path, ...]
    variant: str | None


def check_file(path: Path) -> None:
    """Raise `ModelError` if a file is missing, empty or a Git LFS pointer."""
    if not path.is_file():
        raise ModelError(f"{path} is missing: {DOWNLOAD_AGAIN}")
    try:
        with path.open("rb") as opened:
            start = opened.read(len(_LFS_POINTER))
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error}") from None
    if not start:
        raise ModelError(f"{path} is empty: {DOWNLOAD_AGAIN}")
    if start == _LFS_POINTER:
        raise ModelError(f"{path} is a Git LFS pointer, not the file itself: run 'git lfs pull' in the model's folder")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `ModelError`."""
    check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}): {DOWNLOAD_AGAIN}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object, not {type(content).__name__}: {DOWNLOAD_AGAIN}")
    return content


def find_weights(folder: Path, stem: str) -> WeightFiles:
    """The weights in a part's folder, whole: the plain ones, else the only variant, else fp16 or bf16.

    Args:
        folder: of the part.
        stem: name of the file without ``.safetensors``.

    Raises:
        ModelError: there are none, or a file is not whole.
    """
    found = _weights_of_variant(folder, stem, None)
    if found is None:
        variants = sorted(
            {_variant_of(path, stem) for path in folder.glob(f"{stem}*") if _variant_of(path, stem)},
            key=lambda name: (name not in _PREFERRED_VARIANTS, name),
        )
        found = next(filter(None, (_weights_of_variant(folder, stem, variant) for variant in variants)), None)
    if found is None:
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" ({pickled[0]} is a pickle, which is never opened)" if pickled else ""
        raise ModelError(
            f"{folder / stem}.safetensors is missing{hint}: download the model with its .safetensors files"
        )
    for path in found.files:
        _check_safetensors(path)
    return found


def _weights_of_variant(folder: Path, stem: str, variant: str | None) -> WeightFiles | None:
    suffix = "" if variant is None else f".{variant}"
    single, index = folder / f"{stem}{suffix}.safetensors", folder / f"{stem}.safetensors.index{suffix}.json"
    if single.is_file():
        return WeightFiles((single,), variant)
    if not index.is_file():
        return None
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelError(f"{index} lists no files: {DOWNLOAD_AGAIN}")
    return WeightFiles(tuple(folder / name for name in sorted(set(map(str, shards.values())))), variant)


def _variant_of(path: Path, stem: str) -> str:
    name = path.name.removeprefix(stem)
    if name.startswith(".safetensors.index.") and name.endswith(".json"):
        return name.removeprefix(".safetensors.index.").removesuffix(".json")
    if name.startswith(".") and name.endswith(".safetensors"):
        return name.removeprefix(".").removesuffix(".safetensors").removesuffix("safetensors")
    return ""


def _check_safetensors(path: Path) -> None:
    check_file(path)
    try:
        with safe_open(path, framework="np") as opened:
            opened.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged or incomplete ({error}): {DOWNLOAD_AGAIN}") from None


def check_tokenizer(folder: Path) -> None:
    """Raise `ModelError` if the files of a CLIP tokenizer are missing or damaged, or its vocabulary is incomplete."""
    contents = {path.name: read_json(path) for path in sorted(folder.glob("*.json"))}
    name = contents.get("tokenizer_config.json", {}).get("tokenizer_class", "CLIPTokenizer")
    if str(name).removesuffix("Fast") != "CLIPTokenizer":
        raise ModelError(f"{folder / 'tokenizer_config.json'} is of a {name}: it must be of a CLIPTokenizer")
    if "tokenizer.json" in contents:
        model = contents["tokenizer.json"].get("model")
        model = model if isinstance(model, dict) else {}
        merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges") or ()]
        _check_vocabulary(folder / "tokenizer.json", model.get("vocab"), folder / "tokenizer.json", merges)
        return
    vocabulary, merges_file = folder / "vocab.json", folder / "merges.txt"
    for path in (vocabulary, merges_file):
        check_file(path)
    lines = merges_file.read_text(encoding="utf-8", errors="replace").splitlines()
    merges = [line.split(" ") for line in lines if line.strip() and not line.startswith("#version")]
    _check_vocabulary(vocabulary, contents["vocab.json"], merges_file, merges)


def _check_vocabulary(path: Path, vocabulary: object, merges_path: Path, merges: Iterable[Iterable[str]]) -> None:
    """Every token of more than one character must be the outcome of a merge, or its words fall apart."""
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise ModelError(f"{path} has no vocabulary: {DOWNLOAD_AGAIN}")
    merged = {"".join(pair) for pair in merges}
    tokens = {token for token in vocabulary if len(token.removesuffix(_END_OF_WORD)) > 1 and not _is_special(token)}
    if lost := tokens - merged:
        raise ModelError(
            f"{merges_path} lacks the merges of {len(lost)} of {len(tokens)} tokens, such as {min(lost)!r}: "
            f"{DOWNLOAD_AGAIN}"
        )


def _is_special(token: str) -> bool:
    return token.startswith("<|") and token.endswith("|>")
