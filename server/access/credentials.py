"""Credentials: cookies that last and open every room their owner has entered, and tickets for one connection each.

Only digests of cookies are stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from livedrag.server.access.password import Caller, ServerPassword
from livedrag.server.document.members import digest
from livedrag.server.storage import CookieSession, Store, StoreError

log = logging.getLogger(__name__)

TICKET_SECONDS = 60.0
TOUCH_SECONDS = 86_400.0
"""How old a cookie's stored time of use may become."""
MAX_KNOWN = 10_000
"""Cookies and tickets in memory."""
SECRET_BYTES = 24


class Credentials:
    """The cookies and tickets of one server, and its password."""

    def __init__(self, store: Store, password: str, clock: Callable[[], float] = time.time) -> None:
        self.password = ServerPassword(password)
        self._store = store
        self._secret = password.encode()
        self._clock = clock
        self._sessions: dict[str, CookieSession] = {}
        self._authenticated: set[str] = set()  # digests of cookies whose verifier fits the password
        self._tickets: dict[str, tuple[str, str, float]] = {}

    # Cookies ---------------------------------------------------------------------------------------------------------

    async def find_session(self, cookie: str) -> CookieSession | None:
        """The session of a cookie, if there is one."""
        if not cookie:
            return None
        key = digest(cookie)
        session = self._sessions.get(key)
        if session is None:
            session = await asyncio.wrap_future(self._store.find_session(key))
        if session is not None and self._clock() - session.used > TOUCH_SECONDS:
            session = await self._save(replace(session, used=self._clock()))
        if session is not None:
            self._remember(session)
        return session

    async def create_session(self) -> tuple[str, CookieSession]:
        """A new cookie and its session."""
        cookie, now = secrets.token_urlsafe(SECRET_BYTES), self._clock()
        session = await self._save(CookieSession(digest(cookie), f"p-{secrets.token_urlsafe(9)}", now, now))
        self._remember(session)
        return cookie, session

    async def _save(self, session: CookieSession) -> CookieSession:
        try:
            await asyncio.wrap_future(self._store.save_session(session))
        except StoreError as error:  # it is valid until this server stops
            log.error("a session cookie was not saved: %s", error)
        return session

    # The password ----------------------------------------------------------------------------------------------------

    async def check_password(self, caller: Caller, session: CookieSession | None) -> None:
        """Raise `PasswordRequired` unless the session is authenticated or the caller gives the password."""
        if not await self.is_authenticated(session):
            device = session.digest if session is not None and session.password_verifier else ""
            await self.password.check(caller, device)

    async def is_authenticated(self, session: CookieSession | None) -> bool:
        """Whether the password that the server has now was given for this session, or there is none."""
        if not self._secret or session is None:
            return not self._secret
        if session.digest not in self._authenticated and session.password_verifier:
            verifier = await asyncio.to_thread(self._verifier, session)
            if hmac.compare_digest(verifier, session.password_verifier):
                self._authenticated.add(session.digest)
        return session.digest in self._authenticated

    async def authenticate(self, session: CookieSession) -> None:
        """The password was given for this session."""
        session = await self._save(replace(session, password_verifier=await asyncio.to_thread(self._verifier, session)))
        self._remember(session)
        self._authenticated.add(session.digest)

    def _verifier(self, session: CookieSession) -> str:
        """A scrypt hash of the password, salted per cookie."""
        return hashlib.scrypt(self._secret, salt=session.digest.encode(), n=2**13, r=8, p=1).hex()

    # Tickets ---------------------------------------------------------------------------------------------------------

    def issue_ticket(self, room: str, person: str) -> str:
        """A ticket for one connection of a person to a room, within `TICKET_SECONDS`."""
        now = self._clock()
        self._tickets = {key: ticket for key, ticket in self._tickets.items() if ticket[2] > now}
        while len(self._tickets) >= MAX_KNOWN:
            del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_urlsafe(SECRET_BYTES)
        self._tickets[digest(ticket)] = (room, person, now + TICKET_SECONDS)
        return ticket

    def redeem_ticket(self, ticket: str, room: str) -> str | None:
        """The person a ticket was issued to; None if it was used, has expired, or is for another room."""
        issued = self._tickets.pop(digest(ticket), None)
        if issued is None or issued[0] != room or issued[2] <= self._clock():
            return None
        return issued[1]

    def _remember(self, session: CookieSession) -> None:
        while len(self._sessions) >= MAX_KNOWN and session.digest not in self._sessions:
            oldest = next(iter(self._sessions))
            self._authenticated.discard(oldest)
            del self._sessions[oldest]
        self._sessions[session.digest] = session
