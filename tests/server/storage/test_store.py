"""Store: what was acknowledged is there again, whatever happened to the process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.document.document import RoomDocument
from livedrag.server.document.members import Link, Member
from livedrag.server.document.protocol import (
    DocRecord,
    Document,
    Edit,
    Generation,
    Picture,
    Raster,
    Result,
    Role,
    Seeked,
    SetPrompt,
    SetTitle,
    StartRun,
)
from livedrag.server.settings import MIB
from livedrag.server.storage import CookieSession, SavedRoom, Store, StoreError, queries
from livedrag.server.storage.saved import folded, new_room, references
from livedrag.server.storage.schema import SCHEMA_VERSION
from livedrag.server.storage.store import MIN_RECORDS
from tests.conftest import ROOT
from tests.quiet import MODEL, png

EMPTY = Document(picture=Picture(sha256="0" * 64, width=64, height=48))
LINKS = (Link("l1", "0" * 64, "owner", 1.5),)


def say(room: RoomDocument, prompt: str) -> DocRecord:
    return room.edit("p1", Edit(op_id=f"say-{prompt}", base=room.seq, op=SetPrompt(prompt=prompt)))


def fill(store: Store, count: int) -> RoomDocument:
    room = RoomDocument("r", EMPTY, MODEL)
    store.create("r", EMPTY, LINKS).result(5)
    saved = [store.append("r", say(room, str(number)), room.document) for number in range(count)]
    for future in saved:
        future.result(5)
    return room


def load(store: Store, room: str = "r") -> SavedRoom:
    saved = store.load(room).result(5)
    assert saved is not None
    return saved


def roles(saved: SavedRoom) -> dict[str, Role]:
    """By digest of the secret that gives them."""
    return {link.digest: link.role for link in saved.links}


def test_a_room_comes_back_with_all_its_edits(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        room = fill(store, 10)
        instance = load(store).instance
    with Store(tmp_path) as store:
        saved = load(store)
        assert (saved.document, saved.seq, saved.links, saved.instance) == (room.document, room.seq, LINKS, instance)
        assert [record.seq for record in saved.records] == list(range(1, room.seq + 1))
        assert (saved.base, saved.base_seq) == (EMPTY, 0)
        assert store.load("nowhere").result(5) is None


def test_a_long_log_is_shortened_and_still_leads_to_the_document(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        room = fill(store, 3 * MIN_RECORDS + 10)
    with Store(tmp_path) as store:
        saved = load(store)
        assert (saved.document, saved.seq) == (room.document, room.seq)
        assert saved.base_seq == 2 * MIN_RECORDS
        assert [record.seq for record in saved.records] == list(range(2 * MIN_RECORDS + 1, room.seq + 1))
        *_, (last, document) = folded(saved)
        assert (last.seq, document) == (room.seq, room.document)


def test_every_kind_of_record_comes_back(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        room = RoomDocument("r", EMPTY, MODEL)
        store.create("r", EMPTY, LINKS)
        from tests.server.document.test_document import D1, do

        records = [do(room, D1), room.load_mask("p", "m", Raster(id="m", sha256="f" * 64))]
        records += [
            room.start("p", StartRun(op_id="go"), "r1"),
            room.end("arrived", tracked={"d1": (1, 2)}, sha256="a" * 64),
        ]
        for record in records:
            store.append("r", record, room.document)
        saved = store.load("r").result(5)
        assert saved is not None
        assert list(saved.records) == records
        assert saved.document == room.document


def test_a_gap_is_refused_and_leaves_the_room_as_it_is(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        room = fill(store, 2)
        say(room, "lost")
        late = store.append("r", say(room, "late"), room.document)
        with pytest.raises(StoreError, match="record 4 of room 'r' does not follow"):
            late.result(5)
        saved = store.load("r").result(5)
        assert saved is not None
        assert saved.seq == 2


def test_a_failed_job_leaves_the_others_of_its_group_alone(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        twice = [store.create("r", EMPTY, LINKS) for _ in range(2)]
        other = store.create("s", EMPTY, LINKS)
        assert twice[0].exception(5) is None
        assert isinstance(twice[1].exception(5), sqlite3.IntegrityError)
        assert other.exception(5) is None


def held_up(store: Store) -> threading.Event:
    """Hold the writer up until the event is set, so that what is asked for meanwhile is one group."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(database: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(30)

    store._writer.submit(wait)
    assert begun.wait(5)
    return go_on


def test_a_job_with_a_fault_of_its_own_fails_alone_and_says_which(tmp_path: Path) -> None:
    def faulty(database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM rooms")
        raise KeyError("a fault")

    with Store(tmp_path) as store:
        store.create("r", EMPTY, LINKS).result(5)
        go_on = held_up(store)
        before, fails = store.create("s", EMPTY, LINKS), store._writer.submit(faulty)
        unbound = store._writer.submit(lambda database: database.execute("SELECT ?", (object(),)).fetchone())
        after = store.create("t", EMPTY, LINKS)
        go_on.set()
        with pytest.raises(KeyError, match="a fault"):
            fails.result(5)
        with pytest.raises(sqlite3.ProgrammingError):
            unbound.result(5)
        assert before.result(5)
        assert after.result(5)
        assert {listed.id for listed in store.rooms().result(5)} == {"r", "s", "t"}


def test_a_fault_of_the_database_is_not_said_to_be_a_full_disk(tmp_path: Path) -> None:
    def malformed(database: sqlite3.Connection) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with Store(tmp_path) as store:
        with pytest.raises(StoreError, match=r"^nothing could be saved: database disk image is malformed\.$"):
            store._writer.submit(malformed).result(5)
        store.create("r", EMPTY, LINKS).result(5)


def test_a_cancelled_edit_is_kept_and_the_others_of_its_group_are_answered(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        room = fill(store, 1)
        go_on = held_up(store)
        cancelled = store.append("r", say(room, "cancelled"), room.document)
        next_one = store.append("r", say(room, "next"), room.document)
        deleting = store.delete("nowhere")
        assert cancelled.cancel()
        assert deleting.cancel()
        go_on.set()
        assert next_one.exception(5) is None
        assert load(store).document.prompt == "next"


def test_pictures_are_found_by_their_content(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        data = png()
        assert store.put_picture(data) == store.put_picture(data) == hashlib.sha256(data).hexdigest()
        assert store.pictures.get(hashlib.sha256(data).hexdigest()) == data
        assert not list(tmp_path.rglob("*.draft"))


def test_a_new_folder_of_pictures_is_on_disk_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("livedrag.server.storage.pictures.sync_folder", synced.append)
    with Store(tmp_path) as store:
        synced.clear()
        sha256 = store.put_picture(png())
        assert synced == [tmp_path / "pictures" / sha256[:2], tmp_path / "pictures"]


# Links, people and cookies -------------------------------------------------------------------------------------------


def test_links_people_and_cookies_come_back_as_they_were_last(tmp_path: Path) -> None:
    ada = Member("p1", "Ada", "#aa0000", "editor", "l1", 1.0)
    cookie = CookieSession("c" * 64, "p1", 1.0, 2.0)
    with Store(tmp_path) as store:
        store.create("r", EMPTY, LINKS)
        store.save_link("r", Link("l2", "2" * 64, "viewer", 3.0))
        store.save_link("r", Link("l2", "2" * 64, "viewer", 3.0, used=4.0))
        store.save_link("r", Link("l3", "3" * 64, "editor", 3.0))
        store.remove_link("r", "l3")
        store.save_member("r", ada)
        store.save_member("r", replace(ada, role=None))
        store.save_member("r", Member("p2", "Bob", "#00aa00", "viewer", "", 2.0))
        store.save_session(cookie)
        store.save_session(replace(cookie, password_verifier="f" * 64))
    with Store(tmp_path) as store:
        saved = load(store)
        assert saved.links == (*LINKS, Link("l2", "2" * 64, "viewer", 3.0, used=4.0))
        assert saved.members == (replace(ada, role=None), Member("p2", "Bob", "#00aa00", "viewer", "", 2.0))
        assert store.find_session("c" * 64).result(5) == replace(cookie, password_verifier="f" * 64)
        assert store.find_session("d" * 64).result(5) is None
        store.expire_sessions(before=2.5)
        assert store.find_session("c" * 64).result(5) is None


# Rooms that go -------------------------------------------------------------------------------------------------------


def with_picture(store: Store, color: str) -> Document:
    return Document(picture=Picture(sha256=store.put_picture(png(color=color)), width=64, height=48))


def age(store: Store) -> None:
    """As if all files had been put here long ago, and each noted by then as one that a room refers to."""
    settle(store)
    store.pictures._new.clear()


def settle(store: Store) -> None:
    """Wait until what is gone is gone from the disk too."""
    store.barrier().result(5)
    store._cleaner.submit(lambda: None).result(5)


def kept(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "pictures").glob("*/*")}


def test_a_deleted_room_takes_its_files_with_it_but_for_those_of_others(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        shared, own = with_picture(store, "teal"), store.put_picture(png(color="white", mode="L"))
        for name in ("r", "s"):
            store.create(name, shared, LINKS).result(5)
        room = RoomDocument("r", shared, MODEL)
        store.append("r", room.load_mask("p", "m", Raster(id="m", sha256=own)), room.document).result(5)
        store.save_member("r", Member("p1", "Ada", "#aa0000", "editor", "l1", 1.0))
        leave_checkpoint(tmp_path, "r")
        leave_checkpoint(tmp_path, "s")
        age(store)
        assert store.delete("r").result(5) is True
        assert store.delete("r").result(5) is False
        assert store.load("r").result(5) is None
        settle(store)
        assert kept(tmp_path) == {shared.picture.sha256}
        assert os.listdir(tmp_path / "checkpoints") == ["s"]
        with pytest.raises(StoreError, match="does not follow"):
            store.append("r", say(room, "late"), room.document).result(5)
        assert load(store, "s").document == shared
        store.delete("s").result(5)
    assert kept(tmp_path) == set()
    assert os.listdir(tmp_path / "checkpoints") == []
    database = sqlite3.connect(tmp_path / "livedrag.sqlite3")
    for table in ("rooms", "records", "links", "members", "files"):
        assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    database.close()


def test_a_file_that_was_just_put_here_again_outlives_the_room_that_had_it(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        document = with_picture(store, "teal")
        store.create("r", document, LINKS).result(5)
        age(store)
        with_picture(store, "teal")  # whose room has yet to be created
        store.delete("r").result(5)
        store.create("s", document, LINKS).result(5)
        settle(store)
        assert store.pictures.get(document.picture.sha256)


@pytest.mark.parametrize("how", ["sweep", "delete"])
def test_cleaning_up_that_is_late_spares_what_a_room_refers_to_by_then(tmp_path: Path, how: str) -> None:
    with Store(tmp_path) as store:
        settle(store)
        document = with_picture(store, "teal")
        if how == "delete":
            store.create("r", document, LINKS).result(5)
            settle(store)
            age(store)
            with_picture(store, "teal")
        late = threading.Event()
        store._cleaner.submit(late.wait)
        if how == "delete":
            store.delete("r").result(5)
        else:
            store.sweep().result(5)
        store.create("s", document, LINKS).result(5)
        late.set()
        settle(store)
        assert store.pictures.get(document.picture.sha256)


def leave_checkpoint(folder: Path, room: str) -> None:
    (folder / "checkpoints" / room).mkdir(parents=True)
    (folder / "checkpoints" / room / "latent").write_text("...")


def test_checkpoints_of_rooms_that_there_are_not_are_swept_away(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.create("r", EMPTY, LINKS).result(5)
        store.create("an odd name", EMPTY, LINKS).result(5)
        odd = f"+{hashlib.sha256(b'an odd name').hexdigest()}"
        for name in ("r", odd, "gone before a crash", "+gone-half"):
            leave_checkpoint(tmp_path, name)
    Store(tmp_path).close()
    assert set(os.listdir(tmp_path / "checkpoints")) == {"r", odd}


def test_deleting_a_room_does_not_wait_for_its_files(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        document = with_picture(store, "teal")
        store.create("r", document, LINKS).result(5)
        leave_checkpoint(tmp_path, "r")
        age(store)
        slow = threading.Event()
        store._cleaner.submit(slow.wait, 30)  # a disk that takes its time
        assert store.delete("r").result(5)
        store.create("r", EMPTY, LINKS).result(5)
        leave_checkpoint(tmp_path, "r")  # another room of that name
        slow.set()
    assert kept(tmp_path) == set()
    assert os.listdir(tmp_path / "checkpoints") == ["r"]


def test_a_deleted_room_takes_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    victim = tmp_path / "victim.png"
    victim.write_text("of another program")
    data = tmp_path / "data"
    result = Result(sha256="../victim", run="x")
    with Store(data) as store:
        document = with_picture(store, "teal")
        saved = new_room(msgspec.structs.replace(document, result=result), LINKS)
        store.add("r", saved).result(5)
        age(store)
        assert store.delete("r").result(5)
        settle(store)
        assert victim.exists()
        assert kept(data) == set()
        for name in (result.sha256, "a" * 63, "a" * 64 + "\n", "A" * 64):
            with pytest.raises(StoreError, match="is not the name of a picture"):
                store.picture_path(name)


def test_what_is_known_of_a_deleted_room_late_is_not_kept(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.create("r", EMPTY, LINKS).result(5)
        store.delete("r").result(5)
        store.save_link("r", Link("l2", "2" * 64, "viewer", 3.0)).result(5)
        store.save_member("r", Member("p1", "Ada", "#aa0000", "editor", "l1", 1.0)).result(5)
        store.create("r", EMPTY, ()).result(5)
        assert (load(store).links, load(store).members) == ((), ())


def test_what_a_crash_left_between_a_file_and_its_record_is_swept_away(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        document = with_picture(store, "teal")
        store.create("r", document, LINKS).result(5)
        orphan = store.put_picture(png(color="red"))
        store.sweep().result(5)
        settle(store)
        assert kept(tmp_path) == {document.picture.sha256, orphan}
        draft = store.picture_path(orphan).with_suffix(".1.draft")
        draft.write_text("half")
        os.utime(draft, (1, 1))
    Store(tmp_path).close()
    assert kept(tmp_path) == {document.picture.sha256}


@pytest.mark.parametrize(("count", "megabytes", "stored"), [(2, 64, 2), (3, 64, 3), (20, 0, 2)])
def test_only_the_latest_results_of_a_room_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, megabytes: int, stored: int
) -> None:
    monkeypatch.setattr(queries, "RESULTS_STORED", count)
    monkeypatch.setattr(queries, "RESULT_BYTES_STORED", megabytes * MIB)
    with Store(tmp_path) as store:
        document = with_picture(store, "teal")
        store.create("r", document, LINKS).result(5)
        room = RoomDocument("r", document, MODEL)
        from tests.server.document.test_document import D1, do

        store.append("r", do(room, D1), room.document).result(5)
        results = []
        for number, color in enumerate(["red", "green", "blue", "white", "black"]):
            results.append(store.put_picture(png(color=color)))
            age(store)
            store.append("r", room.start("p", StartRun(op_id=f"go{number}"), f"r{number}"), room.document)
            store.append("r", room.end("arrived", sha256=results[-1]), room.document).result(5)
            settle(store)
            assert kept(tmp_path) == {document.picture.sha256, *results[-stored:]}


def test_rooms_expire_unless_people_are_inside(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for name in ("empty", "inside", "looked", "edited"):
            store.create(name, EMPTY, LINKS).result(5)
    grow_old(tmp_path)
    with Store(tmp_path) as store:
        load(store, "looked")
        room = RoomDocument("edited", EMPTY, MODEL)
        store.append("edited", say(room, "x"), room.document).result(5)
        assert store.expire(before=1000.0, occupied={"inside"}).result(5) == ["empty"]
        assert {listed.id for listed in store.rooms().result(5)} == {"inside", "looked", "edited"}
        assert store.expire(before=1000.0).result(5) == []


def grow_old(folder: Path) -> None:
    database = sqlite3.connect(folder / "livedrag.sqlite3")
    database.execute("UPDATE rooms SET used = 1.0")
    database.commit()
    database.close()


# A data directory from before ----------------------------------------------------------------------------------------

OLD = Path(__file__).parent / "store_v1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of a data directory that the code of schema 1 has written, with every kind of record in it."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_a_data_directory_of_schema_1_is_brought_up_with_all_that_is_in_it(old: Path) -> None:
    expected = json.loads((old / "expected.json").read_text())
    for _ in range(2):  # once bringing it up, once as it is then
        with Store(old) as store:
            assert {listed.id for listed in store.rooms().result(5)} == expected.keys()
            instances = set()
            for name, room in expected.items():
                saved = load(store, name)
                assert saved.document == msgspec.convert(room["document"], Document, strict=False)
                assert saved.seq == room["seq"]
                assert roles(saved) == room["links"]
                assert all(link.id for link in saved.links)
                assert [getattr(record, "op_id", "") for record in saved.records] == room["op_ids"]
                instances.add(saved.instance)
                for _, sha256 in references(saved.document):
                    assert store.pictures.get(sha256)
            assert len(instances) == len(expected)
            before = kept(old)
            store.sweep().result(5)
            settle(store)
            assert kept(old) == before
    database = sqlite3.connect(old / "livedrag.sqlite3")
    assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    names = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert names == {"rooms", "records", "strokes", "stroke_uses", "links", "members", "sessions", "files"}
    database.close()


def test_a_room_from_schema_1_goes_on(old: Path) -> None:
    with Store(old) as store:
        saved = load(store, "long")
        room = RoomDocument("long", saved.document, MODEL, seq=saved.seq)
        record = room.end("stopped")
        store.append("long", record, room.document).result(5)
        assert load(store, "long").document == room.document
        age(store)
        for name in ("everything", "long", "reset", "empty"):
            assert store.delete(name).result(5)
    assert kept(old) == set()


def test_bringing_up_that_fails_leaves_the_data_directory_as_it_was(old: Path) -> None:
    database = sqlite3.connect(old / "livedrag.sqlite3")
    database.execute("UPDATE rooms SET checkpoint = x'c1' WHERE id = 'reset'")
    database.commit()
    dump = list(database.iterdump())
    database.close()
    with pytest.raises(StoreError):
        Store(old)
    database = sqlite3.connect(old / "livedrag.sqlite3")
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    assert list(database.iterdump()) == dump
    database.close()


OLD_2 = Path(__file__).parent / "store_v2"
"""Written by the code of schema 2: a generated and an uploaded picture, runs, seeks, a checkpoint, an export."""


@pytest.fixture
def old_2(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD_2, tmp_path / "old"))


def assert_is_as_expected(saved: SavedRoom, expected: dict[str, Any]) -> None:
    assert saved.document == msgspec.convert(expected["document"], Document)
    assert list(saved.records) == msgspec.convert(expected["records"], list[DocRecord])
    assert (saved.seq, saved.base_seq) == (expected["seq"], expected["base_seq"])
    assert roles(saved) == expected["links"]
    assert [member.person for member in saved.members] == expected["members"]


def test_a_data_directory_of_schema_2_opens_with_its_generation_and_its_seeks(old_2: Path) -> None:
    expected = json.loads((old_2 / "expected.json").read_text())
    for _ in range(2):  # first migrated, then as it is
        with Store(old_2) as store:
            assert {room.id for room in store.rooms().result(5)} == expected.keys() == {"generated", "uploaded"}
            for name in expected:
                saved = load(store, name)
                assert_is_as_expected(saved, expected[name])
                assert (saved.instance, saved.created) == (expected[name]["instance"], expected[name]["created"])
                assert any(isinstance(record, Seeked) for record in saved.records)
                for _, sha256 in references(saved.document):
                    assert store.pictures.get(sha256)
            generation = Generation(prompt="a cat on a mat", seed=7, guidance=5.0, ddim_steps=50, model="builtin")
            saved = load(store, "generated")
            assert saved.base_seq > 0
            assert saved.document.picture.generation == saved.base.picture.generation == generation
            assert load(store, "uploaded").document.picture.generation is None
            cookie = CookieSession("c" * 64, "p-ada", 1000.0, 1400.0, password_verifier="f" * 64)
            assert store.find_session("c" * 64).result(5) == cookie
            before = kept(old_2)
            store.sweep().result(5)
            settle(store)
            assert kept(old_2) == before


def test_the_log_of_a_room_from_schema_2_can_be_shortened(old_2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(old_2) as store:
        saved = load(store, "generated")
        room = RoomDocument("generated", saved.document, MODEL, seq=saved.seq)
        monkeypatch.setattr("livedrag.server.storage.store.MIN_RECORDS", 1)
        store.append("generated", say(room, "it goes on"), room.document).result(5)  # `next` becomes the base
        after = load(store, "generated")
        assert after.base_seq > saved.base_seq
        assert after.document == room.document
        assert after.base.picture == saved.base.picture


def test_checkpoints_from_schema_2_are_still_read(old_2: Path) -> None:
    checkpoints = Checkpoints(old_2 / "checkpoints")
    with Store(old_2) as store:
        settle(store)
    timeline = checkpoints.load_timeline("generated")
    assert timeline is not None
    assert [moment.iteration for moment in timeline.moments] == [0, 1, 2]
    assert (timeline.current, timeline.thumbnails) == (1, {number: b"webp %d" % number for number in range(3)})
    ((checkpoint, parts),) = checkpoints.load("generated")
    assert (checkpoint.run, checkpoint.iterations, checkpoint.has_picture) == ("run-2", 12, True)
    assert parts["session.json"] == b"{}"


def test_a_damaged_directory_of_schema_2_is_left_as_it_was(old_2: Path) -> None:
    database = sqlite3.connect(old_2 / "livedrag.sqlite3")
    database.execute("UPDATE rooms SET next = x'c1' WHERE id = 'uploaded'")
    database.commit()
    dump = list(database.iterdump())
    database.close()
    with pytest.raises(StoreError):
        Store(old_2)
    database = sqlite3.connect(old_2 / "livedrag.sqlite3")
    assert database.execute("PRAGMA user_version").fetchone() == (2,)
    assert list(database.iterdump()) == dump
    database.close()


def test_rooms_of_schema_4_get_their_titles(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for name in ("named", "damaged"):
            store.create(name, structs.replace(EMPTY, title=name), LINKS).result(5)
        room = RoomDocument("named", load(store, "named").document, MODEL)
        op = SetTitle(title="renamed")
        record = room.edit("p1", Edit(op_id="rename", base=0, op=op))
        store.append("named", record, room.document).result(5)
    database = sqlite3.connect(tmp_path / "livedrag.sqlite3")
    database.execute("ALTER TABLE rooms DROP COLUMN title")
    database.execute("PRAGMA user_version = 4")
    database.execute("UPDATE rooms SET base = x'c1', next = x'c1' WHERE id = 'damaged'")
    database.commit()
    database.close()
    with Store(tmp_path) as store:
        assert {room.id: room.title for room in store.rooms().result(5)} == {"named": "renamed", "damaged": ""}


# A full disk ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_refuses_edits_by_name_and_corrupts_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        room = fill(store, 3)
        before = load(store)

        def pages(most: int) -> None:
            pragma = f"PRAGMA max_page_count = {most}"
            store._writer.submit(lambda database: database.execute(pragma).fetchone()).result(5)

        pages(1)  # none more than there are
        refused = None
        while refused is None:  # until the pages that there are have been filled
            before, document = load(store), room.document
            refused = store.append("r", say(room, "x" * 900 + str(room.seq)), room.document).exception(5)
        assert isinstance(refused, StoreError)
        assert "Is the disk full?" in str(refused)
        assert load(store) == before
        pages(2**30)  # there is space again
        room = RoomDocument("r", document, MODEL, seq=before.seq)
        store.append("r", say(room, "again"), room.document).result(5)
        assert load(store).document.prompt == "again"
    with Store(tmp_path) as store:
        assert load(store).document == room.document


FILLER = """
import os
import sys
from pathlib import Path
from livedrag.server.storage import Store, StoreError
from tests.quiet import png
from tests.server.storage.test_store import EMPTY, LINKS, MODEL, RoomDocument, load, say
with Store(Path(sys.argv[1])) as store:
    room = RoomDocument("r", EMPTY, MODEL)
    store.create("r", EMPTY, LINKS).result(5)
    try:
        store.pictures.put(os.urandom(4 * 2**20))
    except StoreError as error:
        print(error)
    error = None
    while error is None:
        document, seq = room.document, room.seq
        error = store.append("r", say(room, os.urandom(499).hex()), room.document).exception(5)
    print(error)
    saved = load(store)
    assert (saved.document, saved.seq) == (document, seq)
with Store(Path(sys.argv[1])) as store:
    saved = load(store)
    assert (saved.document, saved.seq) == (document, seq)
    print(list(Path(sys.argv[1]).glob("pictures/*/*")))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a small file system of one's own")
def test_a_file_system_without_room_is_named_and_nothing_half_written_stays(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=2m tmpfs {tmp_path}"
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no file system of one's own here: {probe.stderr.strip()}")
    command = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" "$@"', sys.executable, "-c", FILLER, str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    picture, edit, left = ran.stdout.splitlines()
    assert "No space left on device" in picture
    assert str(tmp_path) in picture
    assert f"nothing can be saved: the disk with {str(tmp_path)!r} is full" in edit
    assert left == "[]"


# What cannot be opened -----------------------------------------------------------------------------------------------


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("a file")
    with pytest.raises(StoreError, match=r"in-the-way/rooms'.*Choose another with --data-dir"):
        Store(tmp_path / "in-the-way" / "rooms")


def test_a_database_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "livedrag.sqlite3").write_text("no database at all, but a text of some length" * 50)
    with pytest.raises(StoreError, match="not a database"):
        Store(tmp_path)


def test_two_servers_cannot_share_a_data_directory(tmp_path: Path) -> None:
    with Store(tmp_path):
        code = f"from pathlib import Path; from livedrag.server.storage import Store; Store(Path({str(tmp_path)!r}))"
        second = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "in use by another livedrag" in second.stderr


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).close()
    database = sqlite3.connect(tmp_path / "livedrag.sqlite3")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreError, match="schema 99"):
        Store(tmp_path)


WRITER = """
import sys
from pathlib import Path
from livedrag.server.storage import Store
from tests.server.storage.test_store import EMPTY, LINKS, MODEL, RoomDocument, say
store = Store(Path(sys.argv[1]))
room = RoomDocument("r", EMPTY, MODEL)
store.create("r", EMPTY, LINKS).result()
waiting = []
while True:
    waiting.append(store.append("r", say(room, str(room.seq)), room.document))
    while len(waiting) > 20:
        waiting.pop(0).result()
        print(room.seq - len(waiting), flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
@pytest.mark.parametrize("seconds", [0.05, 0.2])
def test_no_acknowledged_edit_is_lost_when_the_process_is_killed(tmp_path: Path, seconds: float) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        acknowledged = int((first + writer.stdout.read()).split(b"\n")[-2])
    with Store(tmp_path) as store:
        saved = store.load("r").result(5)
    assert saved is not None
    assert saved.seq >= acknowledged > 0
    assert saved.document.prompt == str(saved.seq - 1)
