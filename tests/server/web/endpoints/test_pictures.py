"""A room's pictures: masks, results, the timeline's thumbnails and its animations."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from livedrag.editor import Drag, Point
from livedrag.editor.drag.warp import warp
from livedrag.run_log import LogRow
from livedrag.server.client import Client, NewRoom, RequestFailed, create_room, request
from livedrag.server.device.checkpoints import Checkpoint, Checkpoints, SavedMoment, picture_parts
from livedrag.server.device.messages import DesiredState, MomentInfo, TimelineChanged
from livedrag.server.device.run_numbers import RunNumbers
from livedrag.server.document.protocol import (
    AddDrag,
    AddStroke,
    BaseReplaced,
    Document,
    Edited,
    Ended,
    Moments,
    MoveDrag,
    Raster,
    Stroke,
)
from livedrag.server.images.animation import LAST_FRAMES, AnimationError, encode_mp4, find_encoder
from tests.quiet import png, quiet_server
from tests.server.web.browser import answer, get, opened, saved


def test_no_result_yet_says_what_to_do(address: str, room: NewRoom) -> None:
    with pytest.raises(RequestFailed, match="press Drag") as caught:
        get(address, room, "result")
    assert (caught.value.status, caught.value.reason) == (404, "no_result")


def test_a_loaded_mask_replaces_the_painted_one_for_everyone(address: str, room: NewRoom) -> None:
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


def keep(address: str, room: NewRoom, **headers: str) -> dict[str, object]:
    """Keep the quick preview as the owner does, or as other headers say."""
    sent = {"Authorization": f"Bearer {room.secret}", **headers}
    answer: dict[str, object] = json.loads(request(address, "POST", f"/api/rooms/{room.id}/quick-preview", b"", sent))
    return answer


def test_a_kept_quick_preview_is_the_result_for_everyone(address: str) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((64, 48), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    room = create_room(address, buffer.getvalue())
    ends = Drag(Point(20, 20), Point(34, 26))

    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            with pytest.raises(RequestFailed, match="nothing to drag") as caught:
                await asyncio.to_thread(keep, address, room)
            assert caught.value.status == 409
            await client.edit(AddDrag(id="d", handle=(20, 20), target=(34, 26)))
            await client.load_mask(half_open_mask())
            answer = await asyncio.to_thread(keep, address, room, **{"Op-Id": "once"})
            ended = await client.wait(Ended)
            assert ended.run.outcome == "kept"
            assert client.document.drags["d"].tracked == (34, 26)
            assert client.document.result is not None
            assert client.document.result.sha256 == answer["sha256"]
            mask = np.zeros((48, 64), dtype=bool)
            mask[:, 8:] = True
            wanted = warp(noise, [ends], mask)
            assert np.array_equal(np.asarray(opened(await client.get("result"))), np.asarray(wanted))
            assert np.asarray(wanted)[26, 34].tolist() == np.asarray(noise)[20, 20].tolist()
            seq = client.seq
            again = await asyncio.to_thread(keep, address, room, **{"Op-Id": "once"})
            assert again["seq"] == answer["seq"], "a retry changes nothing"
            assert client.seq == seq

    asyncio.run(story())


def test_a_kept_quick_preview_is_undone_like_a_run_and_can_be_edited_further(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(AddDrag(id="d", handle=(20, 20), target=(34, 26)))
            first = await asyncio.to_thread(keep, address, room)
            await client.edit(MoveDrag(id="d", target=(12, 30)))
            second = await asyncio.to_thread(keep, address, room)
            await client.wait(Ended, lambda ended: ended.result is not None and ended.seq > int(str(second["seq"])))
            assert client.document.result is not None
            assert client.document.drags["d"].tracked == (12, 30)
            await client.undo()
            assert client.document.result is not None
            assert client.document.result.sha256 == first["sha256"]
            assert client.document.run is not None
            assert client.document.run.outcome == "kept"
            await client.edit_further()
            assert client.document.picture.sha256 == first["sha256"]
            for _ in range(3):  # editing further, the new target, the first preview
                await client.undo()
            document: Document = client.document
            assert document.result is None
            assert document.run is None
            assert document.drags["d"].tracked is None

    asyncio.run(story())


def test_an_uploaded_picture_replaces_the_one_that_is_edited(address: str, room: NewRoom) -> None:
    def replace(data: bytes, **headers: str) -> dict[str, object]:
        sent = {"Authorization": f"Bearer {room.secret}", **headers}
        return dict(json.loads(request(address, "PUT", f"/api/rooms/{room.id}/picture", data, sent)))

    async def story() -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (30, 20), "red").save(buffer, "BMP")
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(AddDrag(id="d", handle=(20, 20), target=(34, 26)))
            before = client.document
            answer = await asyncio.to_thread(replace, buffer.getvalue(), **{"Op-Id": "once"})
            await client.wait(BaseReplaced)
            assert client.document.drags == {}
            assert (client.document.picture.width, client.document.picture.height) == (30, 20)
            assert opened(await client.get("picture")).getpixel((5, 5)) == (255, 0, 0)
            assert await asyncio.to_thread(replace, buffer.getvalue(), **{"Op-Id": "once"}) == answer
            with pytest.raises(RequestFailed, match=r"not a picture|image") as caught:
                await asyncio.to_thread(replace, b"no picture")
            assert caught.value.status == 422
            await client.undo()
            assert client.document == before
            await client.run()
            with pytest.raises(RequestFailed, match="press Stop first") as caught:
                await asyncio.to_thread(replace, buffer.getvalue())
            assert caught.value.status == 409

    asyncio.run(story())


def test_people_who_only_look_cannot_keep_a_quick_preview(address: str, room: NewRoom) -> None:
    link = json.dumps({"role": "viewer"}).encode()
    owner = {"Authorization": f"Bearer {room.secret}", "Content-Type": "application/json"}
    secret = json.loads(request(address, "POST", f"/api/rooms/{room.id}/links", link, owner))["secret"]
    with pytest.raises(RequestFailed, match="view only") as caught:
        keep(address, room, Authorization=f"Bearer {secret}")
    assert caught.value.status == 403


def test_no_quick_preview_is_kept_during_a_run(address: str, room: NewRoom) -> None:
    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(AddDrag(id="d", handle=(20, 20), target=(34, 26)))
            await client.run()
            with pytest.raises(RequestFailed, match="press Stop first") as caught:
                await asyncio.to_thread(keep, address, room)
            assert (caught.value.status, caught.value.reason) == (409, "busy")

    asyncio.run(story())


def half_open_mask() -> bytes:
    mask = Image.new("L", (64, 48), 255)
    mask.paste(0, (0, 0, 8, 48))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_retried_mask_changes_nothing(address: str, room: NewRoom) -> None:
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


def webp(color: str, size: tuple[int, int] = (32, 24)) -> bytes:
    return saved(Image.new("RGB", size, color), "WEBP", lossless=True)


def keep_frames(data: Path, address: str, room: NewRoom, moments: list[SavedMoment], frames: dict[int, bytes]) -> None:
    """As the device's worker does at the end of a run."""
    desired = DesiredState(room=room.id, seq=0, prompt="", settings={}, drags={})
    picture = hashlib.sha256(get(address, room, "picture")).hexdigest()
    checkpoint = Checkpoint(picture=picture, desired=desired, moments=moments, current=moments[-1].info.id)
    Checkpoints(data / "checkpoints").save(room.id, checkpoint, picture_parts("frames", frames))


def test_steps_of_the_timeline_have_thumbnails(tmp_path: Path) -> None:
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
                timeline = await client.wait(Moments)
                assert ([moment.id for moment in timeline.moments], timeline.current) == ([0, 1], 1)
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
        keep_frames(tmp_path, address, room, moments, {0: webp("red"), 1: webp("lime"), 2: webp("blue", (16, 12))})
        picture = opened(get(address, room, "trajectory.webp"))
        assert (picture.format, getattr(picture, "n_frames", 1), picture.size) == ("WEBP", 3, (16, 12))


def test_the_numbers_of_the_last_run(tmp_path: Path) -> None:
    with quiet_server(tmp_path) as (address, _):
        room = create_room(address, png(), drags='[{"handle": [10, 10], "target": [30, 10]}]')
        with pytest.raises(RequestFailed, match="no numbers of its last run yet: press Drag") as refused:
            get(address, room, "numbers.csv")
        assert refused.value.reason == "no_numbers"

        async def story() -> None:
            async with Client.join(address, room.id, room.secret) as client:
                run = (await client.run()).run.id
                await client.stop()
                await client.end_of(run)
                with pytest.raises(RequestFailed, match="no numbers"):
                    await client.get("numbers.json")
                keep_numbers(tmp_path, address, room, run)
                rows = json.loads(await client.get("numbers.json"))
                assert [(row["iteration"], row["x"], row["content"]) for row in rows] == [(1, 3.5, 4.0), (2, 5.0, None)]
                lines = (await client.get("numbers.csv")).decode().splitlines()
                assert lines[0] == "iteration,drag,x,y,distance,content,loss,lost"
                assert lines[1:] == ["1,d1,3.5,4.0,6.5,4.0,0.25,False", "2,d1,5.0,4.0,5.0,,0.25,True"]

        asyncio.run(story())


def keep_numbers(data: Path, address: str, room: NewRoom, run: str) -> None:
    """As the device's worker does at the end of a run."""
    desired = DesiredState(room=room.id, seq=0, prompt="", settings={}, drags={})
    picture = hashlib.sha256(get(address, room, "picture")).hexdigest()
    numbers = RunNumbers(run, [LogRow(1, "d1", 3.5, 4.0, 6.5, 4.0, 0.25, False)])
    numbers.rows.append(LogRow(2, "d1", 5.0, 4.0, 5.0, None, 0.25, True))
    Checkpoints(data / "checkpoints").save(room.id, Checkpoint(picture=picture, desired=desired), numbers.parts())


def test_the_trajectory_is_an_mp4_too(tmp_path: Path) -> None:
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
        keep_frames(tmp_path, address, room, moments, {0: webp("red"), 1: webp("lime"), 2: webp("blue", (33, 25))})
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


def test_without_an_encoder_there_is_no_mp4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedrag.server.rooms.registry.find_encoder", lambda: None)
    with quiet_server(tmp_path) as (address, _):
        assert json.loads(request(address, "GET", "/healthz"))["capabilities"] == []
        with pytest.raises(RequestFailed, match=r"use trajectory\.webp") as caught:
            get(address, create_room(address, png()), "trajectory.mp4")
        assert (caught.value.status, caught.value.reason) == (404, "no_encoder")


def test_an_encoder_that_fails_says_why(tmp_path: Path) -> None:
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
        keep_frames(data, address, room, moments, {0: webp("red"), 1: webp("blue")})
        with pytest.raises(RequestFailed, match="no such codec") as caught:
            get(address, room, "trajectory.mp4")
    assert (caught.value.status, caught.value.reason) == (503, "encoder_failed")
