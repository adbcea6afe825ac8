"""Who may do what in one room: its links, its members and their roles.

A person is the holder of a cookie, or a script that has a link's secret. People join by a link and get its role; an
owner can change the role or remove them. A removed person cannot return by any link. A person whose link was revoked
can return by another link.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from livedrag.server.document.protocol import Role
from livedrag.server.errors import ServiceError

SCRIPT = "s-"
"""Prefix of the ids of scripts."""
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
"""Dark enough for white text, and easy to tell apart."""


@dataclass(frozen=True)
class Link:
    """A link to a room. ``digest`` is of its secret; ``made`` and ``used`` (last) are in seconds since the epoch."""

    id: str
    digest: str
    role: Role
    made: float
    used: float | None = None


@dataclass(frozen=True)
class Member:
    """A person who has been in a room. ``role`` is None if they were removed.

    ``link`` is the id of the link that they joined by, or empty; ``colour`` is ``#rrggbb``, ``seen`` is in seconds
    since the epoch.
    """

    person: str
    name: str
    colour: str
    role: Role | None
    link: str
    seen: float


class AccessDenied(ServiceError):
    """This person may not enter the room."""

    def __init__(self, message: str, reason: str = "wrong_secret") -> None:
        super().__init__(403, reason, message)


class WrongSecret(AccessDenied):
    """The secret is not one of this room's links."""


class PersonRemoved(AccessDenied):
    """An owner has removed this person from the room."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "removed")


class NotAllowed(ServiceError):
    """A change of links or roles that is not possible."""

    def __init__(self, message: str) -> None:
        super().__init__(409, "not_allowed", message)


def digest(secret: str) -> str:
    """The hash by which a secret is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def no_access(room: str, secret: str) -> WrongSecret:
    """The error for a secret that no link of the room has; without one, the browser may have dropped our cookie."""
    link = "the whole link, including the part after '#'"
    if secret:
        return WrongSecret(f"this secret does not open room {room!r}: use {link}")
    return WrongSecret(f"room {room!r} needs a secret or this site's cookie: open {link}, and allow cookies")


class Members:
    """The links of a room and its members. Methods return what they have changed, for the caller to save."""

    def __init__(self, room: str, links: Iterable[Link], members: Iterable[Member]) -> None:
        self.room = room
        self.links = {link.id: link for link in links}
        self.members = {member.person: member for member in members}

    def link(self, secret: str) -> Link | None:
        """The link with this secret."""
        wanted = digest(secret)
        return next((link for link in self.links.values() if link.digest == wanted), None) if secret else None

    def role(self, person: str) -> Role | None:
        """The role of a person; None if they may not enter."""
        member = self.members.get(person)
        return member.role if member is not None else None

    def admit(self, person: str, secret: str, now: float) -> tuple[Member, Link | None]:
        """Admit a person with a secret, or one who was here before.

        Returns:
            The member, and the link if its time of use has changed.

        Raises:
            WrongSecret: neither the secret nor the person has access.
            PersonRemoved: an owner has removed this person.
        """
        member, link = self.members.get(person), self.link(secret)
        if member is not None and member.role is None and member.link:
            raise PersonRemoved(f"the owner removed you from room {self.room!r}: ask them for access")
        role = member.role if member is not None else None
        if link is None and role is None:
            raise no_access(self.room, secret)
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
        """Change the name of a member."""
        member = self.members[person] = replace(self.members[person], name=name)
        return member

    def forget_scripts(self, but: Collection[str]) -> None:
        """Forget scripts of which nothing is known beyond their link, so that many short-lived ones do not pile up."""
        for member in list(self.members.values()):
            link = self.links.get(member.link)
            if is_script(member.person) and member.person not in but and link is not None and member.role == link.role:
                del self.members[member.person]

    def add(self, link: Link) -> Link:
        """Add a link."""
        self.links[link.id] = link
        return link

    def revoke(self, id: str, by: str) -> list[Member]:
        """Remove a link; returns the members who lose access with it, without ``by``.

        Raises:
            NotAllowed: no other link would admit an owner.
        """
        if all(link.role != "owner" for link in self.links.values() if link.id != id):
            raise NotAllowed("this is the only owner link: create another one first")
        del self.links[id]
        removed = []
        for member in [member for member in self.members.values() if member.link == id]:
            if member.person == by:
                self.members[by] = replace(member, link="")
            elif member.role is not None:
                removed.append(replace(member, role=None, link=""))
                self.members[member.person] = removed[-1]
        return removed

    def give_role(self, person: str, role: Role, by: str) -> Member:
        """Change the role of a member. Raises `NotAllowed`."""
        if person == by:
            raise NotAllowed("you cannot change your own role: ask another owner")
        member = self.members[person] = replace(self.members[person], role=role)
        return member

    def remove(self, person: str, by: str) -> Member:
        """Deny a person access. Raises `NotAllowed`."""
        if person == by:
            raise NotAllowed("you cannot remove yourself: ask another owner")
        member = self.members[person]
        member = self.members[person] = replace(member, role=None, link=member.link or "-")
        return member

    def _colour(self, person: str) -> str:
        """A colour that is still free if there is one; a person tends to get the same one in every room."""
        start = int.from_bytes(hashlib.sha256(person.encode()).digest()[:4], "big") % len(COLOURS)
        rotated = COLOURS[start:] + COLOURS[:start]
        taken = {member.colour for member in self.members.values()}
        return next((colour for colour in rotated if colour not in taken), rotated[0])


def is_script(person: str) -> bool:
    """Whether this person is a script, which is not saved until it has edited something."""
    return person.startswith(SCRIPT)


def nameless_script() -> str:
    """A new person for one connection of a script without a name."""
    return f"{SCRIPT}{secrets.token_urlsafe(9)}"


def script_person(room: str, link: Link, name: str) -> str:
    """The person behind a script: the same over reconnects for the same link and name."""
    return f"{SCRIPT}{hashlib.sha256('/'.join((room, link.id, name)).encode()).hexdigest()[:16]}"
