"""Doors: who comes into which room, by cookie, ticket, secret and password, and what owners say about it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from livedrag.server.access.credentials import BYTES, Credentials, PasswordRequired, Visitor
from livedrag.server.access.rate_limits import RateLimits
from livedrag.server.document.members import Link, WrongSecret, digest, is_script, nameless_script, script_person
from livedrag.server.document.protocol import Close, ErrorMessage, Hello, Role
from livedrag.server.rooms.outbox import Disconnect
from livedrag.server.rooms.room import LiveRoom, RoomSession
from livedrag.server.storage import Store

log = logging.getLogger(__name__)

MOST_GUESTS = 500
"""People of a room after which scripts that have left no trace are forgotten."""


class Admission:
    """The doors of all rooms of a server."""

    def __init__(
        self, store: Store, exchange: Credentials, limits: RateLimits, open: Callable[[str], Awaitable[LiveRoom]]
    ) -> None:
        """Guard the rooms that ``open`` gives, which raises `UnknownRoom` where there is none."""
        self._store = store
        self._exchange = exchange
        self._limits = limits
        self._open = open

    async def enter(self, room: str, visitor: Visitor, secret: str) -> tuple[str, Role, str]:
        """Let the holder of a cookie into a room from now on; returns the cookie (maybe a new one), role and ticket.

        Raises:
            UnknownRoom: there is no such room.
            NeedsPassword: the server's password was not said, or another one.
            NoEntry: the secret does not open the room.
        """
        await self.check_password(visitor)
        hall = await self._open(room)
        if await self._exchange.holder(visitor.cookie) is None:
            self._link(hall, secret)  # no cookie for who cannot come in
        cookie = await self.give_cookie(visitor)
        session = await self._exchange.holder(cookie)
        assert session is not None
        hall = await self._open(room)  # it may have been closed meanwhile, and opened again
        member, link = hall.guests.admit(session.person, secret, time.time())
        if link is not None:
            await asyncio.wrap_future(self._store.save_link(room, link))
        await asyncio.wrap_future(self._store.save_member(room, member))
        assert member.role is not None
        return cookie, member.role, self._exchange.issue(room, session.person)

    async def give_cookie(self, visitor: Visitor) -> str:
        """The visitor's cookie, or a new one, which has passed the password. Raises `PasswordRequired`."""
        session = await self._exchange.holder(visitor.cookie)
        passed = await self._exchange.has_passed(session)
        if not passed:
            self._try_password(visitor)
        cookie = visitor.cookie
        if session is None:
            cookie, session = await self._exchange.new_holder()
        if not passed:
            await self._exchange.let_pass(session)
        return cookie

    async def check_password(self, visitor: Visitor) -> None:
        """Raise `PasswordRequired` unless the server has none, or the visitor has said it."""
        session = await self._exchange.holder(visitor.cookie)
        if not await self._exchange.has_passed(session):
            self._try_password(visitor)

    def _try_password(self, visitor: Visitor) -> None:
        if visitor.password and not visitor.counted:
            self._limits.wait_address(visitor.address, "enter")  # or guessing would go on at the rate of requests
        if self._exchange.is_password(visitor.password):
            return
        if not visitor.password:
            raise PasswordRequired("this server has a password: enter with it first, or send it as Livedrag-Password")
        if not visitor.counted:
            self._limits.check_address(visitor.address, "enter")
        raise PasswordRequired("this server has a password, and this is another: ask whoever runs it")

    async def visit(self, room: str, visitor: Visitor, secret: str) -> tuple[LiveRoom, str]:
        """A room for who asks by HTTP, and who that is. Raises as `enter` does."""
        await self.check_password(visitor)
        hall = await self._open(room)
        session = await self._exchange.holder(visitor.cookie) if not secret else None
        if session is None and not secret:
            raise WrongSecret(
                f"room {room!r} opens with its secret: send 'Authorization: Bearer <secret>', or enter it"
            )
        name = visitor.name or "script"
        hall = await self._open(room)  # it may have been closed meanwhile, and opened again
        person = session.person if session is not None else self._script(hall, secret, name)
        member, link = hall.guests.admit(person, secret, time.time())
        if not member.name:
            self.rename(hall, person, name)
        if link is not None:
            keep_quietly(self._store.save_link(room, link))
        return hall, person

    def _link(self, hall: LiveRoom, secret: str) -> Link:
        link = hall.guests.link(secret)
        if link is None:
            text = f"this secret does not open room {hall.room.id!r}: use the whole link, with what follows its '#'"
            raise WrongSecret(text)
        return link

    def _script(self, hall: LiveRoom, secret: str, name: str) -> str:
        link = self._link(hall, secret)
        if len(hall.guests.members) > MOST_GUESTS:
            hall.guests.forget_scripts(but=hall.here | hall.editors)
        return script_person(hall.room.id, link, name) if name else nameless_script()

    async def identify(self, hall: LiveRoom, hello: Hello, visitor: Visitor) -> str:
        """Who says hello."""
        if hello.ticket is not None:
            person = self._exchange.redeem(hello.ticket, hall.room.id)
            if person is None:
                raise WrongSecret("this ticket was used already or is too old: enter the room again")
            return person
        await self.check_password(visitor)
        session = await self._exchange.holder(visitor.cookie)
        if session is not None:
            return session.person
        return self._script(hall, hello.secret, hello.name.strip())

    async def make_link(self, hall: LiveRoom, role: Role) -> tuple[Link, str]:
        """One more way in; returns it with its secret, which is told this once."""
        link, secret = new_link(role)
        hall.guests.add(link)
        await asyncio.wrap_future(self._store.save_link(hall.room.id, link))
        return link, secret

    async def revoke_link(self, hall: LiveRoom, id: str, by: str) -> None:
        """Take a link away, and put out who came by it. Raises `NotAllowed`."""
        came = [seat for seat in hall.seats.values() if seat.link == id and seat.person != by]
        out = hall.guests.revoke(id, by)
        for member in out:
            keep_quietly(self._store.save_member(hall.room.id, member))
        if by in hall.guests.members:
            keep_quietly(self._store.save_member(hall.room.id, hall.guests.members[by]))
        seats = [*came, *(seat for member in out for seat in hall.of(member.person))]
        self._put_out(seats, "the link that you came by was revoked: ask for another")
        await asyncio.wrap_future(self._store.remove_link(hall.room.id, id))

    async def give_role(self, hall: LiveRoom, person: str, role: Role, by: str) -> None:
        """Let somebody do more, or less. Raises `NotAllowed`."""
        member = hall.guests.give_role(person, role, by)
        hall.tell(hall.people())
        await asyncio.wrap_future(self._store.save_member(hall.room.id, member))

    async def remove(self, hall: LiveRoom, person: str, by: str) -> None:
        """Put somebody out for good. Raises `NotAllowed`."""
        member = hall.guests.remove(person, by)
        self._put_out(hall.of(person), "an owner of this room has put you out: ask them")
        await asyncio.wrap_future(self._store.save_member(hall.room.id, member))

    def _put_out(self, seats: list[RoomSession], why: str) -> None:
        for seat in seats:
            seat.outbox.dismiss(Disconnect(Close.REMOVED, ErrorMessage(reason="removed", message=why)))

    def rename(self, hall: LiveRoom, person: str, name: str) -> None:
        """Somebody would like to be called something else."""
        member = hall.guests.rename(person, name)
        if not is_script(person) or person in hall.editors:
            keep_quietly(self._store.save_member(hall.room.id, member))


def new_link(role: Role) -> tuple[Link, str]:
    """A link and its secret."""
    secret = secrets.token_urlsafe(BYTES)
    return Link(secrets.token_urlsafe(6), digest(secret), role, time.time()), secret


def keep_quietly(saving: Future[None]) -> None:
    """Something small is being kept that nobody waits for; where it fails, the log says so."""

    def saved(saving: asyncio.Future[None]) -> None:
        if not saving.cancelled() and saving.exception() is not None:
            log.error("a link or a person was not saved: %s", saving.exception())

    asyncio.wrap_future(saving).add_done_callback(saved)
