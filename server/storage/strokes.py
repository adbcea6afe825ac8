"""Long strokes of a room, stored once however many records and documents contain them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from livedrag.server.document.protocol import AddStroke, DocRecord, Document, Edited, MaskLayer, Restore, Stroke

MIN_POINTS = 16
"""Shorter strokes are stored where they occur."""
TAG = "stored_stroke"


class StoredStroke(Struct, frozen=True, tag_field="type", tag=TAG):
    """Stands for a stroke in a stored record or document."""

    sha256: bytes


@dataclass(frozen=True)
class Packed:
    """A record or a document as it is stored, and the strokes that it refers to, by SHA-256."""

    data: bytes
    strokes: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes with all strokes."""
        return len(self.data) + sum(map(len, self.strokes.values()))


def pack_record(record: DocRecord) -> Packed:
    strokes: dict[bytes, bytes] = {}
    match record:
        case Edited(op=AddStroke(stroke=stroke) as op):
            record = replace(record, op=replace(op, stroke=_stored(stroke, strokes)))
        case Edited(op=Restore(mask=tuple(mask)) as op):
            record = replace(record, op=replace(op, mask=tuple(_stored(layer, strokes) for layer in mask)))
    return Packed(msgspec.msgpack.encode(record), strokes)


def pack_document(document: Document) -> Packed:
    strokes: dict[bytes, bytes] = {}
    document = replace(document, mask=tuple(_stored(layer, strokes) for layer in document.mask))
    return Packed(msgspec.msgpack.encode(document), strokes)


def _stored(layer: MaskLayer, strokes: dict[bytes, bytes]) -> MaskLayer | StoredStroke:
    if not isinstance(layer, Stroke) or len(layer.points) < MIN_POINTS:
        return layer
    packed = msgspec.msgpack.encode(layer)
    sha256 = hashlib.sha256(packed).digest()
    strokes[sha256] = packed
    return StoredStroke(sha256)


def unpack_stroke(packed: bytes) -> Stroke:
    return _stroke.decode(packed)


def unpack_record(packed: bytes, strokes: Mapping[bytes, Stroke]) -> DocRecord:
    """A stored record; equal strokes become one object. Raises `msgspec.MsgspecError`."""
    if TAG.encode() not in packed:
        return _record.decode(packed)
    record = msgspec.msgpack.decode(packed)
    op = record.get("op") if isinstance(record, dict) else None
    if isinstance(op, dict):
        if "stroke" in op:
            op["stroke"] = _resolved(op["stroke"], strokes)
        if isinstance(op.get("mask"), list):
            op["mask"] = [_resolved(layer, strokes) for layer in op["mask"]]
    return msgspec.convert(record, DocRecord)  # type: ignore[no-any-return]


def unpack_document(packed: bytes, strokes: Mapping[bytes, Stroke]) -> Document:
    """A stored document. Raises `msgspec.MsgspecError`."""
    document = msgspec.msgpack.decode(packed)
    if isinstance(document, dict) and isinstance(document.get("mask"), list):
        document["mask"] = [_resolved(layer, strokes) for layer in document["mask"]]
    return msgspec.convert(document, Document)


def _resolved(layer: Any, strokes: Mapping[bytes, Stroke]) -> Any:
    if not isinstance(layer, dict) or layer.get("type") != TAG:
        return layer
    stroke = strokes.get(layer["sha256"])
    if stroke is None:
        raise msgspec.ValidationError(f"stroke {layer['sha256'].hex()} is missing")
    return stroke


_record: msgspec.msgpack.Decoder[DocRecord] = msgspec.msgpack.Decoder(DocRecord)
_stroke = msgspec.msgpack.Decoder(Stroke)
