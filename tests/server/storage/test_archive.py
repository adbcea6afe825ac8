"""Archive: a room comes out as one file and goes in elsewhere, whole; what is no such file is refused by name."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from livedrag.server.document.document import RoomDocument
from livedrag.server.document.members import Link, Member, digest
from livedrag.server.document.protocol import (
    DocRecord,
    Document,
    Drag,
    Edit,
    Generation,
    MoveDrag,
    Picture,
    Raster,
    RoomLimits,
    StartRun,
)
from livedrag.server.errors import UnknownRoom
from livedrag.server.storage import SavedRoom, Store
from livedrag.server.storage.archive import export_room, import_room
from livedrag.server.storage.archive_reader import MAX_ENTRIES
from livedrag.server.storage.errors import ArchiveError
from livedrag.server.storage.store import MIN_RECORDS
from tests.quiet import MODEL, png
from tests.server.storage.test_store import OLD, OLD_2, assert_is_as_expected, load, roles, say, settle

LIMITS = RoomLimits(pixels=1_000_000)
LINKS = (Link("l1", digest("owner"), "owner", 1.0, used=2.0), Link("l2", digest("viewer"), "viewer", 3.0))
ADA = Member("p1", "Ada", "#aa0000", "owner", "l1", 4.0)


def make(store: Store, *, edits: int = 3) -> SavedRoom:
    """A room with a loaded mask, runs and results."""
    picture = Picture(sha256=store.put_picture(png()), width=64, height=48)
    document = Document(picture=picture, drags={"d1": Drag(handle=(10.0, 10.0), target=(30.0, 20.0))})
    room = RoomDocument("r", document, MODEL)
    store.create("r", document, LINKS)
    store.save_member("r", ADA)
    mask = Raster(id="m", sha256=store.put_picture(png(color="white", mode="L")))
    records: list[DocRecord] = [room.load_mask("p1", "m", mask)]
    documents = [room.document]
    for number in range(edits):
        records.append(say(room, str(number)))
        documents.append(room.document)
    for color in ("red", "green"):
        records.append(room.start("p1", StartRun(op_id=color), f"run-{color}"))
        documents.append(room.document)
        tracked = {"d1": (30.0, 20.0)}
        records.append(room.end("arrived", tracked=tracked, sha256=store.put_picture(png(color=color))))
        documents.append(room.document)
    # The content has been moved to its target, so it may go back to where its handle was put down.
    back = Edit(op_id="back", base=room.seq, op=MoveDrag(id="d1", target=(10.0, 10.0)))
    records.append(room.edit("p1", back))
    documents.append(room.document)
    for record, led_to in zip(records, documents, strict=True):
        store.append("r", record, led_to)
    return load(store)


def exported(store: Store, room: str = "r") -> io.BytesIO:
    file = io.BytesIO()
    export_room(store, room, file)
    file.seek(0)
    return file


def test_a_room_goes_to_another_server_with_all_that_it_is(tmp_path: Path) -> None:
    with Store(tmp_path / "here") as here, Store(tmp_path / "there") as there:
        was = make(here)
        room, secret = import_room(there, exported(here), LIMITS)
        assert room == "r"
        saved = load(there)
        assert (saved.document, saved.seq, saved.records) == (was.document, was.seq, was.records)
        assert (saved.created, saved.members) == (was.created, was.members)
        assert roles(saved) == {digest("owner"): "owner", digest("viewer"): "viewer", digest(secret): "owner"}
        assert saved.instance != was.instance
        assert saved.document.result is not None
        for sha256 in (saved.document.picture.sha256, saved.document.result.sha256, saved.document.mask[0].sha256):  # type: ignore[union-attr]
            assert there.pictures.get(sha256) == here.pictures.get(sha256)
        room_there = RoomDocument("r", saved.document, MODEL, seq=saved.seq)
        there.append("r", say(room_there, "it goes on"), room_there.document).result(5)
        there.pictures._new.clear()
        there.sweep().result(5)
        settle(there)
        assert exported(there).getvalue()
        assert there.delete("r").result(5)


def test_a_room_of_a_drawing_goes_with_how_it_was_drawn(tmp_path: Path) -> None:
    drawn = Generation(prompt="a cat", seed=7, guidance=5.0, ddim_steps=50, model="built-in")
    with Store(tmp_path / "here") as here, Store(tmp_path / "there") as there:
        picture = Picture(sha256=here.put_picture(png()), width=64, height=48, generation=drawn)
        here.create("r", Document(picture=picture), LINKS)
        import_room(there, exported(here), LIMITS)
        assert load(there).document.picture == picture


def test_a_room_with_a_shortened_log_goes_too(tmp_path: Path) -> None:
    with Store(tmp_path / "here") as here, Store(tmp_path / "there") as there:
        was = make(here, edits=2 * MIN_RECORDS + 5)
        assert was.base_seq > 0
        import_room(there, exported(here), LIMITS)
        assert (load(there).document, load(there).base_seq) == (was.document, was.base_seq)


def test_a_room_from_schema_1_goes_too(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    with Store(tmp_path / "old") as old, Store(tmp_path / "there") as there:
        for room in ("everything", "long", "reset", "empty"):
            import_room(there, exported(old, room), LIMITS)
            assert load(there, room).document == load(old, room).document


def test_an_export_of_version_1_is_imported_with_its_generation_and_its_seeks(tmp_path: Path) -> None:
    expected = json.loads((OLD_2 / "expected.json").read_text())["generated"]
    with Store(tmp_path) as store, (OLD_2 / "generated.livedrag.zip").open("rb") as file:
        room, secret = import_room(store, file, LIMITS)
        assert room == "generated"
        saved = load(store, room)
        expected["links"] |= {digest(secret): "owner"}
        assert_is_as_expected(saved, expected)
        again = import_room(store, exported(store, room), LIMITS, as_new=True)[0]
        assert load(store, again).document == saved.document
        assert saved.document.picture.generation is not None


def test_a_room_that_is_there_already_can_be_taken_in_as_a_new_one(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        was = make(store)
        with pytest.raises(ArchiveError, match=r"there is a room 'r' already: .* --as-new"):
            import_room(store, exported(store), LIMITS)
        room, secret = import_room(store, exported(store), LIMITS, as_new=True)
        copy = load(store, room)
        assert room != "r"
        assert copy.document == was.document
        assert roles(copy) == {digest(secret): "owner"}
        assert copy.members == ()
        assert load(store) == was


def test_no_room_no_archive(tmp_path: Path) -> None:
    with Store(tmp_path) as store, pytest.raises(UnknownRoom, match="no room 'nowhere'"):
        export_room(store, "nowhere", io.BytesIO())


# What is refused -----------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, bytes]], object]


def edit_json(name: str, change: Callable[[dict[str, object]], object]) -> Change:
    def edit(entries: dict[str, bytes]) -> None:
        value = json.loads(entries[name])
        change(value)
        entries[name] = json.dumps(value).encode()

    return edit


def edit_record(number: int, **values: object) -> Change:
    def edit(entries: dict[str, bytes]) -> None:
        lines = [json.loads(line) for line in entries["records.jsonl"].splitlines()]
        lines[number] |= values
        entries["records.jsonl"] = b"\n".join(json.dumps(line).encode() for line in lines)

    return edit


DRAG = {"handle": [1, 1], "target": [9, 9]}


def stroke(id: str, points: int) -> dict[str, object]:
    return {"type": "stroke", "id": id, "mode": "paint", "radius": 3, "points": [[1, 1]] * points}


def edit_base(**values: object) -> Change:
    return edit_json("base.json", lambda base: base.update(values))


def edit_picture(**values: object) -> Change:
    return edit_json("base.json", lambda base: base["picture"].update(values))  # type: ignore[attr-defined]


def picture_name(entries: dict[str, bytes]) -> str:
    return f"files/{json.loads(entries['base.json'])['picture']['sha256']}.png"


def replace_picture(data: bytes) -> Change:
    """Another picture, under its right name, so that only what it is can be wrong with it."""

    def edit(entries: dict[str, bytes]) -> None:
        import hashlib

        del entries[picture_name(entries)]
        sha256 = hashlib.sha256(data).hexdigest()
        entries[f"files/{sha256}.png"] = data
        edit_json("base.json", lambda base: base["picture"].update(sha256=sha256))(entries)  # type: ignore[attr-defined]

    return edit


BAD_CHANGES: dict[str, tuple[Change, str]] = {
    "a path out of it": (lambda e: e.update({"../../evil": b""}), "no entry '../../evil'"),
    "an absolute path": (lambda e: e.update({"/etc/passwd": b""}), "no entry '/etc/passwd'"),
    "a file of another kind": (lambda e: e.update({"files/a.pkl": b""}), "no entry 'files/a.pkl'"),
    "no room.json": (lambda e: e.pop("room.json"), "'room.json' is missing"),
    "no log": (lambda e: e.pop("records.jsonl"), "'records.jsonl' is missing"),
    "no picture": (lambda e: e.pop(picture_name(e)), "is missing, which the room needs"),
    "a picture too many": (lambda e: e.update({f"files/{'a' * 64}.png": png()}), "does not belong to the room"),
    "a damaged picture": (lambda e: e.update({picture_name(e): png(color="pink")}), "does not match its name"),
    "a picture that is none": (replace_picture(b"GIF89a"), "is not a PNG"),
    "half a picture": (replace_picture(png(color="blue")[:60]), "is not a PNG, or a damaged one"),
    "a picture of another size": (replace_picture(png(32, 32)), "has 32 x 32 pixels, its room 64 x 48"),
    "a picture of a strange mode": (replace_picture(png(mode="LA", color="white")), "mode 'LA'"),
    "a grey picture": (replace_picture(png(mode="L", color="gray")), "mode 'L': it must be RGB"),
    "a huge picture": (
        edit_json("base.json", lambda b: b["picture"].update(width=10**5, height=10**5)),  # type: ignore[attr-defined]
        "100000 x 100000 pixels: this server accepts up to 1 megapixels",
    ),
    "no JSON": (lambda e: e.update({"base.json": b"{"}), "base.json cannot be read"),
    "another format": (edit_json("room.json", lambda m: m.update(format="zip")), "room.json cannot be read"),
    "a newer version": (edit_json("room.json", lambda m: m.update(version=3)), "version 3, this livedrag reads"),
    "an odd id": (edit_json("room.json", lambda m: m.update(room="../x")), "room.json cannot be read"),
    "an unknown role": (
        edit_json("room.json", lambda m: m["links"][0].update(role="god")),  # type: ignore[index]
        "room.json cannot be read",
    ),
    "two links that are one": (
        edit_json("room.json", lambda m: m["links"].append(m["links"][0])),  # type: ignore[attr-defined, index]
        "the same id",
    ),
    "a log that ends early": (edit_json("room.json", lambda m: m.update(seq=99)), "ends at record 9, not at 99"),
    "a gap in the log": (edit_record(2, seq=7), "record 7 is where record 3 should be"),
    "an unknown record": (edit_record(0, type="rm -rf"), "records.jsonl, line 1 cannot be read"),
    "a picture that leads elsewhere": (
        edit_json("base.json", lambda b: b["picture"].update(sha256="../victim")),  # type: ignore[attr-defined]
        "base.json(: '../victim' is not the SHA-256 of a picture| cannot be read)",
    ),
    "a result that leads elsewhere": (
        edit_json("base.json", lambda b: b.update(result={"sha256": "../victim", "run": "x"})),
        "base.json(: '../victim' is not the SHA-256 of a result| cannot be read)",
    ),
    "a mask that leads elsewhere": (
        edit_record(0, op={"type": "raster", "id": "m", "sha256": "a" * 64 + "\n"}),
        "record 1: .* is not the SHA-256 of a mask|cannot be read",
    ),
    "a result in the log that leads elsewhere": (
        edit_record(5, result={"sha256": "../victim", "run": "run-red"}),
        "record 6: '../victim' is not the SHA-256 of a result|line 6 cannot be read",
    ),
    "an id with a line end": (edit_json("room.json", lambda m: m.update(room="r\n")), "room.json cannot be read"),
    "an edit of what is not there": (
        edit_record(1, op={"type": "move_drag", "id": "nowhere", "target": [1, 1]}),
        "record 2 does not fit",
    ),
    "a drag outside the picture": (
        edit_record(1, op={"type": "add_drag", "id": "x", "handle": [1, 1], "target": [500, 1]}),
        r"record 2: the target \(500, 1\) lies outside",
    ),
    "a tiny picture": (edit_picture(width=1, height=1), "base.json: the picture has 1 x 1 pixels: each side must have"),
    "a narrow picture": (edit_picture(width=900, height=20), "900 x 20 pixels, too long and narrow to edit"),
    "a negative size": (edit_picture(width=-64), "base.json: the picture has -64 x 48 pixels"),
    "an unknown setting": (edit_base(settings={"rm": 1}), "base.json: unknown setting 'rm': choose one of"),
    "an ill-typed setting": (edit_base(settings={"max_iterations": "many"}), "max_iterations must be a whole number"),
    "a setting out of its range": (edit_base(settings={"lora_rank": 10**6}), "lora_rank is 1000000, but must be"),
    "a nested setting": (edit_base(settings={"max_iterations": {"$": []}}), "base.json cannot be read"),
    "too many drags": (edit_base(drags=dict.fromkeys(map(str, range(1000)), DRAG)), "1000 drags, the limit is 64"),
    "a drag with markup for an id": (edit_base(drags={"<img src=x>": DRAG}), "'<img src=x>' is not the id of a drag"),
    "a drag at infinity": (edit_base(drags={"d": {**DRAG, "handle": [1e400, 1]}}), "base.json cannot be read"),
    "a long prompt": (edit_base(prompt="x" * 10**6), "the prompt has 1000000 characters, the limit is 1000"),
    "a long prompt in the log": (
        edit_record(1, op={"type": "set_prompt", "prompt": "x" * 2000}),
        "record 2: the prompt has 2000 characters",
    ),
    "too many points": (
        edit_base(mask=[stroke(str(number), 2000) for number in range(51)]),
        "the strokes of the mask would have 102000 points, the limit is 100000",
    ),
    "too many points in a stroke": (edit_base(mask=[stroke("s", 2001)]), "base.json cannot be read"),
    "too many layers": (
        edit_base(mask=[{"type": "invert", "id": str(number)} for number in range(2001)]),
        "the mask would have 2001 layers",
    ),
    "two layers with one id": (edit_base(mask=[stroke("s", 1), stroke("s", 1)]), "the mask would have two layers 's'"),
    "a layer with markup for an id": (edit_base(mask=[stroke("<b>", 1)]), "base.json cannot be read"),
    "a run with markup for an id": (edit_base(run={"id": "<b>", "by": "p"}), "'<b>' is not the id of a run"),
    "a run with a long message": (
        edit_base(run={"id": "r", "by": "p", "outcome": "failed", "message": "x" * 10**5}),
        "a run's message has 100000 characters",
    ),
    "a run before its beginning": (edit_base(run={"id": "r", "by": "p", "iterations": -1}), "iterations is -1"),
    "a person with markup for an id": (edit_record(0, by="<b>"), "record 1: '<b>' cannot be the value of 'by'"),
    "too many entries": (
        lambda e: e.update({f"files/{number:064x}.png": b"" for number in range(MAX_ENTRIES)}),
        "entries: 10000 are allowed",
    ),
}


@pytest.mark.parametrize("what", BAD_CHANGES)
def test_what_an_export_would_not_write_is_refused_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    change, message = BAD_CHANGES[what]
    with Store(tmp_path / "here") as here:
        make(here)
        with zipfile.ZipFile(exported(here)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    refused(tmp_path / "there", changed, message)


def refused(folder: Path, file: io.BytesIO, message: str, **options: int) -> None:
    with Store(folder) as store:
        file.seek(0)
        with pytest.raises(ArchiveError, match=message):
            import_room(store, file, LIMITS, **options)  # type: ignore[arg-type]
        assert store.rooms().result(5) == []
    Store(folder).close()
    assert not list((folder / "pictures").glob("*/*"))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 but no more", b"no zip at all" * 99])
def test_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, io.BytesIO(data), "not a zip file, or a damaged one")


def test_a_zip_that_breaks_off_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "here") as here:
        make(here)
        whole = exported(here).getvalue()
    refused(tmp_path / "there", io.BytesIO(whole[: len(whole) // 2]), "not a zip file, or a damaged one")


def test_damaged_zips_are_refused_whatever_was_changed_in_them(tmp_path: Path) -> None:
    with Store(tmp_path / "here") as here:
        make(here)
        whole = exported(here).getvalue()
    with Store(tmp_path / "there") as there:
        fuzz_imports(there, whole, 300)


def fuzz_imports(store: Store, whole: bytes, times: int) -> None:
    """Import files with a few bytes changed, cut out or put in; each is refused by name, or still the room."""
    random = Random(0)
    for _ in range(times):
        data = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            place = random.randrange(len(data))
            match random.randrange(4):
                case 0:
                    data[place] = random.randrange(256)
                case 1:
                    data[place : place + 4] = random.randbytes(4)
                case 2:
                    del data[place : place + random.randint(1, 40)]
                case _:
                    data[place:place] = random.randbytes(random.randint(1, 40))
        with contextlib.suppress(ArchiveError), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of zipfile
            room, _ = import_room(store, io.BytesIO(bytes(data)), LIMITS, as_new=True)
            assert load(store, room).seq == 9


def test_an_entry_twice_is_refused(tmp_path: Path) -> None:
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("room.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("room.json", "{}")
    refused(tmp_path, twice, "'room.json' occurs twice")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("room.json", "{}")
    data = bytearray(plain.getvalue())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(signature) + offset
        data[place : place + 2] = struct.pack("<H", 1)
    refused(tmp_path, io.BytesIO(bytes(data)), "'room.json' is encrypted")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedrag.server.storage.archive_reader.MAX_ENTRY_BYTES", 10_000)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("room.json", "base.json", "records.jsonl"):
            archive.writestr(name, " " * 10**6)
    refused(tmp_path, bomb, "'room.json' has more than 0 MiB uncompressed")
    refused(tmp_path, bomb, "3 MiB uncompressed", max_bytes=10_000)
