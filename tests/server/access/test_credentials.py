"""Credentials: cookies that last, tickets that do not, and a password that is not stored."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from livedrag.server.access.credentials import Credentials
from livedrag.server.access.password import Caller, PasswordRequired
from livedrag.server.storage import Store


@pytest.fixture
def clock() -> list[float]:
    return [1_000_000.0]


def test_a_ticket_is_good_once_for_its_room_and_for_a_minute(tmp_path: Path, clock: list[float]) -> None:
    with Store(tmp_path) as store:
        credentials = Credentials(store, "", lambda: clock[0])
        ticket = credentials.issue_ticket("room", "p")
        assert credentials.redeem_ticket(ticket, "room") == "p"
        assert credentials.redeem_ticket(ticket, "room") is None
        assert credentials.redeem_ticket(credentials.issue_ticket("room", "p"), "other") is None
        late = credentials.issue_ticket("room", "p")
        clock[0] += 60
        assert credentials.redeem_ticket(late, "room") is None
        assert credentials.redeem_ticket("made up", "room") is None


def test_a_cookie_outlives_the_server_and_is_not_kept_itself(tmp_path: Path) -> None:
    async def first() -> tuple[str, str]:
        with Store(tmp_path) as store:
            credentials = Credentials(store, "")
            cookie, session = await credentials.create_session()
            assert await credentials.find_session(cookie) == session
            return cookie, session.person

    async def second(cookie: str) -> str:
        with Store(tmp_path) as store:
            session = await Credentials(store, "").find_session(cookie)
            assert session is not None
            assert await Credentials(store, "").find_session("another") is None
            return session.person

    cookie, person = asyncio.run(first())
    assert asyncio.run(second(cookie)) == person
    assert not any(cookie.encode() in path.read_bytes() for path in tmp_path.glob("livedrag.sqlite3*"))


def test_the_password_is_asked_for_until_it_was_said_and_again_when_it_is_another(tmp_path: Path) -> None:
    async def story() -> None:
        with Store(tmp_path) as store:
            credentials = Credentials(store, "open sesame")
            cookie, session = await credentials.create_session()
            assert not await credentials.is_authenticated(None)
            assert not await credentials.is_authenticated(session)
            with pytest.raises(PasswordRequired, match="wrong password"):
                await credentials.check_password(Caller(password="open"), session)
            await credentials.check_password(Caller(password="open sesame"), session)
            await credentials.authenticate(session)
            again = Credentials(store, "open sesame")  # as after a restart
            assert await again.is_authenticated(await again.find_session(cookie))
            other = Credentials(store, "close sesame")
            assert not await other.is_authenticated(await other.find_session(cookie))
            assert await Credentials(store, "").is_authenticated(None)

    asyncio.run(story())
    assert not any(b"open sesame" in path.read_bytes() for path in tmp_path.glob("livedrag.sqlite3*"))
