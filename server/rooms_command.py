"""``livedrag rooms``: list, export, import, delete and check rooms, back them up and restore them."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from livedrag.server.document.protocol import RoomLimits
from livedrag.server.errors import LivedragError
from livedrag.server.settings import Settings
from livedrag.server.storage import RoomSummary, Store
from livedrag.server.storage.archive import export_room, import_room
from livedrag.server.storage.backup import Copied, back_up, restore
from livedrag.server.storage.check import check_room
from livedrag.server.storage.errors import ArchiveError
from livedrag.server.storage.store import DATABASE


class CommandError(LivedragError):
    """A command that cannot be carried out."""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand ``rooms`` to ``livedrag``."""
    rooms = commands.add_parser(
        "rooms",
        help="list, export, import, delete, check, back up or restore rooms",
        description="Manage the rooms in a data directory. Except for 'backup', stop the server first.",
        allow_abbrev=False,
    )
    actions = rooms.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, help: str) -> argparse.ArgumentParser:
        parser = actions.add_parser(name, help=help, description=help, allow_abbrev=False)
        where = "where rooms are stored (default: the user's data directory)"
        parser.add_argument("--data-dir", dest="data_dir", type=_path, help=where)
        where = "where the server has its checkpoints (default: in the data directory)"
        parser.add_argument("--checkpoints-url", dest="checkpoints_url", help=where)
        return parser

    action("list", "list rooms, the most recently used first").add_argument(
        "--json", action="store_true", help="print one JSON object per line"
    )
    exporting = action("export", "write a room into a zip file, which another server can import")
    exporting.add_argument("room", help="its id, as shown by `list`")
    exporting.add_argument("-o", "--output", type=_path, help="the file to write (default: <room>.livedrag.zip)")
    importing = action("import", "add an exported room, and print a new link for its owner")
    importing.add_argument("file", type=_path, help="the zip file")
    importing.add_argument(
        "--as-new", dest="as_new", action="store_true", help="give it a new id, without its old links and people"
    )
    deleting = action("delete", "delete rooms and their pictures permanently")
    deleting.add_argument("room", nargs="+", help="ids, as shown by `list`")
    checking = action("check", "check the logs and pictures of rooms, and name what is damaged")
    checking.add_argument("room", nargs="*", help="ids, as shown by `list` (default: all)")
    backing_up = action("backup", "copy all rooms into a new directory, while a server may be running")
    backing_up.add_argument("directory", type=_path, help="a new or an empty directory")
    restoring = action("restore", "restore a backup into an empty data directory")
    restoring.add_argument("directory", type=_path, help="the backup")


def manage(chosen: argparse.Namespace, settings: Settings) -> None:
    """Carry out a ``livedrag rooms`` command.

    Raises:
        LivedragError: it cannot be carried out.
    """
    folder, url = settings.data_dir, settings.checkpoints_url
    if chosen.action == "restore":
        _report(f"restored into {str(folder)!r}", restore(chosen.directory, folder, url))
        return
    if chosen.action != "import" and not (folder / DATABASE).exists():
        raise CommandError(f"there are no rooms in {str(folder)!r}: choose another directory with --data-dir")
    if chosen.action == "backup":
        _report(f"backed up into {str(chosen.directory)!r}", back_up(folder, chosen.directory, url))
        return
    with Store(folder, checkpoints_url=url) as store:
        ACTIONS[chosen.action](store, chosen, settings)


def _list(store: Store, chosen: argparse.Namespace, settings: Settings) -> None:
    for listed in store.rooms().result():
        sys.stdout.write(_line(listed, as_json=chosen.json) + "\n")


def _export(store: Store, chosen: argparse.Namespace, settings: Settings) -> None:
    path = chosen.output or Path(f"{chosen.room}.livedrag.zip")
    if store.load(chosen.room).result() is None:
        raise _unknown(chosen.room)
    draft = path.with_name(f"{path.name}.draft")
    try:
        if path.exists():
            raise CommandError(f"{str(path)!r} already exists: choose another file with --output")
        with draft.open("xb") as file:
            export_room(store, chosen.room, file)
        draft.rename(path)
    except OSError as error:
        raise CommandError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
    sys.stdout.write(f"{path}\n")


def _import(store: Store, chosen: argparse.Namespace, settings: Settings) -> None:
    try:
        with chosen.file.open("rb") as file:
            room, secret = import_room(store, file, RoomLimits.of(settings), as_new=chosen.as_new)
    except OSError as error:
        raise CommandError(f"cannot read {str(chosen.file)!r}: {error.strerror or error}") from error
    except ArchiveError as error:
        raise ArchiveError(f"{str(chosen.file)!r} cannot be imported: {error}") from error
    sys.stdout.write(f"room {room}: its owner's link is {settings.base_path}/r/{room}#{secret}\n")


def _delete(store: Store, chosen: argparse.Namespace, settings: Settings) -> None:
    for room in chosen.room:
        if not store.delete(room).result():
            raise _unknown(room)


def _check(store: Store, chosen: argparse.Namespace, settings: Settings) -> None:
    rooms = [room.id for room in store.rooms().result()]
    for room in chosen.room:
        if room not in rooms:
            raise _unknown(room)
    problems = [f"the database is damaged: {verdict}" for verdict in store.check_database().result()]
    damaged = 0
    for room in chosen.room or rooms:
        found = list(check_room(store, room))
        damaged += bool(found)
        problems += [f"{room}: {problem}" for problem in found]
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    if problems:
        raise CommandError(f"{damaged} of {len(chosen.room or rooms)} rooms are damaged")
    sys.stdout.write(f"{len(chosen.room or rooms)} rooms are whole\n")


ACTIONS: Mapping[str, Callable[[Store, argparse.Namespace, Settings], None]] = {
    "list": _list,
    "export": _export,
    "import": _import,
    "delete": _delete,
    "check": _check,
}


def _report(done: str, copied: Copied) -> None:
    sys.stdout.write(f"{done}: {copied.rooms} rooms, {copied.pictures} pictures\n")
    if copied.damaged:
        shown = ", ".join(copied.damaged[:3])
        raise CommandError(f"{len(copied.damaged)} pictures are missing or damaged, such as {shown}")


def _unknown(room: str) -> CommandError:
    return CommandError(f"there is no room {room!r}: `livedrag rooms list` shows all rooms")


def _line(listed: RoomSummary, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(vars(listed))
    created, used = (_day(seconds) for seconds in (listed.created, listed.used))
    line = f"{listed.id}  created {created}  used {used}  {listed.seq} changes, {listed.people} people"
    return f"{line}  {listed.title!r}" if listed.title else line


def _day(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"


def _path(text: str) -> Path:
    return Path(text).expanduser()
