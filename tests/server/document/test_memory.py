"""What a room remembers is bounded by the strokes it holds, and what it forgets is the oldest."""

from __future__ import annotations

from livedrag.server.document.document import RoomDocument
from livedrag.server.document.memory import MAX_HELD_POINTS, horizon, strokes_of
from livedrag.server.document.protocol import (
    AddStroke,
    ClearMask,
    Document,
    Edit,
    Operation,
    Picture,
    RemoveStroke,
    SetPrompt,
    Stroke,
    Undo,
)
from tests.quiet import MODEL


def stroke(id: str, points: int) -> Stroke:
    return Stroke(id=id, mode="paint", radius=3, points=[(5.0, 5.0)] * points)


def test_the_oldest_strokes_are_beyond_the_horizon() -> None:
    a, b, c = stroke("a", 40), stroke("b", 40), stroke("c", 40)
    assert horizon((), [(1, [a]), (2, [b]), (3, [c])], 120) == 0
    assert horizon((), [(1, [a]), (2, [b]), (3, [c])], 119) == 1
    assert horizon((c,), [(3, [c]), (2, [b]), (1, [a])], 79) == 2
    assert horizon((a,), [(1, [a]), (2, [b]), (3, [a, b])], 80) == 0, "a stroke counts once"


def test_a_room_holds_few_points_whatever_is_painted_removed_and_undone() -> None:
    room = a_room()
    edits = 0

    def edit(op: Operation, by: str) -> None:
        nonlocal edits
        edits += 1
        room.edit(by, Edit(op_id=f"o{edits}", base=room.seq, op=op))

    for cycle in range(8):
        for index in range(45):
            edit(AddStroke(stroke=stroke(f"{cycle}-{index}", 2000)), "p")
        for number in range(300):
            edit(SetPrompt(prompt=str(number)), "another")
        edit(ClearMask(), "p")
        room.undo("p", Undo(op_id=f"undo{cycle}"))
        for index in range(20):
            edit(RemoveStroke(id=f"{cycle}-{index}"), "p")
        edit(ClearMask(), "p")
        assert held_points(room) <= MAX_HELD_POINTS
    assert room.known("o1") is None
    assert room.history("p")[0] == "clear_mask"


def test_undoing_the_same_strokes_again_and_again_forgets_nothing() -> None:
    room = a_room()
    for index in range(50):
        op = AddStroke(stroke=stroke(f"s{index}", 2000))
        room.edit("p", Edit(op_id=f"o{index}", base=room.seq, op=op))
    for number in range(100):
        room.edit("p", Edit(op_id=f"clear{number}", base=room.seq, op=ClearMask()))
        room.undo("p", Undo(op_id=f"undo{number}"))
    assert held_points(room) == 100_000
    assert room.known("o0") is not None


def a_room() -> RoomDocument:
    return RoomDocument("room", Document(picture=Picture(sha256="0" * 64, width=64, height=48)), MODEL)


def held_points(room: RoomDocument) -> int:
    """Points of all strokes that the document, the log and the history of a room refer to."""
    held = [layer for layer in room.document.mask if isinstance(layer, Stroke)]
    held += [stroke for record in room._known.values() for stroke in strokes_of(record)]
    held += [stroke for change in room._history.changes() for stroke in change.strokes]
    return sum({id(stroke): len(stroke.points) for stroke in held}.values())
