"""HTTP: rooms are made of good pictures, bad ones are refused with a clear message, and the server goes on."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from livedrag.pictures import read_picture
from livedrag.server.client import Client, NewRoom, OperationRejected, RequestFailed, create_room, request
from livedrag.server.device.checkpoints import Checkpoint, Checkpoints, SavedMoment, picture_parts
from livedrag.server.device.engine import DesiredState, MomentInfo, ReleaseSession, TimelineChanged
from livedrag.server.document.protocol import (
    VERSION,
    AddDrag,
    AddStroke,
    Edited,
    Ended,
    Frame,
    Hello,
    Moments,
    People,
    Presences,
    Raster,
    RoomLimits,
    SetPrompt,
    Started,
    Stroke,
    Welcome,
    decode_server,
    encode,
)
from livedrag.server.document.protocol_page import HTTP
from livedrag.server.images.animation import LAST_FRAMES, AnimationError, encode_mp4, find_encoder
from livedrag.server.rooms.registry import RoomRegistry
from livedrag.server.settings import Rate, Settings
from livedrag.server.storage import Store
from livedrag.server.storage.archive import export_room, import_room
from livedrag.server.web.app import create_app
from tests.conftest import ROOT
from tests.quiet import QuietEngine, png, quiet_server


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with quiet_server(tmp_path_factory.mktemp("rooms")) as (address, _):
        yield address


@pytest.fixture
def room(address: str) -> NewRoom:
    return create_room(address, png())


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """The beginning of a PNG of any size; its pixels are never looked at."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 4) + b"IDAT" + bytes(8)


def get(address: str, room: NewRoom, what: str, secret: str | None = None) -> bytes:
    path = f"/api/rooms/{room.id}/{what}"
    return request(address, "GET", path, headers={"Authorization": f"Bearer {secret or room.secret}"})


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


# Good pictures -------------------------------------------------------------------------------------------------------


def test_a_room_is_made_of_a_picture_mask_prompt_and_drags(address: str) -> None:
    mask = Image.new("L", (64, 48), 0)
    mask.paste(255, (0, 0, 32, 48))
    drags = json.dumps([{"handle": [10, 10], "target": [20.5, 10]}])
    room = create_room(address, png(), mask=saved(mask, "PNG"), prompt="a field", drags=drags)
    assert room.url == f"/r/{room.id}#{room.secret}"
    assert opened(get(address, room, "picture")).getpixel((3, 3)) == (0, 128, 128)
    assert opened(get(address, room, "mask")).tobytes() == mask.tobytes()

    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            assert client.document.prompt == "a field"
            assert [(drag.handle, drag.target) for drag in client.document.drags.values()] == [((10, 10), (20.5, 10))]
            (layer,) = client.document.mask
            assert isinstance(layer, Raster)
            assert await client.get(f"masks/{layer.sha256}") == await client.get("mask")

    asyncio.run(story())


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG"])
def test_jpeg_webp_and_png_work(address: str, format: str) -> None:
    room = create_room(address, saved(Image.new("RGB", (40, 30), "white"), format))
    assert opened(get(address, room, "picture")).size == (40, 30)


def test_exif_orientation_is_applied_and_metadata_dropped(address: str) -> None:
    picture = Image.new("RGB", (40, 30), "white")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    turned = opened(get(address, create_room(address, saved(picture, "JPEG", exif=exif)), "picture"))
    assert turned.size == (30, 40)
    assert not turned.getexif()
    assert turned.info == {}


@pytest.mark.parametrize(
    ("mode", "color", "expected"), [("RGBA", (0, 0, 0, 0), 255), ("I;16", 128 * 256, 128), ("1", 1, 255)]
)
def test_other_kinds_of_pixels_become_rgb(address: str, mode: str, color: Any, expected: int) -> None:
    room = create_room(address, saved(Image.new(mode, (16, 16), color), "PNG"))
    assert opened(get(address, room, "picture")).getpixel((2, 2)) == (expected,) * 3


# Bad input -----------------------------------------------------------------------------------------------------------

ANIMATION = saved(
    Image.new("RGB", (9, 9)), "WEBP", save_all=True, append_images=[Image.new("RGB", (9, 9), "white")], duration=100
)
NOISE = Image.effect_noise((64, 64), 100)


@pytest.mark.parametrize(
    ("data", "fields", "status", "reason", "quoted"),
    [
        (b"just some text", {}, 422, "not_a_picture", "'x.png' is not a picture, it begins with b'just som'"),
        (b"", {}, 422, "not_a_picture", "empty"),
        (
            b"%PDF-1.7",
            {},
            422,
            "unsupported_format",
            "'x.png' is a PDF document, which cannot be read: save it as JPEG or PNG",
        ),
        (saved(NOISE, "PNG")[:2000], {}, 422, "truncated", "'x.png' is damaged or incomplete"),
        (saved(NOISE, "JPEG")[:1000], {}, 422, "truncated", "'x.png' is damaged or incomplete"),
        (ANIMATION, {}, 422, "several_frames", "2 frames"),
        (huge_png(8000, 5000), {}, 413, "too_many_pixels", "8000 x 5000 pixels, which is 40.0 megapixels: at most 25"),
        (huge_png(60000, 60000), {}, 413, "too_many_pixels", "at most 25 megapixels"),
        (png() + bytes(21 * 2**20), {}, 413, "too_large", "'x.png' has 21.0 MiB (22020"),
        (png() + bytes(30 * 2**20), {}, 413, "too_large", "): at most 20 MiB are allowed"),
        (png(), {"prompt": "x" * 1001}, 422, "prompt_too_long", "1001 characters, the limit is 1000"),
        (png(), {"drags": "[[1, 2]]"}, 422, "bad_drags", "[[1, 2]]"),
        (png(), {"drags": '[{"handle": [1, 1], "target": [64, 1]}]'}, 422, "bad_drags", "target (64, 1) lies outside"),
        (png(), {"drags": '[{"handle": [1, 1], "target": [1, 1]}]'}, 422, "bad_drags", "lies on its target"),
        (
            png(),
            {"mask": png(32, 24, "white", "L")},
            422,
            "mask_size",
            "the mask has 32 x 24 pixels, the picture 64 x 48",
        ),
        (png(15, 40), {}, 422, "too_small", "'x.png' has 15 x 40 pixels: each side must have at least 16"),
        (png(16, 129), {}, 422, "too_narrow", "16 x 129 pixels, too long and narrow to edit: at most 8 to 1"),
        (png(), {"mask": png(color="#7f7f7f", mode="L")}, 422, "mask_empty", "no white (its brightest grey is 127"),
        (png(), {"mask": b"no mask"}, 422, "not_a_picture", "b'no mask'"),
        (png(), {"mask": "no file"}, 422, "missing_file", "form field 'mask' must be a file, got text"),
    ],
)
def test_bad_input_is_refused_and_the_server_goes_on(
    address: str, data: bytes, fields: dict[str, Any], status: int, reason: str, quoted: str
) -> None:
    with pytest.raises(RequestFailed) as caught:
        create_room(address, data, name="x.png", **fields)
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert quoted in str(caught.value)
    assert json.loads(request(address, "GET", "/healthz"))["status"] == "ok"


def test_a_form_without_a_picture_is_refused(address: str) -> None:
    for body, kind in (
        (b"", "multipart/form-data; boundary=b"),
        (b"a=b", "application/x-www-form-urlencoded"),
        (b"{}", "x"),
    ):
        with pytest.raises(RequestFailed) as caught:
            request(address, "POST", "/api/rooms", body, {"Content-Type": kind})
        assert caught.value.status in (400, 422)


def test_an_upload_of_unknown_length_is_stopped_at_the_limit(address: str) -> None:
    host = address.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=20)
    try:
        head = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="x.png"\r\n\r\n'
        chunks = iter([head, *(bytes(2**20) for _ in range(26))])
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        connection.request("POST", "/api/rooms", chunks, headers, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 413
        assert "more than 20 MiB" in json.loads(answer.read())["error"]["message"]
    finally:
        connection.close()


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


def test_no_result_yet_says_what_to_do(address: str, room: NewRoom) -> None:
    with pytest.raises(RequestFailed, match="press Drag") as caught:
        get(address, room, "result")
    assert (caught.value.status, caught.value.reason) == (404, "no_result")


def test_every_route_for_programs_is_on_the_page_of_the_protocol(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        app = create_app(RoomRegistry(Settings(data_dir=tmp_path), store, QuietEngine()))
    routes = {
        (method, route.path.replace(":int", ""))
        for route in app.routes
        if isinstance(route, Route) and route.path.startswith(("/api/", "/healthz", "/metrics"))
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == {(method, path) for method, path, _, _ in HTTP}


def test_unknown_pages_and_methods_are_json_errors(address: str) -> None:
    for method, path, status in (
        ("GET", "/nothing/here", 404),
        ("DELETE", "/api/rooms", 405),
        ("GET", "/build.py", 404),
    ):
        with pytest.raises(RequestFailed) as caught:
            request(address, method, path)
        assert caught.value.status == status
        assert path in str(caught.value)


# Masks ---------------------------------------------------------------------------------------------------------------


def test_a_loaded_mask_replaces_the_painted_one_and_everybody_is_told(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            assert opened(await client.get("mask")).getextrema() == (255, 255)
            await client.edit(AddStroke(stroke=Stroke(id="s", mode="paint", radius=4, points=[(32, 24)])))
            painted = opened(await client.get("mask"))
            assert (painted.getpixel((32, 24)), painted.getpixel((3, 3))) == (255, 0)
            await client.load_mask(png(color="gray", mode="L"))
            edited = await client.wait(Edited, lambda edited: isinstance(edited.op, Raster))
            assert isinstance(edited.op, Raster)
            assert client.document.mask == (edited.op,)
            assert opened(await client.get("mask")).getextrema() == (255, 255)
            assert opened(await client.get(f"masks/{edited.op.sha256}")).mode == "L"
            with pytest.raises(RequestFailed, match="20 x 10 pixels, the picture 64 x 48"):
                await client.load_mask(png(20, 10))
            with pytest.raises(RequestFailed, match="the mask has no white") as caught:
                await client.load_mask(png(color="black"))
            assert caught.value.status == 422
            with pytest.raises(RequestFailed, match="has no loaded mask"):
                await client.get(f"masks/{'0' * 64}")

    asyncio.run(story())


def test_a_mask_sent_again_changes_nothing(address: str, room: NewRoom) -> None:
    headers = {"Authorization": f"Bearer {room.secret}", "Op-Id": "once"}
    answers = [request(address, "PUT", f"/api/rooms/{room.id}/mask", png(color="white"), headers) for _ in range(2)]
    assert answers[0] == answers[1]
    with pytest.raises(RequestFailed, match="no id!"):
        request(address, "PUT", f"/api/rooms/{room.id}/mask", png(), {**headers, "Op-Id": "no id!"})


def test_an_op_id_of_something_else_loads_no_mask(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            op_id = (await client.edit(AddDrag(id="d1", handle=(10, 10), target=(20, 20)))).op_id
            run_id = (await client.run()).op_id
            path = f"/api/rooms/{room.id}/mask"
            for used in (op_id, run_id):
                headers = {"Authorization": f"Bearer {room.secret}", "Op-Id": used}
                with pytest.raises(RequestFailed, match=used) as caught:
                    await asyncio.to_thread(request, address, "PUT", path, png(color="white"), headers)
                assert (caught.value.status, caught.value.reason) == (409, "op_id_used")
            assert client.document.mask == ()

    asyncio.run(story())


def test_pictures_are_decoded_few_at_a_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most = 0, 0

    def slow(*given: Any) -> Image.Image:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.05)
        at_once -= 1
        return read_picture(*given)

    monkeypatch.setattr("livedrag.server.images.uploads.read_picture", slow)
    with ThreadPoolExecutor(6) as people:
        rooms = list(people.map(lambda _: create_room(address, png()), range(6)))
    assert (len({room.id for room in rooms}), most) == (6, 2)


def slowly(address: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPConnection:
    """A request whose head has arrived, and whose body has not."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.putrequest(method, path)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(body[:1])
    time.sleep(0.2)
    return connection


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "links", b'{"role": "owner"}'), ("PUT", "mask", png(color="white")), ("PUT", "people/p", b"{}")],
)
def test_who_goes_away_while_sending_is_no_fault(
    address: str, room: NewRoom, caplog: pytest.LogCaptureFixture, method: str, path: str, body: bytes
) -> None:
    headers = {"Authorization": f"Bearer {room.secret}"}
    slowly(address, method, f"/api/rooms/{room.id}/{path}", body, headers).close()
    time.sleep(0.2)
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(("method", "path", "body"), [("POST", "links", b'{"role": "owner"}'), ("PUT", "mask", png())])
def test_who_is_put_out_while_sending_does_nothing_more(
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


def test_an_export_of_a_room_just_deleted_is_no_fault_of_the_server(
    address: str, room: NewRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "livedrag.server.web.endpoints.rooms.export_room", lambda store, id, file: export_room(store, "gone", file)
    )
    with pytest.raises(RequestFailed, match="no room 'gone'") as caught:
        get(address, room, "export")
    assert (caught.value.status, caught.value.reason) == (404, "unknown_room")


# Entering ------------------------------------------------------------------------------------------------------------


class Visitor:
    """A browser without a page: it keeps its cookie, as ``name=value``."""

    def __init__(self, address: str, **headers: str) -> None:
        self.address, self.headers = address, headers
        self.cookie = ""
        self.set_cookie = ""

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=20)
        given = {**self.headers, "Cookie": self.cookie}
        headers = {name: value for name, value in given.items() if value}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            self.set_cookie = response.getheader("set-cookie") or ""
            if self.set_cookie:
                self.cookie = self.set_cookie.partition(";")[0]
            data = response.read()
            return response.status, json.loads(data) if data[:1] in (b"{", b"[") else data
        finally:
            connection.close()

    def enter(self, room: NewRoom, secret: str = "", **said: str) -> tuple[int, Any]:
        return self.ask("POST", f"/api/rooms/{room.id}/enter", {"secret": secret, **said})

    def handshake(self, room: NewRoom, **hello: Any) -> tuple[Welcome | None, int]:
        """Say hello with the cookie, as a page does; gives the welcome or the close code."""

        async def story() -> tuple[Welcome | None, int]:
            headers = {"Cookie": self.cookie} if self.cookie else {}
            url = f"{self.address.replace('http', 'ws')}/ws/{room.id}"
            origin: Any = self.headers.get("Origin", self.address) or None
            async with connect(url, origin=origin, additional_headers=headers, proxy=None) as socket:
                await socket.send(encode(Hello(version=VERSION, **hello)))
                message = decode_server(await socket.recv())
                if isinstance(message, Welcome):
                    return message, 0
                await socket.wait_closed()
                return None, socket.close_code or 0

        return asyncio.run(story())


def refusal(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["error"]["reason"]


def test_a_secret_becomes_a_cookie_that_opens_the_room_from_then_on(address: str, room: NewRoom) -> None:
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


def test_a_cookie_counts_in_a_handshake_from_our_own_page_alone(address: str, room: NewRoom) -> None:
    visitor = Visitor(address, Origin="")
    visitor.enter(room, room.secret)
    assert visitor.handshake(room) == (None, 4403)
    page = Visitor(address, Origin=address)
    page.cookie = visitor.cookie
    assert page.handshake(room)[1] == 0


def test_pages_of_other_origins_cannot_do_anything(address: str, room: NewRoom) -> None:
    evil = Visitor(address, Origin="http://evil.example")
    for method, path in (("POST", "/api/rooms"), ("DELETE", f"/api/rooms/{room.id}"), ("POST", "/api/password")):
        assert refusal(evil.ask(method, path, {})) == (403, "wrong_origin")


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
        with ThreadPoolExecutor(30) as guessers:
            began = time.monotonic()
            guesses = [guessers.submit(guess, number) for number in range(30)]
            bearer = Visitor(address, Authorization=f"Bearer {room.secret}", **headers)
            assert trusted.enter(room, room.secret)[0] == 200
            assert Visitor(address).ask("GET", "/api/rooms/none/picture")[0] == 401
            assert time.monotonic() - began < 3, "those who do not guess are not held up"
            assert bearer.ask("GET", f"/api/rooms/{room.id}/picture")[0] == 200, "from the guessers' address"
            assert Visitor(address).enter(room, room.secret, password="open sesame")[0] == 200
            assert {future.result() for future in guesses} == {401}
            assert time.monotonic() - began > 5, "many at once are no way around the delay"
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


def test_a_server_with_a_password_asks_for_it_everywhere_but_once(tmp_path: Path) -> None:
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


# Owners --------------------------------------------------------------------------------------------------------------


def owner(address: str, room: NewRoom) -> Visitor:
    visitor = Visitor(address)
    assert visitor.enter(room, room.secret)[0] == 200
    return visitor


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


def test_who_is_put_out_is_out_at_once_and_stays_out(address: str, room: NewRoom) -> None:
    boss, guest = owner(address, room), Visitor(address)
    editing = boss.ask("POST", f"/api/rooms/{room.id}/links", {"role": "editor"})[1]["secret"]
    ticket = guest.enter(room, editing)[1]["ticket"]

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
            assert (caught.value.rcvd.code, caught.value.rcvd.reason[:8]) == (4413, "an owner")
            await grace.wait(People, lambda people: len(people.people) == 1)
            await grace.edit(SetPrompt(prompt="still here"))

    asyncio.run(story())
    assert refusal(guest.enter(room, editing)) == (403, "removed")
    assert guest.handshake(room) == (None, 4413)
    assert Visitor(address).enter(room, editing)[0] == 200, "the link is as it was"


def test_a_revoked_link_puts_out_who_came_by_it(address: str, room: NewRoom) -> None:
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


def test_a_deleted_room_is_gone_for_everybody(tmp_path: Path) -> None:
    with quiet_server(tmp_path) as (address, engine):
        room = create_room(address, png())

        async def story() -> None:
            async with Client.join(address, room.id, room.secret, reconnect=False) as client:
                await client.edit(SetPrompt(prompt="x"))
                await client.delete_room()
                with pytest.raises(ConnectionClosed) as caught:
                    await client.wait(Started)
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 4410

        asyncio.run(story())
        assert engine.expect(ReleaseSession, room.id).wipe
        with pytest.raises(RequestFailed, match="there is no room"):
            get(address, room, "picture")
        assert Visitor(address).handshake(room, secret=room.secret) == (None, 4404)


# Keepsakes -----------------------------------------------------------------------------------------------------------


def webp(color: str, size: tuple[int, int] = (32, 24)) -> bytes:
    return saved(Image.new("RGB", size, color), "WEBP", lossless=True)


def keep_frames(data: Path, room: str, moments: list[SavedMoment], frames: dict[int, bytes]) -> None:
    """As the device's worker does at the end of a run."""
    desired = DesiredState(room=room, seq=0, prompt="", settings={}, drags={})
    checkpoint = Checkpoint(picture="", desired=desired, moments=moments, current=moments[-1].info.id)
    Checkpoints(data / "checkpoints").save(room, checkpoint, picture_parts("frames", frames))


def test_moments_have_pictures_until_they_are_thinned_away(tmp_path: Path) -> None:
    with quiet_server(tmp_path) as (address, engine):
        room = create_room(address, png())
        moments = [MomentInfo(id=id, parent=id - 1 if id else None, iteration=id, time=1.0) for id in (0, 1)]

        async def story() -> None:
            async with Client.join(address, room.id, room.secret) as client:
                engine.tell(
                    TimelineChanged(
                        room=room.id, moments=moments, current=1, thumbnails={0: webp("red"), 1: webp("blue")}
                    )
                )
                told = await client.wait(Moments)
                assert ([moment.id for moment in told.moments], told.current) == ([0, 1], 1)
                assert await client.get("moments/1") == webp("blue")
                engine.tell(TimelineChanged(room=room.id, moments=moments[:1], current=0))
                await client.wait(Moments, lambda moments: moments.current == 0)
                assert await client.get("moments/0") == webp("red")
                with pytest.raises(RequestFailed, match="no picture of moment 1"):
                    await client.get("moments/1")
                async with Client.join(address, room.id, room.secret) as late:
                    assert (await late.wait(Moments)).current == 0
                path, bearer = f"/api/rooms/{room.id}/moments/0", {"Authorization": f"Bearer {room.secret}"}
                status, headers, _ = await asyncio.to_thread(answer, address, path, **bearer)
                assert status == 200
                bearer["If-None-Match"] = headers["etag"]
                again = await asyncio.to_thread(answer, address, path, **bearer)
                assert (again[0], again[2]) == (304, b"")

        asyncio.run(story())


def test_the_trajectory_is_an_animation_of_the_branch(tmp_path: Path) -> None:
    with quiet_server(tmp_path) as (address, _):
        room = create_room(address, png())
        with pytest.raises(RequestFailed, match="no trajectory yet: press Drag"):
            get(address, room, "trajectory.webp")
        moments = [
            SavedMoment(info=MomentInfo(id=id, parent=id - 1 if id else None, iteration=id, time=1.0), tracked={})
            for id in range(3)
        ]
        keep_frames(tmp_path, room.id, moments, {0: webp("red"), 1: webp("lime"), 2: webp("blue", (16, 12))})
        picture = opened(get(address, room, "trajectory.webp"))
        assert (picture.format, getattr(picture, "n_frames", 1), picture.size) == ("WEBP", 3, (16, 12))


def test_the_trajectory_is_a_film_too(tmp_path: Path) -> None:
    encoder = find_encoder()
    assert encoder is not None, "the extra mp4 has an ffmpeg"
    with quiet_server(tmp_path) as (address, _):
        assert "mp4" in json.loads(request(address, "GET", "/healthz"))["capabilities"]
        room = create_room(address, png())
        with pytest.raises(RequestFailed, match="no trajectory yet: press Drag"):
            get(address, room, "trajectory.mp4")
        moments = [
            SavedMoment(info=MomentInfo(id=id, parent=id - 1 if id else None, iteration=id, time=1.0), tracked={})
            for id in range(3)
        ]
        keep_frames(tmp_path, room.id, moments, {0: webp("red"), 1: webp("lime"), 2: webp("blue", (33, 25))})
        film = tmp_path / "film.mp4"
        film.write_bytes(get(address, room, "trajectory.mp4"))
    raw = subprocess.run(
        [encoder, "-v", "error", "-i", film, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True,
        check=True,
    ).stdout
    frame = 32 * 24 * 3
    assert len(raw) % frame == 0
    middles = [raw[at + frame // 2 : at + frame // 2 + 3] for at in range(0, len(raw), frame)]
    colours = [max(zip(middle, "rgb", strict=True))[1] for middle in middles]
    assert colours == ["r", "g", *["b"] * LAST_FRAMES]


def test_without_an_encoder_there_is_no_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedrag.server.rooms.registry.find_encoder", lambda: None)
    with quiet_server(tmp_path) as (address, _):
        assert json.loads(request(address, "GET", "/healthz"))["capabilities"] == []
        with pytest.raises(RequestFailed, match=r"use trajectory\.webp") as caught:
            get(address, create_room(address, png()), "trajectory.mp4")
        assert (caught.value.status, caught.value.reason) == (404, "no_encoder")


def test_an_encoder_that_cannot_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(AnimationError, match="no such codec"):
        encode_mp4([webp("red"), webp("blue")], str(broken))


def test_a_failing_encoder_is_a_named_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("livedrag.server.rooms.registry.find_encoder", lambda: str(broken))
    data = tmp_path / "data"
    with quiet_server(data) as (address, _):
        room = create_room(address, png())
        moments = [
            SavedMoment(info=MomentInfo(id=id, parent=None, iteration=id, time=1.0), tracked={}) for id in (0, 1)
        ]
        moments[1] = SavedMoment(info=MomentInfo(id=1, parent=0, iteration=1, time=1.0), tracked={})
        keep_frames(data, room.id, moments, {0: webp("red"), 1: webp("blue")})
        with pytest.raises(RequestFailed, match="no such codec") as caught:
            get(address, room, "trajectory.mp4")
    assert (caught.value.status, caught.value.reason) == (503, "encoder_failed")


def test_an_export_is_the_whole_room(address: str, room: NewRoom, tmp_path: Path) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(SetPrompt(prompt="a bear"))

    asyncio.run(story())
    data = get(address, room, "export")
    with Store(tmp_path / "other") as store:
        imported, _ = import_room(store, io.BytesIO(data), RoomLimits())
        kept = store.load(imported).result()
        assert kept is not None
        assert kept.document.prompt == "a bear"
        assert store.get_picture(kept.document.picture.sha256) == get(address, room, "picture")


# Below a base path, behind a proxy, and too much ---------------------------------------------------------------------


def test_everything_works_below_a_base_path_whether_a_proxy_takes_it_away_or_not(tmp_path: Path) -> None:
    static = tmp_path / "static"
    (static / "app" / "assets").mkdir(parents=True)
    (static / "app" / "index.html").write_text(
        '<meta name="livedrag-base" content="" /><script src="/assets/main.js"></script><link href="/icon.svg">'
    )
    (static / "app" / "assets" / "main.js").write_text("1")
    with quiet_server(tmp_path / "data", static_dir=static, base_path="/drag") as (address, _):
        for prefix in ("", "/drag"):
            page = request(address, "GET", f"{prefix}/r/room1").decode()
            assert '<meta name="livedrag-base" content="/drag" />' in page
            assert 'src="/drag/assets/main.js"' in page
            assert 'href="/drag/icon.svg"' in page
            assert request(address, "GET", f"{prefix}/assets/main.js") == b"1"
            assert json.loads(request(address, "GET", f"{prefix}/healthz"))["status"] == "ok"
            room = create_room(f"{address}{prefix}", png())
            assert room.url == f"/drag/r/{room.id}#{room.secret}"

            async def story(prefix: str = prefix, room: NewRoom = room) -> None:
                async with Client.join(f"{address}{prefix}", room.id, room.secret) as client:
                    assert client.welcome.base == "/drag"
                    assert opened(await client.get("picture")).size == (64, 48)

            asyncio.run(story())
        visitor = Visitor(address)
        visitor.ask("POST", f"/drag/api/rooms/{room.id}/enter", {"secret": room.secret})
        assert "Path=/drag/" in visitor.set_cookie
        assert answer(address, "/drag")[:2][0] == 308
        assert answer(address, "/drag")[1]["location"] == "/drag/"
        assert answer(address, "/dragon/healthz")[0] == 404


def test_who_comes_through_a_trusted_proxy_is_who_it_says(tmp_path: Path) -> None:
    def made(data: Path, **settings: Any) -> tuple[str, list[int]]:
        with quiet_server(data, rate_entries=Rate(0.001, 2), **settings) as (address, _):
            room, statuses = create_room(address, png()), []
            for client in ("10.1.1.1", "10.1.1.2", "10.1.1.3"):
                visitor = Visitor(address, **{"X-Forwarded-For": client, "X-Forwarded-Proto": "https"})
                statuses.append(visitor.enter(room, room.secret)[0])
            return visitor.set_cookie, statuses

    cookie, statuses = made(tmp_path / "trusting", trusted_proxies=("127.0.0.1",))
    assert statuses == [200, 200, 200]
    assert "Secure" in cookie
    cookie, statuses = made(tmp_path / "wary")
    assert statuses == [200, 200, 429], "a stranger does not get round the limit by naming others"


def test_too_much_is_refused_with_when_to_come_back(tmp_path: Path) -> None:
    with quiet_server(tmp_path, rate_rooms=Rate(0.01, 1), rate_requests=Rate(0.01, 5)) as (address, _):
        create_room(address, png())
        with pytest.raises(RequestFailed, match=r"too many new rooms from one address: 0\.01 per second") as caught:
            create_room(address, png())
        assert (caught.value.status, caught.value.reason) == (429, "slow_down")
        for _ in range(3):
            assert answer(address, "/healthz")[0] == 200
        status, headers, body = answer(address, "/healthz")
        assert (status, json.loads(body)["error"]["reason"]) == (429, "slow_down")
        assert 1 <= int(headers["retry-after"]) <= 100
        assert "content-security-policy" in headers


def test_metrics_tell_what_happens(tmp_path: Path) -> None:
    with quiet_server(tmp_path / "on") as (address, engine):
        room = create_room(address, png())

        async def story() -> str:
            async with Client.join(address, room.id, room.secret) as client:
                await client.edit(AddDrag(id="d1", handle=(10, 10), target=(30, 20)))
                with pytest.raises(OperationRejected):
                    await client.stop()
                run = (await client.run()).run.id
                engine.show(room.id, run, 1)
                await client.wait(Frame)
                await client.stop()
                await client.wait(Ended)
                return (await asyncio.to_thread(request, address, "GET", "/metrics")).decode()

        shown = asyncio.run(story())
        for line in (
            "livedrag_rooms_open 1.0",
            "livedrag_people 1.0",
            "livedrag_connections 1.0",
            'livedrag_operations_total{type="add_drag"} 1.0',
            'livedrag_operations_total{type="started"} 1.0',
            'livedrag_rejects_total{reason="invalid"} 1.0',
            'livedrag_runs_total{outcome="stopped"} 1.0',
            'livedrag_frames_total{what="sent"} 1.0',
            "livedrag_save_seconds_count 4.0",
        ):
            assert f"\n{line}\n" in shown, line
        assert room.secret not in shown
    with quiet_server(tmp_path / "off", metrics=False) as (address, _):
        assert answer(address, "/metrics")[0] == 404


# Pages and headers ---------------------------------------------------------------------------------------------------


def test_samples_are_listed_with_files_that_are_there(address: str) -> None:
    samples = json.loads(request(address, "GET", "/api/samples"))
    assert len(samples) >= 4 or not (ROOT / "static" / "samples").is_dir()
    for sample in samples:
        picture = opened(request(address, "GET", sample["picture"]))
        assert opened(request(address, "GET", sample["mask"])).size == picture.size
        assert set(sample) == {"name", "title", "picture", "mask", "prompt", "drags", "credit"}


def test_the_page_is_served_for_every_room(tmp_path: Path) -> None:
    static = tmp_path / "static"
    (static / "app" / "assets").mkdir(parents=True)
    (static / "app" / "index.html").write_text("<title>the page</title>")
    (static / "app" / "assets" / "main.js").write_text("1")
    (static / "icon.svg").write_text("<svg/>")
    with quiet_server(tmp_path / "data", static_dir=static) as (address, _):
        assert request(address, "GET", "/") == request(address, "GET", "/r/room1") == b"<title>the page</title>"
        assert request(address, "GET", "/assets/main.js") == b"1"
        assert request(address, "GET", "/icon.svg") == b"<svg/>"
        assert json.loads(request(address, "GET", "/api/samples")) == []


def test_a_page_that_was_not_built_says_so(tmp_path: Path) -> None:
    with (
        quiet_server(tmp_path / "data", static_dir=tmp_path) as (address, _),
        pytest.raises(RequestFailed, match="make install") as caught,
    ):
        request(address, "GET", "/")
    assert caught.value.status == 503


def answer(address: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


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


def test_every_answer_keeps_the_browser_to_this_server(address: str) -> None:
    for path in ("/", "/healthz", "/nothing"):
        _, headers, _ = answer(address, path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert f"connect-src 'self' {address.replace('http', 'ws')} " in policy
        assert "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "a b", "127.0.0.1; script-src *"])
def test_other_hosts_are_not_served(address: str, host: str) -> None:
    status, headers, body = answer(address, "/healthz", Host=host)
    assert status == 400
    assert host in json.loads(body)["error"]["message"]
    assert "connect-src 'self';" in headers["content-security-policy"], "and not what was sent as Host"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "[::1]:8000", "127.0.0.1"])
def test_own_names_are(address: str, host: str) -> None:
    assert answer(address, "/healthz", Host=host)[0] == 200
