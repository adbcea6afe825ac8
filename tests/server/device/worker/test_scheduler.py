"""Scheduler: least device time first, newcomers, edits, the background, and how long the queue is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedrag.server.device.worker.group_sizes import GroupSizes
from livedrag.server.device.worker.scheduler import BACKGROUND_EVERY, MAX_LEAD, Priority, Scheduler, seconds_for, wait


def turns(scheduler: Scheduler, ready: dict[str, Priority], costs: dict[str, float], count: int) -> list[str]:
    """Give so many turns, each of which takes what its room's cost says; returns whose they were."""
    taken = []
    for _ in range(count):
        room = scheduler.choose(ready)
        scheduler.charge(room, costs[room])
        taken.append(room)
    return taken


def entered(*rooms: str) -> Scheduler:
    scheduler = Scheduler()
    for room in rooms:
        scheduler.enter(room, rooms)
    return scheduler


@given(st.lists(st.floats(0.01, 0.5), min_size=2, max_size=8))
def test_rooms_get_the_same_time_whatever_their_steps_take(steps: list[float]) -> None:
    rooms = [str(index) for index in range(len(steps))]
    scheduler, costs = entered(*rooms), dict(zip(rooms, steps, strict=True))
    turns(scheduler, dict.fromkeys(rooms, Priority.RUN), costs, 400)
    assert max(scheduler.spent.values()) - min(scheduler.spent.values()) <= max(steps) + 1e-9


def test_a_newcomer_enters_at_the_current_minimum() -> None:
    scheduler = entered("a", "b")
    turns(scheduler, {"a": Priority.RUN, "b": Priority.RUN}, {"a": 1.0, "b": 3.0}, 10)
    scheduler.enter("c", ["a", "b", "c"])
    assert scheduler.spent["c"] == min(scheduler.spent["a"], scheduler.spent["b"])
    taken = turns(scheduler, dict.fromkeys("abc", Priority.RUN), dict.fromkeys("abc", 1.0), 30)
    assert taken.count("c") <= 14, "it has not saved up time"


def test_who_comes_back_has_what_it_had_where_that_is_more() -> None:
    scheduler = entered("a", "b")
    turns(scheduler, {"a": Priority.RUN}, {"a": 1.0}, 5)
    scheduler.enter("a", ["a", "b"])
    assert scheduler.spent == {"a": 5.0, "b": 0.0}
    scheduler.leave("a")
    scheduler.enter("a", ["b"])
    assert scheduler.spent["a"] == 0.0


def test_the_first_step_after_an_edit_goes_first_and_is_charged() -> None:
    scheduler = entered("a", "b")
    ready = {"a": Priority.RUN, "b": Priority.RUN}
    scheduler.charge("b", MAX_LEAD / 2)
    scheduler.prioritize("b")
    assert turns(scheduler, ready, {"a": 0.1, "b": 0.1}, 2) == ["b", "a"]
    assert scheduler.spent["b"] == pytest.approx(MAX_LEAD / 2 + 0.1)


def test_who_edits_all_the_time_does_not_take_the_device_from_the_others() -> None:
    scheduler = entered("a", "b")
    ready = {"a": Priority.RUN, "b": Priority.RUN}
    for _ in range(200):
        scheduler.prioritize("b")
        turns(scheduler, ready, {"a": 0.1, "b": 0.1}, 1)
    assert scheduler.spent["b"] - scheduler.spent["a"] <= MAX_LEAD + 0.2


def test_fitting_is_the_background_and_is_not_starved() -> None:
    scheduler = entered("drag", "fit", "prepare")
    ready = {"drag": Priority.RUN, "fit": Priority.FITTING, "prepare": Priority.PREPARATION}
    taken = turns(scheduler, ready, dict.fromkeys(ready, 0.1), 40)
    assert taken.count("fit") == 40 // BACKGROUND_EVERY
    assert "prepare" not in taken, "no one waits for it yet"
    assert turns(scheduler, {"prepare": Priority.PREPARATION}, {"prepare": 0.1}, 1) == ["prepare"]


def test_what_steps_take() -> None:
    assert seconds_for({"dragging": 10, "rendering": 4, "fitting": 0}, {"dragging": 0.5, "rendering": 1.0}) == 9
    assert seconds_for({"dragging": 1}, {}) is None


@pytest.mark.parametrize(
    ("running", "ahead", "expected"),
    [
        ([], [], 0.0),
        ([3.0], [], 3.0),
        ([3.0], [5.0], 8.0),
        ([2.0, 2.0], [], 4.0),
        ([1.0, 4.0], [], 2.0),
        ([1.0, 4.0], [1.0], 4.0),
    ],
)
def test_the_wait_for_a_place(running: list[float], ahead: list[float], expected: float) -> None:
    assert wait(running, ahead) == expected


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5), st.lists(st.integers(1, 40), max_size=4), st.integers(0, 99)
)
def test_the_wait_is_what_the_scheduler_makes_of_it(running: list[int], ahead: list[int], seed: int) -> None:
    """With steps of one second each: the estimate is within a round of what really comes."""
    scheduler, places, clock = Scheduler(), len(running), 0
    shuffled = random.Random(seed).sample(list(enumerate(running)), places)
    left = {f"running-{index}": need for index, need in shuffled}
    queue = [(f"ahead-{index}", need) for index, need in enumerate(ahead)]
    for room in left:
        scheduler.enter(room, left)
    while True:
        while queue and len(left) < places:
            room, need = queue.pop(0)
            scheduler.enter(room, left)
            left[room] = need
        if len(left) < places:
            break
        room = scheduler.choose(dict.fromkeys(left, Priority.RUN))
        scheduler.charge(room, 1.0)
        clock += 1
        left[room] -= 1
        if not left[room]:
            del left[room]
            scheduler.leave(room)
    assert abs(clock - wait([float(need) for need in running], [float(need) for need in ahead])) <= 2 * places


# Steps that rooms take together ---------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 2), min_size=2, max_size=9),
    st.floats(0.0, 1.0),
    st.floats(0.05, 1.0),
    st.lists(st.floats(0.0, 0.3), min_size=9, max_size=9),
)
def test_rooms_that_share_steps_get_the_same_time(
    buckets: list[int], base: float, row: float, own: list[float]
) -> None:
    """Rooms of several buckets, whose parts of a step that are not shared differ."""
    rooms = {str(index): bucket for index, bucket in enumerate(buckets)}
    scheduler, sizes, most = entered(*rooms), GroupSizes(), 0.0
    for _ in range(300):
        chosen = scheduler.choose(dict.fromkeys(rooms, Priority.RUN))
        others = [room for room, bucket in rooms.items() if bucket == rooms[chosen] and room != chosen]
        company = scheduler.company(chosen, others)
        group = [chosen, *company[: sizes.best(rooms[chosen], 1 + len(company)) - 1]]
        scheduler.join(group[1:])
        shared = base + row * len(group)
        for room in group:
            seconds = own[int(room)] + shared / len(group)
            scheduler.charge(room, seconds)
            most = max(most, seconds)
        sizes.measure(rooms[chosen], len(group), shared + sum(own[int(room)] for room in group))
    assert max(scheduler.spent.values()) - min(scheduler.spent.values()) <= 2 * most + 1e-9
    assert max(scheduler.spent.values()) <= 1.1 * min(scheduler.spent.values()) + 2 * most


def test_a_room_that_is_more_than_a_step_ahead_does_not_join() -> None:
    scheduler = entered("a", "b", "c")
    for room, seconds in (("a", 1.0), ("b", 1.9), ("c", 2.1)):
        scheduler.charge(room, seconds)
    assert scheduler.company("a", ["b", "c"]) == ["b"]
    assert scheduler.company("b", ["a", "c"]) == ["a", "c"]


def test_an_edited_room_that_joins_has_had_its_next_step() -> None:
    scheduler = entered("a", "b", "c")
    scheduler.charge("c", 0.1)
    scheduler.prioritize("c")
    scheduler.join(["c"])
    assert scheduler.choose(dict.fromkeys("abc", Priority.RUN)) == "a"
