"""Archive: a room as one zip file, which this or another server can import.

It has ``room.json`` (ids, the links' digests, the members), ``base.json`` (the document at the beginning of the log),
``records.jsonl`` (the log) and ``files/<sha256>.png``. Both directions block.
"""

from __future__ import annotations

import secrets
import time
import zipfile
from collections.abc import Callable, Set
from dataclasses import replace
from pathlib import Path
from typing import IO

import msgspec

from livedrag.server.document.members import Link, digest
from livedrag.server.document.protocol import Raster, RoomLimits
from livedrag.server.errors import UnknownRoom
from livedrag.server.storage.archive_reader import (
    BASE,
    MAX_ARCHIVE_BYTES,
    RECORDS,
    ROOM,
    VERSION,
    ArchivedLink,
    ArchivedMember,
    Manifest,
    needed_files,
    open_archive,
    read_picture,
    read_room,
)
from livedrag.server.storage.errors import ArchiveError
from livedrag.server.storage.saved import SavedRoom
from livedrag.server.storage.store import Store


def export_room(store: Store, room: str, file: IO[bytes]) -> None:
    """Write a room into ``file``.

    Raises:
        UnknownRoom: there is no such room.
        Damaged: its document or its picture is missing. Without other files, and what was damaged, it is exported.
    """
    saved = store.load(room).result()
    if saved is None:
        raise UnknownRoom(room)
    missing = {sha256 for sha256 in needed_files(saved) if not store.pictures.path(sha256).exists()}
    if missing:
        store.picture_path(saved.document.picture.sha256)
        saved = _without(saved, missing)
    _write(room, saved, store.picture_path, file)


def _without(saved: SavedRoom, missing: Set[str]) -> SavedRoom:
    """The room as it is now, without its log and the files that are missing."""
    document = saved.document
    layers = [layer for layer in document.mask if not (isinstance(layer, Raster) and layer.sha256 in missing)]
    result = document.result if document.result is None or document.result.sha256 not in missing else None
    document = msgspec.structs.replace(document, mask=tuple(layers), result=result)
    return replace(saved, document=document, base=document, base_seq=saved.seq, records=())


def _write(room: str, saved: SavedRoom, path: Callable[[str], Path], file: IO[bytes]) -> None:
    log = [record for record in saved.records if record.seq > saved.base_seq]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ROOM, msgspec.json.format(msgspec.json.encode(_manifest(room, saved))))
        archive.writestr(BASE, msgspec.json.encode(saved.base))
        with archive.open(RECORDS, "w", force_zip64=True) as lines:
            for record in log:
                lines.write(msgspec.json.encode(record) + b"\n")
        for sha256 in sorted(needed_files(saved)):
            archive.write(path(sha256), f"files/{sha256}.png", zipfile.ZIP_STORED)  # PNGs are compressed already


def _manifest(room: str, saved: SavedRoom) -> Manifest:
    return Manifest(
        format="livedrag-room",
        version=VERSION,
        room=room,
        created=saved.created,
        exported=time.time(),
        seq=saved.seq,
        base_seq=saved.base_seq,
        links=[ArchivedLink(id=link.id, digest=link.digest, role=link.role, made=link.made) for link in saved.links],
        members=[ArchivedMember(**vars(member)) for member in saved.members],
    )


def import_room(
    store: Store, file: IO[bytes], limits: RoomLimits, *, as_new: bool = False, max_bytes: int = MAX_ARCHIVE_BYTES
) -> tuple[str, str]:
    """Add an exported room to the store.

    Args:
        limits: of this server.
        max_bytes: uncompressed.
        as_new: give it a new id and none of its links and members, so that it can exist beside the original.

    Returns:
        The room's id, and the secret of a new link for its owner.

    Raises:
        ArchiveError: it is not an exported room, or there is a room with its id already.
        StoreError: it cannot be saved.
    """
    with open_archive(file) as archive:
        archived = read_room(archive, limits, max_bytes)
        room = secrets.token_urlsafe(9) if as_new else archived.room
        if store.load(room).result() is not None:
            raise ArchiveError(f"there is a room {room!r} already: delete that one, or import this one with --as-new")
        for sha256 in archived.files:  # one at a time: together they may be larger than the memory
            store.put_picture(read_picture(archive, sha256, archived))
    secret = secrets.token_urlsafe(24)
    owner = Link(secrets.token_urlsafe(6), digest(secret), "owner", time.time())
    saved = archived.saved
    links, members = ((owner,), ()) if as_new else ((*saved.links, owner), saved.members)
    store.add(room, replace(saved, links=links, members=members)).result()
    return room, secret
