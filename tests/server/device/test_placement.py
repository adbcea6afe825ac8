"""Placement: the least loaded worker, the model's and the current one first; idle rooms move, running ones stay."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from livedrag.server.device.placement import Move, WorkerLoad, moves, worker_for
from tests.server.device.imbalance import MAX_IMBALANCE, imbalance


def worker(
    name: str, active: int = 0, idle: int = 0, *models: str, pace: float = 0.0, leaves: bool = False
) -> WorkerLoad:
    return WorkerLoad(
        worker=name,
        models=frozenset(models),
        active=tuple(f"{name}-active-{number}" for number in range(active)),
        idle=tuple(f"{name}-idle-{number}" for number in range(idle)),
        step_seconds=pace,
        draining=leaves,
    )


def moved(workers: Sequence[WorkerLoad], done: Sequence[Move]) -> list[WorkerLoad]:
    """The workers after these moves; fails where one is impossible."""
    state = {one.worker: one for one in workers}
    for move in done:
        source, destination = state[move.source], state[move.destination]
        assert move.room in source.idle
        assert move.source != move.destination
        state[move.source] = replace(source, idle=tuple(room for room in source.idle if room != move.room))
        state[move.destination] = replace(destination, idle=(*destination.idle, move.room))
    return list(state.values())


paces_of = st.sampled_from([0.0, 0.1, 0.2, 0.3])


@st.composite
def clusters(draw: st.DrawFn, paces: st.SearchStrategy[float] = paces_of) -> list[WorkerLoad]:
    count = draw(st.integers(1, 12))
    return [
        worker(
            str(name),
            draw(st.integers(0, 6)),
            draw(st.integers(0, 12)),
            *draw(st.lists(st.sampled_from("ab"), max_size=2)),
            pace=draw(paces),
            leaves=draw(st.integers(0, 5)) == 0,
        )
        for name in range(count)
    ]


def test_a_new_room_gets_the_least_loaded_worker() -> None:
    assert worker_for([worker("a", 2), worker("b", 1), worker("c", 1)]) == "b"
    assert worker_for([worker("a", 1), worker("b", 0, 1)]) == "b", "an idle room is less than a running one"
    assert worker_for([worker("a", 2, pace=0.1), worker("b", 1, pace=0.4)]) == "a", "a fast device takes more rooms"


def test_a_worker_of_unknown_speed_counts_as_the_slowest() -> None:
    known = [worker("a", 2, pace=0.1), worker("b", 2, pace=0.3)]
    assert worker_for([*known, worker("new", 1)]) == "a", "3 x 0.1 s is less than 2 x 0.3 s"
    assert worker_for([worker("a", 3, pace=0.1), worker("b", 2, pace=0.3), worker("new")]) == "new", "0.3 s < 0.4 s"


def test_draining_workers_get_no_room() -> None:
    assert worker_for([worker("a", 5), worker("b", leaves=True)]) == "a"
    assert worker_for([worker("a", leaves=True)]) is None
    assert worker_for([]) is None


def test_a_worker_with_the_model_is_preferred_up_to_one_room_more() -> None:
    assert worker_for([worker("a"), worker("b", 1, 0, "sd")], model="sd") == "b"
    assert worker_for([worker("a"), worker("b", 2, 0, "sd")], model="sd") == "a"
    assert worker_for([worker("a"), worker("b", 1)], model="sd") == "a", "where none has it, the load decides"


def test_a_room_stays_with_its_session_unless_the_load_is_above_the_limit() -> None:
    even = [worker("a", 10), worker("b", 10), worker("c", 9)]
    assert worker_for(even, current="b") == "b"
    assert worker_for([worker("a", 10), worker("b", 14), worker("c", 9)], current="b") == "c"
    assert worker_for([worker("a", 10), worker("b", 10, leaves=True)], current="b") == "a"
    assert worker_for(even, current="gone") == "c"


def test_idle_rooms_move_from_the_most_to_the_least_loaded() -> None:
    crowded = [worker("a", 2, 8), worker("b", 2), worker("c", 2)]
    done = moves(crowded)
    assert {move.source for move in done} == {"a"}
    assert {move.destination for move in done} == {"b", "c"}
    assert [move.room for move in done] == [f"a-idle-{number}" for number in range(len(done))], "longest unused first"
    assert imbalance(crowded) > MAX_IMBALANCE >= imbalance(moved(crowded, done))


def test_nothing_moves_within_the_limit_or_for_no_gain() -> None:
    assert moves([worker("a", 4, 2), worker("b", 4, 1)]) == []
    assert moves([worker("a", 0, 1), worker("b")]) == [], "the room would be no better off"
    assert moves([worker("a", 9), worker("b")]) == [], "rooms that run stay"
    assert moves([worker("a", 9, 9)]) == [] == moves([])


@given(clusters(st.floats(0.01, 1)))
def test_moves_end_whatever_the_paces(workers: list[WorkerLoad]) -> None:
    """A load that was rounded in two ways made a room go to and fro for ever."""
    assert len(moves(workers)) <= 12 * 12 * 12


def test_idle_rooms_move_to_a_worker_with_their_model() -> None:
    workers = [worker("a", 0, 4), worker("b"), worker("c", 0, 1, "sd")]
    done = moves(workers, {f"a-idle-{number}": "sd" for number in range(4)})
    assert {move.destination for move in done if move.source == "a"} == {"c"}


def test_a_draining_worker_gives_all_its_idle_rooms_away() -> None:
    workers = [worker("a", 1, 2, leaves=True), worker("b", 3), worker("c", 3)]
    assert [(move.room, move.destination) for move in moves(workers)] == [("a-idle-0", "b"), ("a-idle-1", "c")]
    assert moves([worker("a", 0, 2, leaves=True)]) == [], "there is no other"


@given(clusters())
def test_moves_only_improve_and_are_complete(workers: list[WorkerLoad]) -> None:
    done = moves(workers)
    after = moved(workers, done)
    taking = [one for one in workers if not one.draining]
    if taking:
        assert all(not one.idle for one in after if one.draining)
    assert not {move.destination for move in done} & {one.worker for one in workers if one.draining}
    assert moves(after) == [], "moving again changes nothing"


@given(clusters(), st.sampled_from(["", "a", "b"]))
def test_the_chosen_worker_exists_and_takes_rooms(workers: list[WorkerLoad], model: str) -> None:
    chosen = worker_for(workers, model=model)
    taking = {one.worker for one in workers if not one.draining}
    assert chosen in taking if taking else chosen is None


def test_a_room_never_gets_a_worker_that_cannot_load_its_model_where_another_one_can() -> None:
    unable = replace(worker("a"), unable=frozenset({"r"}))
    assert worker_for([unable, worker("b", 5)], room="r", model="m") == "b"
    assert worker_for([unable, worker("b", 5)], room="other") == "a"
    assert worker_for([unable, replace(unable, worker="b")], room="r") == "a", "one of them says why"


def test_an_idle_room_moves_to_a_worker_with_its_model_and_to_none_that_cannot_load_it() -> None:
    full = replace(worker("full", 4), idle=("r", "s"))
    models = {"r": "m", "s": "m"}
    holder, empty = worker("holder", 1, 0, "m"), worker("empty")
    assert moves([full, empty, holder], models)[0] == Move(room="r", source="full", destination="holder")
    assert moves([full, empty], models)[0] == Move(room="r", source="full", destination="empty"), "none has it"
    unable = replace(empty, unable=frozenset({"r"}))
    assert moves([full, unable], models) == [Move(room="s", source="full", destination="empty")]
    unable = replace(empty, unable=frozenset({"r", "s"}))
    assert moves([full, unable], models) == []
    leaving = replace(full, draining=True)
    assert {move.destination for move in moves([leaving, unable, worker("far", 9)], models)} == {"far"}
    assert {move.destination for move in moves([leaving, unable], models)} == {"empty"}, "it has to leave"
