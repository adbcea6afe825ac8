"""Entering: secrets, cookies, tickets and passwords."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from livedrag.server.client import Client, NewRoom, RequestFailed, create_room, request
from livedrag.server.document.protocol import (
    Edited,
)
from livedrag.server.settings import Rate
from tests.quiet import png, quiet_server
from tests.server.web.browser import Visitor, answer, get, opened, refusal


def test_a_wrong_secret_opens_nothing(address: str, room: NewRoom) -> None:
    other = create_room(address, png())
    for what in ("picture", "result", "mask", f"masks/{'0' * 64}"):
        with pytest.raises(RequestFailed, match="does not open room") as caught:
            get(address, room, what, secret=other.secret)
        assert (caught.value.status, caught.value.reason) == (403, "wrong_secret")
    with pytest.raises(RequestFailed, match="Authorization: Bearer"):
        request(address, "GET", f"/api/rooms/{room.id}/picture")


def test_an_unknown_room_is_named(address: str) -> None:
    with pytest.raises(RequestFailed, match="'nowhere'") as caught:
        get(address, NewRoom("nowhere", "x", ""), "picture")
    assert (caught.value.status, caught.value.reason) == (404, "unknown_room")


def test_a_secret_becomes_a_cookie_that_opens_the_room(address: str, room: NewRoom) -> None:
    visitor = Visitor(address)
    status, said = visitor.enter(room, room.secret)
    assert (status, said["role"]) == (200, "owner")
    attributes = {part.strip().lower() for part in visitor.set_cookie.split(";")[1:]}
    assert attributes >= {"httponly", "samesite=strict", "path=/"}
    assert "secure" not in attributes, "the test speaks plain HTTP"
    assert len(visitor.cookie) * 6 >= 128
    assert visitor.ask("GET", f"/api/rooms/{room.id}/picture") == (200, get(address, room, "picture"))
    cookie = visitor.cookie
    assert visitor.enter(room)[0] == 200, "the cookie is enough"
    assert visitor.cookie == cookie
    assert "Max-Age=15552000" in visitor.set_cookie, "180 days, from now on again"
    first, second = (visitor.handshake(room)[0] for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.person, first.role) == (second.person, "owner")
    assert first.you != second.you


def test_a_cookie_does_not_open_what_its_holder_has_not_entered(address: str, room: NewRoom) -> None:
    visitor, other = Visitor(address), create_room(address, png())
    assert refusal(visitor.enter(room, "guess")) == (403, "wrong_secret")
    assert visitor.cookie == ""
    visitor.enter(room, room.secret)
    assert refusal(visitor.enter(other)) == (403, "wrong_secret")
    assert refusal(visitor.enter(other, room.secret)) == (403, "wrong_secret")
    assert refusal(visitor.ask("GET", f"/api/rooms/{other.id}/picture")) == (403, "wrong_secret")
    assert visitor.handshake(other) == (None, 4403)
    assert refusal(visitor.enter(NewRoom("nowhere", "", ""))) == (404, "unknown_room")
    visitor.cookie = "made-up"
    assert refusal(visitor.ask("GET", f"/api/rooms/{room.id}/picture")) == (403, "wrong_secret")
    visitor.enter(room, room.secret)
    assert visitor.cookie != "made-up", "a cookie that we did not make is not taken over"


def test_a_cookie_counts_only_in_a_handshake_from_our_own_page(address: str, room: NewRoom) -> None:
    visitor = Visitor(address, Origin="")
    visitor.enter(room, room.secret)
    assert visitor.handshake(room) == (None, 4403)
    page = Visitor(address, Origin=address)
    page.cookie = visitor.cookie
    assert page.handshake(room)[1] == 0


def test_a_ticket_opens_one_connection(address: str, room: NewRoom) -> None:
    visitor = Visitor(address)
    ticket = visitor.enter(room, room.secret)[1]["ticket"]
    script = Visitor(address, Origin="")
    welcome, _ = script.handshake(room, ticket=ticket)
    assert welcome is not None
    assert welcome.person == (visitor.handshake(room)[0] or welcome).person
    assert script.handshake(room, ticket=ticket) == (None, 4403)


@pytest.mark.parametrize(
    ("body", "status", "quoted"),
    [
        (b"not json", 422, "body: "),
        (b'{"secret": 7}', 422, "Expected `str`"),
        (b'{"colour": ""}', 422, "colour"),
        (b'{"secret": "' + b"x" * 5000 + b'"}', 413, "4096"),
    ],
)
def test_a_malformed_entry_is_refused(address: str, room: NewRoom, body: bytes, status: int, quoted: str) -> None:
    with pytest.raises(RequestFailed) as caught:
        request(address, "POST", f"/api/rooms/{room.id}/enter", body)
    assert caught.value.status == status
    assert quoted in str(caught.value)


def test_passwords_cannot_be_guessed_quickly_and_the_right_one_is_never_locked_out(tmp_path: Path) -> None:
    with quiet_server(tmp_path, password="open sesame", rate_entries=Rate(0.001, 4)) as (address, _):
        headers = {"Livedrag-Password": "open sesame"}
        room = create_room(address, png(), password="open sesame")
        trusted = Visitor(address)
        assert trusted.ask("POST", "/api/password", {"password": "open sesame"})[0] == 204

        def guess(number: int) -> int:
            guesser = Visitor(address, **{"Livedrag-Password": f"guess {number}"})
            if number % 2:
                return guesser.ask("GET", "/api/rooms/none/picture")[0]
            return guesser.enter(NewRoom("none", "", ""), password=f"guess {number}")[0]

        began = time.monotonic()
        assert [guess(number) for number in range(9)] == [401] * 9
        took = time.monotonic() - began
        assert took > 1.2, "five are free, and each further one waits twice as long"
        with ThreadPoolExecutor(32) as people:
            began = time.monotonic()
            guesses = [people.submit(guess, number) for number in range(30)]
            bearer = Visitor(address, Authorization=f"Bearer {room.secret}", **headers)
            downloaded = people.submit(bearer.ask, "GET", f"/api/rooms/{room.id}/picture")
            entered = people.submit(Visitor(address).enter, room, room.secret, password="open sesame")
            assert trusted.enter(room, room.secret)[0] == 200
            assert Visitor(address).ask("GET", "/api/rooms/none/picture")[0] == 401
            assert not all(future.done() for future in guesses), "others are not delayed"
            assert (downloaded.result()[0], entered.result()[0]) == (200, 200), "from the guessers' address"
            assert {future.result() for future in guesses} == {401}
            assert time.monotonic() - began > 5, "many at once do not avoid the delay"
    with quiet_server(tmp_path, password="open sesame", rate_entries=Rate(0.001, 1)) as (address, _):
        assert Visitor(address).ask("POST", "/api/password", {"password": "open sesame"})[0] == 204


def test_a_script_is_the_same_person_by_http_as_by_its_socket(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret, name="Ada") as ada:
            headers = {"Authorization": f"Bearer {room.secret}", "Livedrag-Name": "Ada"}
            path = f"/api/rooms/{room.id}/mask"
            await asyncio.to_thread(request, address, "PUT", path, png(color="white"), headers)
            edited = await ada.wait(Edited)
            assert edited.by == ada.welcome.person
            await ada.undo()
            assert ada.document.mask == ()

    asyncio.run(story())


def test_a_password_is_required_everywhere_but_only_once(tmp_path: Path) -> None:
    with quiet_server(tmp_path, password="open sesame") as (address, _):
        visitor = Visitor(address)
        assert json.loads(request(address, "GET", "/healthz"))["capabilities"] == ["password", "mp4"]
        with pytest.raises(RequestFailed) as caught:
            create_room(address, png())
        assert (caught.value.status, caught.value.reason) == (401, "password")
        room = create_room(address, png(), password="open sesame")
        assert refusal(visitor.enter(room, room.secret)) == (401, "password")
        assert refusal(visitor.enter(room, room.secret, password="sesame")) == (401, "password")
        bearer = Visitor(address, Authorization=f"Bearer {room.secret}")
        assert refusal(bearer.ask("GET", f"/api/rooms/{room.id}/picture")) == (401, "password")
        assert Visitor(address).handshake(room, secret=room.secret) == (None, 4401)
        nowhere = NewRoom("nowhere", "x", "")
        assert Visitor(address).handshake(nowhere, secret="x") == (None, 4401), "which rooms there are stays secret"
        assert refusal(Visitor(address).ask("GET", "/api/rooms/nowhere/picture")) == (401, "password")
        assert visitor.enter(room, room.secret, password="open sesame")[0] == 200
        assert visitor.enter(room, room.secret)[0] == 200
        assert visitor.ask("GET", f"/api/rooms/{room.id}/picture")[0] == 200
        welcome, _ = visitor.handshake(room)
        assert welcome is not None
        assert welcome.capabilities == ("password", "mp4")
        another = Visitor(address)
        assert refusal(another.ask("POST", "/api/password", {"password": "x"})) == (401, "password")
        assert another.ask("POST", "/api/password", {"password": "open sesame"})[0] == 204
        assert another.enter(room, room.secret)[0] == 200


def test_two_servers_on_one_host_do_not_log_each_other_out(tmp_path: Path) -> None:
    """Browsers send all cookies of a host to every port of it."""
    with quiet_server(tmp_path / "one") as (one, _), quiet_server(tmp_path / "two") as (two, _):
        jar: dict[str, str] = {}
        rooms = {address: create_room(address, png()) for address in (one, two)}
        for address, room in rooms.items():
            visitor = Visitor(address)
            visitor.cookie = "; ".join(f"{name}={value}" for name, value in jar.items())
            assert visitor.enter(room, room.secret)[0] == 200
            name, _, value = visitor.cookie.partition("=")
            jar[name] = value
        everything = "; ".join(f"{name}={value}" for name, value in jar.items())
        for address, room in rooms.items():
            assert answer(address, f"/api/rooms/{room.id}/picture", Cookie=everything)[0] == 200
    with quiet_server(tmp_path / "one") as (again, _):
        status, _, _ = answer(again, f"/api/rooms/{rooms[one].id}/picture", Cookie=everything)
        assert status == 200, "the name lasts as long as the data directory"


def test_without_cookies_a_ticket_and_the_secret_are_enough(address: str, room: NewRoom) -> None:
    visitor = Visitor(address)
    status, entered = visitor.enter(room, room.secret)
    assert status == 200
    visitor.cookie = ""  # the browser drops it
    welcome, _ = visitor.handshake(room, ticket=entered["ticket"])
    assert welcome is not None
    assert welcome.role == "owner"
    assert opened(get(address, room, "picture")).size == (64, 48)
    status, body = visitor.enter(room)
    assert (status, body["error"]["reason"]) == (403, "wrong_secret")
    assert "allow cookies" in body["error"]["message"]
