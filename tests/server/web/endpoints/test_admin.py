"""The operator's page and its requests, against the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed

from livedrag.server.client import Client, NewRoom, create_room
from livedrag.server.device.engine import DrainRefused
from livedrag.server.device.messages import ReleaseSession, Start
from livedrag.server.document.protocol import AddDrag, Close, SetTitle
from livedrag.server.metrics import DeviceStats, EngineStats
from livedrag.server.settings import Settings
from tests.quiet import QuietEngine, png, quiet_server, serving_in_thread
from tests.server.web.browser import Visitor, answer, refusal

TOKEN = "Tökén with spaces"


class TwoWorkers(QuietEngine):
    """Its runs are on the first worker."""

    def __init__(self) -> None:
        super().__init__()
        self.drained: list[str] = []

    def stats(self) -> EngineStats:
        rooms = dict.fromkeys(self.desired, 2.5)
        first = DeviceStats(worker="a/0", node="a", device="cuda:0", state="ready", queued=3, rooms=rooms)
        return EngineStats(devices=(first, DeviceStats(worker="b/0", node="b", state="restarting")))

    def drain(self, worker: str) -> None:
        if worker not in ("a/0", "b/0"):
            super().drain(worker)
        if self.drained:
            raise DrainRefused(f"worker {worker!r} is the only one that takes rooms: it cannot be drained")
        self.drained.append(worker)


@pytest.fixture
def engine() -> TwoWorkers:
    return TwoWorkers()


@pytest.fixture
def served(tmp_path: Path, engine: TwoWorkers) -> Iterator[str]:
    settings = Settings(data_dir=tmp_path, port=0, admin_token=TOKEN, password="for everyone")
    with serving_in_thread(settings, engine, patience=60) as address:
        yield address


def operator(address: str, secret: str = TOKEN, **headers: str) -> Visitor:
    return Visitor(address, Authorization=f"Bearer {quote(secret)}", **headers)


def status(address: str) -> dict[str, Any]:
    code, shown = operator(address).ask("GET", "/api/admin")
    assert code == 200
    found: dict[str, Any] = shown
    return found


def make(address: str, **fields: str) -> NewRoom:
    return create_room(address, png(), password="for everyone", **fields)


def join(address: str, room: NewRoom, name: str = "Ada") -> Any:
    return Client.join(address, room.id, room.secret, name=name, password="for everyone")


def test_without_a_token_and_without_a_password_it_is_not_served(tmp_path: Path) -> None:
    with quiet_server(tmp_path) as (address, _):
        for path in ("/admin", "/admin/admin.js", "/api/admin"):
            code, _, body = answer(address, path, Authorization="Bearer x")
            assert code == 404
            assert "set LIVEDRAG_ADMIN_TOKEN, or a password" in json.loads(body)["error"]["message"]


def test_the_password_opens_it_where_there_is_no_token(tmp_path: Path) -> None:
    with quiet_server(tmp_path, password="sesame") as (address, _):
        assert answer(address, "/admin")[0] == 200
        assert operator(address, "sesame").ask("GET", "/api/admin")[0] == 200
        assert refusal(operator(address, "wrong").ask("GET", "/api/admin")) == (401, "password")


def test_where_there_is_a_token_the_password_is_not_enough(served: str) -> None:
    assert refusal(operator(served, "for everyone").ask("GET", "/api/admin")) == (401, "password")
    assert refusal(Visitor(served).ask("GET", "/api/admin")) == (401, "password")
    assert operator(served).ask("GET", "/api/admin")[0] == 200


def test_a_cookie_opens_nothing_and_another_site_is_refused(served: str) -> None:
    """A request that another site makes a browser send has cookies, and no header of its own."""
    room = make(served)
    visitor = Visitor(served)
    assert visitor.ask("POST", "/api/password", {"password": "for everyone"})[0] == 204
    assert visitor.cookie
    for method, path in (
        ("POST", f"/api/admin/rooms/{room.id}/eject"),
        ("DELETE", f"/api/admin/rooms/{room.id}"),
        ("POST", "/api/admin/drain"),
    ):
        assert refusal(visitor.ask(method, path)) == (401, "password")
        elsewhere = operator(served, Origin="https://elsewhere.example")
        assert refusal(elsewhere.ask(method, path)) == (403, "wrong_origin")
    assert [shown["id"] for shown in status(served)["rooms"]] == [room.id]


def test_the_page_has_the_same_headers_as_all_others(served: str) -> None:
    for path in ("/admin", "/admin/admin.js", "/admin/admin.css", "/api/admin"):
        _, headers, _ = answer(served, path)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "form-action 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert answer(served, "/admin/..%2f..%2fbuild.py")[0] == 404
    assert answer(served, "/admin/admin.html")[0] == 404


def test_below_a_base_path_the_page_names_it(tmp_path: Path) -> None:
    with quiet_server(tmp_path, admin_token="t", base_path="/drag") as (address, _):
        page = answer(address, "/drag/admin")[2].decode()
        assert 'src="/drag/admin/admin.js"' in page
        assert 'content="/drag"' in page
        assert answer(address, "/drag/admin/admin.js")[0] == 200


def test_the_status_shows_rooms_people_device_time_disk_queue_and_workers(served: str, engine: TwoWorkers) -> None:
    empty, used = make(served), make(served)

    async def story() -> None:
        async with join(served, used) as client:
            await client.edit(AddDrag(id="d1", handle=(10, 10), target=(30, 20)))
            await client.run()
            await asyncio.to_thread(engine.expect, Start, used.id)
            shown = await asyncio.to_thread(status, served)
            assert (shown["people"], shown["queued"], shown["rooms_open"], shown["rooms_stored"]) == (1, 3, 1, 2)
            assert shown["model"] == "quiet"
            first, second = shown["rooms"]
            assert (first["id"], second["id"]) == (used.id, empty.id), "those with people come first"
            assert first["people"] == [{"name": "Ada", "role": "owner"}]
            assert (first["run"], first["worker"], first["device_seconds"]) == ("starting", "a/0", 2.5)
            assert (second["people"], second["run"], second["worker"]) == ([], "", "")
            assert first["bytes"] > second["bytes"] > 0
            assert list(shown["nodes"]) == ["a", "b"]
            (worker,) = shown["nodes"]["a"]
            assert (worker["id"], worker["device"], worker["state"], worker["queued"]) == ("a/0", "cuda:0", "ready", 3)

    asyncio.run(story())


def test_rooms_are_listed_with_the_names_that_people_gave_them(served: str) -> None:
    named, unnamed = make(served, title="Teddy bear"), make(served)

    def titles() -> dict[str, str]:
        return {room["id"]: room["title"] for room in status(served)["rooms"]}

    async def story() -> None:
        async with join(served, named) as client:
            assert await asyncio.to_thread(titles) == {named.id: "Teddy bear", unnamed.id: ""}
            await client.edit(SetTitle(title="Bear, waving"))
            assert (await asyncio.to_thread(titles))[named.id] == "Bear, waving"
            await client.undo()
            assert (await asyncio.to_thread(titles))[named.id] == "Teddy bear"

    asyncio.run(story())
    assert titles()[named.id] == "Teddy bear", "even when nobody is in it"


def test_people_who_are_ejected_are_told_and_may_come_back_to_an_interrupted_run(
    served: str, engine: TwoWorkers
) -> None:
    room = make(served)

    async def story() -> None:
        async with join(served, room) as client:
            await client.edit(AddDrag(id="d1", handle=(10, 10), target=(30, 20)))
            run = (await client.run()).run.id
            await asyncio.to_thread(engine.expect, Start, room.id)
            ejected = await asyncio.to_thread(operator(served).ask, "POST", f"/api/admin/rooms/{room.id}/eject")
            assert ejected[0] == 204
            with pytest.raises(ConnectionClosed) as closed:
                await client.stop()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == Close.REMOVED
            assert closed.value.rcvd.reason.startswith("the operator of this server has closed this room for now")
        released = await asyncio.to_thread(engine.expect, ReleaseSession, room.id)
        assert not released.wipe
        async with join(served, room) as client:
            last = client.document.run
            assert last is not None
            assert (last.id, last.outcome, last.interrupted) == (run, None, True)
            assert "d1" in client.document.drags
            await client.run()
            resumed = await asyncio.to_thread(engine.expect, Start, room.id)
            assert (resumed.run, resumed.resume) == (run, True)

    asyncio.run(story())


def test_a_deleted_room_is_gone_and_its_people_are_told(served: str) -> None:
    room = make(served)

    async def story() -> None:
        async with join(served, room) as client:
            deleted = await asyncio.to_thread(operator(served).ask, "DELETE", f"/api/admin/rooms/{room.id}")
            assert deleted[0] == 204
            with pytest.raises(ConnectionClosed) as closed:
                await client.stop()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == Close.ROOM_DELETED
            assert closed.value.rcvd.reason.startswith("the operator of this server has deleted this room")

    asyncio.run(story())
    assert status(served)["rooms"] == []
    for method, path in (("DELETE", f"/api/admin/rooms/{room.id}"), ("POST", "/api/admin/rooms/x/eject")):
        assert refusal(operator(served).ask(method, path)) == (404, "unknown_room")


def test_a_worker_is_drained_and_a_refusal_names_it(served: str, engine: TwoWorkers) -> None:
    def drain(worker: str) -> tuple[int, Any]:
        return operator(served).ask("POST", "/api/admin/drain", {"worker": worker})

    refused = drain("c/0")
    assert refusal(refused) == (409, "cannot_drain")
    assert "'c/0' cannot be drained; the workers are 'a/0', 'b/0'" in refused[1]["error"]["message"]
    assert drain("a/0")[0] == 204
    assert engine.drained == ["a/0"]
    assert refusal(drain("b/0")) == (409, "cannot_drain")
    assert refusal(operator(served).ask("POST", "/api/admin/drain", {"node": "a"})) == (422, "bad_body")
