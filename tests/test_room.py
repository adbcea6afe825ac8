"""Room: what is accepted, what is refused and why, and that the document is the fold of the log."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from PIL import Image

from server.mask import rasterise
from server.protocol import (
    AddDrag,
    AddStroke,
    ClearMask,
    DocRecord,
    Document,
    Edit,
    MoveDrag,
    Operation,
    Picture,
    Raster,
    RemoveDrag,
    Reset,
    SetPrompt,
    SetSettings,
    StartRun,
    StopRun,
    Stroke,
)
from server.room import Refused, Room, digest, fold
from tests.quiet import MODEL

EMPTY = Document(picture=Picture(sha256="0" * 64, width=64, height=48))
D1 = AddDrag(id="d1", handle=(10.0, 10.0), target=(30.0, 20.0))


def a_room() -> Room:
    return Room("room", EMPTY, {digest("key"): "owner"}, MODEL)


def do(room: Room, op: Operation, op_id: str = "o") -> DocRecord:
    return room.edit("p1", Edit(op_id=op_id, base=room.seq, op=op))


def running_room() -> Room:
    room = a_room()
    do(room, D1)
    room.start("p1", StartRun(op_id="go"), "r1")
    return room


def test_secrets_give_roles_and_are_not_kept() -> None:
    room = a_room()
    assert room.role("key") == "owner"
    assert room.role("other") is None
    assert "key" not in str(room.links)


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
        (MoveDrag(id="nobody", target=(1, 1)), "unknown", "'nobody'"),
        (RemoveDrag(id="nobody"), "unknown", "'nobody'"),
        (SetSettings(settings={"colour": "red"}), "invalid", "'colour'"),
        (SetSettings(settings={"max_iterations": 2.5}), "invalid", "2.5"),
        (SetSettings(settings={"max_iterations": True}), "invalid", "True"),
        (SetSettings(settings={"max_iterations": -1}), "invalid", "-1"),
        (SetSettings(settings={"reference_control": 1}), "invalid", "true or false"),
        (SetSettings(settings={"latent_lr": "fast"}), "invalid", "'fast'"),
        (SetSettings(settings={"preset": "magic"}), "invalid", "'magic': there are official, paper"),
        (SetSettings(settings={"preview_every": 0}), "invalid", "preview_every is 0: 1 to 99 works"),
        (SetSettings(settings={"latent_lr": 11.5}), "invalid", "latent_lr is 11.5: 1e-06 to 10 works"),
        (SetSettings(settings={"seed": 2**31}), "invalid", "seed is 2147483648: 0 to 2147483647 works"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_value(op: Operation, reason: str, quoted: str) -> None:
    room = a_room()
    do(room, D1)
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
    with pytest.raises(Refused, match="64 drags") as caught:
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
    with pytest.raises(Refused, match="the mask lets nothing change: paint a region or clear the mask") as caught:
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
    reopened = Room("room", document, {}, MODEL, seq=2)
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


# The rasteriser ------------------------------------------------------------------------------------------------------


def no_rasters(sha256: str) -> Image.Image:
    raise AssertionError(sha256)


def test_without_layers_everything_may_change() -> None:
    assert rasterise((), (8, 6), no_rasters).getextrema() == (255, 255)


def test_strokes_are_round_paint_adds_and_erase_removes() -> None:
    line = Stroke(id="a", mode="paint", radius=4, points=[(10, 20), (50, 20)])
    hole = Stroke(id="b", mode="erase", radius=2, points=[(30, 20)])
    mask = rasterise((line, hole), (64, 48), no_rasters)
    white = {place for place in ((10, 20), (7, 20), (25, 23), (53, 20)) if mask.getpixel(place) == 255}
    black = {place for place in ((30, 20), (10, 26), (4, 20), (57, 20), (6, 16)) if mask.getpixel(place) == 0}
    assert (len(white), len(black)) == (4, 5)


def test_a_first_stroke_that_erases_takes_away_from_everything() -> None:
    hole = Stroke(id="a", mode="erase", radius=4, points=[(10, 20)])
    mask = rasterise((hole,), (64, 48), no_rasters)
    assert (mask.getpixel((10, 20)), mask.getpixel((40, 20))) == (0, 255)


def test_a_raster_replaces_and_is_made_black_and_white() -> None:
    stroke = Stroke(id="a", mode="paint", radius=4, points=[(10, 20)])
    grey = Image.new("L", (64, 48), 127)
    grey.paste(128, (0, 0, 32, 48))
    mask = rasterise((stroke, Raster(id="m", sha256="f" * 64)), (64, 48), lambda _: grey)
    assert {mask.getpixel((40, 20)), mask.getpixel((31, 0))} == {0, 255}


# Any order of operations ---------------------------------------------------------------------------------------------

places = st.tuples(st.floats(-5, 70), st.floats(-5, 55))
drag_ids = st.sampled_from(["a", "b", "c"])


class AnyOrder(RuleBasedStateMachine):
    """Whatever people do, a replica that folds the log equals the room."""

    def __init__(self) -> None:
        super().__init__()
        self.room = a_room()
        self.replica = EMPTY
        self.count = 0

    def take(self, operate: Any) -> None:
        self.count += 1
        seq = self.room.seq
        try:
            record = operate(f"o{self.count}")
        except Refused:
            assert self.room.seq == seq
        else:
            assert record.seq == seq + 1
            self.replica = fold(self.replica, record)

    @rule(id=drag_ids, handle=places, aim=places)
    def add(self, id: str, handle: Any, aim: Any) -> None:
        self.take(lambda op: do(self.room, AddDrag(id=id, handle=handle, target=aim), op))

    @rule(id=drag_ids, handle=st.none() | places, aim=st.none() | places)
    def move(self, id: str, handle: Any, aim: Any) -> None:
        self.take(lambda op: do(self.room, MoveDrag(id=id, handle=handle, target=aim), op))

    @rule(id=drag_ids)
    def remove(self, id: str) -> None:
        self.take(lambda op: do(self.room, RemoveDrag(id=id), op))

    @rule(prompt=st.text(max_size=5))
    def say(self, prompt: str) -> None:
        self.take(lambda op: do(self.room, SetPrompt(prompt=prompt), op))

    @rule()
    def start(self) -> None:
        self.take(lambda op: self.room.start("p", StartRun(op_id=op), f"run-{op}"))

    @rule()
    def stop(self) -> None:
        self.take(lambda op: self.room.stop("p", StopRun(op_id=op)))

    @rule()
    def reset(self) -> None:
        self.take(lambda op: self.room.reset("p", Reset(op_id=op)))

    @rule(tracked=st.dictionaries(drag_ids, places), behind=st.integers(0, 5))
    def end(self, tracked: Any, behind: int) -> None:
        if self.room.running:
            self.take(lambda op: self.room.end("arrived", tracked=tracked, seen=self.room.seq - behind))

    @invariant()
    def replica_equals_room(self) -> None:
        assert self.replica == self.room.document


TestAnyOrder = AnyOrder.TestCase
