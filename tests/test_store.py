"""Store: what was acknowledged is there again, whatever happened to the process."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.protocol import DocRecord, Document, Edit, Picture, Raster, SetPrompt, StartRun
from server.room import Role, Room
from server.store import CHECKPOINT_EVERY, Store, StoreError
from tests.conftest import ROOT
from tests.quiet import MODEL, png

EMPTY = Document(picture=Picture(sha256="0" * 64, width=64, height=48))
LINKS: dict[str, Role] = {"0" * 64: "owner"}


def say(room: Room, prompt: str) -> DocRecord:
    return room.edit("p1", Edit(op_id=f"say-{prompt}", base=room.seq, op=SetPrompt(prompt=prompt)))


def fill(store: Store, count: int) -> Room:
    room = Room("r", EMPTY, LINKS, MODEL)
    store.create("r", EMPTY, LINKS).result(5)
    saved = [store.append("r", say(room, str(number)), room.document) for number in range(count)]
    for future in saved:
        future.result(5)
    return room


def test_a_room_comes_back_with_all_its_edits(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        room = fill(store, CHECKPOINT_EVERY + 10)
    with Store(tmp_path) as store:
        saved = store.load("r").result(5)
        assert saved is not None
        assert (saved.document, saved.seq, saved.links) == (room.document, room.seq, LINKS)
        assert [record.seq for record in saved.records] == list(range(1, room.seq + 1))
        assert store.load("nobody").result(5) is None


def test_every_kind_of_record_comes_back(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        room = Room("r", EMPTY, LINKS, MODEL)
        store.create("r", EMPTY, LINKS)
        from tests.test_room import D1, do

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


def test_pictures_are_found_by_their_content(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        data = png()
        assert store.put_picture(data) == store.put_picture(data) == hashlib.sha256(data).hexdigest()
        assert store.get_picture(hashlib.sha256(data).hexdigest()) == data
        assert not list(tmp_path.rglob("*.draft"))


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
        code = f"from pathlib import Path; from server.store import Store; Store(Path({str(tmp_path)!r}))"
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
from server.store import Store
from tests.test_store import EMPTY, LINKS, MODEL, Room, say
store = Store(Path(sys.argv[1]))
room = Room("r", EMPTY, LINKS, MODEL)
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
