"""Limits: so much at once, so much in the long run, each person and address apart, and an error that says so."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedrag.server.access.rate_limits import (
    ADDRESS_LIMITS,
    MAX_BUCKETS,
    PERSON_LIMITS,
    WHAT,
    Buckets,
    RateLimited,
    RateLimits,
)
from livedrag.server.document.protocol import ClientMessage
from livedrag.server.settings import Rate, Settings


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_then_so_many_a_second() -> None:
    clock = Clock()
    limits = RateLimits(Settings(rate_edits=Rate(2, 3)), clock)
    for _ in range(3):
        limits.check_person("ada", "edit")
    for message in ("edit", "undo", "redo"):  # they share one limit
        with pytest.raises(
            RateLimited, match=r"too many edits: 2 per second and 3 at once are allowed; try again in 0\.5 s"
        ) as caught:
            limits.check_person("ada", message)
        assert caught.value.seconds == pytest.approx(0.5)
    limits.check_person("bob", "edit")  # others are not held up
    limits.check_person("ada", "stop")  # nor what is limited apart
    clock.now += 0.5
    limits.check_person("ada", "edit")
    with pytest.raises(RateLimited):
        limits.check_person("ada", "edit")


@pytest.mark.parametrize("action", ADDRESS_LIMITS)
def test_each_action_of_an_address_has_its_own_limit(action: str) -> None:
    tight = dataclasses.replace(Settings(), **{ADDRESS_LIMITS[action]: Rate(0.01, 1)})  # type: ignore[index, arg-type]
    limits = RateLimits(tight, Clock())
    limits.check_address("203.0.113.5", action)  # type: ignore[arg-type]
    with pytest.raises(RateLimited, match="from one address") as caught:
        limits.check_address("203.0.113.5", action)  # type: ignore[arg-type]
    assert caught.value.setting == ADDRESS_LIMITS[action]  # type: ignore[index]
    limits.check_address("203.0.113.6", action)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "other", "together"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:203.0.113.5", "203.0.113.5", True),
        ("::ffff:203.0.113.5", "::ffff:203.0.113.6", False),
        ("203.0.113.5", "203.0.113.6", False),
        ("", "", True),
    ],
)
def test_an_ipv6_network_of_64_bits_counts_as_one_address(address: str, other: str, together: bool) -> None:
    limits = RateLimits(Settings(rate_rooms=Rate(0.01, 1)), Clock())
    limits.check_address(address, "create")
    if together:
        with pytest.raises(RateLimited):
            limits.check_address(other, "create")
    else:
        limits.check_address(other, "create")


def test_every_limit_has_a_setting_a_text_and_something_it_limits() -> None:
    settings = {field.name for field in dataclasses.fields(Settings) if field.type == "Rate"}
    settings.remove("rate_strokes")  # of a room: see StrokeBudget
    limited = {*PERSON_LIMITS.values(), *ADDRESS_LIMITS.values(), "rate_signals"}
    assert settings == WHAT.keys() == limited


def test_only_messages_that_there_are_have_limits_of_their_own() -> None:
    message_types = {str(kind.__struct_config__.tag) for kind in ClientMessage.__args__}
    assert PERSON_LIMITS.keys() <= message_types


def test_no_limit_is_none() -> None:
    limits = RateLimits(Settings(rate_presence=Rate(0, 0)), Clock())
    for _ in range(10_000):
        limits.check_person("ada", "presence")


@given(st.floats(0.1, 100), st.integers(1, 50), st.lists(st.floats(0, 5), min_size=1, max_size=200), st.floats(0, 1e9))
def test_never_more_than_burst_and_rate_allow(rate: float, burst: int, pauses: list[float], start: float) -> None:
    buckets, now, passed = Buckets(Rate(rate, burst)), start, 0
    for pause in pauses:
        now += pause
        wait = buckets.take("key", now)
        if wait == 0.0:
            passed += 1
        else:
            assert 0 < wait <= 1 / rate + 1e-6
    assert passed <= burst + rate * (now - start) + 1e-6 * len(pauses)
    assert passed >= min(burst, len(pauses))


def test_keys_from_outside_do_not_pile_up() -> None:
    buckets = Buckets(Rate(1, 2))
    for number in range(3 * MAX_BUCKETS):
        buckets.take(f"address {number}", now=number * 0.01)
    assert len(buckets) <= MAX_BUCKETS + 200
