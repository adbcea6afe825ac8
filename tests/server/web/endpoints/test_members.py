"""Links, roles and removals, for owners."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from websockets.exceptions import ConnectionClosed

from livedrag.server.client import Client, NewRoom, OperationRejected
from livedrag.server.document.protocol import (
    Edited,
    People,
    Presences,
    SetPrompt,
)
from tests.quiet import png
from tests.server.web.browser import Visitor, owner, refusal, slowly


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "links", b'{"role": "owner"}'), ("PUT", "mask", png(color="white")), ("PUT", "people/p", b"{}")],
)
def test_a_client_that_leaves_while_sending_is_no_error(
    address: str, room: NewRoom, caplog: pytest.LogCaptureFixture, method: str, path: str, body: bytes
) -> None:
    headers = {"Authorization": f"Bearer {room.secret}"}
    slowly(address, method, f"/api/rooms/{room.id}/{path}", body, headers).close()
    time.sleep(0.2)
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(("method", "path", "body"), [("POST", "links", b'{"role": "owner"}'), ("PUT", "mask", png())])
def test_a_member_removed_while_sending_changes_nothing(
    address: str, room: NewRoom, method: str, path: str, body: bytes
) -> None:
    boss, other = owner(address, room), owner(address, room)

    async def person() -> str:
        async with Client.join(address, room.id, "", ticket=other.enter(room, room.secret)[1]["ticket"]) as client:
            return client.welcome.person

    removed = asyncio.run(person())
    body = png(color="white") if path == "mask" else body
    held = slowly(address, method, f"/api/rooms/{room.id}/{path}", body, {"Cookie": other.cookie})
    assert boss.ask("DELETE", f"/api/rooms/{room.id}/people/{removed}")[0] == 204
    held.send(body[1:])
    response = held.getresponse()
    assert (response.status, json.loads(response.read())["error"]["reason"]) == (403, "removed")
    held.close()
    assert len(boss.ask("GET", f"/api/rooms/{room.id}/links")[1]) == 1


def test_links_give_roles_and_only_owners_see_and_make_them(address: str, room: NewRoom) -> None:
    boss = owner(address, room)
    links = f"/api/rooms/{room.id}/links"
    status, made = boss.ask("POST", links, {"role": "viewer"})
    assert (status, made["role"], made["used"]) == (201, "viewer", None)
    assert made["url"] == f"/r/{room.id}#{made['secret']}"
    assert len(made["secret"]) * 6 >= 128
    viewer = Visitor(address)
    assert viewer.enter(room, made["secret"])[1]["role"] == "viewer"
    for method, path, body in (
        ("GET", links, None),
        ("POST", links, {"role": "owner"}),
        ("DELETE", f"{links}/{made['id']}", None),
        ("DELETE", f"/api/rooms/{room.id}", None),
        ("GET", f"/api/rooms/{room.id}/export", None),
        ("PUT", f"/api/rooms/{room.id}/mask", None),
    ):
        assert refusal(viewer.ask(method, path, body)) == (403, "forbidden")
    assert viewer.ask("GET", f"/api/rooms/{room.id}/picture")[0] == 200
    listed = boss.ask("GET", links)[1]
    assert [link["role"] for link in listed] == ["owner", "viewer"]
    assert all(link["used"] for link in listed)
    assert room.secret not in json.dumps(listed)
    assert refusal(boss.ask("POST", links, {"role": "king"})) == (422, "bad_body")
    assert refusal(boss.ask("DELETE", f"{links}/nothing")) == (404, "unknown_link")
    assert refusal(boss.ask("DELETE", f"{links}/{listed[0]['id']}")) == (409, "not_allowed")


def test_a_viewer_sees_everything_and_changes_nothing(address: str, room: NewRoom) -> None:
    viewing = owner(address, room).ask("POST", f"/api/rooms/{room.id}/links", {"role": "viewer"})[1]["secret"]

    async def story() -> None:
        async with (
            Client.join(address, room.id, room.secret) as boss,
            Client.join(address, room.id, viewing, name="Vera") as viewer,
        ):
            for attempt in (viewer.edit(SetPrompt(prompt="x")), viewer.run(), viewer.undo(), viewer.seek(0)):
                with pytest.raises(OperationRejected, match="view only") as caught:
                    await attempt
                assert caught.value.reason == "forbidden"
            await viewer.point((3.0, 4.0))
            assert viewer.welcome.person in (await boss.wait(Presences)).people, "pointing is no change"
            await boss.edit(SetPrompt(prompt="a bear"))
            await viewer.wait(Edited)
            assert viewer.document == boss.document
            assert boss.document.prompt == "a bear"

    asyncio.run(story())


def test_an_owner_changes_roles_at_once(address: str, room: NewRoom) -> None:
    boss = owner(address, room)
    viewing = boss.ask("POST", f"/api/rooms/{room.id}/links", {"role": "viewer"})[1]["secret"]

    async def story() -> None:
        async with Client.join(address, room.id, viewing, name="Vera") as vera:
            me = vera.welcome.person
            path = f"/api/rooms/{room.id}/people"
            assert (await asyncio.to_thread(boss.ask, "PUT", f"{path}/{me}", {"role": "editor"}))[0] == 204
            await vera.wait(People, lambda people: people.people[me].role == "editor")
            await vera.edit(SetPrompt(prompt="now I may"))
            unknown = await asyncio.to_thread(boss.ask, "PUT", f"{path}/nobody", {"role": "editor"})
            assert refusal(unknown) == (404, "unknown_person")
            welcome = (await asyncio.to_thread(boss.handshake, room))[0]
            assert welcome is not None
            own = await asyncio.to_thread(boss.ask, "DELETE", f"{path}/{welcome.person}")
            assert refusal(own) == (409, "not_allowed")

    asyncio.run(story())


def test_a_removed_member_is_disconnected_at_once_and_cannot_return(address: str, room: NewRoom) -> None:
    boss, other = owner(address, room), Visitor(address)
    editing = boss.ask("POST", f"/api/rooms/{room.id}/links", {"role": "editor"})[1]["secret"]
    ticket = other.enter(room, editing)[1]["ticket"]

    async def story() -> None:
        async with (
            Client.join(address, room.id, "", ticket=ticket, name="Mallory", reconnect=False) as mallory,
            Client.join(address, room.id, editing, name="Grace") as grace,
        ):
            path = f"/api/rooms/{room.id}/people/{mallory.welcome.person}"
            await grace.wait(People, lambda people: len(people.people) == 2)
            assert (await asyncio.to_thread(boss.ask, "DELETE", path))[0] == 204
            with pytest.raises(ConnectionClosed) as caught:
                await mallory.wait(Edited)
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason[:17]) == (4413, "the owner removed")
            await grace.wait(People, lambda people: len(people.people) == 1)
            await grace.edit(SetPrompt(prompt="still here"))

    asyncio.run(story())
    assert refusal(other.enter(room, editing)) == (403, "removed")
    assert other.handshake(room) == (None, 4413)
    assert Visitor(address).enter(room, editing)[0] == 200, "the link is as it was"


def test_revoking_a_link_removes_those_who_joined_by_it(address: str, room: NewRoom) -> None:
    boss = owner(address, room)
    link = boss.ask("POST", f"/api/rooms/{room.id}/links", {"role": "editor"})[1]

    async def story() -> None:
        async with (
            Client.join(address, room.id, link["secret"], name="Mallory", reconnect=False) as mallory,
            Client.join(address, room.id, room.secret, name="Grace") as grace,
        ):
            assert (await asyncio.to_thread(boss.ask, "DELETE", f"/api/rooms/{room.id}/links/{link['id']}"))[0] == 204
            with pytest.raises(ConnectionClosed) as caught:
                await mallory.wait(Edited)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 4413
            await grace.edit(SetPrompt(prompt="still here"))

    asyncio.run(story())
    assert refusal(Visitor(address).enter(room, link["secret"])) == (403, "wrong_secret")
