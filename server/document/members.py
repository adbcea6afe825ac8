"""Guests: who may do what in one room, by its links and by what its owners say. No I/O.

A person is who holds a cookie, or a script that knows a link's secret. Somebody comes by a link and gets its role; an
owner may give them another, or put them out. Who was put out does not come back as the same person by any link; who
came by a link that was revoked comes back by another one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from livedrag.server.document.document import digest
from livedrag.server.document.protocol import Role

SCRIPT = "s-"
RANKS: Mapping[Role, int] = {"viewer": 0, "editor": 1, "owner": 2}
COLOURS = (
    "#2563eb",
    "#dc2626",
    "#15803d",
    "#9333ea",
    "#c2410c",
    "#0e7490",
    "#be185d",
    "#4d7c0f",
    "#4338ca",
    "#b45309",
    "#0f766e",
    "#a21caf",
)
"""Dark enough for white letters on them, far enough from each other."""


@dataclass(frozen=True)
class Link:
    """One way into a room. ``digest`` is of the secret; times in seconds since the epoch, ``used`` by anybody last."""

    id: str
    digest: str
    role: Role
    made: float
    used: float | None = None


@dataclass(frozen=True)
class Member:
    """Somebody who has been in a room. ``role`` is None for who was put out; ``link`` is the id they came by, or empty.

    ``colour`` is ``#rrggbb``, ``seen`` in seconds since the epoch.
    """

    person: str
    name: str
    colour: str
    role: Role | None
    link: str
    seen: float


class AccessDenied(Exception):
    """Somebody may not come in; the text says why, and what would work."""

    reason = "wrong_secret"


class WrongSecret(AccessDenied):
    """The secret opens nothing here."""


class PersonRemoved(AccessDenied):
    """An owner has put this person out."""

    reason = "removed"


class NotAllowed(Exception):
    """An owner asks for what must not be; the text says why, and what would work."""


class Members:
    """The links of a room and the people who have come by them. What changes is returned, to be kept by the caller."""

    def __init__(self, room: str, links: Iterable[Link], members: Iterable[Member]) -> None:
        self.room = room
        self.links = {link.id: link for link in links}
        self.members = {member.person: member for member in members}

    def link(self, secret: str) -> Link | None:
        """The link with this secret."""
        wanted = digest(secret)
        return next((link for link in self.links.values() if link.digest == wanted), None) if secret else None

    def role(self, person: str) -> Role | None:
        """What a person may do; None for who may not come in."""
        member = self.members.get(person)
        return member.role if member is not None else None

    def admit(self, person: str, secret: str, now: float) -> tuple[Member, Link | None]:
        """Let somebody in who has a secret, or has been here before; returns them and the link, if its use is new.

        Raises:
            WrongSecret: neither the secret nor the person opens this room.
            Removed: an owner has put them out.
        """
        member, link = self.members.get(person), self.link(secret)
        if member is not None and member.role is None and member.link:
            raise PersonRemoved(f"an owner of room {self.room!r} has put you out: ask them")
        role = member.role if member is not None else None
        if link is None and role is None:
            raise WrongSecret(
                f"this secret does not open room {self.room!r}: use the whole link, with what follows its '#'"
            )
        if member is None:
            member = Member(person=person, name="", colour=self._colour(person), role=None, link="", seen=now)
        if link is not None and link.id != member.link and (role is None or RANKS[link.role] > RANKS[role]):
            member = replace(member, role=link.role, link=link.id)
        member = self.members[person] = replace(member, seen=now)
        if link is None or (link.used is not None and now - link.used < 60):
            return member, None
        link = self.links[link.id] = replace(link, used=now)
        return member, link

    def rename(self, person: str, name: str) -> Member:
        """Somebody would like to be called something else."""
        member = self.members[person] = replace(self.members[person], name=name)
        return member

    def forget_scripts(self, but: Collection[str]) -> None:
        """Forget the scripts that the link alone says all about: where many come and go, under ever new names."""
        for member in list(self.members.values()):
            link = self.links.get(member.link)
            if is_script(member.person) and member.person not in but and link is not None and member.role == link.role:
                del self.members[member.person]

    def add(self, link: Link) -> Link:
        """One more link."""
        self.links[link.id] = link
        return link

    def revoke(self, id: str, by: str) -> list[Member]:
        """Take a link away; returns who is out with it, which is not whoever does it.

        Raises:
            NotAllowed: nothing else would let an owner in.
        """
        if all(link.role != "owner" for link in self.links.values() if link.id != id):
            raise NotAllowed("this is the only link for owners: make another one first")
        del self.links[id]
        out = []
        for member in [member for member in self.members.values() if member.link == id]:
            if member.person == by:
                self.members[by] = replace(member, link="")
            elif member.role is not None:
                out.append(replace(member, role=None, link=""))
                self.members[member.person] = out[-1]
        return out

    def give_role(self, person: str, role: Role, by: str) -> Member:
        """Let somebody do more, or less. Raises `NotAllowed`."""
        if person == by:
            raise NotAllowed("you cannot change your own role: another owner can")
        member = self.members[person] = replace(self.members[person], role=role)
        return member

    def put_out(self, person: str, by: str) -> Member:
        """Let somebody in no more. Raises `NotAllowed`."""
        if person == by:
            raise NotAllowed("you cannot put yourself out: another owner can")
        member = self.members[person]
        member = self.members[person] = replace(member, role=None, link=member.link or "-")
        return member

    def _colour(self, person: str) -> str:
        """One that nobody here has yet, else any; the same person tends to the same one in every room."""
        start = int.from_bytes(hashlib.sha256(person.encode()).digest()[:4], "big") % len(COLOURS)
        turned = COLOURS[start:] + COLOURS[:start]
        taken = {member.colour for member in self.members.values()}
        return next((colour for colour in turned if colour not in taken), turned[0])


def is_script(person: str) -> bool:
    """Whether this person is a script, which needs no keeping before it has edited something."""
    return person.startswith(SCRIPT)


def nameless_script() -> str:
    """A script that is nobody in particular, on every connection another one."""
    return f"{SCRIPT}{secrets.token_urlsafe(9)}"


def script_person(room: str, link: Link, name: str) -> str:
    """Who a script is that knows a link's secret: the same one over reconnects, another one by another name."""
    return f"{SCRIPT}{hashlib.sha256('/'.join((room, link.id, name)).encode()).hexdigest()[:16]}"
