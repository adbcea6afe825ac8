"""The page, below a base path too, and the samples."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

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
