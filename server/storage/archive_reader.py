"""Reading a room archive. Nothing in it is trusted: every name, size, digest, picture and record is checked."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct
from PIL import Image

from livedrag.server.document.checks import ID, Refused, check_document
from livedrag.server.document.fold import fold
from livedrag.server.document.known_settings import KNOWN_SETTINGS
from livedrag.server.document.members import Link, Member
from livedrag.server.document.protocol import DocRecord, Document, Id, Picture, Role, RoomLimits
from livedrag.server.settings import MIB
from livedrag.server.storage.errors import ArchiveError
from livedrag.server.storage.pictures import SHA256
from livedrag.server.storage.saved import SavedRoom, folded, new_instance, references
from livedrag.server.storage.schema import rename_document_fields, rename_record_tag

VERSION = 2
"""Version 1 says ``picture.drawn`` for ``picture.generation``, and ``sought`` for ``seeked``."""
ROOM, BASE, RECORDS = "room.json", "base.json", "records.jsonl"
FILE = re.compile(r"files/([0-9a-f]{64})\.png")
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` raises for files that are not as they should be."""
MAX_ENTRIES = 10_000
MAX_ENTRY_BYTES = 256 * MIB
MAX_ARCHIVE_BYTES = 4096 * MIB
"""Uncompressed sizes."""

T = TypeVar("T")
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0)]
Time = Annotated[float, Meta(ge=0, le=1e11)]
RoomId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Short = Annotated[str, Meta(max_length=200)]


class ArchivedLink(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `Link`."""

    id: Id
    digest: Sha256
    role: Role
    made: Time


class ArchivedMember(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `Member`. The log names members by ``person``."""

    person: Id
    name: Short
    colour: Annotated[str, Meta(pattern=r"^(#[0-9a-f]{6})?\Z")]
    role: Role | None
    link: Short
    seen: Time


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of ``room.json``."""

    format: Literal["livedrag-room"]
    version: int
    room: RoomId
    created: Time
    exported: Time
    seq: Count
    base_seq: Count
    links: list[ArchivedLink]
    members: list[ArchivedMember]


@dataclass(frozen=True)
class ArchivedRoom:
    """A checked room; ``files`` are its pictures, still in the archive: their modes by SHA-256."""

    room: str
    saved: SavedRoom
    files: Mapping[str, str]


@contextmanager
def open_archive(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """A zip file; raises `ArchiveError` for whatever is wrong with it as such, even while it is read."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except DAMAGE as error:
        raise ArchiveError(f"not a zip file, or a damaged one: {error}") from error


def read_room(archive: zipfile.ZipFile, limits: RoomLimits, max_bytes: int = MAX_ARCHIVE_BYTES) -> ArchivedRoom:
    """The room in an archive of at most so many bytes uncompressed, checked except for its pictures.

    Raises:
        ArchiveError: a room could not have been exported like this.
    """
    entries = _entries(archive, max_bytes)
    for name in (ROOM, BASE, RECORDS):
        if name not in entries:
            raise ArchiveError(f"{name!r} is missing: this is not an exported room")
    manifest = _decoded(Manifest, _read(archive, ROOM), ROOM)
    if manifest.version not in (1, VERSION):
        raise ArchiveError(f"it has version {manifest.version}, this livedrag reads versions 1 to {VERSION}")
    old = manifest.version == 1
    base = _decoded(Document, _read(archive, BASE), BASE, rename_document_fields if old else None)
    records = tuple(
        _decoded(DocRecord, line, f"{RECORDS}, line {number}", rename_record_tag if old else None)
        for number, line in enumerate(_read(archive, RECORDS).splitlines(), 1)
    )
    saved = SavedRoom(
        instance=new_instance(),
        created=manifest.created,
        document=_last_document(base, records, manifest, limits),
        seq=manifest.seq,
        base=base,
        base_seq=manifest.base_seq,
        records=records,
        links=_links(manifest),
        members=_members(manifest),
    )
    files = needed_files(saved)
    _check_files(files.keys(), {match[1] for name in entries if (match := FILE.fullmatch(name))})
    return ArchivedRoom(manifest.room, saved, files)


def read_picture(archive: zipfile.ZipFile, sha256: str, archived: ArchivedRoom) -> bytes:
    """A PNG of the room. Raises `ArchiveError` unless it is the one that the room refers to."""
    data = _read(archive, f"files/{sha256}.png")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ArchiveError(f"the content of {sha256}.png does not match its name: it is damaged or was changed")
    picture = archived.saved.base.picture
    try:
        _check_png(data, sha256, (picture.width, picture.height), archived.files[sha256])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ArchiveError(f"{sha256}.png is not a PNG, or a damaged one: {error}") from error
    return data


def needed_files(saved: SavedRoom) -> Mapping[str, str]:
    """The pictures that a room needs, of results only the latest; their modes by SHA-256."""
    documents = [saved.base, *(document for _, document in folded(saved))]
    earlier = {file for document in documents for file in references(document) if file[0] != "result"}
    files = earlier | references(saved.document)
    return {sha256: "L" if kind == "mask" else "RGB" for kind, sha256 in files}


def _check_png(data: bytes, sha256: str, size: tuple[int, int], mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
        image = Image.open(io.BytesIO(data), formats=("PNG",))
    if image.size != size:
        found = f"{image.size[0]} x {image.size[1]}"
        raise ArchiveError(f"{sha256}.png has {found} pixels, its room {size[0]} x {size[1]}")
    image.load()
    if image.mode != mode:
        raise ArchiveError(f"{sha256}.png has mode {image.mode!r}: it must be {mode}")


def _entries(archive: zipfile.ZipFile, max_bytes: int) -> Mapping[str, zipfile.ZipInfo]:
    """The entries by name, all of which an export could have written."""
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise ArchiveError(f"it has {len(infos)} entries: {MAX_ENTRIES} are allowed")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if name not in (ROOM, BASE, RECORDS) and not FILE.fullmatch(name):
            raise ArchiveError(f"an exported room has no entry {name[:200]!r}")
        if name in entries:
            raise ArchiveError(f"the entry {name!r} occurs twice")
        if info.flag_bits & 1:
            raise ArchiveError(f"the entry {name!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError(f"the entry {name!r} is compressed by method {info.compress_type}: use deflate")
        entries[name] = info
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        limit = f"{max_bytes / MIB:.0f} MiB are allowed"
        raise ArchiveError(f"it has {total / MIB:.0f} MiB uncompressed: {limit}")
    return entries


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """One entry. The size that it states for itself may be wrong."""
    with archive.open(name) as entry:
        data = entry.read(MAX_ENTRY_BYTES + 1)
    if len(data) > MAX_ENTRY_BYTES:
        raise ArchiveError(f"the entry {name!r} has more than {MAX_ENTRY_BYTES / MIB:.0f} MiB uncompressed")
    return data


def _decoded(kind: Any, data: bytes, where: str, rename: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    try:
        if rename is None:
            return msgspec.json.decode(data, type=kind)
        return msgspec.convert(rename(msgspec.json.decode(data, type=dict[str, Any])), kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{where} cannot be read: {error}") from error


def _last_document(base: Document, records: Iterable[DocRecord], manifest: Manifest, limits: RoomLimits) -> Document:
    """The document after the log; each record must fit the document before it."""
    document, seq = base, manifest.base_seq
    _check_document(document, BASE, limits)
    for record in records:
        seq += 1
        where = f"record {record.seq}"
        if record.seq != seq:
            raise ArchiveError(f"{where} is where record {seq} should be: the log has a gap")
        try:
            document = fold(document, record)
        except (KeyError, ValueError, TypeError) as error:
            raise ArchiveError(f"{where} does not fit the document before it: {error!r}") from error
        for name in ("by", "undoes", "redoes"):
            if ID.fullmatch(getattr(record, name, None) or "-") is None:
                raise ArchiveError(f"{where}: {getattr(record, name)[:100]!r} cannot be the value of {name!r}")
        _check_document(document, where, limits)
        _check_same_size(base.picture, document.picture, where)
    if seq != manifest.seq:
        raise ArchiveError(f"the log ends at record {seq}, not at {manifest.seq} as {ROOM} says")
    return document


def _check_document(document: Document, where: str, limits: RoomLimits) -> None:
    """Raise `ArchiveError` unless a room could have this document."""
    for kind, sha256 in references(document):
        if SHA256.fullmatch(sha256) is None:
            raise ArchiveError(f"{where}: {sha256[:100]!r} is not the SHA-256 of a {kind}")
    try:
        check_document(document, KNOWN_SETTINGS, limits)
    except Refused as refusal:
        raise ArchiveError(f"{where}: {refusal}") from refusal


def _check_same_size(base: Picture, picture: Picture, where: str) -> None:
    """Raise `ArchiveError` for a base picture that no result of the room could have become."""
    if (picture.width, picture.height) != (base.width, base.height):
        sizes = f"{picture.width} x {picture.height} pixels, the first one {base.width} x {base.height}"
        raise ArchiveError(f"{where}: its picture has {sizes}")


def _check_files(needed: Set[str], found: Set[str]) -> None:
    if missing := needed - found:
        raise ArchiveError(f"{min(missing)}.png is missing, which the room needs")
    if unneeded := found - needed:
        raise ArchiveError(f"{min(unneeded)}.png does not belong to the room")


def _links(manifest: Manifest) -> tuple[Link, ...]:
    for field in ("id", "digest"):
        if len({getattr(link, field) for link in manifest.links}) != len(manifest.links):
            raise ArchiveError(f"two links of {ROOM} have the same {field}")
    return tuple(Link(link.id, link.digest, link.role, link.made) for link in manifest.links)


def _members(manifest: Manifest) -> tuple[Member, ...]:
    by_person = {member.person: member for member in manifest.members}
    return tuple(Member(m.person, m.name, m.colour, m.role, m.link, m.seen) for m in by_person.values())
