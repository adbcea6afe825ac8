"""Snapshots: a session's tensors and facts as one safetensors file, whose metadata is JSON. Never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from editor.errors import EditorError
from editor.handles import Handle, Handles
from editor.points import Cell, Drag, Point

VERSION = 1


@dataclass
class Snapshot:
    """What a session is at one moment.

    Args:
        facts: all that is no tensor, fit for JSON; floats survive it exactly.
        tensors: by name; on any device.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

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
            raise EditorError(f"these {len(data)} bytes are no snapshot of a session ({error}): start anew") from error
        if facts.pop("version") != VERSION:
            raise EditorError(f"this snapshot is not of version {VERSION}, the one that works here: start anew")
        return cls(facts, tensors)

    def put(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Add tensors under names that begin with ``prefix``."""
        self.tensors.update({f"{prefix}.{name}": tensor for name, tensor in tensors.items()})

    def get(self, prefix: str) -> dict[str, Tensor]:
        """The tensors that were `put` under ``prefix``, in the order of their numbers where the names are numbers."""
        found = {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }
        return dict(sorted(found.items(), key=lambda item: (int(item[0]) if item[0].isdigit() else 0, item[0])))

    def put_handles(self, handles: Handles) -> dict[str, list[float | None]]:
        """Add the handles' templates, each only once, and give back the rest as numbers."""
        return {
            name: [
                *(handle.start.handle.x, handle.start.handle.y, handle.start.target.x, handle.start.target.y),
                *(handle.target.x, handle.target.y),
                *(handle.cell.row, handle.cell.column, handle.offset.row, handle.offset.column),
                self._put_template(handle.template),
            ]
            for name, handle in handles.items()
        }

    def get_handles(self, numbers: Mapping[str, list[Any]], like: Tensor) -> dict[str, Handle]:
        """The inverse of `put_handles`; templates with the dtype and device of ``like``."""
        return {
            name: Handle(
                start=Drag(Point(*parts[0:2]), Point(*parts[2:4])),
                target=Point(*parts[4:6]),
                cell=Cell(*parts[6:8]),
                offset=Cell(*parts[8:10]),
                template=None if parts[10] is None else self.tensors[f"template.{parts[10]}"].to(like),
            )
            for name, parts in numbers.items()
        }

    def _put_template(self, template: Tensor | None) -> int | None:
        if template is None:
            return None
        known = self.get("template")
        for name, other in known.items():
            if other is template:
                return int(name)
        self.put("template", {str(len(known)): template})
        return len(known)
