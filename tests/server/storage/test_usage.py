"""How many bytes each room takes."""

from __future__ import annotations

from pathlib import Path

from livedrag.server.storage import Store
from livedrag.server.storage.usage import stored_rooms
from tests.server.storage.test_store import EMPTY, LINKS, leave_checkpoint, with_picture


def test_a_room_counts_with_its_log_pictures_and_checkpoints(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        document = with_picture(store, "teal")
        store.create("plain", document, LINKS).result(5)
        before = {room.id: room.bytes for room in stored_rooms(store, 10)}
        assert before["plain"] > store.pictures.size(document.picture.sha256) > 0
        leave_checkpoint(tmp_path, "plain")
        assert stored_rooms(store, 10)[0].bytes == before["plain"] + len("...")


def test_the_rooms_used_last_are_listed(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for room in ("first", "second", "third"):
            store.create(room, EMPTY, LINKS).result(5)
        assert [room.id for room in stored_rooms(store, 2)] == ["third", "second"]
        assert store.count_rooms().result(5) == 3
