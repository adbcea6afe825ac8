"""Members: who may join by what, and what owners may do."""

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


class Access:
    """Members of a room with one link for each role, and the secrets of these links."""

    def __init__(self) -> None:
        made: dict[Role, tuple[Link, str]] = {role: new_link(role) for role in ("owner", "editor", "viewer")}
        self.ids = {role: link.id for role, (link, _) in made.items()}
        self.secrets = {role: secret for role, (_, secret) in made.items()}
        self.members = Members("room", [link for link, _ in made.values()], [])

    def join(self, person: str, role: Role | None = None, now: float = 0.0) -> Role | None:
        self.members.admit(person, self.secrets[role] if role else "", now)
        return self.members.role(person)


def test_secrets_are_long_and_give_roles() -> None:
    access = Access()
    for role, secret in access.secrets.items():
        assert len(secret) * 6 >= 128
        assert access.join(f"p-{role}", role) == role
    assert not any(
        secret in str(vars(link)) for secret in access.secrets.values() for link in access.members.links.values()
    )


@pytest.mark.parametrize(
    ("secret", "quoted"),
    [("", "room 'room' needs a secret or this site's cookie"), ("wrong", "does not open room 'room'")],
)
def test_without_a_secret_there_is_no_access(secret: str, quoted: str) -> None:
    access = Access()
    with pytest.raises(WrongSecret, match=quoted):
        access.members.admit("p", secret, 0.0)
    assert access.members.role("p") is None


def test_a_returning_person_needs_no_secret_and_keeps_the_higher_role() -> None:
    access = Access()
    assert access.join("p", "viewer") == "viewer"
    assert access.join("p") == "viewer"
    assert access.join("p", "editor") == "editor"
    assert access.join("p", "viewer") == "editor"


def test_a_role_from_an_owner_overrides_the_link() -> None:
    access = Access()
    access.join("p", "editor")
    access.members.give_role("p", "viewer", "boss")
    assert access.join("p", "editor") == "viewer"
    assert access.join("p", "owner") == "owner", "another link that they were given"


def test_a_removed_person_cannot_return() -> None:
    access = Access()
    access.join("p", "editor")
    access.members.remove("p", "boss")
    for secret in ("", *access.secrets.values()):
        with pytest.raises(PersonRemoved, match="the owner removed you"):
            access.members.admit("p", secret, 0.0)


def test_a_revoked_link_ends_access_until_there_is_another() -> None:
    access = Access()
    for person, role in (("p", "editor"), ("q", "editor"), ("r", "viewer")):
        access.join(person, role)  # type: ignore[arg-type]
    out = access.members.revoke(access.ids["editor"], "boss")
    assert {member.person for member in out} == {"p", "q"}
    for refused in (None, "editor"):
        with pytest.raises(WrongSecret):
            access.join("p", refused)
    assert access.join("r") == "viewer"
    assert access.join("p", "viewer") == "viewer"


def test_an_owner_may_revoke_their_own_link_but_not_the_last() -> None:
    access = Access()
    access.join("boss", "owner")
    with pytest.raises(NotAllowed, match="only owner link"):
        access.members.revoke(access.ids["owner"], "boss")
    access.members.add(new_link("owner")[0])
    assert access.members.revoke(access.ids["owner"], "boss") == []
    assert access.join("boss") == "owner"


def test_owners_cannot_remove_themselves() -> None:
    access = Access()
    access.join("boss", "owner")
    with pytest.raises(NotAllowed, match="your own role"):
        access.members.give_role("boss", "viewer", "boss")
    with pytest.raises(NotAllowed, match="yourself"):
        access.members.remove("boss", "boss")


def test_the_use_of_a_link_is_recorded_once_a_minute() -> None:
    access = Access()
    uses = [access.members.admit("p", access.secrets["editor"], now)[1] for now in (100.0, 130.0, 161.0)]
    assert [link and link.used for link in uses] == [100.0, None, 161.0]


def test_the_first_members_have_different_colours() -> None:
    access = Access()
    for number in range(len(COLOURS) + 1):
        access.join(f"p{number}", "editor")
    colours = [access.members.members[f"p{number}"].colour for number in range(len(COLOURS) + 1)]
    assert len(set(colours)) == len(COLOURS)
    again = Access()
    again.join("p0", "viewer")
    assert again.members.members["p0"].colour == colours[0]


def test_scripts_without_a_trace_can_be_forgotten() -> None:
    access = Access()
    link = access.members.links[access.ids["editor"]]
    scripts = [script_person("room", link, name) for name in ("here", "gone", "demoted", "out")]
    for person in ("p-cookie", *scripts):
        access.join(person, "editor")
    here, gone, demoted, out = scripts
    access.members.give_role(demoted, "viewer", "boss")
    access.members.remove(out, "boss")
    access.members.forget_scripts(but={here})
    assert set(access.members.members) == {"p-cookie", here, demoted, out}
    assert access.join(gone, "editor") == "editor"


def test_a_script_is_the_same_person_by_the_same_link_and_name() -> None:
    link, other = new_link("editor")[0], new_link("editor")[0]
    ada = script_person("room", link, "Ada")
    assert ada == script_person("room", link, "Ada")
    assert len({ada, script_person("room", link, "Grace"), script_person("room", other, "Ada")}) == 3
