"""Long strokes of a room, stored once however many records and documents contain them."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
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
class Digest:
    """The SHA-256 of a packed stroke, and its size in bytes."""

    sha256: bytes
    size: int


class Digests:
    """The digests of strokes, computed once for each object."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Stroke], Digest]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, stroke: Stroke) -> Digest:
        key = id(stroke)
        known = self._known.get(key)
        if known is not None and known[0]() is stroke:
            return known[1]
        packed = pack_stroke(stroke)
        digest = Digest(hashlib.sha256(packed).digest(), len(packed))

        def forget(dead: weakref.ref[Stroke]) -> None:
            if self._known.get(key, (None,))[0] is dead:
                self._known.pop(key, None)

        self._known[key] = (weakref.ref(stroke, forget), digest)
        return digest


@dataclass(frozen=True)
class Packed:
    """A record or a document as it is stored, and the strokes that it refers to, by SHA-256.

    ``size`` is in bytes, with all strokes.
    """

    data: bytes
    strokes: Mapping[bytes, Stroke]
    size: int


def pack_record(record: DocRecord) -> Packed:
    """A record without its long strokes."""
    strokes: list[Stroke] = []
    match record:
        case Edited(op=AddStroke(stroke=stroke) as op):
            record = replace(record, op=replace(op, stroke=_stored(stroke, strokes)))
        case Edited(op=Restore(mask=tuple(mask)) as op):
            record = replace(record, op=replace(op, mask=tuple(_stored(layer, strokes) for layer in mask)))
    return _packed(msgspec.msgpack.encode(record), strokes)


def pack_document(document: Document) -> Packed:
    """A document without its long strokes."""
    strokes: list[Stroke] = []
    document = replace(document, mask=tuple(_stored(layer, strokes) for layer in document.mask))
    return _packed(msgspec.msgpack.encode(document), strokes)


def _stored(layer: MaskLayer, strokes: list[Stroke]) -> MaskLayer | StoredStroke:
    """What stands for a layer; a long stroke is added to ``strokes``."""
    if not isinstance(layer, Stroke) or len(layer.points) < MIN_POINTS:
        return layer
    strokes.append(layer)
    return StoredStroke(_digests.of(layer).sha256)


def _packed(data: bytes, strokes: list[Stroke]) -> Packed:
    digests = [_digests.of(stroke) for stroke in strokes]
    by_sha256 = {digest.sha256: stroke for digest, stroke in zip(digests, strokes, strict=True)}
    return Packed(data, by_sha256, len(data) + sum(digest.size for digest in digests))


def pack_stroke(stroke: Stroke) -> bytes:
    return msgspec.msgpack.encode(stroke)


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
_digests = Digests()
