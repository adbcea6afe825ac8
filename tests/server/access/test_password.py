"""The password: guesses wait longer and longer, by address and in all, and the right one always passes."""

from __future__ import annotations

import asyncio

import pytest

from livedrag.server.access.password import MAX_KEYS, Backoff, Caller, PasswordRequired, ServerPassword


class Time:
    """A clock that stands still, and how long each sleep would have been."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def password(time: Time) -> ServerPassword:
    return ServerPassword("open sesame", time.clock, time.sleep)


def guess(password: ServerPassword, *, guess: str = "guess", address: str = "203.0.113.5", device: str = "") -> bool:
    try:
        asyncio.run(password.check(Caller(address=address, password=guess), device))
    except PasswordRequired:
        return False
    return True


def test_each_wrong_guess_waits_twice_as_long_up_to_a_bound(time: Time, password: ServerPassword) -> None:
    assert not any(guess(password) for _ in range(15))
    assert time.slept[:8] == pytest.approx([0, 0, 0, 0, 0, 0.1, 0.2, 0.4])
    assert time.slept == sorted(time.slept)
    assert time.slept[-1] == 10.0


def test_the_right_password_passes_whatever_was_guessed_from_its_address(time: Time, password: ServerPassword) -> None:
    for _ in range(300):
        guess(password)
    assert guess(password, guess="open sesame")
    assert time.slept[-1] <= 10.0
    assert guess(password, guess="open sesame", address="203.0.113.6")
    assert time.slept[-1] == 0.0


def test_no_password_is_not_an_attempt(time: Time, password: ServerPassword) -> None:
    for _ in range(100):
        assert not guess(password, guess="")
    assert time.slept == []
    assert guess(ServerPassword(""), guess="")
    assert not ServerPassword("").required


def test_right_passwords_make_nothing_slower(time: Time, password: ServerPassword) -> None:
    assert all(guess(password, guess="open sesame") for _ in range(100))
    assert set(time.slept) == {0.0}


def test_a_browser_that_knew_the_password_is_not_held_up_by_others(time: Time, password: ServerPassword) -> None:
    for _ in range(300):
        guess(password)
    assert guess(password, guess="open sesame", device="a cookie")
    assert time.slept[-1] == 0.0
    for _ in range(8):
        guess(password, device="a cookie")
    assert time.slept[-1] > 0.1, "but its own guesses count"


def test_guesses_from_many_addresses_are_slowed_in_all(time: Time, password: ServerPassword) -> None:
    for number in range(230):
        guess(password, address=f"198.51.{number // 250}.{number % 250}")
    assert time.slept[199] == 0.0
    assert time.slept[-1] > 1.0
    assert guess(password, guess="open sesame")
    assert time.slept[-1] <= 5.0


def test_many_attempts_at_once_are_counted_before_they_are_answered(time: Time, password: ServerPassword) -> None:
    async def story() -> None:
        attempts = [password.check(Caller(address="203.0.113.5", password="guess")) for _ in range(12)]
        await asyncio.gather(*attempts, return_exceptions=True)

    asyncio.run(story())
    assert sorted(time.slept)[-3:] == pytest.approx([1.6, 3.2, 6.4])


def test_failures_are_forgiven_with_time_and_addresses_do_not_pile_up() -> None:
    now = [0.0]
    backoff = Backoff(free=1, max_seconds=8.0, forgive_seconds=10.0, clock=lambda: now[0])
    assert [backoff.fail("a") for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.4])
    now[0] += 30
    assert backoff.fail("a") == pytest.approx(0.1)
    now[0] += 1000
    assert backoff.fail("a") == 0.0
    for number in range(2 * MAX_KEYS):
        backoff.fail(str(number))
    assert len(backoff._failures) <= MAX_KEYS
