"""Archive: a room as one zip file, which this or another server can take in again.

It has ``room.json`` (what the room is, its links' digests, its people), ``base.json`` (the document at the beginning of
the kept log), ``records.jsonl`` (the log) and ``files/<sha256>.png``. Reading one trusts nothing: names, sizes, sums,
pictures and every record are checked before anything is kept. All of it is blocking.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from PIL import Image

from livedrag.server.document.document import Refused, check_place, digest, fold
from livedrag.server.document.members import Link, Member
from livedrag.server.document.protocol import DocRecord, Document, Id, Role
from livedrag.server.settings import MIB
from livedrag.server.storage.store import SHA256, SavedRoom, Store, StoreError, folded, new_instance, references

VERSION = 1
ROOM, BASE, RECORDS = "room.json", "base.json", "records.jsonl"
FILE = re.compile(r"files/([0-9a-f]{64})\.png")
MOST_ENTRIES = 10_000
MOST_TEXT = 256 * MIB
MOST_FILES = 4096 * MIB
"""Bytes that an archive may have unpacked: the texts each, all pictures together."""

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0)]
Time = Annotated[float, Meta(ge=0, le=1e11)]
RoomId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Short = Annotated[str, Meta(max_length=200)]


class ArchiveError(Exception):
    """A zip that is no room, or none that can be trusted; the text names what is wrong with it."""


class KeptLink(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `Link`."""

    id: Id
    digest: Sha256
    role: Role
    made: Time


class KeptMember(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `Member`: their names belong to the log. Whoever came by a link comes by it again."""

    person: Id
    name: Short
    colour: Annotated[str, Meta(pattern=r"^(#[0-9a-f]{6})?\Z")]
    role: Role | None
    link: Short
    seen: Time


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``room.json`` says."""

    format: Literal["livedrag-room"]
    version: int
    room: RoomId
    created: Time
    exported: Time
    seq: Count
    base_seq: Count
    links: list[KeptLink]
    members: list[KeptMember]


@dataclass(frozen=True)
class Archived:
    """A room out of an archive, checked; ``files`` are its PNGs by sha256, still in the zip."""

    room: str
    saved: SavedRoom
    files: tuple[str, ...]


# Out -----------------------------------------------------------------------------------------------------------------


def export_room(store: Store, room: str, file: IO[bytes]) -> None:
    """Write a room into ``file``.

    Raises:
        ArchiveError: there is no such room.
        StoreError: one of its pictures cannot be read.
    """
    saved = store.load(room).result()
    if saved is None:
        raise ArchiveError(f"there is no room {room!r}")
    write(room, saved, store.picture_path, file)


def write(room: str, saved: SavedRoom, path: Callable[[str], Path], file: IO[bytes]) -> None:
    """Write a room as a zip; ``path`` says where a picture lies."""
    log = [record for record in saved.records if record.seq > saved.base_seq]
    manifest = Manifest(
        format="livedrag-room",
        version=VERSION,
        room=room,
        created=saved.created,
        exported=time.time(),
        seq=saved.seq,
        base_seq=saved.base_seq,
        links=[KeptLink(id=link.id, digest=link.digest, role=link.role, made=link.made) for link in saved.links],
        members=[KeptMember(**vars(member)) for member in saved.members],
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ROOM, msgspec.json.format(msgspec.json.encode(manifest)))
        archive.writestr(BASE, msgspec.json.encode(saved.base))
        archive.writestr(RECORDS, b"".join(msgspec.json.encode(record) + b"\n" for record in log))
        for sha256 in sorted(_needed(saved)):
            _write_file(archive, sha256, path(sha256))


def _write_file(archive: zipfile.ZipFile, sha256: str, path: Path) -> None:
    try:
        archive.write(path, f"files/{sha256}.png", zipfile.ZIP_STORED)  # PNGs are compressed already
    except FileNotFoundError as error:
        raise StoreError(f"the picture {sha256} of the room is missing: {error}") from error


def _needed(saved: SavedRoom) -> set[str]:
    """The pictures without which a room is not whole: of results only the latest."""
    masks = {sha256 for _, document in folded(saved) for kind, sha256 in references(document) if kind == "mask"}
    based = {sha256 for kind, sha256 in references(saved.base) if kind != "result"}
    return masks | based | {sha256 for _, sha256 in references(saved.document)}


# In ------------------------------------------------------------------------------------------------------------------


def import_room(store: Store, file: IO[bytes], *, max_pixels: int, as_new: bool = False) -> tuple[str, str]:
    """Take in a room.

    Args:
        max_pixels: of a picture.
        as_new: give it a new id, and none of its links and people, so that it can lie beside the room that it was.

    Returns:
        The room's id, and the secret of a new link for its owner.

    Raises:
        ArchiveError: it is not what an export writes, or there is such a room already.
        StoreError: it cannot be kept.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            archived = read(archive)
            room = secrets.token_urlsafe(9) if as_new else archived.room
            if store.load(room).result() is not None:
                raise ArchiveError(
                    f"there is a room {room!r} already: delete that one, or import this one with --as-new"
                )
            for sha256 in archived.files:  # in their turn: together they may be larger than the memory
                data = _read_file(archive, sha256)
                check_picture(data, sha256, archived.saved, max_pixels)
                store.put_picture(data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        raise ArchiveError(f"this is no zip file, or a damaged one: {error}") from error
    secret = secrets.token_urlsafe(24)
    owner = Link(secrets.token_urlsafe(6), digest(secret), "owner", time.time())
    saved = archived.saved
    kept = replace(saved, links=(owner,), members=()) if as_new else replace(saved, links=(*saved.links, owner))
    store.adopt(room, kept).result()
    return room, secret


def read(archive: zipfile.ZipFile) -> Archived:
    """What an archive has to say, all checked but its pictures. Raises `ArchiveError`."""
    entries = _entries(archive)
    for name in (ROOM, BASE, RECORDS):
        if name not in entries:
            raise ArchiveError(f"{name!r} is missing: this is no export of a room")
    manifest = _decoded(Manifest, _read(archive, ROOM, MOST_TEXT), ROOM)
    if manifest.version != VERSION:
        raise ArchiveError(f"it has version {manifest.version}, this livedrag reads version {VERSION}")
    base = _decoded(Document, _read(archive, BASE, MOST_TEXT), BASE)
    lines = _read(archive, RECORDS, MOST_TEXT).splitlines()
    records = tuple(_decoded(DocRecord, line, f"{RECORDS}, line {n}") for n, line in enumerate(lines, 1))
    document = _folded(base, records, manifest)
    saved = SavedRoom(
        instance=new_instance(),
        created=manifest.created,
        document=document,
        seq=manifest.seq,
        base=base,
        base_seq=manifest.base_seq,
        records=records,
        links=tuple(Link(link.id, link.digest, link.role, link.made) for link in _distinct(manifest.links)),
        members=tuple(
            Member(m.person, m.name, m.colour, m.role, m.link, m.seen)
            for m in {member.person: member for member in manifest.members}.values()
        ),
    )
    files = tuple(match[1] for name in entries if (match := FILE.fullmatch(name)))
    _check_files(saved, files)
    return Archived(manifest.room, saved, files)


def check_picture(data: bytes, sha256: str, saved: SavedRoom, max_pixels: int) -> None:
    """Raise `ArchiveError` unless this is the PNG that the room's documents mean by its sum."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ArchiveError(f"the file {sha256}.png has another sum than its name: it is damaged or changed")
    picture = saved.base.picture
    size = (picture.width, picture.height)
    if size[0] * size[1] > max_pixels:
        works = f"at most {max_pixels / 1e6:g} megapixels work here"
        raise ArchiveError(f"its picture has {size[0]} x {size[1]} pixels: {works}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit above is ours, and lower
            image = Image.open(io.BytesIO(data), formats=("PNG",))
        if image.size != size:
            found = f"{image.size[0]} x {image.size[1]}"
            raise ArchiveError(f"{sha256}.png has {found} pixels, its room {size[0]} x {size[1]}")
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ArchiveError(f"{sha256}.png is no picture, or a damaged one: {error}") from error
    if image.mode not in ("RGB", "L"):
        raise ArchiveError(f"{sha256}.png is in mode {image.mode!r}: RGB and L work")


def _entries(archive: zipfile.ZipFile) -> Mapping[str, zipfile.ZipInfo]:
    """The entries by name; nothing is there that an export does not write, and nothing is larger than it may be."""
    infos = archive.infolist()
    if len(infos) > MOST_ENTRIES:
        raise ArchiveError(f"it has {len(infos)} entries: at most {MOST_ENTRIES} work")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if name not in (ROOM, BASE, RECORDS) and not FILE.fullmatch(name):
            raise ArchiveError(f"the entry {name[:200]!r} is none that an export of a room has")
        if name in entries:
            raise ArchiveError(f"the entry {name!r} is there twice")
        if info.flag_bits & 1:
            raise ArchiveError(f"the entry {name!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError(f"the entry {name!r} is compressed in a way that an export does not use")
        entries[name] = info
    total = sum(info.file_size for info in infos)
    if total > MOST_FILES:
        raise ArchiveError(f"it has {total / MIB:.0f} MiB unpacked: at most {MOST_FILES / MIB:.0f} MiB work")
    return entries


def _read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """One entry; what it says about its own size is not believed."""
    with archive.open(name) as entry:
        data = entry.read(most + 1)
    if len(data) > most:
        raise ArchiveError(f"the entry {name!r} has more than {most / MIB:.0f} MiB unpacked, the most that works")
    return data


def _read_file(archive: zipfile.ZipFile, sha256: str) -> bytes:
    return _read(archive, f"files/{sha256}.png", MOST_TEXT)


def _decoded(kind: Any, data: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{where} cannot be read: {error}") from error


def _folded(base: Document, records: Iterable[DocRecord], manifest: Manifest) -> Document:
    """Where the log leads to; each record must fit what was before it."""
    document, seq = base, manifest.base_seq
    _check_document(document, BASE)
    for record in records:
        seq += 1
        where = f"record {record.seq}"
        if record.seq != seq:
            raise ArchiveError(f"{where} stands where record {seq} should: the log has a gap")
        try:
            document = fold(document, record)
        except (KeyError, ValueError, TypeError) as error:
            raise ArchiveError(f"{where} does not fit what was before it: {error!r}") from error
        _check_document(document, where)
    if seq != manifest.seq:
        raise ArchiveError(f"the log ends at record {seq}, not at {manifest.seq} as {ROOM} says")
    return document


def _check_document(document: Document, where: str) -> None:
    """Raise `ArchiveError` unless the document is one that a room can have."""
    picture = document.picture
    if not (picture.width > 0 and picture.height > 0):
        raise ArchiveError(f"{where} names a picture that cannot be: {json.dumps(msgspec.to_builtins(picture))[:200]}")
    for kind, sha256 in references(document):
        if SHA256.fullmatch(sha256) is None:
            raise ArchiveError(f"{where} names a {kind} that cannot be: {sha256[:100]!r} is no SHA-256")
    try:
        for drag in document.drags.values():
            check_place(picture, "handle", drag.handle)
            check_place(picture, "target", drag.target)
    except Refused as refusal:
        raise ArchiveError(f"{where}: {refusal}") from refusal


def _check_files(saved: SavedRoom, files: tuple[str, ...]) -> None:
    there, needed = set(files), _needed(saved)
    if missing := needed - there:
        raise ArchiveError(f"the file {min(missing)}.png is missing, which the room needs")
    if unneeded := there - needed:
        raise ArchiveError(f"the file {min(unneeded)}.png is there, which the room does not need")


def _distinct(links: Iterable[KeptLink]) -> list[KeptLink]:
    """Links of one id, or with one secret, would be one link."""
    links = list(links)
    for of in ("id", "digest"):
        if len({getattr(link, of) for link in links}) != len(links):
            raise ArchiveError(f"two links of {ROOM} have the same {of}")
    return links
