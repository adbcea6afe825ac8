"""``livedrag rooms``: what an operator sees, and how the command refuses."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from livedrag.server.__main__ import FAILED, main
from livedrag.server.document.members import digest
from livedrag.server.storage import Store
from tests.server.storage.test_archive import make
from tests.server.storage.test_store import EMPTY, LINKS, load, roles


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with the room ``r`` in it."""
    with Store(tmp_path / "data") as store:
        make(store)
    return tmp_path / "data"


def rooms(*arguments: object) -> int:
    return main(["rooms", *map(str, arguments)])


def test_rooms_are_listed_exported_deleted_and_imported(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rooms("list", "--data-dir", data) == 0
    line = capsys.readouterr().out
    assert line.startswith("r  created ")
    assert line.endswith("9 changes, 1 people\n")
    assert rooms("list", "--json", "--data-dir", data) == 0
    assert json.loads(capsys.readouterr().out) | {"created": 0, "used": 0} == {
        "id": "r",
        "created": 0,
        "used": 0,
        "seq": 9,
        "people": 1,
        "title": "",
    }

    file = tmp_path / "r.zip"
    assert rooms("export", "r", "-o", file, "--data-dir", data) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert zipfile.ZipFile(file).testzip() is None

    assert rooms("delete", "r", "--data-dir", data) == 0
    assert rooms("list", "--data-dir", data) == 0
    assert capsys.readouterr().out == ""

    assert rooms("import", file, "--data-dir", data) == 0
    said = capsys.readouterr().out
    secret = said.strip().rpartition("#")[2]
    assert f"room r: its owner's link is /r/r#{secret}" in said
    with Store(data) as store:
        assert roles(load(store))[digest(secret)] == "owner"
    assert rooms("import", file, "--as-new", "--data-dir", data) == 0
    assert rooms("list", "--data-dir", data) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_rooms_are_listed_with_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(tmp_path) as store:
        store.create("r", replace(EMPTY, title="Bear\nwaving"), LINKS).result(5)
    assert rooms("list", "--data-dir", tmp_path) == 0
    assert capsys.readouterr().out.endswith(r"0 changes, 0 people  'Bear\nwaving'" + "\n")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert rooms(*arguments) == FAILED
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("livedrag: ")
    assert said.err.count("\n") == 1
    return said.err


def test_what_cannot_be_done_is_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "taken.zip"
    file.write_text("something else")
    here = ("--data-dir", data)
    assert "'nowhere'" in refused(capsys, "delete", "nowhere", *here)
    assert "'nowhere'" in refused(capsys, "export", "nowhere", *here)
    assert "taken.zip' already exists" in refused(capsys, "export", "r", "-o", file, *here)
    assert file.read_text() == "something else"
    assert "missing/out.zip': No such file" in refused(capsys, "export", "r", "-o", tmp_path / "missing/out.zip", *here)
    assert "taken.zip' cannot be imported: not a zip file" in refused(capsys, "import", file, *here)
    assert "absent.zip': No such file" in refused(capsys, "import", tmp_path / "absent.zip", *here)
    assert "no rooms in" in refused(capsys, "list", "--data-dir", tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
    assert [path.name for path in tmp_path.glob("*.draft")] == []


def test_a_data_directory_in_use_is_left_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(data):
        assert "in use by another livedrag: stop it" in refused(capsys, "delete", "r", "--data-dir", data)
    assert rooms("list", "--data-dir", data) == 0


def test_rooms_are_backed_up_and_restored(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup, new = tmp_path / "backup", tmp_path / "new"
    with Store(data):  # as a server has it
        assert rooms("backup", backup, "--data-dir", data) == 0
    assert capsys.readouterr().out == f"backed up into {str(backup)!r}: 1 rooms, 4 pictures\n"
    assert rooms("restore", backup, "--data-dir", new) == 0
    assert capsys.readouterr().out == f"restored into {str(new)!r}: 1 rooms, 4 pictures\n"
    with Store(data) as old, Store(new) as restored:
        assert load(restored) == load(old)
    assert "is not empty" in refused(capsys, "restore", backup, "--data-dir", new)
    assert "is not empty" in refused(capsys, "backup", backup, "--data-dir", data)
    next((backup / "pictures").rglob("*.png")).unlink()
    assert rooms("restore", backup, "--data-dir", tmp_path / "newer") == FAILED
    said = capsys.readouterr()
    assert "1 rooms, 3 pictures" in said.out
    assert said.err.startswith("livedrag: 1 pictures are missing or damaged, such as ")
