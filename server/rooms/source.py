"""The picture that a result was made from, if who asks may see it."""

from __future__ import annotations

import contextlib

from livedrag.edit_metadata import EditMetadata
from livedrag.server.access.password import Caller
from livedrag.server.document.protocol import BaseReplaced
from livedrag.server.errors import ServiceError
from livedrag.server.rooms.registry import RoomRegistry


async def find_source(registry: RoomRegistry, metadata: EditMetadata, caller: Caller) -> str | None:
    """SHA-256 of the stored picture that a result was made from; None if it is not in a room that the caller is in.

    Anyone can write a SHA-256 into metadata: that alone must not show them a picture.
    """
    if not metadata.room or not caller.cookie:
        return None
    with contextlib.suppress(ServiceError):
        room, _ = await registry.admission.visit(metadata.room, caller, "")
        replaced = {record.picture.sha256 for record in room.log.records if isinstance(record, BaseReplaced)}
        sha256 = metadata.picture.file_sha256
        if sha256 in {room.document.picture.sha256} | replaced and registry.store.picture_path(sha256).exists():
            return sha256
    return None
