"""``livedrag status``: rooms, people, device time, disk, queue and workers of a running server."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Iterator, Mapping
from urllib.parse import quote, urlsplit

import msgspec

from livedrag.server.client import RequestFailed, request
from livedrag.server.errors import LivedragError
from livedrag.server.rooms.operator import RoomStatus, ServerStatus
from livedrag.server.settings import MIB

SECRETS = ("LIVEDRAG_ADMIN_TOKEN", "LIVEDRAG_PASSWORD")
"""Variables with what opens the operator's page; an argument would be visible to everyone on the machine."""


class StatusError(LivedragError):
    """A status that cannot be had; the text names the address and says why."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand ``status`` to ``livedrag``."""
    parser = commands.add_parser(
        "status",
        help="show rooms, people, workers and disk of a running server",
        description="Show rooms, people, workers and disk of a running server. The operator's token or the server's "
        f"password is read from {SECRETS[0]} or {SECRETS[1]}, else from the terminal.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("url", help="of the server, such as http://127.0.0.1:8000")


def show(chosen: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> None:
    """Carry out ``livedrag status``.

    Raises:
        StatusError: there is no such server, or it does not let this operator in.
    """
    url = str(chosen.url).rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise StatusError(f"{chosen.url!r} is not the address of a server: use one such as http://127.0.0.1:8000")
    packed = _fetch(url, _secret(environment))
    if chosen.json:
        sys.stdout.write(packed.decode() + "\n")
        return
    try:
        status = msgspec.json.decode(packed, type=ServerStatus)
    except msgspec.MsgspecError as error:
        raise StatusError(f"{url} is not a livedrag server, or has another version: {error}") from error
    sys.stdout.write("\n".join(_lines(status)) + "\n")


def _fetch(url: str, secret: str) -> bytes:
    try:
        return request(url, "GET", "/api/admin", headers={"Authorization": f"Bearer {quote(secret)}"})
    except RequestFailed as error:
        raise StatusError(f"{url}: {error}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise StatusError(f"no livedrag answers at {url}: {reason}") from error


def _secret(environment: Mapping[str, str]) -> str:
    for name in SECRETS:
        if environment.get(name):
            return environment[name]
    if not sys.stdin.isatty():
        raise StatusError(f"set {SECRETS[0]}, or {SECRETS[1]} if the server has no token")
    return getpass.getpass("Operator token or server password: ")


def _lines(status: ServerStatus) -> Iterator[str]:
    yield f"livedrag {status.version}, model {status.model}; storage: {status.storage or 'ok'}"
    yield (
        f"{status.people} people, {status.rooms_open} rooms open of {status.rooms_stored}, "
        f"{status.queued} runs in the queue, {_size(status.bytes)} on disk"
    )
    for node, workers in status.nodes.items():
        yield f"\nnode {node or '(unnamed)'}"
        for worker in workers:
            yield (
                f"  {worker.id:<20} {worker.state:<10} {worker.sessions} sessions, {worker.running} running, "
                f"{worker.queued} queued, {_size(worker.bytes)}, {worker.restarts} restarts"
            )
    if status.rooms:
        yield ""
        yield f"{'room':<16} {'people':>6} {'run':<24} {'device':>10} {'disk':>10}  {'worker':<20} name"
        yield from map(_line, status.rooms)
    if len(status.rooms) < status.rooms_stored:
        yield f"{status.rooms_stored - len(status.rooms)} more rooms, unused for longer, are not shown"


def _line(room: RoomStatus) -> str:
    run = f"queued behind {room.ahead}" if room.run == "queued" else room.run
    run += f", iteration {room.iteration}" if room.run == "dragging" else ""
    seconds = f"{room.device_seconds:.1f} s"
    line = f"{room.id:<16} {len(room.people):>6} {run:<24} {seconds:>10} {_size(room.bytes):>10}"
    title = repr(room.title) if room.title else ""  # no control characters of others in the operator's terminal
    return f"{line}  {room.worker:<20} {title}".rstrip()


def _size(count: int) -> str:
    return f"{count / MIB:.1f} MiB"
