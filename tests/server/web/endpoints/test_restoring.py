"""A result that is uploaded again restores its edit; what its metadata claim is checked."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import secrets
import zipfile
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from livedrag.edit_metadata import EditMetadata, EditRun, EditState, PlacedDrag, SourcePicture
from livedrag.picture_metadata import read_metadata, save_png
from livedrag.server.client import Client, NewRoom, RequestFailed, create_room, request
from livedrag.server.device.messages import RunFinished
from livedrag.server.document.protocol import Document
from tests.quiet import QuietEngine, png
from tests.server.web.browser import Visitor, get, opened, owner, saved


def a_mask() -> bytes:
    mask = Image.new("L", (64, 48), 0)
    mask.paste(255, (0, 0, 32, 48))
    return saved(mask, "PNG")


STATE = EditState(
    3, {"x": PlacedDrag((10, 10), (20.5, 10))}, a_mask(), {"p": (40.0, 40.0)}, {"latent_lr": 0.5, "max_iterations": 7}
)
SAID = EditMetadata(
    software="livedrag 9",
    picture=SourcePicture("0" * 64, "1" * 64, 64, 48),
    weights=(),
    preset="official",
    settings={},
    seed=5,
    prompt="a field",
    runs=(EditRun((EditState(), STATE), 9),),
)


def result_with(metadata: EditMetadata | str | None) -> bytes:
    file, picture = io.BytesIO(), Image.new("RGB", (64, 48), "coral")
    if isinstance(metadata, str):
        info = PngInfo()
        info.add_itxt("livedrag", metadata)
        picture.save(file, "PNG", pnginfo=info)
    else:
        save_png(picture, file, metadata)
    return file.getvalue()


def document_of(address: str, room: NewRoom) -> Document:
    async def read() -> Document:
        async with Client.join(address, room.id, room.secret) as client:
            return client.document

    return asyncio.run(read())


def test_all_but_a_picture_that_is_elsewhere(address: str) -> None:
    room = create_room(address, result_with(SAID), restore="1")
    document = document_of(address, room)
    assert [(drag.handle, drag.target) for drag in document.drags.values()] == [((10, 10), (20.5, 10))]
    assert list(document.pins.values()) == [(40, 40)]
    assert document.prompt == "a field"
    assert document.settings == {"latent_lr": 0.5, "max_iterations": 7, "preset": "official", "seed": 5}
    assert opened(get(address, room, "mask")).tobytes() == Image.open(io.BytesIO(a_mask())).tobytes()
    assert opened(get(address, room, "picture")).getpixel((3, 3)) == (255, 127, 80)


def test_only_if_it_is_wanted_and_known(address: str) -> None:
    for data, fields in ((result_with(SAID), {}), (result_with(None), {"restore": "1"}), (png(), {"restore": "1"})):
        document = document_of(address, create_room(address, data, **fields))
        assert not document.drags
        assert not document.settings


def test_the_picture_itself_for_those_who_may_see_it(address: str) -> None:
    room = create_room(address, png())
    source = opened(get(address, room, "picture"))
    stored = get_sha256(address, room)
    said = replace(SAID, room=room.id, picture=replace(SAID.picture, file_sha256=stored))
    member, stranger = owner(address, room), owner(address, create_room(address, png()))
    for visitor, restored in ((member, "all"), (stranger, "without_picture")):
        answer = post_room(visitor, result_with(said))
        assert answer["restored"] == restored
        made = NewRoom(answer["room"], answer["secret"], answer["url"])
        same = opened(get(address, made, "picture")).tobytes() == source.tobytes()
        assert same == (restored == "all")
    lying = replace(said, picture=replace(said.picture, file_sha256="2" * 64))
    assert post_room(member, result_with(lying))["restored"] == "without_picture"


def get_sha256(address: str, room: NewRoom) -> str:
    return hashlib.sha256(get(address, room, "picture")).hexdigest()


def post_room(visitor: Visitor, picture: bytes) -> dict[str, Any]:
    boundary = secrets.token_hex(8)
    field = f"--{boundary}\r\nContent-Disposition: form-data; name="
    body = f'{field}"picture"; filename="a.png"\r\n\r\n'.encode() + picture
    body += f'\r\n{field}"restore"\r\n\r\n1\r\n--{boundary}--\r\n'.encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Cookie": visitor.cookie}
    return dict(json.loads(request(visitor.address, "POST", "/api/rooms", body, headers)))


LIES: dict[str, EditMetadata | str] = {
    "has 65 drags|65 drags": replace(
        SAID, runs=(EditRun((replace(STATE, drags={str(i): PlacedDrag((1, 1), (9, 9)) for i in range(65)}),)),)
    ),
    "its metadata are of one of 32 x 48": replace(SAID, picture=replace(SAID.picture, width=32), runs=()),
    "evil": replace(SAID, runs=(EditRun((replace(STATE, settings={"evil": 1}),)),)),
    "latent_lr": replace(SAID, runs=(EditRun((replace(STATE, settings={"latent_lr": 1e9}),)),)),
    "preset": replace(SAID, preset="evil"),
    "the mask has 5 x 5": replace(SAID, runs=(EditRun((replace(STATE, mask=png(5, 5, "white", "L")),)),)),
    "not JSON": "{",
    "prompt": replace(SAID, prompt="a" * 2000),
}  # fmt: skip


@pytest.mark.parametrize("problem", LIES)
def test_metadata_that_lie_are_refused_by_name(address: str, problem: str) -> None:
    with pytest.raises(RequestFailed, match=problem) as refused:
        create_room(address, result_with(LIES[problem]), restore="1")
    assert refused.value.reason == "bad_metadata"
    create_room(address, result_with(LIES[problem]))


def test_a_result_with_and_without(served: tuple[str, QuietEngine]) -> None:
    address, engine = served
    room = create_room(address, png(64, 48), drags='[{"handle": [10, 10], "target": [30, 10]}]')

    async def story() -> None:
        async with Client.join(address, room.id, room.secret) as client:
            run = (await client.run()).run.id
            engine.tell(
                RunFinished(
                    room=room.id, run=run, outcome="arrived", iterations=1, seq=1, tracked={}, picture=result_with(SAID)
                )
            )
            await client.end_of(run)
            full, bare = await client.get("result"), await client.get("result?metadata=none")
            assert read_metadata(io.BytesIO(full)) == SAID
            assert read_metadata(io.BytesIO(bare)) is None
            assert opened(full).tobytes() == opened(bare).tobytes()
            with zipfile.ZipFile(io.BytesIO(await client.get("export"))) as exported:
                pictures = [exported.read(name) for name in exported.namelist() if name.endswith(".png")]
            assert SAID in [read_metadata(io.BytesIO(data)) for data in pictures]
            assert not opened(bare).info
            with pytest.raises(RequestFailed, match=r"metadata='some': it must be 'full' or 'none'"):
                await client.get("result?metadata=some")

    asyncio.run(story())
