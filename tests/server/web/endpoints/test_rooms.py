"""Creating, deleting and exporting rooms: good pictures become rooms, and bad ones are refused by name."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import struct
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from PIL import Image
from websockets.exceptions import ConnectionClosed

from livedrag.pictures import read_picture
from livedrag.server.client import Client, NewRoom, RequestFailed, create_room, request
from livedrag.server.device.messages import ReleaseSession
from livedrag.server.document.protocol import (
    AddDrag,
    Edited,
    Raster,
    RoomLimits,
    SetPrompt,
    SetTitle,
    Started,
)
from livedrag.server.storage import Store
from livedrag.server.storage.archive import export_room, import_room
from tests.quiet import png, quiet_server
from tests.server.web.browser import Visitor, get, opened, saved


def huge_png(width: int, height: int) -> bytes:
    """The beginning of a PNG of any size; its pixels are never looked at."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 4) + b"IDAT" + bytes(8)


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
def test_pictures_of_every_usual_format_are_accepted(address: str, format: str) -> None:
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


def test_an_export_of_a_room_just_deleted_is_an_unknown_room(
    address: str, room: NewRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "livedrag.server.web.endpoints.rooms.export_room", lambda store, id, file: export_room(store, "gone", file)
    )
    with pytest.raises(RequestFailed, match="no room 'gone'") as caught:
        get(address, room, "export")
    assert (caught.value.status, caught.value.reason) == (404, "unknown_room")


def test_a_deleted_room_is_gone_for_everyone(tmp_path: Path) -> None:
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


def test_an_export_is_the_whole_room(address: str, room: NewRoom, tmp_path: Path) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(SetPrompt(prompt="a bear"))

    asyncio.run(story())
    data = get(address, room, "export")
    with Store(tmp_path / "other") as store:
        imported, _ = import_room(store, io.BytesIO(data), RoomLimits())
        saved_room = store.load(imported).result()
        assert saved_room is not None
        assert saved_room.document.prompt == "a bear"
        assert store.pictures.get(saved_room.document.picture.sha256) == get(address, room, "picture")


def test_a_room_is_renamed_as_an_edit_that_everyone_sees(address: str) -> None:
    room = create_room(address, png(), title=" A field ")

    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            assert client.document.title == "A field"
            await client.fetch("PATCH", "", {"title": " Two fields "})
            await client.wait(Edited, lambda edited: edited.op == SetTitle(title="Two fields"))
            await client.undo()
            assert client.document.title == "A field"
            viewer = (await client.make_link("viewer"))["secret"]
        async with Client.join(address, room.id, viewer) as looking:
            for method, path in (("PATCH", ""), ("POST", "copy")):
                with pytest.raises(RequestFailed, match="view only"):
                    await looking.fetch(method, path, {"title": "x"})

    asyncio.run(story())


def test_a_copy_has_everything_but_people_and_links_and_goes_its_own_way(address: str) -> None:
    room = create_room(address, png(), title="Field", prompt="a field")

    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(AddDrag(id="d1", handle=(10, 10), target=(20, 10)))
            other, secret = await client.copy("Field (copy)")
            async with Client.join(address, other, secret) as copy:
                assert copy.welcome.role == "owner"
                assert copy.document == replace(client.document, title="Field (copy)")
                assert await copy.get("picture") == await client.get("picture")
                await copy.edit(SetPrompt(prompt="another"))
                await client.delete_room()
                assert (await copy.get("picture"))[:4] == b"\x89PNG"
            with pytest.raises(RequestFailed):
                get(address, NewRoom(other, room.secret, ""), "picture")

    asyncio.run(story())


def post_zip(address: str, data: bytes) -> NewRoom:
    made = json.loads(request(address, "POST", "/api/rooms", data, {"Content-Type": "application/zip"}))
    return NewRoom(made["room"], made["secret"], made["url"])


def test_an_export_becomes_a_new_room(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(SetPrompt(prompt="a bear"))
            data = await client.get("export")
            there = post_zip(address, data)
            assert there.id != room.id
            async with Client.join(address, there.id, there.secret) as copy:
                assert copy.document == client.document
                assert copy.welcome.role == "owner"

    asyncio.run(story())


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", saved(NOISE, "PNG")])
def test_what_is_no_export_is_refused(address: str, data: bytes) -> None:
    with pytest.raises(RequestFailed, match="this is not an exported room") as caught:
        post_zip(address, data)
    assert (caught.value.status, caught.value.reason) == (422, "not_a_room")


def test_an_export_that_unpacks_to_too_much_is_refused(address: str, room: NewRoom) -> None:
    data = io.BytesIO(get(address, room, "export"))
    with zipfile.ZipFile(data, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"files/{'a' * 64}.png", bytes(400 * 2**20))
    with pytest.raises(RequestFailed, match="MiB uncompressed"):
        post_zip(address, data.getvalue())
