"""Exchange: secrets and passwords for cookies and tickets. What is kept of either is a digest.

A cookie is durable and opens every room that its holder has entered; a ticket is good for one connection, soon.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from livedrag.server.document.members import digest
from livedrag.server.errors import ServiceError
from livedrag.server.storage import CookieSession, Store, StoreError

log = logging.getLogger(__name__)

TICKET_SECONDS = 60.0
TOUCH_SECONDS = 86_400.0
"""After which a cookie's use is written down again."""
MOST_KNOWN = 10_000
"""Cookies and tickets that are held in memory."""
BYTES = 24
"""Of a secret: 192 bits."""


class PasswordRequired(ServiceError):
    """The server's password is missing or wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(401, "password", message)


@dataclass(frozen=True)
class Visitor:
    """What a request or a handshake says of who it is from; ``address`` is where it comes from.

    ``name`` tells the scripts apart that know one secret; ``counted`` says that its trying of the password was counted
    already.
    """

    address: str = ""
    cookie: str = ""
    password: str = ""
    name: str = ""
    counted: bool = False


class Credentials:
    """All cookies and tickets of one server."""

    def __init__(self, store: Store, password: str, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._password = password.encode()
        self._clock = clock
        self._known: dict[str, CookieSession] = {}
        self._verified: set[str] = set()  # digests of cookies whose `passed` fits the password
        self._tickets: dict[str, tuple[str, str, float]] = {}

    async def holder(self, cookie: str) -> CookieSession | None:
        """Who holds a cookie; None if there is no such cookie."""
        if not cookie:
            return None
        key = digest(cookie)
        session = self._known.get(key)
        if session is None:
            session = await asyncio.wrap_future(self._store.find_session(key))
        if session is not None and self._clock() - session.used > TOUCH_SECONDS:
            used = replace(session, used=self._clock())
            try:
                await asyncio.wrap_future(self._store.save_session(used))
                session = used
            except StoreError as error:  # it counts all the same, and is written down at its next use
                log.error("the use of a cookie was not saved: %s", error)
        if session is not None:
            self._note(session)
        return session

    async def new_holder(self) -> tuple[str, CookieSession]:
        """A new cookie and its holder, kept."""
        cookie, now = secrets.token_urlsafe(BYTES), self._clock()
        session = CookieSession(digest(cookie), f"p-{secrets.token_urlsafe(9)}", now, now)
        await asyncio.wrap_future(self._store.save_session(session))
        self._note(session)
        return cookie, session

    def is_password(self, password: str) -> bool:
        """Whether this is the server's password; anything is where there is none."""
        return not self._password or hmac.compare_digest(password.encode(), self._password)

    async def has_passed(self, session: CookieSession | None) -> bool:
        """Whether the holder of a cookie has said the password that the server has now."""
        if not self._password or session is None:
            return not self._password
        if session.digest not in self._verified and session.password_verifier:
            passed = await asyncio.to_thread(self._mark, session)
            if hmac.compare_digest(passed, session.password_verifier):
                self._verified.add(session.digest)
        return session.digest in self._verified

    async def let_pass(self, session: CookieSession) -> CookieSession:
        """The holder of a cookie has said the password."""
        session = replace(session, password_verifier=await asyncio.to_thread(self._mark, session))
        await asyncio.wrap_future(self._store.save_session(session))
        self._note(session)
        self._verified.add(session.digest)
        return session

    def _mark(self, session: CookieSession) -> str:
        """What is kept to recognise the password by: slow to guess from, and another one for every cookie."""
        return hashlib.scrypt(self._password, salt=session.digest.encode(), n=2**13, r=8, p=1).hex()

    def issue(self, room: str, person: str) -> str:
        """A ticket for one connection to a room."""
        now = self._clock()
        self._tickets = {key: ticket for key, ticket in self._tickets.items() if ticket[2] > now}
        while len(self._tickets) >= MOST_KNOWN:
            del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_urlsafe(BYTES)
        self._tickets[digest(ticket)] = (room, person, now + TICKET_SECONDS)
        return ticket

    def redeem(self, ticket: str, room: str) -> str | None:
        """The person that a ticket was issued to; None where it is used up, too old, or another room's."""
        issued = self._tickets.pop(digest(ticket), None)
        if issued is None or issued[0] != room or issued[2] <= self._clock():
            return None
        return issued[1]

    def _note(self, session: CookieSession) -> None:
        while len(self._known) >= MOST_KNOWN and session.digest not in self._known:
            self._verified.discard(next(iter(self._known)))
            del self._known[next(iter(self._known))]
        self._known[session.digest] = session
