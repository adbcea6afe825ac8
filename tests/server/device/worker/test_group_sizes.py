"""How many rooms share a pass follows from what passes were measured to take."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from livedrag.server.device.worker.group_sizes import MAX_ROOMS, GroupSizes


def settled(seconds: Callable[[int], float], rooms: int, sizes: GroupSizes | None = None) -> int:
    """The size that is used in the end, if passes of so many rows take so long."""
    sizes = sizes or GroupSizes()
    for _ in range(50):
        size = sizes.best("bucket", rooms)
        sizes.measure("bucket", size, seconds(size))
    return sizes.best("bucket", rooms)


def test_rooms_share_as_long_as_it_is_worth_it() -> None:
    assert settled(lambda size: 1.0 + 0.1 * size, rooms=20) == 8
    assert settled(lambda size: 1.0 + 0.1 * size, rooms=3) == 2
    assert settled(lambda size: 1.0 if size <= 2 else 4.0 * size, rooms=8) == 2
    assert settled(lambda size: size * (1.0 + size), rooms=8) == 1


@given(st.lists(st.floats(0.01, 10), min_size=4, max_size=4), st.integers(1, 20))
def test_the_size_is_possible_and_never_slower_than_alone(costs: list[float], rooms: int) -> None:
    seconds = {size: cost * size for size, cost in zip((1, 2, 4, 8), costs, strict=True)}
    size = settled(seconds.__getitem__, rooms)
    assert size <= min(rooms, MAX_ROOMS)
    assert seconds[size] / size <= seconds[1]


def test_the_first_pass_of_a_size_warms_up_and_does_not_count() -> None:
    sizes = GroupSizes()
    for size, seconds in ((1, 9.0), (1, 1.0), (1, 1.0), (2, 99.0), (2, 1.2), (2, 1.2)):
        assert sizes.best("bucket", 2) == size
        sizes.measure("bucket", size, seconds)
    assert sizes.best("bucket", 2) == 2
    assert sizes.best("another bucket", 2) == 1


def test_a_size_that_needs_too_much_memory_is_not_tried_again() -> None:
    sizes = GroupSizes()
    sizes.forbid("bucket", 4)
    assert settled(lambda size: 1.0, rooms=8, sizes=sizes) == 2
    sizes.forbid("bucket", 2)
    assert sizes.best("bucket", 8) == 1
