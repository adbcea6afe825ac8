"""Backup: a copy made under load has every acknowledged change with its pictures, and opens elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from livedrag.server.document.document import RoomDocument
from livedrag.server.document.protocol import Document, Picture, Raster
from livedrag.server.storage import Store, StoreError
from livedrag.server.storage.backup import back_up, restore
from livedrag.server.storage.errors import BackupError
from livedrag.server.storage.saved import folded, references
from tests.conftest import ROOT
from tests.quiet import MODEL, png
from tests.server.storage.test_archive import make
from tests.server.storage.test_store import LINKS, OLD, OLD_2, leave_checkpoint, load, say

SECONDS = 1.5


class Load:
    """Rooms that are edited, get new pictures, and are deleted, as fast as the store saves it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.acknowledged = 0
        self.over = threading.Event()
        self.edited = RoomDocument("edited", self.document("teal"), MODEL)
        store.create("edited", self.edited.document, LINKS).result(5)
        self.threads = [threading.Thread(target=self.edit), threading.Thread(target=self.come_and_go)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def document(self, color: str) -> Document:
        return Document(picture=Picture(sha256=self.store.put_picture(png(color=color)), width=64, height=48))

    def edit(self) -> None:
        while not self.over.is_set():
            number = self.acknowledged
            mask = Raster(
                id=f"m{number}", sha256=self.store.put_picture(png(color=f"#{number % 0xFFFFFF:06x}", mode="L"))
            )
            record = self.edited.load_mask("p", f"o{number}", mask)
            self.store.append("edited", record, self.edited.document).result(5)
            self.acknowledged = self.edited.seq

    def come_and_go(self) -> None:
        number = 0
        while not self.over.is_set():
            number += 1
            document = self.document(f"#{number % 0xFFFFFF:06x}")
            self.store.create(f"r{number}", document, LINKS).result(5)
            self.store.pictures._new.clear()  # or its picture would outlive it by an hour
            if number > 3:
                self.store.delete(f"r{number - 3}").result(5)


def run_backup(data: Path, target: Path) -> None:
    command = [sys.executable, "-m", "livedrag.server", "rooms", "backup", str(target), "--data-dir", str(data)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert f"backed up into {str(target)!r}" in ran.stdout


def test_a_backup_under_load_restores_elsewhere_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged = []
    with Store(tmp_path / "data") as store, Load(store) as load_:
        leave_checkpoint(tmp_path / "data", "edited")
        for number in range(2):
            acknowledged.append(load_.acknowledged)
            run_backup(tmp_path / "data", tmp_path / f"backup{number}")
        assert not load_.over.is_set()
    for number, least in enumerate(acknowledged):
        restored = tmp_path / f"restored{number}"
        copied = restore(tmp_path / f"backup{number}", restored)
        assert copied.damaged == ()
        with Store(restored) as store:
            rooms = [room.id for room in store.rooms().result(5)]
            assert len(rooms) == copied.rooms >= 2
            for room in rooms:
                saved = load(store, room)
                for document in (saved.base, *(document for _, document in folded(saved))):
                    for _, sha256 in references(document):
                        assert store.pictures.get(sha256)
            assert load(store, "edited").seq >= least
            assert (restored / "checkpoints" / "edited" / "latent").read_text() == "..."
            saved = load(store, "edited")
            edited = RoomDocument("edited", saved.document, MODEL, seq=saved.seq)
            store.append("edited", say(edited, "it goes on"), edited.document).result(5)
    assert acknowledged[1] > 0


def test_an_older_data_directory_is_backed_up_and_restored(tmp_path: Path) -> None:
    shutil.copytree(OLD_2, tmp_path / "old")
    assert back_up(tmp_path / "old", tmp_path / "backup").rooms == 2
    assert restore(tmp_path / "backup", tmp_path / "new").rooms == 2
    with Store(tmp_path / "new") as store:
        assert load(store, "generated").document.picture.generation is not None


def test_a_data_directory_of_schema_1_is_not_backed_up_without_its_pictures(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    with pytest.raises(BackupError, match="start the server once to migrate it"):
        back_up(tmp_path / "old", tmp_path / "backup")
    Store(tmp_path / "old").close()
    assert back_up(tmp_path / "old", tmp_path / "backup2").pictures == 3


def test_a_damaged_or_missing_picture_is_named_and_the_rest_is_saved(tmp_path: Path) -> None:
    with Store(tmp_path / "data") as store:
        saved = make(store)
        assert saved.document.result is not None
        result, picture = saved.document.result.sha256, saved.document.picture.sha256
        store.picture_path(result).unlink()
        store.picture_path(picture).write_bytes(b"rotten")
        assert back_up(tmp_path / "data", tmp_path / "backup").damaged == tuple(sorted([result, picture]))
    assert restore(tmp_path / "backup", tmp_path / "new").damaged == tuple(sorted([result, picture]))
    with Store(tmp_path / "new") as store:
        assert load(store).document == saved.document


def test_what_is_no_backup_or_in_the_way_is_named(tmp_path: Path) -> None:
    with Store(tmp_path / "data") as store:
        make(store)
        with pytest.raises(BackupError, match=r"data' is not empty: choose another directory"):
            back_up(tmp_path / "data", tmp_path / "data")
    with pytest.raises(BackupError, match=r"is not a complete backup: it has no livedrag\.sqlite3"):
        restore(tmp_path / "nowhere", tmp_path / "new")
    back_up(tmp_path / "data", tmp_path / "backup")
    with pytest.raises(BackupError, match=r"data' is not empty"):
        restore(tmp_path / "backup", tmp_path / "data")
    database = tmp_path / "backup" / "livedrag.sqlite3"
    content = bytearray(database.read_bytes())
    content[4096:8192] = bytes(4096)
    database.write_bytes(content)
    with pytest.raises(BackupError, match=r"damaged|malformed"):
        restore(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new" / "livedrag.sqlite3").exists()
    with pytest.raises(BackupError, match=r"no livedrag.sqlite3 in"):
        back_up(tmp_path / "empty", tmp_path / "backup2")


# A database that is not the right one --------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["nothing", "an empty file", "a database without tables"])
def test_a_missing_database_is_named_and_nothing_is_swept_away(tmp_path: Path, left: str) -> None:
    import sqlite3

    with Store(tmp_path) as store:
        make(store)
        leave_checkpoint(tmp_path, "r")
    database, away = tmp_path / "livedrag.sqlite3", tmp_path / "away.sqlite3"
    database.rename(away)
    if left == "an empty file":
        database.touch()
    if left == "a database without tables":
        empty = sqlite3.connect(database)
        empty.execute("PRAGMA application_id = 7")
        empty.commit()
        empty.close()
    before = {path for path in tmp_path.rglob("*") if path.suffix == ".png" or path.name == "latent"}
    for _ in range(2):
        with pytest.raises(StoreError, match=r"livedrag.sqlite3 is missing or empty: restore it from a backup"):
            Store(tmp_path)
    assert all(path.exists() for path in before)
    assert len(before) == 5
    away.rename(database)
    with Store(tmp_path) as store:
        assert load(store).seq == 9


def test_another_database_sweeps_nothing_away_for_good(tmp_path: Path) -> None:
    """Such as one of an older backup, or of another data directory."""
    with Store(tmp_path / "data") as store:
        document = make(store).document
        leave_checkpoint(tmp_path / "data", "r")
    with Store(tmp_path / "other") as other:
        other.create("o", document, LINKS).result(5)
    database, away = tmp_path / "data" / "livedrag.sqlite3", tmp_path / "away.sqlite3"
    pictures = sorted((tmp_path / "data").rglob("*.png"))
    database.rename(away)
    shutil.copy(tmp_path / "other" / "livedrag.sqlite3", database)
    Store(tmp_path / "data").close()
    assert sorted((tmp_path / "data" / "pictures").rglob("*.png")) != pictures
    assert not (tmp_path / "data" / "checkpoints" / "r").exists()
    away.replace(database)
    with Store(tmp_path / "data") as store:
        for _, sha256 in references(load(store).document):
            assert store.pictures.get(sha256)
        assert sorted((tmp_path / "data" / "pictures").rglob("*.png")) == pictures
        assert (tmp_path / "data" / "checkpoints" / "r" / "latent").exists()
