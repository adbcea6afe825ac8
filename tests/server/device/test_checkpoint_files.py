"""Where checkpoints lie: the same promises for a folder, a file URL and an object store; failures are named."""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from livedrag.server.device.checkpoint_files import (
    RETRY_PAUSES,
    CheckpointFiles,
    CheckpointsUrlError,
    LocalFiles,
    RemoteFiles,
    open_files,
)
from livedrag.server.device.checkpoints import CHECKPOINTS_STORED, Checkpoints
from livedrag.server.device.messages import ReleaseSession, RunFinished, Start, TimelineChanged
from livedrag.server.device.worker.background_checkpoints import BackgroundCheckpoints, open_checkpoints
from tests.conftest import ROOT
from tests.server.device.test_checkpoints import CHECKPOINT, part
from tests.server.device.workers import DESIRED, PICTURE, Events, a_worker

if TYPE_CHECKING:
    from livedrag.editor import Diffusion


def fresh() -> str:
    """A URL in this process's memory that no other test uses."""
    return f"memory://{secrets.token_hex(8)}/checkpoints"


@pytest.fixture(params=["folder", "file", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointFiles:
    places = {"folder": str(tmp_path / "a b"), "file": (tmp_path / "a b").as_uri(), "memory": fresh()}
    return open_files(places[request.param])


def test_files_are_written_read_listed_and_deleted(files: CheckpointFiles) -> None:
    assert files.folders() == files.names("r") == set()
    files.write("r", "one", b"1")
    files.write("r", "two", b"2")
    files.write("s", "one", b"")
    files.settle("r")
    assert files.folders() == {"r", "s"}
    assert files.names("r") == {"one", "two"}
    assert (files.read("r", "one"), files.read("s", "one")) == (b"1", b"")
    files.write("r", "one", b"new")
    assert files.read("r", "one") == b"new"
    files.remove("r", ["one", "never there"])
    with pytest.raises(FileNotFoundError):
        files.read("r", "one")
    files.wipe("r")
    files.wipe("r")
    assert files.folders() == {"s"}


def test_checkpoints_are_the_same_everywhere(files: CheckpointFiles) -> None:
    checkpoints = Checkpoints(files)
    assert checkpoints.newest("an odd room") is None
    saved = None
    for number in range(CHECKPOINTS_STORED + 2):
        parts = [part("state", b"%d" % number), part("lora", b"l", "80 steps")]
        saved = checkpoints.save("an odd room", CHECKPOINT, parts, before=saved)
    assert [parts["state"] for _, parts in checkpoints.load("an odd room")] == [b"3", b"2"]
    (folder,) = checkpoints.folders()
    assert len(files.names(folder)) == 2 * CHECKPOINTS_STORED + 1, (
        "older parts are deleted, the common one is there once"
    )
    checkpoints.wipe("an odd room")
    assert checkpoints.newest("an odd room") is None


def test_a_place_belongs_to_one_data_directory(files: CheckpointFiles) -> None:
    files.claim("abc")
    files.claim("abc")
    with pytest.raises(CheckpointsUrlError, match="belong to another data directory, with the id abc: choose another"):
        files.claim("def")
    assert files.folders() == set()


def test_a_worker_sees_whether_it_has_the_place_of_its_server(files: CheckpointFiles, tmp_path: Path) -> None:
    files.mark("one")
    files.check_mark("one")
    with pytest.raises(CheckpointsUrlError, match="are not those of the server: all machines"):
        files.check_mark("two")
    with pytest.raises(CheckpointsUrlError, match="are not those of the server: all machines"):
        LocalFiles(tmp_path / "a folder of the same name on another machine").check_mark("one")
    assert not files.folders()


def test_folders_without_a_room_are_deleted_after_their_quarantine(files: CheckpointFiles) -> None:
    for folder in ("a", "b", "c"):
        files.write(folder, "part", b"1")
    files.quarantine(["a"], 1000.0)
    files.quarantine(["b", "c"], 2000.0)
    files.give_back(["b", "x"])
    assert files.quarantined() == {"a", "c"}
    assert files.folders() == {"a", "b", "c"}
    files.expire(1500.0)
    assert files.folders() == {"b", "c"}
    assert files.quarantined() == {"c"}


@pytest.mark.parametrize(
    "url", ["ftp://host/folder", "s3://", "file://host/folder", "file://", "http://host", "memory://", "://x"]
)
def test_other_urls_are_refused_by_name(url: str) -> None:
    with pytest.raises(CheckpointsUrlError) as refused:
        open_files(url)
    assert repr(url) in str(refused.value)
    assert "file:///" in str(refused.value)


def test_a_request_that_fails_is_sent_again_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    files = RemoteFiles(fresh(), pauses.append)
    write: Callable[..., None] = files._store.pipe_file
    faults = [RuntimeError("slow down"), RuntimeError("slow down")]

    def failing(*arguments: Any) -> None:
        if faults:
            raise faults.pop()
        write(*arguments)

    monkeypatch.setattr(files._store, "pipe_file", failing)
    files.write("r", "one", b"1")
    assert files.read("r", "one") == b"1"
    assert tuple(pauses) == RETRY_PAUSES
    faults += [RuntimeError("access\ndenied")] * 3
    with pytest.raises(OSError, match=r"memory://.+: access denied"):
        files.write("r", "two", b"2")
    faults += [RuntimeError("access denied")] * 3
    with pytest.raises(CheckpointsUrlError, match=r"access denied\. Choose another --checkpoints-url"):
        files.claim("abc")


# In the background --------------------------------------------------------------------------------------------------


class Slow(LocalFiles):
    """A store far away: lists are written when the test lets them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.open, self.fails = threading.Event(), False

    def write(self, folder: str, name: str, data: bytes) -> None:
        assert self.open.wait(60)
        if self.fails:
            raise OSError("the store is away")
        super().write(folder, name, data)


def test_saving_does_not_wait_and_of_what_waits_only_the_latest_is_written(tmp_path: Path) -> None:
    files = Slow(tmp_path)
    checkpoints = BackgroundCheckpoints(files)
    saved = checkpoints.save("r", CHECKPOINT, [part("state", b"0"), part("lora", b"l", "80 steps")])
    for number in range(1, 5):
        parts = [part("state", b"%d" % number), part("lora", b"never made again", "80 steps")]
        saved = checkpoints.save("r", CHECKPOINT, parts, before=saved)
    assert files.names("r") == set()
    files.open.set()
    checkpoints.flush("r")
    found = list(checkpoints.load("r"))
    assert found[0] == (saved, {"state": b"4", "lora": b"l"})
    assert len(found) <= 2, "the ones between were never written"


def test_reading_and_deleting_wait_for_what_is_being_written(tmp_path: Path) -> None:
    files = Slow(tmp_path)
    checkpoints = BackgroundCheckpoints(files)
    saved = checkpoints.save("r", CHECKPOINT, [part("state", b"0")])
    threading.Timer(0.2, files.open.set).start()
    assert checkpoints.newest("r") == saved
    checkpoints.save("r", CHECKPOINT, [part("state", b"1")])
    checkpoints.wipe("r")
    assert checkpoints.newest("r") is None
    assert files.names("r") == set()


def test_what_waits_is_written_when_the_process_ends_unless_that_takes_too_long(tmp_path: Path) -> None:
    files = Slow(tmp_path)
    checkpoints = BackgroundCheckpoints(files)
    checkpoints.save("r", CHECKPOINT, [part("state", b"0")])
    checkpoints.finish(0.1)
    assert files.names("r") == set()
    files.open.set()
    checkpoints.finish(60)
    assert len(files.names("r")) == 2


def test_only_what_has_a_url_is_written_in_the_background(tmp_path: Path) -> None:
    assert isinstance(open_checkpoints(tmp_path.as_uri()), BackgroundCheckpoints)
    assert not isinstance(open_checkpoints(str(tmp_path)), BackgroundCheckpoints)


def test_a_failure_is_reported_by_the_next_one_which_writes_everything(tmp_path: Path) -> None:
    files = Slow(tmp_path)
    files.open.set()
    files.fails = True
    checkpoints = BackgroundCheckpoints(files)
    parts = [part("state", b"0"), part("lora", b"l", "80 steps")]
    saved = checkpoints.save("r", CHECKPOINT, parts)
    with pytest.raises(OSError, match="the store is away"):
        checkpoints.flush("r")
    again = checkpoints.save("r", CHECKPOINT, parts, before=saved)  # its parts are nowhere
    with pytest.raises(OSError, match="the store is away"):
        checkpoints.flush("r")
    files.fails = False
    checkpoints._failed["r"] = OSError("reported late")
    with pytest.raises(OSError, match="reported late"):
        checkpoints.save("r", CHECKPOINT, parts, before=again)
    assert next(checkpoints.load("r"))[1] == {"state": b"0", "lora": b"l"}


# With workers and the command line -----------------------------------------------------------------------------------


def test_a_room_goes_on_at_another_worker_from_a_store_that_both_reach(small: Diffusion, events: Events) -> None:
    url = fresh()
    with a_worker(small, events, open_checkpoints(url)) as first:
        first.obey(Start(run="r1", picture=PICTURE, desired=DESIRED))
        while first.busy:
            first.advance()
        first.obey(ReleaseSession(room="a"))
    assert events.of(RunFinished)[0].iterations == 3
    before = events.of(TimelineChanged)[-1].moments
    events.clear()
    with a_worker(small, events, open_checkpoints(url)) as second:
        second.obey(Start(run="r2", picture=PICTURE, desired=DESIRED))
        while second.busy:
            second.advance()
    moments = events.of(TimelineChanged)[-1].moments
    assert [moment.id for moment in moments][: len(before)] == [moment.id for moment in before], "it went on"
    assert "fitting" not in events.stages()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///proc/nowhere/checkpoints", "checkpoints cannot be stored at '/proc/nowhere/checkpoints': "),
        ("ftp://host/folder", "checkpoints URL 'ftp://host/folder' must be a folder, or a URL such as file:///folder"),
        ("memory://here", "checkpoints at 'memory://here' would be in the memory of each process: use a folder"),
    ],
)
def test_a_url_that_cannot_be_written_is_one_clear_line_at_the_start(tmp_path: Path, url: str, said: str) -> None:
    command = [sys.executable, "-m", "livedrag.server", "serve", "--port", "0", "--log-level", "error"]
    command += ["--data-dir", str(tmp_path), "--checkpoints-url", url]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"livedrag: {said}")
