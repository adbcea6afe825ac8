"""Exchange: cookies that last, tickets that do not, and a password that is not kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from livedrag.server.access.credentials import Credentials
from livedrag.server.storage import Store


@pytest.fixture
def clock() -> list[float]:
    return [1_000_000.0]


def test_a_ticket_is_good_once_for_its_room_and_for_a_minute(tmp_path: Path, clock: list[float]) -> None:
    with Store(tmp_path) as store:
        exchange = Credentials(store, "", lambda: clock[0])
        ticket = exchange.issue("room", "p")
        assert exchange.redeem(ticket, "room") == "p"
        assert exchange.redeem(ticket, "room") is None
        assert exchange.redeem(exchange.issue("room", "p"), "other") is None
        late = exchange.issue("room", "p")
        clock[0] += 60
        assert exchange.redeem(late, "room") is None
        assert exchange.redeem("made up", "room") is None


def test_a_cookie_outlives_the_server_and_is_not_kept_itself(tmp_path: Path) -> None:
    async def first() -> tuple[str, str]:
        with Store(tmp_path) as store:
            exchange = Credentials(store, "")
            cookie, session = await exchange.new_holder()
            assert await exchange.holder(cookie) == session
            return cookie, session.person

    async def second(cookie: str) -> str:
        with Store(tmp_path) as store:
            session = await Credentials(store, "").holder(cookie)
            assert session is not None
            assert await Credentials(store, "").holder("another") is None
            return session.person

    cookie, person = asyncio.run(first())
    assert asyncio.run(second(cookie)) == person
    assert not any(cookie.encode() in path.read_bytes() for path in tmp_path.glob("livedrag.sqlite3*"))


def test_the_password_is_asked_for_until_it_was_said_and_again_when_it_is_another(tmp_path: Path) -> None:
    async def story() -> None:
        with Store(tmp_path) as store:
            exchange = Credentials(store, "open sesame")
            cookie, session = await exchange.new_holder()
            assert not await exchange.has_passed(None)
            assert not await exchange.has_passed(session)
            assert not exchange.is_password("open")
            assert exchange.is_password("open sesame")
            await exchange.let_pass(session)
            again = Credentials(store, "open sesame")  # as after a restart
            assert await again.has_passed(await again.holder(cookie))
            other = Credentials(store, "close sesame")
            assert not await other.has_passed(await other.holder(cookie))
            assert await Credentials(store, "").has_passed(None)

    asyncio.run(story())
    assert not any(b"open sesame" in path.read_bytes() for path in tmp_path.glob("livedrag.sqlite3*"))
