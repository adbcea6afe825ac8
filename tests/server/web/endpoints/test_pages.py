"""The page, below a base path too, and the samples."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from livedrag.server.client import Client, NewRoom, RequestFailed, create_room, request
from tests.conftest import ROOT
from tests.quiet import png, quiet_server
from tests.server.web.browser import Visitor, answer, opened


def test_everything_is_served_below_a_base_path_whether_a_proxy_removes_it_or_not(tmp_path: Path) -> None:
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


def test_samples_are_listed_with_files_that_are_there(address: str) -> None:
    samples = json.loads(request(address, "GET", "/api/samples"))
    assert len(samples) >= 4 or not (ROOT / "static" / "samples").is_dir()
    for sample in samples:
        picture = opened(request(address, "GET", sample["picture"]))
        assert opened(request(address, "GET", sample["mask"])).size == picture.size
        assert set(sample) == {"name", "title", "picture", "mask", "prompt", "drags", "credit"}


def test_assets_are_compressed_and_stored_for_good(tmp_path: Path) -> None:
    static = tmp_path / "static"
    assets = static / "app" / "assets"
    assets.mkdir(parents=True)
    (static / "app" / "index.html").write_text("the page")
    (assets / "main-1.js").write_text("1")
    (assets / "main-1.js.gz").write_bytes(gzip.compress(b"1"))
    (assets / "bear-2.webp").write_bytes(b"2")
    with quiet_server(tmp_path / "data", static_dir=static) as (address, _):

        def fetch(path: str, accepted: str | None) -> tuple[dict[str, str], bytes]:
            headers = {} if accepted is None else {"Accept-Encoding": accepted}
            with urlopen(Request(address + path, headers=headers)) as response:
                return {name.lower(): value for name, value in response.headers.items()}, response.read()

        accepted: str | None
        for accepted in ("gzip, deflate, br", "br;q=1.0, gzip;q=0.8", "*"):
            headers, body = fetch("/assets/main-1.js", accepted)
            assert gzip.decompress(body) == b"1"
            assert headers["content-encoding"] == "gzip"
            assert headers["content-type"].startswith("text/javascript")
        for accepted in (None, "identity", "gzip;q=0", "gzip; q=0.0, br"):
            headers, body = fetch("/assets/main-1.js", accepted)
            assert body == b"1"
            assert "content-encoding" not in headers
        for path in ("/assets/main-1.js", "/assets/bear-2.webp"):
            headers, _ = fetch(path, "gzip")
            assert headers["cache-control"] == "public, max-age=31536000, immutable"
            assert headers["vary"] == "Accept-Encoding"
        assert fetch("/assets/bear-2.webp", "gzip")[1] == b"2"
        # The name stays the same in every version.
        assert answer(address, "/")[1]["cache-control"] == "no-cache"
        status, headers, _ = answer(address, "/assets/main-0.js")
        assert status == 404
        assert "cache-control" not in headers


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
