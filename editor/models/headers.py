"""The header of a safetensors file: names, shapes and sizes of its tensors, read without torch and without the tensors.

The format: eight bytes that give the header's length, the header as JSON, then the tensors, one after the other.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livedrag.editor.errors import ModelError
from livedrag.editor.models.files import DOWNLOAD_AGAIN, check_file

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
"""Endings of files that are never opened."""
MAX_HEADER = 100 * 2**20
"""Bytes; the format's own limit."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file has.

    Args:
        path: of the file.
        shapes: of its tensors, by name.
        dtypes: of its tensors, by name, as the format spells them (``F16``).
        metadata: what its author wrote into it.
        nbytes: of the file.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]
    nbytes: int

    def has(self, *beginnings: str) -> bool:
        """Whether the name of any tensor begins with one of these."""
        return any(name.startswith(beginnings) for name in self.shapes)

    def first(self, names: Iterable[str]) -> tuple[int, ...] | None:
        """The shape of the first of these tensors that is there."""
        return next((self.shapes[name] for name in names if name in self.shapes), None)


def read_header(path: Path) -> Header:
    """The header of a safetensors file, whose tensors must fill the rest of the file exactly.

    Raises:
        ModelError: the file is missing, not a safetensors file, or incomplete.
    """
    check_file(path)
    try:
        nbytes = path.stat().st_size
        with path.open("rb") as opened:
            start = opened.read(9)
            opened.seek(8)
            length = int.from_bytes(start[:8], "little")
            if start[8:] != b"{":
                raise ModelError(_not_safetensors(path, start))
            if length > min(MAX_HEADER, nbytes - 8):
                raise ModelError(_incomplete(path))
            entries = json.loads(opened.read(length))
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error}") from None
    except (ValueError, RecursionError):
        raise ModelError(_not_safetensors(path, b"")) from None
    return _header(path, entries, nbytes - 8 - length, nbytes)


def _header(path: Path, entries: Any, room: int, nbytes: int) -> Header:
    try:
        metadata = {str(name): str(value) for name, value in entries.pop("__metadata__", {}).items()}
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
        dtypes = {name: str(entry["dtype"]) for name, entry in entries.items()}
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise ModelError(_not_safetensors(path, b"")) from None
    if end != room:
        raise ModelError(_incomplete(path))
    return Header(path, shapes, dtypes, metadata, nbytes)


def _not_safetensors(path: Path, start: bytes) -> str:
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return f"{path} is a pickle, whatever its name says: pickles are never opened, {how_to_convert(path)}"
    return f"{path} is not a safetensors file: {DOWNLOAD_AGAIN}"


def _incomplete(path: Path) -> str:
    return f"{path} is damaged or incomplete: {DOWNLOAD_AGAIN}"


def how_to_convert(path: Path) -> str:
    """What to do about a pickle. ``weights_only`` runs no code that the file brings along."""
    script = (
        "import sys, torch; from safetensors.torch import save_file; "
        "w = torch.load(sys.argv[1], map_location='cpu', weights_only=True); w = w.get('state_dict', w); "
        "save_file({k: v.contiguous().clone() for k, v in w.items() if torch.is_tensor(v)}, sys.argv[2])"
    )
    return f'convert to safetensors with: python -c "{script}" {shlex.quote(str(path))} OUT.safetensors'
