"""HTTP: rooms are made of good pictures, bad ones are refused with a clear message, and the server goes on."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from server.client import Client, NewRoom, RequestFailed, create_room, request
from server.protocol import AddStroke, Edited, Raster, Stroke
from tests.conftest import ROOT
from tests.quiet import png, quiet_server


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
        (b"just some text", {}, 422, "not_a_picture", "'x.png' is no picture, it begins with b'just som'"),
        (b"", {}, 422, "not_a_picture", "empty"),
        (saved(Image.new("RGB", (9, 9)), "GIF"), {}, 422, "not_a_picture", "PNG, JPEG or WEBP work"),
        (saved(NOISE, "PNG")[:2000], {}, 422, "truncated", "'x.png' breaks off"),
        (saved(NOISE, "JPEG")[:1000], {}, 422, "truncated", "'x.png' breaks off"),
        (ANIMATION, {}, 422, "several_frames", "2 frames"),
        (huge_png(8000, 5000), {}, 413, "too_many_pixels", "8000 x 5000 pixels, which is 40.0 megapixels: at most 25"),
        (huge_png(60000, 60000), {}, 413, "too_many_pixels", "at most 25 megapixels"),
        (png() + bytes(21 * 2**20), {}, 413, "too_large", "'x.png' has 21.0 MiB (22020"),
        (png() + bytes(30 * 2**20), {}, 413, "too_large", "): at most 20 MiB work"),
        (png(), {"prompt": "x" * 1001}, 422, "prompt_too_long", "1001 characters: at most 1000"),
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
        (png(15, 40), {}, 422, "too_small", "'x.png' has 15 x 40 pixels: at least 16 on each side work"),
        (png(16, 129), {}, 422, "too_narrow", "16 x 129 pixels, too long and narrow to edit: at most 8 to 1 works"),
        (png(), {"mask": png(color="#7f7f7f", mode="L")}, 422, "mask_empty", "no white (its brightest grey is 127"),
        (png(), {"mask": b"no mask"}, 422, "not_a_picture", "b'no mask'"),
        (png(), {"mask": "no file"}, 422, "missing_file", "'mask'"),
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
    status, _, body = answer(address, "/healthz", Host=host)
    assert status == 400
    assert host in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "[::1]:8000", "127.0.0.1"])
def test_own_names_are(address: str, host: str) -> None:
    assert answer(address, "/healthz", Host=host)[0] == 200
