"""Damage: a room says what is wrong with it, opens as far as it can be read, and can be exported."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from livedrag.server.__main__ import FAILED, main
from livedrag.server.client import Client, NewRoom, OperationRejected, RequestFailed, create_room
from livedrag.server.document.document import RoomDocument
from livedrag.server.document.protocol import AddDrag, ClearMask, ErrorMessage, Raster, SetPrompt
from livedrag.server.storage import Store
from livedrag.server.storage.archive import export_room, import_room
from livedrag.server.storage.check import check_room
from livedrag.server.storage.errors import Damaged
from tests.quiet import MODEL, png, quiet_server
from tests.server.storage.test_archive import LIMITS, make
from tests.server.storage.test_store import EMPTY, fill, held_up, load, say


def damage(folder: Path, *statements: str) -> None:
    database = sqlite3.connect(folder / "livedrag.sqlite3")
    for statement in statements:
        assert database.execute(statement).rowcount > 0, statement
    database.commit()
    database.close()


DAMAGES = {
    "a record that is not MessagePack": ("UPDATE records SET record = x'c1' WHERE seq = 6", "record 6 cannot be read"),
    "a record that is none": ("UPDATE records SET record = x'80' WHERE seq = 6", "record 6 cannot be read"),
    "a missing record": ("DELETE FROM records WHERE seq = 6", "record 6 is missing"),
    "a missing end": ("DELETE FROM records WHERE seq >= 6", "record 6 is missing"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_room_opens_as_it_was_before_the_damage(tmp_path: Path, what: str) -> None:
    statement, named = DAMAGES[what]
    with Store(tmp_path) as store:
        fill(store, 10)
    damage(tmp_path, statement)
    with Store(tmp_path) as store:
        saved = load(store)
        assert saved.damage.startswith(named)
        assert not saved.complete
        assert saved.document.prompt == "4"
        assert (saved.seq, len(saved.records)) == (5, 5)
        problem = next(check_room(store, "r"))
        assert named in problem
        assert "opens as it was after record 5, read-only" in problem


def test_nothing_is_lost_where_a_later_document_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedrag.server.storage.store.MIN_RECORDS", 4)
    with Store(tmp_path) as store:
        room = fill(store, 14)
        whole = load(store)
        assert whole.base_seq < 9
    damage(tmp_path, f"DELETE FROM records WHERE seq = {whole.base_seq + 2}")
    with Store(tmp_path) as store:
        saved = load(store)
        assert saved.damage == f"record {whole.base_seq + 2} is missing"
        assert saved.complete
        assert (saved.document, saved.seq) == (room.document, room.seq)
        assert "edits before cannot be undone" in next(check_room(store, "r"))
    damage(tmp_path, "UPDATE rooms SET base = x'c1'")
    with Store(tmp_path) as store:
        assert load(store).document == room.document
    damage(tmp_path, "UPDATE rooms SET next = x'c1'")
    with Store(tmp_path) as store:
        with pytest.raises(Damaged, match="room 'r' is damaged: its document cannot be read"):
            load(store)
        assert "its document cannot be read" in next(check_room(store, "r"))


def test_a_damaged_page_of_the_database_concerns_only_its_room(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        rooms = {name: RoomDocument(name, EMPTY, MODEL) for name in ("r", "s")}
        for name, room in rooms.items():
            store.create(name, EMPTY, ()).result(5)
            for number in range(200):
                store.append(name, say(room, f"{name}{number} ".ljust(900, "x")), room.document).result(5)
    path = tmp_path / "livedrag.sqlite3"
    content = bytearray(path.read_bytes())
    page = content.index(b"r150 ") // 4096 * 4096
    content[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with Store(tmp_path) as store:
        saved = load(store, "r")
        assert 100 < saved.seq < 200
        assert saved.damage == f"record {saved.seq + 1} is missing"
        assert saved.document.prompt.startswith(f"r{saved.seq - 1} ")
        assert load(store, "s").document == rooms["s"].document
        assert load(store, "s").damage == ""
        go_on = held_up(store)
        reading = store.load("r")
        edit = store.append("s", say(rooms["s"], "it goes on"), rooms["s"].document)
        go_on.set()
        assert edit.exception(5) is None
        assert reading.result(5) == saved
        assert store.check_database().result(5)


def test_a_damaged_room_is_exported_and_its_export_is_imported(tmp_path: Path) -> None:
    with Store(tmp_path / "data") as store:
        make(store)
    damage(tmp_path / "data", "UPDATE records SET record = x'c1' WHERE seq = 6")
    with Store(tmp_path / "data") as store, Store(tmp_path / "new") as new:
        file = io.BytesIO()
        export_room(store, "r", file)
        file.seek(0)
        import_room(new, file, LIMITS)
        assert load(new).document == load(store).document
        assert not load(new).damage
        assert list(check_room(new, "r")) == []


def test_a_room_without_its_result_and_its_mask_is_exported_without_them(tmp_path: Path) -> None:
    with Store(tmp_path / "data") as store, Store(tmp_path / "new") as new:
        document = make(store).document
        (mask,) = document.mask
        assert isinstance(mask, Raster)
        assert document.result is not None
        store.picture_path(document.result.sha256).unlink()
        store.picture_path(mask.sha256).write_bytes(b"rotten")
        problems = sorted(check_room(store, "r"))
        assert problems == sorted(
            [
                f"the picture {document.result.sha256}.png is missing: restore it from a backup",
                f"the picture {mask.sha256}.png is damaged: restore it from a backup",
            ]
        )
        store.picture_path(mask.sha256).unlink()
        file = io.BytesIO()
        export_room(store, "r", file)
        file.seek(0)
        import_room(new, file, LIMITS)
        imported = load(new).document
        assert (imported.drags, imported.prompt) == (document.drags, document.prompt)
        assert imported.picture == document.picture
        assert (imported.mask, imported.result) == ((), None)
        store.picture_path(document.picture.sha256).unlink()
        with pytest.raises(Damaged, match=f"the picture {document.picture.sha256}.png of this room is missing"):
            export_room(store, "r", io.BytesIO())


def test_rooms_check_names_the_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ("--data-dir", str(tmp_path))
    with Store(tmp_path) as store:
        make(store)
        store.create("other", load(store).document, ()).result(5)
    assert main(["rooms", "check", *here]) == 0
    assert capsys.readouterr().out == "2 rooms are whole\n"
    damage(tmp_path, "DELETE FROM records WHERE seq = 2")
    assert main(["rooms", "check", *here]) == FAILED
    said = capsys.readouterr()
    assert said.out == "r: record 2 is missing: the room opens as it was after record 1, read-only\n"
    assert said.err == "livedrag: 1 of 2 rooms are damaged\n"
    assert main(["rooms", "check", "other", *here]) == 0
    assert main(["rooms", "check", "nowhere", *here]) == FAILED


# On a server ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def edited(tmp_path: Path) -> NewRoom:
    """A room with ten edits in a data directory that no server uses."""

    async def story(address: str, room: NewRoom) -> None:
        async with Client.join(address, room.id, room.secret) as client:
            await client.edit(AddDrag(id="d1", handle=(1, 1), target=(9, 9)))
            await client.load_mask(png(color="white", mode="L"))
            for number in range(8):
                await client.edit(SetPrompt(prompt=str(number)))

    with quiet_server(tmp_path) as (address, _):
        room = create_room(address, png())
        asyncio.run(story(address, room))
    return room


def test_a_damaged_room_says_so_and_can_be_viewed_and_exported(tmp_path: Path, edited: NewRoom) -> None:
    damage(tmp_path, "UPDATE records SET record = x'c1' WHERE seq = 6")

    async def story(address: str) -> None:
        async with Client.join(address, edited.id, edited.secret) as client:
            said = await client.wait(ErrorMessage)
            assert said.reason == "damaged"
            assert said.message.startswith("this room is damaged: record 6 cannot be read")
            assert client.document.prompt == "2"
            for change in (client.edit(SetPrompt(prompt="x")), client.undo(), client.run(), client.reset()):
                with pytest.raises(OperationRejected, match="record 6 cannot be read") as rejected:
                    await change
                assert rejected.value.reason == "damaged"
            with pytest.raises(RequestFailed, match="record 6 cannot be read"):
                await client.load_mask(png(color="white", mode="L"))
            assert await client.get("picture")
            assert await client.get("mask")
            with Store(tmp_path / "elsewhere") as store:
                room, _ = import_room(store, io.BytesIO(await client.get("export")), LIMITS)
                assert load(store, room).document == client.document
            await client.delete_room()

    with quiet_server(tmp_path) as (address, _):
        asyncio.run(story(address))


def test_a_room_of_which_nothing_can_be_read_is_named(tmp_path: Path, edited: NewRoom) -> None:
    damage(tmp_path, "UPDATE rooms SET base = x'c1', next = x'c1'")

    async def story(address: str) -> None:
        async with asyncio.timeout(20):
            with pytest.raises(Exception, match="is damaged: its document cannot be read"):
                async with Client.join(address, edited.id, edited.secret, reconnect=False):
                    pass
        other = await asyncio.to_thread(create_room, address, png())
        async with Client.join(address, other.id, other.secret) as client:
            await client.edit(SetPrompt(prompt="others are not concerned"))

    with quiet_server(tmp_path) as (address, _):
        asyncio.run(story(address))


def picture_of(edited: NewRoom, data: Path, kind: str) -> Path:
    with Store(data) as store:
        document = load(store, edited.id).document
        (mask,) = document.mask
        assert isinstance(mask, Raster)
        return store.picture_path(document.picture.sha256 if kind == "picture" else mask.sha256)


Lose = Callable[[Path], object]


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b"rotten")], ids=["missing", "rotten"])
def test_a_lost_mask_is_named_and_can_be_replaced(tmp_path: Path, edited: NewRoom, lose: Lose) -> None:
    lose(picture_of(edited, tmp_path, "mask"))

    async def story(address: str) -> None:
        async with Client.join(address, edited.id, edited.secret) as client:
            with pytest.raises(RequestFailed) as caught:
                await client.get("mask")
            assert (caught.value.status, caught.value.reason) == (410, "damaged")
            ended = await client.drag()
            assert ended.run.outcome == "failed"
            assert ended.run.message is not None
            assert "cannot be read" in ended.run.message
            await client.edit(ClearMask())
            assert await client.get("mask")
            assert client.connections == 1

    with quiet_server(tmp_path) as (address, _):
        asyncio.run(story(address))


def test_a_lost_picture_is_named(tmp_path: Path, edited: NewRoom) -> None:
    path = picture_of(edited, tmp_path, "picture")
    path.unlink()

    async def story(address: str) -> None:
        async with Client.join(address, edited.id, edited.secret) as client:
            for what in ("picture", "export"):
                with pytest.raises(RequestFailed, match=f"the picture {path.name} of this room is missing") as caught:
                    await client.get(what)
                assert (caught.value.status, caught.value.reason) == (410, "damaged")
            ended = await client.drag()
            assert ended.run.outcome == "failed"
            assert ended.run.message is not None
            assert path.name in ended.run.message
            await client.edit(SetPrompt(prompt="the rest works"))
            assert client.connections == 1

    with quiet_server(tmp_path) as (address, _):
        asyncio.run(story(address))
