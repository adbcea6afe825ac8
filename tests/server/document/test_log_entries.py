"""The log in short."""

from __future__ import annotations

from livedrag.server.document.log_entries import MAX_ENTRIES, latest_entries
from livedrag.server.document.protocol import AddStroke, Reset, SetPrompt, StartRun, Stroke
from tests.server.document.test_document import D1, RED, a_room, by, do, undo


def test_everything_that_people_did_has_an_entry() -> None:
    room = a_room()
    eraser = Stroke(id="s", mode="erase", radius=3, points=[(5.0, 5.0)])
    records = [
        do(room, D1, "d"),
        by(room, "p2", AddStroke(stroke=eraser), "s"),
        room.start("p1", StartRun(op_id="go"), "r1"),
        room.end("arrived", sha256=RED, moment=3),
        undo(room),
        room.reset("p2", Reset(op_id="back")),
    ]
    assert [(e.seq, e.by, e.type, e.op_id, e.undoes) for e in latest_entries(reversed(records))] == [
        (1, "p1", "add_drag", "d", None),
        (2, "p2", "erase", "s", None),
        (3, "p1", "started", "r1", None),
        (4, "", "arrived", "", None),
        (5, "p1", "restore", "undo4", "r1"),
        (6, "p2", "was_reset", "back", None),
    ]


def test_only_the_latest_are_sent() -> None:
    room = a_room()
    records = [do(room, SetPrompt(prompt=str(number)), f"o{number}") for number in range(MAX_ENTRIES + 5)]
    assert [entry.seq for entry in latest_entries(reversed(records))] == list(range(6, MAX_ENTRIES + 6))
