"""``livedrag rooms list | export | import | delete``: the rooms of a data directory that no server is using."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

from livedrag.server.errors import LivedragError
from livedrag.server.settings import Settings
from livedrag.server.storage import RoomSummary, Store
from livedrag.server.storage.archive import export_room, import_room
from livedrag.server.storage.errors import ArchiveError


class CommandError(LivedragError):
    """A command that cannot be carried out."""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give ``livedrag`` its subcommand ``rooms``."""
    rooms = commands.add_parser(
        "rooms",
        help="list, export, import or delete rooms, while no server runs",
        description="What is kept in a data directory. A server that uses it must be stopped first.",
        allow_abbrev=False,
    )
    actions = rooms.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, help: str) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=help, description=help, allow_abbrev=False)
        where = "where rooms are kept (the user's data directory)"
        parser.add_argument("--data-dir", dest="data_dir", type=_path, help=where)
        return parser

    action("list", "list rooms, the one used last first").add_argument(
        "--json", action="store_true", help="as one JSON object a line"
    )
    exporting = action("export", "write a room into one zip file, which another server can import")
    exporting.add_argument("room", help="its id, as `list` shows it")
    exporting.add_argument("-o", "--output", type=_path, help="the file to write (<room>.livedrag.zip)")
    importing = action("import", "take in a room that was exported, and print a new link for its owner")
    importing.add_argument("file", type=_path, help="the zip file")
    importing.add_argument(
        "--as-new", dest="as_new", action="store_true", help="under a new id, without its old links and people"
    )
    deleting = action("delete", "delete rooms for good, with their pictures")
    deleting.add_argument("room", nargs="+", help="ids, as `list` shows them")


def manage(chosen: argparse.Namespace, settings: Settings) -> None:
    """Do what ``livedrag rooms`` is asked.

    Raises:
        CommandError, ArchiveError, StoreError: why not.
    """
    if chosen.action != "import" and not (settings.data_dir / "livedrag.sqlite3").exists():
        raise CommandError(f"there are no rooms in {str(settings.data_dir)!r}: choose another with --data-dir")
    with Store(settings.data_dir) as store:
        match chosen.action:
            case "list":
                for listed in store.rooms().result():
                    sys.stdout.write(_line(listed, as_json=chosen.json) + "\n")
            case "export":
                sys.stdout.write(f"{_export(store, chosen.room, chosen.output)}\n")
            case "import":
                room, secret = _import(store, chosen.file, settings, as_new=chosen.as_new)
                sys.stdout.write(f"room {room}: its owner's link is {settings.base_path}/r/{room}#{secret}\n")
            case "delete":
                for room in chosen.room:
                    if not store.delete(room).result():
                        raise CommandError(f"there is no room {room!r}: `livedrag rooms list` shows those there are")


def _export(store: Store, room: str, output: Path | None) -> Path:
    path = output or Path(f"{room}.livedrag.zip")
    if store.load(room).result() is None:
        raise CommandError(f"there is no room {room!r}: `livedrag rooms list` shows those there are")
    draft = path.with_name(f"{path.name}.draft")
    try:
        if path.exists():
            raise CommandError(f"{str(path)!r} is there already: choose another file with --output")
        with draft.open("xb") as file:
            export_room(store, room, file)
        draft.rename(path)
    except OSError as error:
        raise CommandError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return path


def _import(store: Store, path: Path, settings: Settings, *, as_new: bool) -> tuple[str, str]:
    try:
        with path.open("rb") as file:
            return import_room(store, file, max_pixels=settings.max_pixels, as_new=as_new)
    except OSError as error:
        raise CommandError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except ArchiveError as error:
        raise ArchiveError(f"{str(path)!r} cannot be imported: {error}") from error


def _line(listed: RoomSummary, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(vars(listed))
    created, used = (_day(seconds) for seconds in (listed.created, listed.used))
    return f"{listed.id}  made {created}  used {used}  {listed.seq} changes, {listed.people} people"


def _day(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"


def _path(text: str) -> Path:
    return Path(text).expanduser()
