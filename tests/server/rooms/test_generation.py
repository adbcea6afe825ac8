"""Generations: started, followed, turned into rooms and refused, with an engine that generates nothing itself."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from livedrag.server.client import Client, NewRoom, RequestFailed, create_generated_room, request
from livedrag.server.device.messages import Generate, Prepare, PreviewReady, ReleaseSession, RunFinished, RunProgress
from livedrag.server.document.protocol import AddDrag, Generation, Prepared, Progress, SetSettings
from livedrag.server.settings import Rate
from tests.conftest import serving
from tests.quiet import MODEL, QuietEngine, png, quiet_server

JSON = {"Content-Type": "application/json"}
SECONDS = 60


def room_of(answer: Any) -> NewRoom:
    return NewRoom(answer["room"], answer["secret"], answer["url"])


def get(address: str, room: NewRoom, what: str) -> bytes:
    headers = {"Authorization": f"Bearer {room.secret}"}
    return request(address, "GET", f"/api/rooms/{room.id}/{what}", headers=headers)


@dataclass(frozen=True)
class Quiet:
    address: str
    engine: QuietEngine

    def generate(self, prompt: str = "a red apple", **fields: Any) -> str:
        job: str = self.ask("POST", "/api/generations", {"prompt": prompt, **fields})["id"]
        return job

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        answer = request(self.address, method, path, data, JSON if data else None)
        return json.loads(answer) if answer else None

    def refused(self, method: str, path: str, body: object = None) -> tuple[int, str, str]:
        with pytest.raises(RequestFailed) as caught:
            self.ask(method, path, body)
        return caught.value.status, caught.value.reason, str(caught.value)

    def command_for(self, job: str) -> Generate:
        command: Generate = self.engine.expect(Generate, job, SECONDS)
        return command

    def progress(self, job: str, step: int, stage: Any = "generating") -> None:
        record = Progress(run=job, stage=stage, step=step, steps=50, seconds=1.0, seconds_left=9.5)
        self.engine.tell(RunProgress(room=job, record=record))

    def show(self, job: str, data: bytes = b"preview") -> None:
        self.engine.tell(
            PreviewReady(
                room=job,
                run=job,
                stage="generating",
                iteration=4,
                format="webp",
                width=8,
                height=8,
                time=0.0,
                data=data,
            )
        )

    def finish(self, job: str, picture: bytes | None = None, message: str | None = None) -> None:
        outcome: Any = "failed" if picture is None else "arrived"
        self.engine.tell(
            RunFinished(
                room=job,
                run=job,
                outcome=outcome,
                iterations=50,
                seq=0,
                tracked={},
                picture=picture,
                message=message,
            )
        )

    def end(self, job: str) -> dict[str, Any]:
        """Its last line."""
        with following(self.address, job) as reader:
            return reader.rest()[-1]


@dataclass(frozen=True)
class Following:
    """Reads the lines of a job as they come."""

    answer: http.client.HTTPResponse

    def next(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.answer.readline())
        return line

    def rest(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.answer.read().splitlines()]


@contextmanager
def following(address: str, job: str) -> Iterator[Following]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=SECONDS)
    try:
        connection.request("GET", f"/api/generations/{job}")
        with connection.getresponse() as answer:
            assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
            yield Following(answer)
    finally:
        connection.close()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quiet]:
    limits = {"rate_generations": Rate(0, 0), "generations": 500}
    with quiet_server(tmp_path_factory.mktemp("generations"), **limits) as (address, engine):
        yield Quiet(address, engine)


def test_a_prompt_becomes_a_picture_and_the_picture_a_room(quiet: Quiet) -> None:
    answer = quiet.ask("POST", "/api/generations", {"prompt": " a red apple\n", "seed": 7})
    job = answer["id"]
    assert answer == {"id": job, "prompt": "a red apple", "seed": 7}
    generation = Generation(prompt="a red apple", seed=7, guidance=3.0, ddim_steps=50, model=MODEL.name)
    assert quiet.command_for(job).generation == generation
    with following(quiet.address, job) as reader:
        assert reader.next() == {"type": "waiting", "before": 0, "seconds_left": None}
        quiet.progress(job, 3, "queued")
        assert reader.next() == {"type": "waiting", "before": 3, "seconds_left": 9.5}
        quiet.progress(job, 4)
        assert reader.next() == {"type": "progress", "step": 4, "steps": 50, "seconds_left": 9.5}
        quiet.show(job)
        assert reader.next() == {"type": "preview", "picture": "data:image/webp;base64,cHJldmlldw=="}
        assert quiet.refused("GET", f"/api/generations/{job}/picture")[:2] == (409, "not_generated")
        assert quiet.refused("POST", "/api/rooms", {"generation": job})[:2] == (409, "not_generated")
        quiet.finish(job, png(64, 64, "maroon"))
        assert reader.rest() == [{"type": "done"}]
    picture = request(quiet.address, "GET", f"/api/generations/{job}/picture")
    assert picture == png(64, 64, "maroon")
    room = room_of(quiet.ask("POST", "/api/rooms", {"generation": job}))
    assert room.url == f"/r/{room.id}#{room.secret}"
    assert get(quiet.address, room, "picture") == picture


def test_a_room_knows_how_its_picture_was_generated_and_tells_the_device(tmp_path: Path) -> None:
    with quiet_server(tmp_path / "data", generation_steps=6, generation_guidance=4.0) as (address, engine):
        quiet = Quiet(address, engine)
        job = quiet.generate("a blue boat", seed=3)
        generation = Generation(prompt="a blue boat", seed=3, guidance=4.0, ddim_steps=6, model=MODEL.name)
        assert quiet.command_for(job).generation == generation
        quiet.finish(job, png(64, 64))
        assert quiet.end(job) == {"type": "done"}
        room = room_of(quiet.ask("POST", "/api/rooms", {"generation": job}))

        async def story(address: str, engine: QuietEngine) -> None:
            async with Client.join(address, room.id, room.secret) as client:
                assert client.document.picture.generation == generation
                assert client.document.prompt == "a blue boat"
                assert client.document.settings == {"ddim_steps": 6}
                prepare: Prepare = await asyncio.to_thread(engine.expect, Prepare, room.id, SECONDS)
                assert prepare.desired.generation == generation

        asyncio.run(story(address, engine))
    with quiet_server(tmp_path / "data") as (address, engine):  # and so it does after a restart
        asyncio.run(story(address, engine))


def test_without_a_seed_each_generation_has_its_own(quiet: Quiet) -> None:
    seeds = {quiet.ask("POST", "/api/generations", {"prompt": "a cat", "seed": None})["seed"] for _ in range(4)}
    assert len(seeds) > 1
    assert quiet.ask("POST", "/api/generations", {"prompt": "a cat"})["seed"] >= 0


def test_a_late_or_returning_follower_gets_the_newest_at_once(quiet: Quiet) -> None:
    job = quiet.generate()
    with following(quiet.address, job) as first:
        first.next()
        for step in (1, 2, 3):
            quiet.progress(job, step)
        quiet.show(job, b"newest")
        while first.next()["type"] != "preview":
            pass
    with following(quiet.address, job) as late:  # the first has left, and the job continues
        assert late.next()["step"] == 3
        assert late.next()["type"] == "preview"
        quiet.finish(job, png())
        assert late.rest() == [{"type": "done"}]
    assert quiet.end(job) == {"type": "done"}


def test_a_generation_that_fails_says_why(quiet: Quiet) -> None:
    job = quiet.generate()
    quiet.finish(job, message="the device has no memory left")
    assert quiet.end(job) == {"type": "failed", "message": "the device has no memory left"}
    status, reason, message = quiet.refused("GET", f"/api/generations/{job}/picture")
    assert (status, reason) == (409, "not_generated")
    assert "could not be generated" in message


def test_a_cancelled_generation_ends_and_is_forgotten(quiet: Quiet) -> None:
    job = quiet.generate()
    with following(quiet.address, job) as reader:
        assert reader.next()["type"] == "waiting"
        assert quiet.ask("DELETE", f"/api/generations/{job}") is None
        assert reader.rest() == [{"type": "cancelled"}]
    quiet.engine.expect(ReleaseSession, job, SECONDS)
    for method, path in (("GET", ""), ("GET", "/picture"), ("DELETE", "")):
        status, reason, message = quiet.refused(method, f"/api/generations/{job}{path}")
        assert (status, reason) == (404, "unknown_generation")
        assert repr(job) in message
    assert quiet.refused("POST", "/api/rooms", {"generation": job})[:2] == (404, "unknown_generation")


@pytest.mark.parametrize(
    ("body", "reason", "quoted"),
    [
        ({"prompt": " \n", "seed": 1}, "empty_prompt", "describe the picture"),
        ({"seed": 1}, "bad_body", "prompt"),
        ({"prompt": "x" * 1001}, "prompt_too_long", "1001 characters, the limit is 1000"),
        ({"prompt": "\U0001f34e" * 1001}, "prompt_too_long", "1001 characters, the limit is 1000"),
        ({"prompt": "a cat", "seed": -1}, "bad_seed", "-1"),
        ({"prompt": "a cat", "seed": 2**31}, "bad_seed", str(2**31)),
        ({"prompt": "a cat", "seed": "7"}, "bad_body", "seed"),
        ({"prompt": "a cat", "steps": 7}, "bad_body", "steps"),
    ],
)
def test_what_cannot_be_generated_is_refused(quiet: Quiet, body: object, reason: str, quoted: str) -> None:
    status, said, message = quiet.refused("POST", "/api/generations", body)
    assert (status, said) == (422, reason)
    assert quoted in message


def test_a_script_creates_a_generated_room(tmp_path: Path) -> None:
    with quiet_server(tmp_path, password="open sesame") as (address, engine), ThreadPoolExecutor(1) as elsewhere:
        quiet = Quiet(address, engine)
        creating = elsewhere.submit(create_generated_room, address, "a cat", seed=7, password="open sesame")
        command: Generate = engine.expect_any(Generate)
        assert (command.generation.prompt, command.generation.seed) == ("a cat", 7)
        quiet.finish(command.room, png(64, 64))
        assert creating.result(SECONDS).id
        creating = elsewhere.submit(create_generated_room, address, "a cat", password="open sesame")
        quiet.finish(engine.expect_any(Generate).room, message="the device has no memory left")
        with pytest.raises(RequestFailed, match="no memory left"):
            creating.result(SECONDS)


def test_too_many_and_too_fast_are_refused(tmp_path: Path) -> None:
    with quiet_server(tmp_path, generations=2, rate_generations=Rate(0.001, 4)) as (address, engine):
        quiet = Quiet(address, engine)
        first, second = quiet.generate(), quiet.generate()
        status, reason, message = quiet.refused("POST", "/api/generations", {"prompt": "a cat"})
        assert (status, reason) == (429, "too_many_generations")
        assert "the limit is 2" in message
        quiet.finish(first, png())
        assert quiet.end(first) == {"type": "done"}
        third = quiet.generate()  # in place of the finished one
        assert quiet.refused("GET", f"/api/generations/{first}")[0] == 404
        status, reason, message = quiet.refused("POST", "/api/generations", {"prompt": "a cat"})
        assert (status, reason) == (429, "slow_down")
        assert "generated pictures" in message
        metrics = request(address, "GET", "/metrics").decode()
        assert "\nlivedrag_generations 2.0\n" in metrics
        assert 'livedrag_generations_total{outcome="done"} 1.0' in metrics
        for job in (second, third):
            quiet.ask("DELETE", f"/api/generations/{job}")


def test_an_unused_generation_is_forgotten(tmp_path: Path) -> None:
    with quiet_server(tmp_path, generation_seconds=0.3) as (address, engine):
        quiet = Quiet(address, engine)
        job = quiet.generate()
        engine.expect(ReleaseSession, job, SECONDS)  # the device stops
        assert quiet.refused("GET", f"/api/generations/{job}")[:2] == (404, "unknown_generation")


def test_the_device_must_be_ready(tmp_path: Path) -> None:
    with quiet_server(tmp_path) as (address, engine):
        engine.state = "restarting"
        status, reason, message = Quiet(address, engine).refused("POST", "/api/generations", {"prompt": "a cat"})
        assert (status, reason) == (503, "no_device")
        assert "restarting" in message


def test_the_servers_password_and_origin_are_checked(tmp_path: Path) -> None:
    with quiet_server(tmp_path, password="open sesame") as (address, engine):
        quiet = Quiet(address, engine)
        body = json.dumps({"prompt": "a cat"}).encode()
        assert quiet.refused("POST", "/api/generations", {"prompt": "a cat"})[:2] == (401, "password")
        known = {**JSON, "Livedrag-Password": "open%20sesame"}
        job = json.loads(request(address, "POST", "/api/generations", body, known))["id"]
        for method, path in (("GET", ""), ("GET", "/picture"), ("DELETE", "")):
            assert quiet.refused(method, f"/api/generations/{job}{path}")[:2] == (401, "password")
        with pytest.raises(RequestFailed, match="elsewhere"):
            request(address, "POST", "/api/generations", body, {**known, "Origin": "http://elsewhere.example"})


def test_a_server_that_stops_ends_the_answers_of_followers(tmp_path: Path) -> None:
    with ExitStack() as leaving, quiet_server(tmp_path) as (address, engine):
        quiet = Quiet(address, engine)
        reader = leaving.enter_context(following(address, quiet.generate()))
        assert reader.next()["type"] == "waiting"
        lines: list[dict[str, Any]] = []
        reading = threading.Thread(target=lambda: lines.extend(reader.rest()))
        reading.start()
        leaving.callback(reading.join, SECONDS)
    assert [line["type"] for line in lines] == ["failed"]


@pytest.mark.long
def test_a_picture_is_generated_and_dragged_by_the_real_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEDRAG_GENERATION_STEPS", "4")

    async def story(address: str, room: NewRoom) -> None:
        async with Client.join(address, room.id, room.secret) as client:
            settings: dict[str, Any] = {"lora_steps": 1, "max_iterations": 2, "preview_every": 1}
            await client.edit(SetSettings(settings=settings))
            await client.edit(AddDrag(id="d1", handle=(100, 100), target=(140, 110)))
            ended = await client.drag()
            assert ended.result is not None
            assert ended.run.outcome in ("arrived", "exhausted")
            stages = [m.stage for m in client.received if isinstance(m, Progress | Prepared)]
            assert "generating" in stages
            assert "inverting" not in stages

    with serving(tmp_path / "data") as address:
        seen = json.loads(request(address, "POST", "/api/generations", b'{"prompt": "a red apple", "seed": 5}', JSON))
        with following(address, seen["id"]) as reader:
            lines = reader.rest()
        assert {line["type"] for line in lines} <= {"waiting", "progress", "preview", "done"}
        assert lines[-1] == {"type": "done"}
        assert any(line["type"] == "preview" for line in lines)
        picture = request(address, "GET", f"/api/generations/{seen['id']}/picture")
        body = json.dumps({"generation": seen["id"]}).encode()
        room = room_of(json.loads(request(address, "POST", "/api/rooms", body, JSON)))
        assert get(address, room, "picture") == picture
        asyncio.run(story(address, room))


def test_the_picture_of_a_room_is_a_picture(quiet: Quiet) -> None:
    """The size that the room's document has is that of the PNG."""
    job = quiet.generate()
    quiet.finish(job, png(64, 48))
    quiet.end(job)
    room = room_of(quiet.ask("POST", "/api/rooms", {"generation": job}))
    assert Image.open(io.BytesIO(get(quiet.address, room, "mask"))).size == (64, 48)
