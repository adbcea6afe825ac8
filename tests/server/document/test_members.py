"""Guests: who may come in by what, and what owners may do."""

from __future__ import annotations

import pytest

from livedrag.server.document.members import (
    COLOURS,
    Link,
    Members,
    NotAllowed,
    PersonRemoved,
    WrongSecret,
    script_person,
)
from livedrag.server.document.protocol import Role
from livedrag.server.rooms.admission import new_link


class Door:
    """A room with one link for each role, and their secrets."""

    def __init__(self) -> None:
        made: dict[Role, tuple[Link, str]] = {role: new_link(role) for role in ("owner", "editor", "viewer")}
        self.ids = {role: link.id for role, (link, _) in made.items()}
        self.secrets = {role: secret for role, (_, secret) in made.items()}
        self.guests = Members("room", [link for link, _ in made.values()], [])

    def come(self, person: str, role: Role | None = None, now: float = 0.0) -> Role | None:
        self.guests.admit(person, self.secrets[role] if role else "", now)
        return self.guests.role(person)


def test_secrets_are_long_and_give_roles() -> None:
    door = Door()
    for role, secret in door.secrets.items():
        assert len(secret) * 6 >= 128
        assert door.come(f"p-{role}", role) == role
    assert not any(secret in str(vars(link)) for secret in door.secrets.values() for link in door.guests.links.values())


@pytest.mark.parametrize("secret", ["", "wrong"])
def test_who_has_no_secret_does_not_come_in(secret: str) -> None:
    door = Door()
    with pytest.raises(WrongSecret, match="does not open room 'room'"):
        door.guests.admit("p", secret, 0.0)
    assert door.guests.role("p") is None


def test_who_has_been_here_needs_no_secret_and_keeps_the_higher_role() -> None:
    door = Door()
    assert door.come("p", "viewer") == "viewer"
    assert door.come("p") == "viewer"
    assert door.come("p", "editor") == "editor"
    assert door.come("p", "viewer") == "editor"


def test_what_an_owner_says_counts_more_than_the_link() -> None:
    door = Door()
    door.come("p", "editor")
    door.guests.give_role("p", "viewer", "boss")
    assert door.come("p", "editor") == "viewer"
    assert door.come("p", "owner") == "owner", "another link that somebody gave them"


def test_who_was_put_out_does_not_come_back() -> None:
    door = Door()
    door.come("p", "editor")
    door.guests.put_out("p", "boss")
    for secret in ("", *door.secrets.values()):
        with pytest.raises(PersonRemoved, match="put you out"):
            door.guests.admit("p", secret, 0.0)


def test_who_came_by_a_revoked_link_is_out_until_they_have_another() -> None:
    door = Door()
    for person, role in (("p", "editor"), ("q", "editor"), ("r", "viewer")):
        door.come(person, role)  # type: ignore[arg-type]
    out = door.guests.revoke(door.ids["editor"], "boss")
    assert {member.person for member in out} == {"p", "q"}
    for refused in (None, "editor"):
        with pytest.raises(WrongSecret):
            door.come("p", refused)
    assert door.come("r") == "viewer"
    assert door.come("p", "viewer") == "viewer"


def test_an_owner_may_change_the_link_that_they_came_by_but_not_lose_the_last() -> None:
    door = Door()
    door.come("boss", "owner")
    with pytest.raises(NotAllowed, match="only link for owners"):
        door.guests.revoke(door.ids["owner"], "boss")
    door.guests.add(new_link("owner")[0])
    assert door.guests.revoke(door.ids["owner"], "boss") == []
    assert door.come("boss") == "owner"


def test_owners_do_not_shut_themselves_out() -> None:
    door = Door()
    door.come("boss", "owner")
    with pytest.raises(NotAllowed, match="your own role"):
        door.guests.give_role("boss", "viewer", "boss")
    with pytest.raises(NotAllowed, match="yourself"):
        door.guests.put_out("boss", "boss")


def test_the_use_of_a_link_is_noted_once_a_minute() -> None:
    door = Door()
    uses = [door.guests.admit("p", door.secrets["editor"], now)[1] for now in (100.0, 130.0, 161.0)]
    assert [link and link.used for link in uses] == [100.0, None, 161.0]


def test_everybody_has_a_colour_and_the_first_ones_their_own() -> None:
    door = Door()
    for number in range(len(COLOURS) + 1):
        door.come(f"p{number}", "editor")
    colours = [door.guests.members[f"p{number}"].colour for number in range(len(COLOURS) + 1)]
    assert len(set(colours)) == len(COLOURS)
    again = Door()
    again.come("p0", "viewer")
    assert again.guests.members["p0"].colour == colours[0]


def test_scripts_that_left_no_trace_can_be_forgotten() -> None:
    door = Door()
    link = door.guests.links[door.ids["editor"]]
    scripts = [script_person("room", link, name) for name in ("here", "gone", "demoted", "out")]
    for person in ("p-cookie", *scripts):
        door.come(person, "editor")
    here, gone, demoted, out = scripts
    door.guests.give_role(demoted, "viewer", "boss")
    door.guests.put_out(out, "boss")
    door.guests.forget_scripts(but={here})
    assert set(door.guests.members) == {"p-cookie", here, demoted, out}
    assert door.come(gone, "editor") == "editor"


def test_a_script_is_the_same_person_by_the_same_link_and_name() -> None:
    link, other = new_link("editor")[0], new_link("editor")[0]
    ada = script_person("room", link, "Ada")
    assert ada == script_person("room", link, "Ada")
    assert len({ada, script_person("room", link, "Grace"), script_person("room", other, "Ada")}) == 3
