"""Who may enter which room: cookies, tickets, secrets, the password, and what owners change about it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable

from livedrag.server.access.credentials import SECRET_BYTES, Credentials
from livedrag.server.access.password import Caller, PasswordRequired
from livedrag.server.access.rate_limits import RateLimited, RateLimits
from livedrag.server.document.members import (
    AccessDenied,
    Link,
    Member,
    PersonRemoved,
    WrongSecret,
    digest,
    nameless_script,
    no_access,
    script_person,
)
from livedrag.server.document.protocol import Close, ErrorMessage, Hello, Role
from livedrag.server.errors import UnknownRoom
from livedrag.server.rooms.background import log_failure
from livedrag.server.rooms.outbox import Disconnect
from livedrag.server.rooms.room import LiveRoom
from livedrag.server.rooms.session import RoomSession
from livedrag.server.storage import CookieSession, Store, StoreError
from livedrag.server.storage.errors import Damaged, DiskFull

log = logging.getLogger(__name__)

MAX_MEMBERS = 500
"""Members of a room above which scripts that have left no trace are forgotten."""


class Admission:
    """Access to the rooms of a server.

    Args:
        open: opens a room; raises `UnknownRoom`.
    """

    def __init__(
        self, store: Store, credentials: Credentials, limits: RateLimits, open: Callable[[str], Awaitable[LiveRoom]]
    ) -> None:
        self._store = store
        self._credentials = credentials
        self._limits = limits
        self._open = open

    # The password ----------------------------------------------------------------------------------------------------

    async def check_password(self, caller: Caller) -> CookieSession | None:
        """Raise `PasswordRequired` unless the caller has given the server's password; returns their session."""
        session = await self._credentials.find_session(caller.cookie)
        await self._credentials.check_password(caller, session)
        return session

    async def give_cookie(self, caller: Caller) -> str:
        """The caller's cookie, or a new one, with access to the server. Raises `PasswordRequired`, `RateLimited`."""
        session = await self.check_password(caller)
        self._limits.check_address(caller.address, "enter")
        return (await self._authenticate(caller, session))[0]

    async def _authenticate(self, caller: Caller, session: CookieSession | None) -> tuple[str, CookieSession]:
        cookie = caller.cookie
        if session is None:
            cookie, session = await self._credentials.create_session()
        if not await self._credentials.is_authenticated(session):
            await self._credentials.authenticate(session)
        return cookie, session

    # Entering --------------------------------------------------------------------------------------------------------

    async def enter(self, room_id: str, caller: Caller, secret: str) -> tuple[str, Role, str]:
        """Give the holder of a cookie access to a room; returns the cookie (maybe a new one), the role and a ticket.

        Raises:
            PasswordRequired: the server's password is missing or wrong.
            UnknownRoom: there is no such room.
            RateLimited: too many attempts from one address.
            AccessDenied: the secret does not open the room.
        """
        session = await self.check_password(caller)
        self._limits.check_address(caller.address, "enter")
        room = await self._open(room_id)
        if session is None:
            _link(room, secret)  # no cookie without access
        cookie, session = await self._authenticate(caller, session)
        room = await self._open(room_id)  # it may have been closed and opened again meanwhile
        member, link = room.members.admit(session.person, secret, time.time())
        try:
            if link is not None:
                await asyncio.wrap_future(self._store.save_link(room_id, link))
            await asyncio.wrap_future(self._store.save_member(room_id, member))
        except DiskFull as error:  # rooms can still be viewed, exported and deleted
            log.error("a member was not saved: %s", error, extra={"room": room_id})
        assert member.role is not None
        return cookie, member.role, self._credentials.issue_ticket(room_id, session.person)

    async def visit(self, room_id: str, caller: Caller, secret: str) -> tuple[LiveRoom, str]:
        """The room and the person of an HTTP request. Raises like `enter`."""
        session = await self.check_password(caller)
        room = await self._open(room_id)
        session = session if not secret else None
        if session is None and not secret:
            raise WrongSecret(f"room {room_id!r} needs its secret: send 'Authorization: Bearer <secret>', or enter it")
        name = caller.name or "script"
        room = await self._open(room_id)  # it may have been closed and opened again meanwhile
        person = session.person if session is not None else _script(room, secret, name)
        member = self._admit(room, person, secret)
        if session is None and not member.name:  # joining names a person
            room.rename(person, name)
        return room, person

    async def admit(self, room_id: str, hello: Hello, caller: Caller) -> tuple[LiveRoom, Member]:
        """The room and the member of a new connection. Raises `Disconnect`."""
        try:
            person = await self._identify(room_id, hello, caller)
            room = await self._open(room_id)
            if person is None:
                person = _script(room, hello.secret, hello.name.strip())
            return room, self._admit(room, person, hello.secret)
        except UnknownRoom as error:
            raise _disconnect(Close.UNKNOWN_ROOM, "unknown_room", error) from None
        except RateLimited as error:
            raise _disconnect(Close.TOO_MANY, "too_many", error) from error
        except PasswordRequired as error:
            raise _disconnect(Close.PASSWORD, "password", error) from None
        except PersonRemoved as error:
            raise _disconnect(Close.REMOVED, error.reason, error) from None
        except AccessDenied as error:
            raise _disconnect(Close.WRONG_SECRET, error.reason, error) from None
        except Damaged as error:
            raise _disconnect(Close.UNKNOWN_ROOM, error.reason, error) from None
        except StoreError as error:
            log.error("a connection was refused: %s", error, extra={"room": room_id})
            text = f"the server cannot read or save its data: {error}"
            raise _disconnect(Close.GOING_AWAY, "not_saved", text) from None

    async def _identify(self, room_id: str, hello: Hello, caller: Caller) -> str | None:
        """The holder of a ticket or a cookie; None for a script. Only then may the answer say whether a room exists."""
        if hello.ticket is not None:
            person = self._credentials.redeem_ticket(hello.ticket, room_id)
            if person is None:
                raise WrongSecret("this ticket was used already or has expired: enter the room again")
            return person
        session = await self.check_password(caller)
        return session.person if session is not None else None

    def _admit(self, room: LiveRoom, person: str, secret: str) -> Member:
        member, link = room.members.admit(person, secret, time.time())
        if link is not None:
            log_failure(self._store.save_link(room.id, link))
        return member

    # What owners change ----------------------------------------------------------------------------------------------

    async def make_link(self, room: LiveRoom, role: Role) -> tuple[Link, str]:
        """Create a link; returns it with its secret, which is not stored."""
        link, secret = new_link(role)
        room.members.add(link)
        await asyncio.wrap_future(self._store.save_link(room.id, link))
        return link, secret

    async def revoke_link(self, room: LiveRoom, id: str, by: str) -> None:
        """Remove a link, and disconnect those who joined by it. Raises `NotAllowed`."""
        joined = [session for session in room.sessions.values() if session.link == id and session.person != by]
        removed = room.members.revoke(id, by)
        for member in removed:
            log_failure(self._store.save_member(room.id, member))
        if by in room.members.members:
            log_failure(self._store.save_member(room.id, room.members.members[by]))
        sessions = [*joined, *(session for member in removed for session in room.sessions_of(member.person))]
        _disconnect_removed(sessions, "your link was revoked: ask for another")
        await asyncio.wrap_future(self._store.remove_link(room.id, id))

    async def give_role(self, room: LiveRoom, person: str, role: Role, by: str) -> None:
        """Change the role of a member. Raises `NotAllowed`."""
        member = room.members.give_role(person, role, by)
        room.broadcast(room.people())
        await asyncio.wrap_future(self._store.save_member(room.id, member))

    async def remove(self, room: LiveRoom, person: str, by: str) -> None:
        """Remove a person for good. Raises `NotAllowed`."""
        member = room.members.remove(person, by)
        _disconnect_removed(room.sessions_of(person), "the owner removed you from this room: ask them for access")
        await asyncio.wrap_future(self._store.save_member(room.id, member))


def new_link(role: Role) -> tuple[Link, str]:
    """A link and its secret."""
    secret = secrets.token_urlsafe(SECRET_BYTES)
    return Link(secrets.token_urlsafe(6), digest(secret), role, time.time()), secret


def _link(room: LiveRoom, secret: str) -> Link:
    link = room.members.link(secret)
    if link is None:
        raise no_access(room.id, secret)
    return link


def _script(room: LiveRoom, secret: str, name: str) -> str:
    link = _link(room, secret)
    if len(room.members.members) > MAX_MEMBERS:
        room.members.forget_scripts(but=room.connected | room.log.editors)
    return script_person(room.id, link, name) if name else nameless_script()


def _disconnect_removed(sessions: Iterable[RoomSession], why: str) -> None:
    for session in sessions:
        session.outbox.dismiss(_disconnect(Close.REMOVED, "removed", why))


def _disconnect(code: Close, reason: str, message: object) -> Disconnect:
    return Disconnect(code, ErrorMessage(reason=reason, message=str(message)))
