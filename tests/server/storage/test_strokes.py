"""Long strokes are stored and held once, whatever is cleared and undone, and are deleted with the last record."""

from __future__ import annotations

import sqlite3
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from livedrag.server.document.document import RoomDocument
from livedrag.server.document.protocol import (
    AddStroke,
    ClearMask,
    Document,
    Edit,
    Edited,
    Invert,
    Operation,
    Picture,
    RemoveStroke,
    Restore,
    SetPrompt,
    Stroke,
    Undo,
)
from livedrag.server.settings import MIB
from livedrag.server.storage import Store
from livedrag.server.storage.store import DATABASE, MAX_LOG_BYTES
from livedrag.server.storage.strokes import (
    Digests,
    pack_document,
    pack_record,
    pack_stroke,
    unpack_document,
    unpack_record,
    unpack_stroke,
)
from tests.quiet import MODEL

EMPTY = Document(picture=Picture(sha256="0" * 64, width=64, height=48))


def stroke(id: str, points: int) -> Stroke:
    return Stroke(id=id, mode="paint", radius=3.0, points=[(float(number % 60), 5.5) for number in range(points)])


def strokes_in(folder: Path) -> int:
    with sqlite3.connect(folder / DATABASE) as database:
        (count,) = database.execute("SELECT count(*) FROM strokes").fetchone()
    return int(count)


def test_records_and_documents_come_back_as_they_were() -> None:
    layers = (stroke("a", 2), stroke("b", 500), Invert(id="i"))
    packed_document = pack_document(msgspec.structs.replace(EMPTY, mask=layers))
    packed = [
        pack_record(Edited(seq=1, op_id="o", by="p", op=op))
        for op in (AddStroke(stroke=layers[1]), Restore(mask=layers), SetPrompt(prompt="a stored_stroke"))
    ]
    strokes = {sha256: unpack_stroke(pack_stroke(stroke)) for one in packed for sha256, stroke in one.strokes.items()}
    assert len(strokes) == 1
    assert all(len(one.data) < 500 for one in (*packed, packed_document))
    added, restored, prompted = (unpack_record(one.data, strokes) for one in packed)
    assert isinstance(added, Edited)
    assert isinstance(restored, Edited)
    assert isinstance(added.op, AddStroke)
    assert isinstance(restored.op, Restore)
    assert restored.op.mask == unpack_document(packed_document.data, strokes).mask == layers
    assert restored.op.mask[1] is added.op.stroke
    assert prompted == Edited(seq=1, op_id="o", by="p", op=SetPrompt(prompt="a stored_stroke"))
    with pytest.raises(msgspec.ValidationError, match="is missing"):
        unpack_record(packed[0].data, {})


def test_the_digest_of_a_stroke_is_forgotten_with_it() -> None:
    digests = Digests()
    strokes = [stroke("a", 50), stroke("b", 50)]
    first = [digests.of(one) for one in strokes]
    assert [digests.of(one) for one in strokes] == first
    assert digests.of(stroke("a", 50)) == first[0]
    assert len(digests) == 2
    strokes.clear()
    assert len(digests) == 0


class Recorded:
    """A room whose edits are stored."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.room = RoomDocument("r", EMPTY, MODEL)
        store.create("r", EMPTY, []).result()

    def edit(self, op: Operation) -> None:
        self._append(self.room.edit("p", Edit(op_id=f"o{self.room.seq}", base=self.room.seq, op=op)))

    def undo(self) -> None:
        self._append(self.room.undo("p", Undo(op_id=f"o{self.room.seq}")))

    def _append(self, record: Edited) -> None:
        self.store.append("r", record, self.room.document)


def test_undoing_a_large_mask_again_and_again_costs_little_disk_and_memory(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        recorded = Recorded(store)
        for number in range(50):
            recorded.edit(AddStroke(stroke=stroke(f"s{number}", 2000)))
        for _ in range(20):
            recorded.edit(ClearMask())
            recorded.undo()
        store.barrier().result()
        document = recorded.room.document
    assert sum(path.stat().st_size for path in tmp_path.glob(f"{DATABASE}*")) < 3 * MAX_LOG_BYTES
    with Store(tmp_path) as store:
        tracemalloc.start()
        saved = store.load("r").result()
        assert saved is not None
        opened = RoomDocument("r", saved.base, MODEL, seq=saved.base_seq, records=saved.records)
        _, opening = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert opened.document == document
        assert opened.history("p")[1] == "clear_mask"
    tracemalloc.start()
    copy = msgspec.convert(msgspec.to_builtins(document), Document)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert copy == document
    assert opening < 2 * size + MIB


def test_strokes_that_nothing_refers_to_are_deleted(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        recorded = Recorded(store)
        for number in range(100):
            recorded.edit(AddStroke(stroke=stroke(f"s{number}", 1500 + number)))
            if number >= 10:
                recorded.edit(RemoveStroke(id=f"s{number - 10}"))
        for number in range(2100):
            recorded.edit(SetPrompt(prompt=str(number)))
        store.barrier().result()
        saved = store.load("r").result()
        assert saved is not None
        assert saved.document == recorded.room.document
        assert len(saved.document.mask) == 10
    assert strokes_in(tmp_path) == 10


def test_a_room_of_many_large_records_keeps_few_of_them(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        recorded = Recorded(store)
        for number in range(500):
            recorded.edit(AddStroke(stroke=stroke(f"s{number}", 2000 - number)))
            recorded.edit(RemoveStroke(id=f"s{number}"))
        saved = store.load("r").result()
        assert saved is not None
        assert sum(pack_record(record).size for record in saved.records) < 2 * MAX_LOG_BYTES + 2 * MIB
        assert store.delete("r").result()
    assert strokes_in(tmp_path) == 0
