"""RoomDocument: what is accepted, what is refused and why, and that the document is the fold of the log."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from livedrag.server.document import history
from livedrag.server.document.checks import MAX_BRANCH_MARKS, Refused
from livedrag.server.document.document import RoomDocument
from livedrag.server.document.fold import fold
from livedrag.server.document.history import content_of, heights
from livedrag.server.document.protocol import (
    AddDrag,
    AddStroke,
    BranchMark,
    ClearMask,
    DocRecord,
    Document,
    Edit,
    Edited,
    EditFurther,
    GrowMask,
    InvertMask,
    MarkBranch,
    MaskLayer,
    MoveDrag,
    Operation,
    Picture,
    Raster,
    Redo,
    RemoveDrag,
    RemoveStroke,
    Reset,
    Restore,
    RestoredDrag,
    RestoreRun,
    SeekMoment,
    SetPin,
    SetPrompt,
    SetSettings,
    SetTitle,
    StartRun,
    StopRun,
    Stroke,
    Undo,
)
from tests.quiet import MODEL

EMPTY = Document(picture=Picture(sha256="0" * 64, width=64, height=48))
D1 = AddDrag(id="d1", handle=(10.0, 10.0), target=(30.0, 20.0))


def a_room() -> RoomDocument:
    return RoomDocument("room", EMPTY, MODEL)


def do(room: RoomDocument, op: Operation, op_id: str = "o") -> DocRecord:
    return room.edit("p1", Edit(op_id=op_id, base=room.seq, op=op))


def running_room() -> RoomDocument:
    room = a_room()
    do(room, D1)
    room.start("p1", StartRun(op_id="go"), "r1")
    return room


def test_edits_are_numbered_and_folded() -> None:
    room = a_room()
    assert [do(room, op).seq for op in (D1, SetPrompt(prompt="a bear"), RemoveDrag(id="d1"))] == [1, 2, 3]
    assert room.document.prompt == "a bear"
    assert room.document.drags == {}


def test_an_operation_is_known_when_it_comes_again() -> None:
    room = a_room()
    record = do(room, D1, "once")
    assert room.known("once") is record
    assert room.known("never") is None


@pytest.mark.parametrize(
    ("op", "reason", "quoted"),
    [
        (AddDrag(id="d1", handle=(1, 1), target=(5, 5)), "invalid", "'d1'"),
        (
            AddDrag(id="d2", handle=(64.5, 1), target=(5, 5)),
            "invalid",
            r"(64.5, 1) lies outside the picture of 64 x 48",
        ),
        (AddDrag(id="d2", handle=(1, 1), target=(5, -3)), "invalid", "target (5, -3)"),
        (AddDrag(id="d2", handle=(5, 5), target=(5.5, 5)), "invalid", "(5, 5) lies on its target (5.5, 5)"),
        (MoveDrag(id="d1", target=(10, 10)), "invalid", "lies on its target"),
        (MoveDrag(id="d1"), "invalid", "'d1'"),
        (MoveDrag(id="none", target=(1, 1)), "unknown", "'none'"),
        (RemoveDrag(id="none"), "unknown", "'none'"),
        (SetSettings(settings={"colour": "red"}), "invalid", "'colour'"),
        (SetSettings(settings={"max_iterations": 2.5}), "invalid", "2.5"),
        (SetSettings(settings={"max_iterations": True}), "invalid", "True"),
        (SetSettings(settings={"max_iterations": -1}), "invalid", "-1"),
        (SetSettings(settings={"reference_control": 1}), "invalid", "true or false"),
        (SetSettings(settings={"latent_lr": "fast"}), "invalid", "'fast'"),
        (SetSettings(settings={"preset": "magic"}), "invalid", "'magic': choose one of official, paper"),
        (
            SetSettings(settings={"lora_targets": "to_q nose"}),
            "invalid",
            "'to_q nose', but must be one or more of to_q, to_k",
        ),
        (SetSettings(settings={"background": "loose"}), "invalid", "loss or keep"),
        (SetSettings(settings={"lora_targets": " "}), "invalid", "' '"),
        (SetSettings(settings={"preview_every": 0}), "invalid", "preview_every is 0, but must be between 1 and 99"),
        (SetSettings(settings={"latent_lr": 11.5}), "invalid", "latent_lr is 11.5, but must be between 1e-06 and 10"),
        (RemoveStroke(id="none"), "unknown", "'none'"),
        (InvertMask(id="s1"), "invalid", "'s1'"),
        (AddStroke(stroke=Stroke(id="s1", mode="paint", radius=3, points=[(5, 5)])), "invalid", "'s1'"),
        (SetSettings(settings={"seed": 2**31}), "invalid", "seed is 2147483648, but must be between 0 and 2147483647"),
    ],
)
def test_invalid_operations_are_refused_with_their_value(op: Operation, reason: str, quoted: str) -> None:
    room = a_room()
    do(room, D1)
    do(room, AddStroke(stroke=Stroke(id="s1", mode="paint", radius=3, points=[(5, 5)])))
    before = (room.document, room.seq)
    with pytest.raises(Refused) as caught:
        do(room, op)
    assert caught.value.reason == reason
    assert quoted in str(caught.value)
    assert (room.document, room.seq) == before


def test_a_room_takes_64_drags() -> None:
    room = a_room()
    for index in range(64):
        do(room, like(D1, id=f"d{index}"))
    with pytest.raises(Refused, match="65 drags, the limit is 64") as caught:
        do(room, like(D1, id="one-more"))
    assert caught.value.reason == "too_many"


def like(drag: AddDrag, **changes: Any) -> AddDrag:
    return AddDrag(**{"id": drag.id, "handle": drag.handle, "target": drag.target, **changes})


def test_the_last_writer_of_a_property_wins_and_the_other_property_stays() -> None:
    room = a_room()
    do(room, D1)
    do(room, MoveDrag(id="d1", target=(40, 40)))
    do(room, MoveDrag(id="d1", handle=(12, 12)))
    do(room, MoveDrag(id="d1", target=(41, 41)))
    assert (room.document.drags["d1"].handle, room.document.drags["d1"].target) == ((12, 12), (41, 41))


def test_settings_go_back_to_the_default() -> None:
    room = a_room()
    do(room, SetSettings(settings={"max_iterations": 5, "preset": "paper"}))
    do(room, SetSettings(settings={"max_iterations": None}))
    assert room.document.settings == {"preset": "paper"}


def test_a_run_starts_stops_and_ends_once() -> None:
    room = running_room()
    with pytest.raises(Refused) as caught:
        room.start("p1", StartRun(op_id="again"), "r2")
    assert caught.value.reason == "busy"
    room.stop("p1", StopRun(op_id="halt"))
    ended = room.end("stopped", iterations=3, tracked={"d1": (20, 15), "gone": (1, 1)}, sha256="a" * 64)
    assert ended.tracked == {"d1": (20, 15)}
    assert room.document.run == ended.run
    assert room.document.drags["d1"].tracked == (20, 15)
    assert not room.running
    with pytest.raises(Refused, match="nothing is running"):
        room.stop("p1", StopRun(op_id="halt2"))


def test_a_run_needs_something_to_drag() -> None:
    with pytest.raises(Refused, match="nothing to drag"):
        a_room().start("p1", StartRun(op_id="go"), "r1")


def test_a_run_needs_something_that_may_change() -> None:
    room = a_room()
    do(room, D1)
    with pytest.raises(
        Refused, match="the mask protects the whole picture: paint an editable area or clear the mask"
    ) as caught:
        room.start("p1", StartRun(op_id="go"), "r1", frozen=True)
    assert caught.value.reason == "invalid"


def test_a_target_may_be_where_content_was_but_not_where_it_is() -> None:
    room = running_room()
    room.end("stopped", tracked={"d1": (20, 15)})
    with pytest.raises(Refused, match=r"\(20, 15\) lies on its target"):
        do(room, MoveDrag(id="d1", target=(20, 15)))
    do(room, MoveDrag(id="d1", target=D1.handle))
    assert room.document.drags["d1"].target == D1.handle


def test_a_run_without_a_picture_keeps_the_last_one() -> None:
    room = running_room()
    room.end("arrived", sha256="a" * 64)
    room.start("p1", StartRun(op_id="go2"), "r2")
    ended = room.end("stopped")
    assert ended.result is not None
    assert ended.result.run == "r1"


def test_an_interrupted_run_goes_on_under_its_own_id() -> None:
    room = running_room()
    assert room.document.run is not None
    run = type(room.document.run)(id="r1", by="p1", interrupted=True)
    document = type(room.document)(picture=EMPTY.picture, drags=room.document.drags, run=run)
    reopened = RoomDocument("room", document, MODEL, seq=2)
    assert not reopened.running
    started = reopened.start("p2", StartRun(op_id="go"), "r9")
    assert (started.run.id, started.run.by, started.run.interrupted) == ("r1", "p2", False)


def test_targets_and_handles_move_during_a_run_but_the_prompt_does_not() -> None:
    room = running_room()
    do(room, MoveDrag(id="d1", target=(40, 40)))
    do(room, SetSettings(settings={"latent_lr": 0.02}))
    for op in (SetPrompt(prompt="x"), SetSettings(settings={"lora_steps": 10})):
        with pytest.raises(Refused, match="press Stop first") as caught:
            do(room, op)
        assert caught.value.reason == "busy"
    with pytest.raises(Refused, match="press Stop"):
        room.reset("p1", Reset(op_id="back"))


def test_a_handle_grabbed_after_the_run_last_looked_stays_where_it_was_put() -> None:
    room = running_room()
    seen = room.seq
    do(room, MoveDrag(id="d1", handle=(15, 15)))
    room.end("stopped", tracked={"d1": (20, 20)}, seen=seen)
    assert room.document.drags["d1"].tracked is None


def lost_drag() -> RoomDocument:
    """A room whose run has ended with a lost drag."""
    room = running_room()
    ended = room.end("exhausted", tracked={"d1": (20, 20)}, lost=("d1", "gone"))
    assert ended.lost == ("d1",)
    assert room.document.drags["d1"].lost
    return room


def test_a_lost_drag_stays_lost_until_it_is_edited_or_tried_again() -> None:
    room = lost_drag()
    do(room, SetPrompt(prompt="a teddy bear"))
    assert room.document.drags["d1"].lost
    for change in (MoveDrag(id="d1", handle=(15, 15)), MoveDrag(id="d1", target=(25, 20))):
        room = lost_drag()
        do(room, change)
        assert not room.document.drags["d1"].lost
    room = lost_drag()
    room.start("p1", StartRun(op_id="again"), "r2")
    assert not room.document.drags["d1"].lost
    room = lost_drag()
    room.reset("p1", Reset(op_id="back"))
    assert not room.document.drags["d1"].lost
    room = lost_drag()
    room.seek("p1", SeekMoment(op_id="jump", moment=4), {"d1": (15.0, 12.0)})
    assert not room.document.drags["d1"].lost


def test_reset_forgets_where_the_content_went() -> None:
    room = running_room()
    room.end("arrived", tracked={"d1": (20, 20)}, sha256="a" * 64)
    room.reset("p1", Reset(op_id="back"))
    assert (room.document.run, room.document.result, room.document.drags["d1"].tracked) == (None, None, None)
    assert room.document.drags["d1"].handle == D1.handle


def test_a_loaded_mask_replaces_what_was_painted() -> None:
    room = a_room()
    do(room, AddStroke(stroke=Stroke(id="s", mode="paint", radius=3, points=[(5, 5)])))
    room.load_mask("p1", "o", Raster(id="m", sha256="f" * 64))
    assert [type(layer) for layer in room.document.mask] == [Raster]
    do(room, ClearMask())
    assert room.document.mask == ()


def test_a_mask_has_a_limit() -> None:
    room = a_room()
    points = [(5.0, 5.0)] * 2000
    for index in range(50):
        do(room, AddStroke(stroke=Stroke(id=f"s{index}", mode="paint", radius=3, points=points)))
    with pytest.raises(Refused, match="100000") as caught:
        do(room, AddStroke(stroke=Stroke(id="s", mode="paint", radius=3, points=points)))
    assert caught.value.reason == "too_many"


# Undo and redo -------------------------------------------------------------------------------------------------------


def by(room: RoomDocument, person: str, op: Operation, op_id: str) -> Edited:
    return room.edit(person, Edit(op_id=op_id, base=room.seq, op=op))


def undo(room: RoomDocument, person: str = "p1") -> Edited:
    return room.undo(person, Undo(op_id=f"undo{room.seq}"))


def redo(room: RoomDocument, person: str = "p1") -> Edited:
    return room.redo(person, Redo(op_id=f"redo{room.seq}"))


def stroke(id: str) -> Stroke:
    return Stroke(id=id, mode="paint", radius=3, points=[(5.0, 5.0)])


ONE_OF_EACH: list[Operation] = [
    AddDrag(id="d2", handle=(1.0, 2.0), target=(9.0, 9.0)),
    MoveDrag(id="d1", target=(40.0, 40.0)),
    MoveDrag(id="d1", handle=(12.0, 12.0), target=(41.0, 41.0)),
    RemoveDrag(id="d1"),
    AddStroke(stroke=stroke("s2")),
    RemoveStroke(id="s1"),
    InvertMask(id="i1"),
    GrowMask(id="g1", pixels=3.0),
    ClearMask(),
    SetPrompt(prompt="a bear"),
    SetSettings(settings={"max_iterations": 5, "preset": None}),
    MarkBranch(moment=3, mark=BranchMark(name="theirs")),
    SetPin(id="n1", at=(5.0, 6.0)),
    SetPin(id="n0", at=(7.0, 6.0)),
    SetPin(id="n0"),
    SetTitle(title="Bear"),
]


@pytest.mark.parametrize("op", ONE_OF_EACH, ids=lambda op: type(op).__name__)
def test_every_edit_can_be_undone_and_done_again(op: Operation) -> None:
    room = a_room()
    begun: list[Operation] = [D1, AddStroke(stroke=stroke("s1")), SetSettings(settings={"preset": "paper"})]
    begun.append(SetPin(id="n0", at=(1.0, 2.0)))
    for number, first in enumerate(begun):
        by(room, "p2", first, f"f{number}")
    before = room.document
    edited = by(room, "p1", op, "mine")
    after = room.document
    assert after != before
    for _ in range(2):
        assert room.history("p1") == (edited.op.__struct_config__.tag, None)
        undone = undo(room)
        assert (room.document, undone.undoes) == (before, "mine")
        assert room.history("p1") == (None, edited.op.__struct_config__.tag)
        assert redo(room).redoes == "mine"
        assert room.document == after


def test_undo_is_ones_own_and_goes_back_step_by_step() -> None:
    room = a_room()
    by(room, "p1", D1, "1")
    by(room, "p2", SetPrompt(prompt="theirs"), "2")
    by(room, "p1", MoveDrag(id="d1", target=(40.0, 40.0)), "3")
    assert undo(room).undoes == "3"
    assert undo(room).undoes == "1"
    assert (room.document.drags, room.document.prompt) == ({}, "theirs")
    with pytest.raises(Refused, match=r"^nothing to undo$") as caught:
        undo(room)
    assert caught.value.reason == "nothing"
    assert redo(room).redoes == "1"
    assert redo(room).redoes == "3"
    assert room.document.drags["d1"].target == (40.0, 40.0)
    with pytest.raises(Refused, match=r"^nothing to redo$"):
        redo(room)


def test_undo_skips_what_others_have_changed_since() -> None:
    room = a_room()
    by(room, "p1", D1, "1")
    by(room, "p1", MoveDrag(id="d1", handle=(12.0, 12.0), target=(41.0, 41.0)), "2")
    by(room, "p2", MoveDrag(id="d1", target=(50.0, 40.0)), "3")
    undone = undo(room)
    assert undone.op == Restore(drags={"d1": RestoredDrag(handle=(10.0, 10.0))})
    assert room.document.drags["d1"].target == (50.0, 40.0)
    with pytest.raises(Refused, match="nothing to undo: others have changed the same things since") as caught:
        undo(room)  # adding the drag: it is theirs too by now
    assert caught.value.reason == "nothing"
    assert room.history("p1") == (None, "move_drag")


def test_an_edit_of_which_nothing_is_left_is_passed_over() -> None:
    room = a_room()
    by(room, "p1", SetPrompt(prompt="mine"), "1")
    by(room, "p1", SetSettings(settings={"max_iterations": 5}), "2")
    by(room, "p2", SetSettings(settings={"max_iterations": 6}), "3")
    assert room.history("p1")[0] == "set_prompt"
    assert undo(room).undoes == "1"
    assert (room.document.prompt, room.document.settings) == ("", {"max_iterations": 6})


def test_what_others_have_changed_for_good_is_not_looked_at_again() -> None:
    """Two people move the same drag back and forth, and are sent what they can undo each time."""
    room = a_room()
    by(room, "p1", D1, "add")
    for number in range(1000):
        person = f"p{number % 2 + 1}"
        by(room, person, MoveDrag(id="d1", target=(20.0 + number % 20, 20.0)), f"o{number}")
        room.history("p1")
        room.history("p2")
    assert room.history("p1") == (None, None)
    assert min(timeit.repeat(lambda: room.history("p1"), number=100, repeat=20)) < 0.1
    with pytest.raises(Refused, match="nothing to undo: others have changed the same things since"):
        undo(room)


def test_what_could_be_undone_is_found_quickly_in_a_mask_of_many_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    def count(mask: tuple[MaskLayer, ...]) -> dict[str, int]:
        built.append(len(mask))
        return heights(mask)

    monkeypatch.setattr(history, "heights", count)
    room = a_room()
    for number in range(2000):
        by(room, "p1", AddStroke(stroke=stroke(f"s{number}")), f"o{number}")
    by(room, "p1", ClearMask(), "clear")
    undo(room)
    built.clear()
    for number in range(5):
        by(room, "p2", SetPrompt(prompt=str(number)), f"e{number}")
        for person in ("p1", "p2"):
            room.history(person)
    assert built == [2000], "once for all, as long as the mask is the same"
    assert min(timeit.repeat(lambda: room.history("p1"), number=1, repeat=20)) < 0.1


def test_what_is_gone_and_cannot_come_back_is_forgotten_while_the_room_is_open() -> None:
    room = a_room()
    by(room, "p2", D1, "saved")
    for number in range(3000):
        by(room, "p1", AddDrag(id=f"x{number}", handle=(1.0, 1.0), target=(9.0, 9.0)), f"add{number}")
        by(room, "p1", RemoveDrag(id=f"x{number}"), f"remove{number}")
    written = room._history._written
    assert len(written) < 5 * history.MAX_EDITS + history.SPARE_PROPERTIES
    assert {("drag", "d1"), ("drag", "x2999")} <= written.keys()
    assert ("drag", "x0") not in written
    assert room.history("p2") == ("add_drag", None)
    by(room, "p2", MoveDrag(id="d1", handle=(5.0, 5.0)), "mine")
    with pytest.raises(Refused, match="handle of drag 'd1' was changed by others"):
        room.edit("p1", Edit(op_id="late", base=1, op=MoveDrag(id="d1", handle=(6.0, 6.0)), offline=True))


def test_a_drag_that_others_took_away_does_not_come_back_by_moving_it() -> None:
    room = a_room()
    by(room, "p2", D1, "1")
    by(room, "p1", MoveDrag(id="d1", target=(41.0, 41.0)), "2")
    by(room, "p2", RemoveDrag(id="d1"), "3")
    with pytest.raises(Refused, match="others have changed the same things"):
        undo(room)
    assert undo(room, "p2").undoes == "3"
    assert room.document.drags["d1"].target == (41.0, 41.0)


def test_a_new_edit_forgets_what_was_taken_back() -> None:
    room = a_room()
    by(room, "p1", SetPrompt(prompt="one"), "1")
    undo(room)
    by(room, "p1", SetPrompt(prompt="two"), "2")
    with pytest.raises(Refused, match="nothing"):
        redo(room)


def test_a_mask_comes_back_below_what_others_have_painted_since() -> None:
    room = a_room()
    for name in ("a", "b"):
        by(room, "p1", AddStroke(stroke=stroke(name)), name)
    by(room, "p1", ClearMask(), "clear")
    by(room, "p2", AddStroke(stroke=stroke("c")), "c")
    undo(room)
    assert [layer.id for layer in room.document.mask] == ["a", "b", "c"]
    assert undo(room).op == RemoveStroke(id="b")
    assert [layer.id for layer in room.document.mask] == ["a", "c"]
    assert undo(room, "p2").op == RemoveStroke(id="c")
    assert redo(room, "p2").op == AddStroke(stroke=stroke("c")), "a stroke goes alone, not with the whole mask"


def test_a_loaded_mask_is_undone_too() -> None:
    room = a_room()
    by(room, "p1", AddStroke(stroke=stroke("a")), "1")
    room.load_mask("p1", "2", Raster(id="m", sha256="f" * 64))
    undo(room)
    assert [layer.id for layer in room.document.mask] == ["a"]
    redo(room)
    assert [layer.id for layer in room.document.mask] == ["m"]


def test_a_handle_comes_back_to_where_its_content_is() -> None:
    room = running_room()
    room.end("stopped", tracked={"d1": (20.0, 15.0)})
    by(room, "p1", MoveDrag(id="d1", handle=(12.0, 12.0)), "grab")
    undo(room)
    assert room.document.drags["d1"].handle == (20.0, 15.0)
    assert room.handle_version("d1") == room.seq, "else the worker would not look for it there"


def test_drags_that_are_gone_leave_nothing_behind() -> None:
    room = a_room()
    for number in range(20):
        by(room, "p1", AddDrag(id=f"d{number}", handle=(10.0, 10.0), target=(30.0, 20.0)), f"a{number}")
        by(room, "p1", RemoveDrag(id=f"d{number}"), f"r{number}")
    assert [room.handle_version(f"d{number}") for number in range(20)] == [0] * 20
    undo(room)
    assert room.handle_version("d19") == room.seq


def test_undo_of_what_cannot_change_waits_for_the_end_of_a_run() -> None:
    room = a_room()
    by(room, "p1", D1, "1")
    by(room, "p1", SetPrompt(prompt="mine"), "2")
    room.start("p1", StartRun(op_id="go"), "r1")
    with pytest.raises(Refused, match="the prompt cannot change back during a run: press Stop first") as caught:
        undo(room)
    assert caught.value.reason == "busy"
    room.end("stopped")
    undo(room)
    assert room.document.prompt == ""


def test_a_room_opened_again_knows_what_everybody_did() -> None:
    room = a_room()
    log: list[DocRecord] = [
        by(room, "p1", D1, "1"),
        by(room, "p2", SetPrompt(prompt="theirs"), "2"),
        by(room, "p1", MoveDrag(id="d1", target=(40.0, 40.0)), "3"),
        undo(room),
    ]
    again = RoomDocument("room", EMPTY, MODEL, records=log)
    assert (again.document, again.seq) == (room.document, room.seq)
    assert again.history("p1") == room.history("p1") == ("add_drag", "move_drag")
    assert again.history("p2") == ("set_prompt", None)
    assert again.known("3") == log[2]
    assert redo(again) == redo(room)


def test_only_so_many_edits_are_remembered() -> None:
    room = a_room()
    for number in range(2100):
        by(room, "p1", SetPrompt(prompt=str(number)), f"o{number}")
    assert room.known("o0") is None
    assert room.known("o2099") is not None


# Offline -------------------------------------------------------------------------------------------------------------


def offline(room: RoomDocument, op: Operation, base: int) -> Edited:
    return room.edit("p1", Edit(op_id=f"off{room.seq}", base=base, op=op, offline=True))


@pytest.mark.parametrize(
    ("theirs", "mine", "what"),
    [
        (MoveDrag(id="d1", target=(40.0, 40.0)), MoveDrag(id="d1", target=(50.0, 40.0)), "the target of drag 'd1'"),
        (RemoveDrag(id="d1"), MoveDrag(id="d1", handle=(50.0, 40.0)), "the handle of drag 'd1'"),
        (MoveDrag(id="d1", target=(40.0, 40.0)), RemoveDrag(id="d1"), "drag 'd1'"),
        (SetPrompt(prompt="x"), SetPrompt(prompt="y"), "the prompt"),
        (
            SetSettings(settings={"latent_lr": 0.5}),
            SetSettings(settings={"latent_lr": 0.1}),
            "the setting 'latent_lr'",
        ),
        (AddStroke(stroke=stroke("s2")), ClearMask(), "the mask layer 's2'"),
    ],
)
def test_an_edit_made_offline_is_stale_where_others_have_changed_the_same(
    theirs: Operation, mine: Operation, what: str
) -> None:
    room = a_room()
    by(room, "p2", D1, "1")
    base = room.seq
    by(room, "p2", theirs, "2")
    with pytest.raises(Refused, match=f"{what} was changed by others while you were offline") as caught:
        offline(room, mine, base)
    assert caught.value.reason == "stale"
    assert offline(room, SetSettings(settings={"seed": 7}), base).seq == base + 2, "no one has changed that"


def test_an_edit_made_online_wins_over_what_it_had_not_seen() -> None:
    room = a_room()
    by(room, "p2", SetPrompt(prompt="theirs"), "1")
    room.edit("p1", Edit(op_id="2", base=0, op=SetPrompt(prompt="mine")))
    assert room.document.prompt == "mine"


def test_ones_own_edits_make_nothing_stale() -> None:
    room = a_room()
    offline(room, SetPrompt(prompt="one"), 0)
    offline(room, SetPrompt(prompt="two"), 0)
    assert room.document.prompt == "two"


def test_what_was_edited_before_all_that_is_remembered_may_be_stale() -> None:
    room = RoomDocument("room", replace(EMPTY, prompt="saved"), MODEL, seq=100)
    with pytest.raises(Refused, match="the prompt"):
        offline(room, SetPrompt(prompt="mine"), 99)
    offline(room, D1, 99)


# The timeline --------------------------------------------------------------------------------------------------------


def test_the_content_stays_at_the_moment_of_a_jump_until_the_reset() -> None:
    room = running_room()
    seeked = room.seek("p2", SeekMoment(op_id="s", moment=4), {"d1": (15.0, 12.0), "gone": (1.0, 1.0)})
    assert (seeked.tracked, room.document.moment) == ({"d1": (15.0, 12.0)}, 4)
    assert room.document.drags["d1"].tracked == (15.0, 12.0)
    assert room.running
    room.end("stopped")
    room.reset("p1", Reset(op_id="back"))
    assert room.document.moment is None


# Branches of the timeline --------------------------------------------------------------------------------------------


def test_branches_are_named_removed_and_given_back_by_undo() -> None:
    room = a_room()
    do(room, MarkBranch(moment=4, mark=BranchMark(name="chin up")))
    do(room, MarkBranch(moment=4, mark=BranchMark(name="chin up", removed=True)), "gone")
    assert room.document.branches == {"4": BranchMark(name="chin up", removed=True)}
    undo(room)
    assert room.document.branches == {"4": BranchMark(name="chin up")}
    undo(room)
    assert room.document.branches == {}
    redo(room)
    do(room, MarkBranch(moment=4), "cleared")
    assert room.document.branches == {}


def test_another_base_picture_has_no_marks_and_undo_brings_them_back() -> None:
    room = a_room()
    do(room, D1)
    run_to(room, RED, 5)
    do(room, MarkBranch(moment=5, mark=BranchMark(name="chin up")), "m")
    room.edit_further("p1", EditFurther(op_id="on"))
    assert room.document.branches == {}
    undo(room)
    assert room.document.branches == {"5": BranchMark(name="chin up")}


def test_only_so_many_branches_are_marked() -> None:
    room = a_room()
    for moment in range(MAX_BRANCH_MARKS):
        do(room, MarkBranch(moment=moment, mark=BranchMark(removed=True)), f"m{moment}")
    do(room, MarkBranch(moment=3, mark=BranchMark(name="again")), "again")
    with pytest.raises(Refused, match="501 branches"):
        do(room, MarkBranch(moment=1000, mark=BranchMark(removed=True)), "one more")


def test_an_undo_does_not_mark_more_branches_than_may_be() -> None:
    room = a_room()
    do(room, MarkBranch(moment=0, mark=BranchMark(name="chin up")), "m")
    do(room, MarkBranch(moment=0, mark=None), "cleared")
    for moment in range(1, MAX_BRANCH_MARKS + 1):
        mark = MarkBranch(moment=moment, mark=BranchMark(removed=True))
        room.edit("p2", Edit(op_id=f"m{moment}", base=room.seq, op=mark))
    with pytest.raises(Refused, match="501 branches"):
        undo(room)
    assert len(room.document.branches) == MAX_BRANCH_MARKS


# Undo of runs, resets, jumps and changes of the base picture ---------------------------------------------------------

RED, BLUE = "a" * 64, "b" * 64


def run_to(room: RoomDocument, sha256: str, moment: int, person: str = "p1") -> None:
    """A run that moves d1 to (moment, moment)."""
    room.start(person, StartRun(op_id=f"go{room.seq}"), f"run{room.seq}")
    room.end("arrived", iterations=moment, tracked={"d1": (moment, moment)}, sha256=sha256, moment=moment)


def shown(room: RoomDocument) -> tuple[str | None, int | None, Any]:
    document = room.document
    drag = document.drags.get("d1")
    result = document.result.sha256 if document.result else None
    return result, document.moment, drag.tracked if drag else None


def test_undo_of_runs_brings_the_earlier_pictures_back_one_by_one() -> None:
    room = a_room()
    do(room, D1)
    placed = room.document
    run_to(room, RED, 5)
    after_first = room.document
    run_to(room, BLUE, 9)
    after_second = room.document
    assert room.history("p1") == ("run", None)
    undo(room)
    assert room.document == after_first
    assert undo(room).op == Restore(content=content_of(placed))
    assert room.document == placed
    assert room.history("p1") == ("add_drag", "run")
    redo(room)
    redo(room)
    assert room.document == after_second


def test_undo_after_a_reset_brings_the_result_back() -> None:
    room = a_room()
    do(room, D1)
    run_to(room, RED, 5)
    before = room.document
    room.reset("p1", Reset(op_id="back"))
    assert room.history("p1")[0] == "reset"
    undo(room)
    assert (room.document, shown(room)) == (before, (RED, 5, (5, 5)))


def test_undo_of_a_jump_goes_back_to_the_end_of_the_run() -> None:
    room = a_room()
    do(room, D1)
    run_to(room, RED, 5)
    room.seek("p1", SeekMoment(op_id="s", moment=2), {"d1": (2.0, 2.0)})
    assert shown(room) == (RED, 2, (2.0, 2.0))
    undo(room)
    assert shown(room) == (RED, 5, (5, 5))


def test_a_jump_during_a_run_is_undone_with_the_run() -> None:
    room = running_room()
    room.seek("p1", SeekMoment(op_id="s", moment=2), {"d1": (2.0, 2.0)})
    assert room.history("p1")[0] == "add_drag"
    room.end("arrived", tracked={"d1": (9.0, 9.0)}, sha256=RED, moment=7)
    undo(room)
    assert shown(room) == (None, None, None)
    assert room.history("p1") == ("add_drag", "run")


def test_a_result_becomes_the_base_picture_and_undo_brings_back_the_one_before() -> None:
    room = a_room()
    do(room, D1)
    do(room, AddStroke(stroke=stroke("s1")), "s")
    with pytest.raises(Refused, match="no result"):
        room.edit_further("p1", EditFurther(op_id="early"))
    run_to(room, RED, 5)
    before = room.document
    room.edit_further("p1", EditFurther(op_id="on"))
    after = room.document
    assert (after.picture.sha256, after.drags, after.result, after.run, after.moment) == (RED, {}, None, None, None)
    assert after.mask == before.mask
    undo(room)
    assert room.document == before
    redo(room)
    assert room.document == after


@pytest.mark.parametrize("size", [(64, 48), (48, 64)])
def test_a_replaced_picture_is_undone_and_redone(size: tuple[int, int]) -> None:
    room = a_room()
    do(room, D1)
    do(room, AddStroke(stroke=stroke("s1")), "s1")
    do(room, AddStroke(stroke=stroke("s2")), "s2")
    do(room, SetPin(id="p", at=(60.0, 4.0)), "pin")
    run_to(room, RED, 5)
    before = room.document
    room.replace_picture("p1", "new", Picture(sha256=BLUE, width=size[0], height=size[1]))
    after = room.document
    assert (after.picture.sha256, after.drags, after.result, after.run, after.moment) == (BLUE, {}, None, None, None)
    # What was painted on a picture of another size means nothing on this one.
    same = size == (before.picture.width, before.picture.height)
    assert (after.mask, after.pins) == ((before.mask, before.pins) if same else ((), {}))
    assert room.history("p1") == ("replace_picture", None)
    undo(room)
    assert room.document == before
    redo(room)
    assert room.document == after
    run_again = AddDrag(id="d2", handle=(1.0, 1.0), target=(9.0, 9.0))
    do(room, run_again, "d2")
    room.start("p1", StartRun(op_id="again"), "again")
    with pytest.raises(Refused, match="press Stop first"):
        room.replace_picture("p1", "newer", before.picture)


def test_a_kept_quick_preview_is_undone_and_redone_like_a_run() -> None:
    room = a_room()
    do(room, D1)
    before = room.document
    room.keep_preview("p1", "keep", "k1", RED, room.document.drags)
    after = room.document
    assert room.history("p1")[0] == "run"
    undo(room)
    assert room.document == before
    redo(room)
    assert room.document == after


THEIR_DOINGS: dict[str, Callable[[RoomDocument], object]] = {
    "edits": lambda room: by(room, "p2", SetPrompt(prompt="theirs"), "theirs"),
    "runs": lambda room: run_to(room, BLUE, 9, "p2"),
    "jumps": lambda room: room.seek("p2", SeekMoment(op_id="theirs", moment=3), {}),
    "resets": lambda room: room.reset("p2", Reset(op_id="theirs")),
    "edits further": lambda room: room.edit_further("p2", EditFurther(op_id="theirs")),
    "undoes": lambda room: (by(room, "p2", SetPrompt(prompt="theirs"), "theirs"), undo(room, "p2")),
}


@pytest.mark.parametrize("doing", THEIR_DOINGS)
def test_undo_of_a_run_is_stale_once_another_person_has_changed_the_room_since(doing: str) -> None:
    room = a_room()
    do(room, D1)
    run_to(room, RED, 5)
    THEIR_DOINGS[doing](room)
    before = room.document
    with pytest.raises(Refused, match="others have changed the picture") as refused:
        undo(room)
    assert (refused.value.reason, room.document) == ("stale", before)
    assert room.history("p1")[0] != "run", "the next undo continues before the run"


def test_what_others_edit_during_ones_run_does_not_make_its_undo_stale() -> None:
    room = running_room()
    by(room, "p2", MoveDrag(id="d1", target=(33.0, 33.0)), "aim")
    room.end("arrived", tracked={"d1": (9.0, 9.0)}, sha256=RED, moment=7)
    undo(room)
    assert shown(room) == (None, None, None)
    assert room.document.drags["d1"].target == (33.0, 33.0)


def test_content_that_cannot_come_back_is_stale_and_forgotten() -> None:
    room = a_room()
    do(room, D1)
    run_to(room, RED, 5)
    with pytest.raises(Refused, match="thinned out; the next undo continues before that"):
        room.undo("p1", Undo(op_id="u"), lambda content: "thinned out")
    assert room.history("p1")[0] == "add_drag"


def test_a_run_that_changed_nothing_is_not_undone() -> None:
    room = running_room()
    room.end("failed", message="no memory")
    assert room.history("p1")[0] == "add_drag"


def test_undo_of_a_run_waits_for_the_end_of_the_next() -> None:
    room = a_room()
    do(room, D1)
    run_to(room, RED, 5)
    room.start("p1", StartRun(op_id="again"), "again")
    with pytest.raises(Refused, match="press Stop first"):
        undo(room)
    room.end("stopped")
    assert undo(room).undoes is not None
    assert shown(room) == (None, None, None)


def test_a_handle_moved_after_a_run_is_where_it_was_placed_when_both_are_undone() -> None:
    room = a_room()
    do(room, D1)
    run_to(room, RED, 5)
    do(room, MoveDrag(id="d1", handle=(40.0, 40.0)), "m")
    undo(room)
    undo(room)
    assert room.document.drags["d1"].handle == D1.handle


def test_runs_can_be_undone_after_a_restart() -> None:
    room = a_room()
    records = [do(room, D1), room.start("p1", StartRun(op_id="go"), "r")]
    records.append(room.end("arrived", tracked={"d1": (5.0, 5.0)}, sha256=RED, moment=5))
    again = RoomDocument("room", EMPTY, MODEL, records=records)
    assert again.history("p1") == ("run", None)
    undo(again)
    assert shown(again) == (None, None, None)


# Any order of operations ---------------------------------------------------------------------------------------------

places = st.tuples(st.floats(-5, 70), st.floats(-5, 55))
drag_ids = st.sampled_from(["a", "b", "c"])
people = st.sampled_from(["p1", "p2"])
moments = st.integers(0, 9)


class AnyOrder(RuleBasedStateMachine):
    """Whatever people do, a replica that folds the log equals the room."""

    def __init__(self) -> None:
        super().__init__()
        self.room = a_room()
        self.replica = EMPTY
        self.count = 0
        self.refusal = ""

    def take(self, operate: Any) -> None:
        self.count += 1
        seq = self.room.seq
        self.refusal = ""
        try:
            record = operate(f"o{self.count}")
        except Refused as refusal:
            self.refusal = refusal.reason
            assert self.room.seq == seq
        else:
            assert record.seq == seq + 1
            self.replica = fold(self.replica, record)

    @rule(id=drag_ids, handle=places, aim=places, person=people)
    def add(self, id: str, handle: Any, aim: Any, person: str) -> None:
        self.take(lambda op: by(self.room, person, AddDrag(id=id, handle=handle, target=aim), op))

    @rule(id=drag_ids, handle=st.none() | places, aim=st.none() | places, person=people)
    def move(self, id: str, handle: Any, aim: Any, person: str) -> None:
        self.take(lambda op: by(self.room, person, MoveDrag(id=id, handle=handle, target=aim), op))

    @rule(id=drag_ids, person=people)
    def remove(self, id: str, person: str) -> None:
        self.take(lambda op: by(self.room, person, RemoveDrag(id=id), op))

    @rule(prompt=st.text(max_size=5), person=people)
    def say(self, prompt: str, person: str) -> None:
        self.take(lambda op: by(self.room, person, SetPrompt(prompt=prompt), op))

    @rule(moment=moments, name=st.sampled_from(["", "one", "two"]), removed=st.booleans(), person=people)
    def mark(self, moment: int, name: str, removed: bool, person: str) -> None:
        mark = BranchMark(name=name, removed=removed) if name or removed else None
        self.take(lambda op: by(self.room, person, MarkBranch(moment=moment, mark=mark), op))

    @rule(id=drag_ids, person=people)
    def paint(self, id: str, person: str) -> None:
        self.take(lambda op: by(self.room, person, AddStroke(stroke=stroke(id)), op))

    @rule(id=drag_ids, person=people)
    def unpaint(self, id: str, person: str) -> None:
        self.take(lambda op: by(self.room, person, RemoveStroke(id=id), op))

    @rule(person=people)
    def clear(self, person: str) -> None:
        self.take(lambda op: by(self.room, person, ClearMask(), op))

    @rule(person=people, back=st.booleans())
    def go_back_and_forth(self, person: str, back: bool) -> None:
        offered = self.room.history(person)[not back]
        before = self.room.document
        if back:
            self.take(lambda op: self.room.undo(person, Undo(op_id=op)))
        else:
            self.take(lambda op: self.room.redo(person, Redo(op_id=op)))
        changed = self.room.document != before
        excused = self.room.running or self.refusal == "stale"
        assert not changed if offered is None else changed or excused, "what is offered does something"

    @rule(person=people)
    def start(self, person: str) -> None:
        self.take(lambda op: self.room.start(person, StartRun(op_id=op), f"run-{op}"))

    @rule()
    def stop(self) -> None:
        self.take(lambda op: self.room.stop("p", StopRun(op_id=op)))

    @rule(person=people)
    def reset(self, person: str) -> None:
        self.take(lambda op: self.room.reset(person, Reset(op_id=op)))

    @rule(person=people, moment=moments, tracked=st.dictionaries(drag_ids, places))
    def seek(self, person: str, moment: int, tracked: Any) -> None:
        self.take(lambda op: self.room.seek(person, SeekMoment(op_id=op, moment=moment), tracked))

    @rule(person=people)
    def edit_further(self, person: str) -> None:
        self.take(lambda op: self.room.edit_further(person, EditFurther(op_id=op)))

    @rule(
        tracked=st.dictionaries(drag_ids, places),
        behind=st.integers(0, 5),
        sha256=st.none() | st.sampled_from("abc").map(lambda letter: letter * 64),
        moment=st.none() | moments,
    )
    def end(self, tracked: Any, behind: int, sha256: str | None, moment: int | None) -> None:
        if self.room.running:
            seen = self.room.seq - behind
            self.take(lambda op: self.room.end("arrived", tracked=tracked, seen=seen, sha256=sha256, moment=moment))

    @rule(person=people)
    def undo_all_and_redo_all(self, person: str) -> None:
        """What one person undoes comes back, if no one else does anything meanwhile."""
        if self.room.running:
            return
        before = self.room.document
        steps = 0
        while self.room.history(person)[0] is not None and self.undoes(person):
            steps += 1
        for _ in range(steps):
            self.take(lambda op: self.room.redo(person, Redo(op_id=op)))
        after = self.room.document
        assert (after.picture, after.result, after.moment) == (before.picture, before.result, before.moment)

    def undoes(self, person: str) -> bool:
        seq = self.room.seq
        self.take(lambda op: self.room.undo(person, Undo(op_id=op)))
        return self.room.seq > seq

    @invariant()
    def replica_equals_room(self) -> None:
        assert self.replica == self.room.document


TestAnyOrder = AnyOrder.TestCase


# The result of an earlier run -----------------------------------------------------------------------------------------


def set_to(room: RoomDocument, op_id: str, **settings: Any) -> None:
    do(room, SetSettings(settings=settings), op_id)


def test_the_result_of_an_earlier_run_is_kept_with_its_settings_and_that_is_undone() -> None:
    room = a_room()
    do(room, D1)
    set_to(room, "first", max_iterations=5)
    run_to(room, RED, 5)
    red = room.document
    assert red.run is not None
    room.reset("p1", Reset(op_id="reset"))
    set_to(room, "second", max_iterations=9, latent_lr=0.5)
    run_to(room, BLUE, 9)
    blue = room.document
    kept = room.restore_run("p1", RestoreRun(op_id="keep", run=red.run.id))
    assert isinstance(kept.op, Restore)
    assert room.document == red
    assert room.history("p1")[0] == "restore"
    undo(room)
    assert room.document == blue
    with pytest.raises(Refused, match="run 'none' is not one of the latest"):
        room.restore_run("p1", RestoreRun(op_id="wrong", run="none"))


def test_an_earlier_result_is_kept_without_its_step_but_not_for_another_picture() -> None:
    room = a_room()
    do(room, D1)
    run_to(room, RED, 5)
    assert room.document.run is not None
    earlier = RestoreRun(op_id="keep", run=room.document.run.id)
    run_to(room, BLUE, 9)
    room.restore_run("p1", earlier, lambda moment: moment == 9)
    document = room.document
    assert document.result is not None
    assert document.run is not None
    assert (document.result.sha256, document.moment, document.run.outcome) == (RED, None, "kept")
    with pytest.raises(Refused, match="no longer stored"):
        room.restore_run("p1", replace(earlier, op_id="b"), obstacle=lambda content: "it is no longer stored")
    room.replace_picture("p1", "new", Picture(sha256="d" * 64, width=64, height=48))
    with pytest.raises(Refused, match="not edited any more"):
        room.restore_run("p1", replace(earlier, op_id="c"))
