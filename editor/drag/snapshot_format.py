"""The format of snapshots: a session's tensors as safetensors, and its facts as JSON in their metadata. Never a pickle.

A snapshot is one file, or several parts, most of which stay the same from one snapshot to the next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from livedrag.editor.drag.handles import Handle, Handles
from livedrag.editor.errors import EditorError
from livedrag.editor.points import Cell, Drag, Point

VERSION = 4
MOMENTS_PER_PART = 32
"""Moments of the timeline in one part."""
_PLAIN = ("held", "original", "confirmed", "lost", "tries")
"""The numbers of a handle that are stored by name."""
STATE = "state"
"""Name of the part that changes with every step; it also has the facts."""


@dataclass(frozen=True)
class Part:
    """A part of a snapshot.

    Args:
        name: of the part; the same ones in each snapshot of a session, plus new ones as its timeline grows.
        stamp: two parts of one session with the same name and stamp have the same content; empty: unknown.
        snapshot: its tensors and facts.
    """

    name: str
    stamp: str
    snapshot: Snapshot


@dataclass
class Snapshot:
    """A session's content.

    Args:
        facts: everything but tensors, as JSON values; floats survive exactly.
        tensors: by name; on any device.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    _template_numbers: dict[int, int] = field(default_factory=dict, repr=False)  # of those put in, by identity
    _read_templates: dict[int, Tensor] = field(default_factory=dict, repr=False)  # by number

    def to_bytes(self) -> bytes:
        """As one file."""
        facts = json.dumps({"version": VERSION, **self.facts})
        alone = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.tensors.items()
        }
        data: bytes = save(alone, {"facts": facts})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """Read what `to_bytes` wrote. Raises `EditorError`."""
        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # safetensors' own layout
            facts = json.loads(header["__metadata__"]["facts"])
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise EditorError(
                f"these {len(data)} bytes are not a snapshot of a session ({error}): start a new session"
            ) from error
        if (version := facts.pop("version")) != VERSION:
            raise EditorError(f"the snapshot has version {version}, not {VERSION}: start a new session")
        return cls(facts, tensors)

    @classmethod
    def from_parts(cls, parts: Mapping[str, bytes]) -> Snapshot:
        """Join parts, by name, each as `to_bytes` wrote it. Raises `EditorError`."""
        if STATE not in parts:
            found = ", ".join(parts) or "(none)"
            raise EditorError(f"the parts {found} are not a snapshot, {STATE!r} is missing: start a new session")
        read = {name: cls.from_bytes(data) for name, data in parts.items()}
        return cls(read[STATE].facts, {key: tensor for part in read.values() for key, tensor in part.tensors.items()})

    def split(self, stamps: Mapping[str, str]) -> list[Part]:
        """The same in parts, with the stamps that are known, by the part's name."""
        parts = {STATE: Snapshot(self.facts)}
        for name, tensor in self.tensors.items():
            parts.setdefault(part_of(name), Snapshot()).tensors[name] = tensor
        return [Part(name, stamps.get(name, ""), part) for name, part in parts.items()]

    def put(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Add tensors under names that begin with ``prefix``."""
        self.tensors.update({f"{prefix}.{name}": tensor for name, tensor in tensors.items()})

    def get(self, prefix: str) -> dict[str, Tensor]:
        """The tensors that were `put` under ``prefix``; names that are numbers in numerical order."""
        found = {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }
        return dict(sorted(found.items(), key=lambda item: (int(item[0]) if item[0].isdigit() else 0, item[0])))

    def put_handles(self, handles: Handles) -> dict[str, list[Any]]:
        """Add the handles' templates, each only once; returns the rest of each handle as numbers."""
        return {
            name: [
                *(handle.start.handle.x, handle.start.handle.y, handle.start.target.x, handle.start.target.y),
                *(handle.target.x, handle.target.y),
                *(handle.cell.row, handle.cell.column, handle.offset.row, handle.offset.column),
                *(handle.warp.handle.x, handle.warp.handle.y, handle.warp.target.x, handle.warp.target.y),
                self._put_template(handle.template),
                self._put_template(handle.patch),
                {name: getattr(handle, name) for name in _PLAIN} | {"look": self._put_template(handle.look)},
            ]
            for name, handle in handles.items()
        }

    def get_handles(self, numbers: Mapping[str, list[Any]], like: Tensor) -> dict[str, Handle]:
        """The inverse of `put_handles`; templates with the dtype and device of ``like``."""
        return {
            name: self._with_extras(
                parts[16] if len(parts) > 16 else {},
                like,
                start=Drag(Point(*parts[0:2]), Point(*parts[2:4])),
                target=Point(*parts[4:6]),
                cell=Cell(*parts[6:8]),
                offset=Cell(*parts[8:10]),
                warp=Drag(Point(*parts[10:12]), Point(*parts[12:14])),
                template=None if parts[14] is None else self._get_template(parts[14], like),
                patch=self._get_template(parts[15], like) if len(parts) > 15 and parts[15] is not None else None,
            )
            for name, parts in numbers.items()
        }

    def _with_extras(self, extras: Mapping[str, Any], like: Tensor, **known: Any) -> Handle:
        """A handle; snapshots of earlier versions lack the extras."""
        plain = {name: extras[name] for name in _PLAIN if name in extras}
        look = extras.get("look")
        return Handle(**known, **plain, look=None if look is None else self._get_template(look, like))

    def _put_template(self, template: Tensor | None) -> int | None:
        if template is None:
            return None
        if id(template) not in self._template_numbers:
            self._template_numbers[id(template)] = len(self._template_numbers)
            self.put("template", {str(self._template_numbers[id(template)]): template})
        return self._template_numbers[id(template)]

    def _get_template(self, number: int, like: Tensor) -> Tensor:
        if (
            number not in self._read_templates
        ):  # handles share it as before, else the next snapshot stores it many times
            self._read_templates[number] = self.tensors[f"template.{number}"].to(like)
        return self._read_templates[number]


def part_of(name: str) -> str:
    """The part that a tensor of this name belongs to."""
    prefix, _, rest = name.partition(".")
    if prefix == "moment":
        return f"moments-{int(rest) // MOMENTS_PER_PART}"
    return prefix if prefix in ("lora", "picture", "unedited") else STATE
