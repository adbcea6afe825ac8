"""Checkpoints: written once, read whole or not at all, whatever happens in between."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from livedrag.run_log import LogRow
from livedrag.server.device.checkpoints import (
    CHECKPOINTS_STORED,
    Checkpoint,
    Checkpoints,
    Part,
    SavedMoment,
    branch,
    picture_parts,
)
from livedrag.server.device.messages import DesiredState, MomentInfo, PlacedDrag
from livedrag.server.device.run_numbers import RunNumbers, stored_numbers
from livedrag.server.document.protocol import Points

DESIRED = DesiredState(
    room="a", seq=3, prompt="", settings={"seed": 1}, drags={"d": PlacedDrag(handle=(1, 2), target=(3, 4))}, mask=b"m"
)
CHECKPOINT = Checkpoint(picture="p", desired=DESIRED, run="r1", iterations=7)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


WRITTEN_BY_0_1 = Path(__file__).parent / "checkpoints_0_1"
"""What the worker of version 0.1 left after a run of three iterations and a jump back to the first."""


def part(name: str, data: bytes, stamp: str = "") -> Part:
    return Part(name=name, make=lambda: data, stamp=stamp)


def files(tmp_path: Path, room: str = "a") -> set[str]:
    return set(os.listdir(tmp_path / "checkpoints" / room))


def info(id: int, parent: int | None, iteration: int) -> MomentInfo:
    return MomentInfo(id=id, parent=parent, iteration=iteration, time=float(id))


def test_what_is_saved_is_what_is_loaded(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest("a") is None
    saved = checkpoints.save("a", CHECKPOINT, [part("state", b"1"), part("lora", b"2")])
    assert [(saved, {"state": b"1", "lora": b"2"})] == list(checkpoints.load("a"))
    assert checkpoints.newest("a") == saved
    assert replace(saved, parts={}) == CHECKPOINT


def test_a_part_whose_stamp_has_not_changed_is_not_made_again(checkpoints: Checkpoints) -> None:
    def never() -> bytes:
        raise AssertionError

    first = checkpoints.save("a", CHECKPOINT, [part("state", b"1"), part("lora", b"2", "80 steps")])
    again = [part("state", b"3"), Part(name="lora", make=never, stamp="80 steps")]
    checkpoints.save("a", CHECKPOINT, again, before=first)
    assert next(checkpoints.load("a"))[1] == {"state": b"3", "lora": b"2"}


def test_the_last_few_are_kept_with_their_parts_and_no_others(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for number in range(CHECKPOINTS_STORED + 3):
        checkpoints.save("a", CHECKPOINT, [part("state", b"%d" % number)])
    assert [parts["state"] for _, parts in checkpoints.load("a")] == [b"4", b"3"]
    assert len(files(tmp_path)) == 2 * CHECKPOINTS_STORED


@pytest.mark.parametrize("what", ["list", "part", "part is gone"])
def test_where_the_newest_is_damaged_the_one_before_it_counts(
    checkpoints: Checkpoints, tmp_path: Path, what: str
) -> None:
    checkpoints.save("a", CHECKPOINT, [part("state", b"1")])
    saved = checkpoints.save("a", replace(CHECKPOINT, iterations=9), [part("state", b"2")])
    newest = max(name for name in files(tmp_path) if name.endswith(".checkpoint"))
    victim = tmp_path / "checkpoints" / "a" / (newest if what == "list" else saved.parts["state"].sha256)
    victim.unlink() if "gone" in what else victim.write_bytes(victim.read_bytes()[:-1])
    assert [parts for _, parts in checkpoints.load("a")] == [{"state": b"1"}]


def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save("a", CHECKPOINT, [part("state", b"1")])
    before = files(tmp_path)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save("a", CHECKPOINT, [part("state", b"2")])
    assert files(tmp_path) == before
    assert next(checkpoints.load("a"))[1] == {"state": b"1"}


def test_an_amended_list_has_the_same_parts(checkpoints: Checkpoints) -> None:
    saved = checkpoints.save("a", CHECKPOINT, [part("state", b"1")])
    checkpoints.amend("a", replace(saved, pending_reset=True))
    checkpoint, parts = next(checkpoints.load("a"))
    assert (checkpoint.pending_reset, parts) == (True, {"state": b"1"})


def test_checkpoints_of_version_0_1_still_open() -> None:
    (opened,) = Checkpoints(WRITTEN_BY_0_1).load("a")
    checkpoint, parts = opened
    assert (checkpoint.run, checkpoint.iterations, checkpoint.has_picture) == ("r1", 3, True)
    assert checkpoint.desired.drags == {"d1": PlacedDrag(handle=(30, 30), target=(70, 40), handle_version=2)}
    assert checkpoint.desired.generation is not None
    assert (checkpoint.desired.generation.seed, checkpoint.desired.seq) == (5, 3)
    assert (checkpoint.pending_seek, checkpoint.pending_reset, checkpoint.current) == (1, False, 1)
    assert [moment.info.iteration for moment in checkpoint.moments] == [0, 1, 2, 3]
    assert parts.keys() == {"state", "picture", "unedited", "moments-0", "lora", "thumbnails-0", "frames-0"}
    timeline = Checkpoints(WRITTEN_BY_0_1).load_timeline("a")
    assert timeline is not None
    assert timeline.thumbnails.keys() == {0, 1, 3}


def test_rooms_are_apart_and_wiped_alone(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for room in ("a", "b", "../c"):
        checkpoints.save(room, CHECKPOINT, [part("state", room.encode())])
    assert os.listdir(tmp_path) == ["checkpoints"]
    checkpoints.wipe("a")
    assert checkpoints.newest("a") is None
    assert [next(checkpoints.load(room))[1]["state"] for room in ("b", "../c")] == [b"b", b"../c"]


def test_a_timeline_is_shown_without_a_worker(checkpoints: Checkpoints) -> None:
    infos = [info(0, None, 0), info(1, 0, 1), info(40, 1, 2), info(41, 0, 1)]
    moments = [SavedMoment(info=moment, tracked={}) for moment in infos]
    thumbnails = {0: b"t0", 1: b"t1", 40: b"t40"}
    parts = [*picture_parts("thumbnails", thumbnails), *picture_parts("frames", {0: b"f0", 1: b"f1", 41: b"f41"})]
    checkpoints.save("a", replace(CHECKPOINT, moments=moments, current=40), parts)
    timeline = checkpoints.load_timeline("a")
    assert timeline is not None
    assert (timeline.moments, timeline.current, timeline.thumbnails) == (infos, 40, thumbnails)
    assert [(shot.iteration, shot.data) for shot in checkpoints.frames("a")] == [(0, b"f0"), (1, b"f1")]
    nothing: Any = checkpoints.load_timeline("b"), checkpoints.frames("b")
    assert nothing == (None, [])


def test_the_numbers_of_a_run_in_parts(checkpoints: Checkpoints) -> None:
    numbers = RunNumbers()
    for run, iterations in (("r1", 3), ("r2", 1200)):
        for iteration in range(1, iterations + 1):
            numbers.note(
                Points(
                    run=run,
                    iteration=iteration,
                    handles={"d1": (1.0, 2.0), "d2": (3.0, 4.0)},
                    distances={"d1": 5.0, "d2": 0.5},
                    loss=0.25,
                    content={"d1": 6.0},
                    lost=("d2",),
                )
            )
    saved = checkpoints.save("a", CHECKPOINT, numbers.parts())
    numbers.note(Points(run="r2", iteration=1201, handles={"d1": (1.0, 2.0)}, distances={"d1": 5.0}, loss=0.0))
    again = checkpoints.save("a", CHECKPOINT, numbers.parts(), before=saved)
    assert [name for name in again.parts if again.parts[name] != saved.parts[name]] == ["numbers-2"]
    read = stored_numbers(checkpoints, "a", CHECKPOINT.picture)
    assert (read.run, len(read.rows), read.rows) == ("r2", 2401, numbers.rows)
    assert read.rows[1] == LogRow(1, "d2", 3.0, 4.0, 0.5, None, 0.25, True)
    assert stored_numbers(checkpoints, "b", CHECKPOINT.picture).rows == []


def test_a_branch_leads_from_the_first_moment_to_the_current_one() -> None:
    moments = [info(0, None, 0), info(1, 0, 1), info(2, 1, 2), info(3, 1, 2)]
    assert [moment.id for moment in branch(moments, 3)] == [0, 1, 3]
    assert branch(moments, None) == []


def test_the_newest_checkpoints_of_a_few_earlier_pictures_stay(checkpoints: Checkpoints) -> None:
    for number in range(6):
        for time in range(3):
            checkpoint = Checkpoint(picture=f"p{number}", desired=DESIRED, iterations=time)
            checkpoints.save("a", checkpoint, [part("x", f"{number} {time}".encode())])
    assert [checkpoint.picture for checkpoint, _ in checkpoints.load("a")] == ["p5", "p5", "p4", "p3", "p2"]
    earlier = checkpoints.newest("a", "p3")
    assert earlier is not None
    assert earlier.iterations == 2
    assert [parts for _, parts in checkpoints.load("a", "p3")] == [{"x": b"3 2"}]
    assert checkpoints.newest("a", "p1") is None
    checkpoints.amend("a", earlier)
    newest = checkpoints.newest("a")
    assert newest is not None
    assert newest.picture == "p3"
