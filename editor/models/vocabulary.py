"""CLIP's tokenizer for a checkpoint that has none inside: from a folder that the user names, else from the hub's cache.

Its vocabulary can't ship with livedrag, and no other would do: every model that was trained with CLIP has this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from livedrag.editor.errors import ModelError
from livedrag.editor.models.files import check_tokenizer, read_json

CLIP_TOKENS = {"!": 0, "<|startoftext|>": 49406, "<|endoftext|>": 49407}
"""Tokens by which CLIP's vocabulary is known."""
NO_TOKENIZER = (
    "CLIP's tokenizer is not in a checkpoint and can't ship with livedrag: name a folder that has it with "
    "--model-config DIR (any Stable Diffusion model in the diffusers format, its weights are not needed, or a folder "
    "with CLIP's vocab.json and merges.txt), or run 'hf download' for such a model once"
)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's folder.

    Args:
        folder: with its files.
        own: whether it belongs to the part that it is used for; else the padding token has to be set.
    """

    folder: Path
    own: bool


def find_vocabulary(part: str, config: Path | None) -> Vocabulary:
    """The tokenizer of a checkpoint's part.

    Args:
        part: ``tokenizer`` or ``tokenizer_2``.
        config: folder that the user named, if any.

    Raises:
        ModelError: there is none, or one of its files is damaged.
    """
    if config is not None:
        for folder in (config / part, config / "tokenizer", config):
            if _has_tokenizer(folder):
                check_tokenizer(folder)
                return Vocabulary(folder, own=folder.name == part)
    for folder in _cached():
        try:
            check_tokenizer(folder)
            if _is_clip(folder):
                return Vocabulary(folder, own=False)
        except ModelError:
            continue  # another one may be whole
    raise ModelError(NO_TOKENIZER if config is None else f"{config} has no CLIP tokenizer; {NO_TOKENIZER}")


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()


def _cached() -> Iterator[Path]:
    """Folders with a tokenizer in the hub's cache."""
    for snapshot in sorted(Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")):
        yield from filter(_has_tokenizer, (snapshot / "tokenizer", snapshot))


def _is_clip(folder: Path) -> bool:
    if (folder / "tokenizer.json").is_file():
        model = read_json(folder / "tokenizer.json").get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
    else:
        vocabulary = read_json(folder / "vocab.json")
    return isinstance(vocabulary, dict) and all(vocabulary.get(token) == id for token, id in CLIP_TOKENS.items())
