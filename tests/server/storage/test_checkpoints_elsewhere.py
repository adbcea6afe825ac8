"""A data directory whose checkpoints lie at a URL: deleting, sweeping, backups, and whose they are."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from livedrag.server.device.checkpoint_files import CheckpointsUrlError, open_files
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.storage import Store
from livedrag.server.storage.backup import back_up, restore
from livedrag.server.storage.errors import BackupError
from tests.conftest import ROOT
from tests.server.device.test_checkpoints import CHECKPOINT, part
from tests.server.storage.test_store import EMPTY, LINKS, settle, with_picture


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (tmp_path / "shared").as_uri() if request.param == "file" else f"memory://{secrets.token_hex(8)}/c"


def save(url: str, *rooms: str) -> None:
    for room in rooms:
        Checkpoints(open_files(url)).save(room, CHECKPOINT, [part("state", room.encode())])


def states(url: str, *rooms: str) -> list[bytes]:
    found = [next(Checkpoints(open_files(url)).load(room), None) for room in rooms]
    return [parts["state"] for _, parts in filter(None, found)]


def test_a_deleted_room_takes_its_checkpoints_with_it(tmp_path: Path, url: str) -> None:
    with Store(tmp_path / "data", checkpoints_url=url) as store:
        for room in ("r", "s"):
            store.create(room, EMPTY, LINKS).result(5)
        save(url, "r", "s")
        assert store.delete("r").result(5)
        settle(store)
    assert states(url, "r", "s") == [b"s"]
    assert not (tmp_path / "data" / "checkpoints").exists()


def test_what_no_room_refers_to_is_in_quarantine_until_one_does(tmp_path: Path, url: str) -> None:
    data = tmp_path / "data"
    with Store(data, checkpoints_url=url) as store:
        store.create("r", EMPTY, LINKS).result(5)
        save(url, "r", "gone")
    Store(data, checkpoints_url=url).close()
    assert open_files(url).quarantined() == {"gone"}
    assert states(url, "r", "gone") == [b"r", b"gone"], "for 30 days nothing is deleted"
    with Store(data, checkpoints_url=url) as store:
        store.create("gone", EMPTY, LINKS).result(5)
    Store(data, checkpoints_url=url).close()
    assert open_files(url).quarantined() == set()
    files = open_files(url)
    files.quarantine(["gone"], 0.0)
    with Store(data, checkpoints_url=url) as store:
        store.delete("gone").result(5)
    files.quarantine(["old"], 0.0)
    files.write("old", "part", b"1")
    Store(data, checkpoints_url=url).close()
    assert files.folders() == {"r"}


def test_another_data_directory_is_refused_before_it_sweeps_anything(tmp_path: Path, url: str) -> None:
    with Store(tmp_path / "data", checkpoints_url=url) as store:
        store.create("r", EMPTY, LINKS).result(5)
        save(url, "r")
    with pytest.raises(CheckpointsUrlError, match="belong to another data directory"):
        Store(tmp_path / "other", checkpoints_url=url)
    assert states(url, "r") == [b"r"]
    assert open_files(url).quarantined() == set()
    Store(tmp_path / "data", checkpoints_url=url).close()


def test_a_backup_has_the_checkpoints_and_restores_them_elsewhere(tmp_path: Path, url: str) -> None:
    with Store(tmp_path / "data", checkpoints_url=url) as store:
        store.create("r", EMPTY, LINKS).result(5)
        save(url, "r")
        assert back_up(tmp_path / "data", tmp_path / "backup", url).rooms == 1
    with pytest.raises(BackupError, match="is not empty: choose another --checkpoints-url"):
        restore(tmp_path / "backup", tmp_path / "again", url)
    assert not (tmp_path / "again" / "livedrag.sqlite3").exists()
    assert restore(tmp_path / "backup", tmp_path / "again", f"{url}-2").rooms == 1
    assert states(f"{url}-2", "r") == [b"r"]
    assert restore(tmp_path / "backup", tmp_path / "local").rooms == 1
    assert states(str(tmp_path / "local" / "checkpoints"), "r") == [b"r"]


def test_the_rooms_command_checks_and_deletes_with_the_url(tmp_path: Path) -> None:
    url = (tmp_path / "shared").as_uri()
    with Store(tmp_path / "data", checkpoints_url=url) as store:
        for room in ("r", "s"):
            store.create(room, with_picture(store, "teal"), LINKS).result(5)
        save(url, "r", "s")

    def rooms(*arguments: str) -> subprocess.CompletedProcess[str]:
        where = ["--data-dir", str(tmp_path / "data"), "--checkpoints-url", url]
        command = [sys.executable, "-m", "livedrag.server", "rooms", *arguments, *where]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    assert rooms("delete", "r").returncode == 0
    assert rooms("backup", str(tmp_path / "backup")).returncode == 0
    assert rooms("check", "s").stderr == ""
    assert states(url, "r", "s") == [b"s"]
    assert states(str(tmp_path / "backup" / "checkpoints"), "r", "s") == [b"s"]


def test_checkpoints_in_the_data_directory_that_are_not_used_any_more_are_named(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(tmp_path / "data") as store:
        store.create("r", EMPTY, LINKS).result(5)
        save(str(tmp_path / "data" / "checkpoints"), "r")
    Store(tmp_path / "data", checkpoints_url=url).close()
    assert "the checkpoints of 1 rooms in" in caplog.text
    assert "are not used" in caplog.text
