"""Checking stored rooms: their logs, and the content of their pictures."""

from __future__ import annotations

from collections.abc import Iterator

from livedrag.server.storage.errors import Damaged
from livedrag.server.storage.saved import SavedRoom, folded, references
from livedrag.server.storage.store import Store


def check_room(store: Store, room: str) -> Iterator[str]:
    """Everything that is wrong with a room, one line each."""
    try:
        saved = store.load(room).result()
    except Damaged as error:
        yield str(error)
        return
    if saved is None:
        return
    if saved.damage:
        yield f"{saved.damage}{_consequence(saved)}"
    current = {sha256 for _, sha256 in references(saved.document)}
    earlier = {sha256 for _, document in folded(saved) for kind, sha256 in references(document) if kind == "mask"}
    for sha256 in sorted(current | earlier):
        if not store.pictures.is_whole(sha256):
            state = "damaged" if store.pictures.size(sha256) else "missing"
            yield f"the picture {sha256}.png is {state}: restore it from a backup"


def _consequence(saved: SavedRoom) -> str:
    if saved.complete:
        return ": the document is complete, but edits before cannot be undone"
    return f": the room opens as it was after record {saved.seq}, read-only"
