"""Writes ``docs/protocol.md`` from the records: ``python -m livedrag.server.document.protocol_page``."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from livedrag.server.document import protocol as p
from livedrag.server.document.protocol_examples import CLIENT, OPERATIONS, RASTER, RESTORE, SERVER

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "protocol.md"

PARTS: Sequence[type[msgspec.Struct]] = (
    p.Document,
    p.Picture,
    p.Generation,
    p.Drag,
    p.Stroke,
    p.Raster,
    p.Invert,
    p.Grow,
    p.Run,
    p.Result,
    p.ModelChoice,
    p.LoraChoice,
    p.CatalogEntry,
    p.ModelInfo,
    p.RoomLimits,
    p.Person,
    p.PersonPresence,
    p.Moment,
    p.RestoredDrag,
)
"""The types that messages consist of."""

NAMES: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    bytes: "bytes",
    type(None): "null",
}
CLOSES = {
    p.Close.BAD_MESSAGE: "a message that does not follow this protocol, or came at the wrong time",
    p.Close.PASSWORD: "the server requires its password first: `POST /api/rooms/{room}/enter`",
    p.Close.WRONG_SECRET: "neither ticket, secret nor cookie opens this room",
    p.Close.UNKNOWN_ROOM: "there is no such room (any more)",
    p.Close.UNKNOWN_VERSION: "the server speaks another version",
    p.Close.TIMED_OUT: "no `hello` arrived, or the client stopped reading",
    p.Close.TOO_MANY: "too many connections or messages from this address: try again later",
    p.Close.ROOM_DELETED: "an owner has deleted the room",
    p.Close.REMOVED: "an owner has removed this person, or revoked their link",
    p.Close.GOING_AWAY: "the server is stopping or cannot write to its disk: reconnect in a moment",
}

HTTP = (
    (
        "POST",
        "/api/rooms",
        "anyone",
        "creates a room from a form with `picture` and optional `mask`, `prompt`, `drags`, `title`, from the JSON "
        "`{generation}`, or from an exported room as `application/zip`: `{room, secret, url}`",
    ),
    (
        "POST",
        "/api/edits",
        "anyone",
        "makes an edit without a page, from a form with `picture` and `drags`: the result, or its progress as "
        "server-sent events; see [api.md](api.md)",
    ),
    (
        "POST",
        "/api/generations",
        "anyone",
        "`{prompt, seed}` generates a picture; `seed` may be null for a random one: `{id, prompt, seed}`",
    ),
    ("GET", "/api/generations/{generation}", "anyone with its id", "its progress as JSON lines, see below"),
    ("GET", "/api/generations/{generation}/picture", "anyone with its id", "the generated picture, PNG"),
    ("DELETE", "/api/generations/{generation}", "anyone with its id", "cancels or discards it"),
    ("POST", "/api/password", "anyone", "`{password}` sets a cookie for the server's password"),
    ("POST", "/api/rooms/{room}/enter", "anyone", "`{secret, password}` sets a cookie: `{role, ticket}`"),
    ("GET", "/api/rooms/{room}/picture", "viewer", "the uploaded picture, PNG"),
    (
        "PUT",
        "/api/rooms/{room}/picture",
        "editor",
        "edits this picture, of any format that is read, instead: `{seq, sha256}`; `Op-Id` is optional",
    ),
    ("GET", "/api/rooms/{room}/result", "viewer", "the picture that the last run produced, PNG"),
    (
        "POST",
        "/api/rooms/{room}/quick-preview",
        "editor",
        "makes the quick preview, at full size, the result: `{seq, sha256}`; `Op-Id` is optional",
    ),
    ("GET", "/api/rooms/{room}/mask", "viewer", "the current mask, PNG; white is editable"),
    (
        "PUT",
        "/api/rooms/{room}/mask",
        "editor",
        "replaces the mask by a picture of the same size, white is editable; `?fit` scales a picture of another size, "
        "`Op-Id` is optional",
    ),
    ("GET", "/api/rooms/{room}/masks/{sha256}", "viewer", "a loaded mask, PNG"),
    ("GET", "/api/rooms/{room}/moments/{moment}", "viewer", "the thumbnail of a moment, WebP"),
    ("GET", "/api/rooms/{room}/trajectory.webp", "viewer", "the path from the uploaded picture to now, animated WebP"),
    ("GET", "/api/rooms/{room}/trajectory.mp4", "viewer", "the same as MP4, if `capabilities` has `mp4`"),
    ("GET", "/api/rooms/{room}/numbers.csv", "viewer", "the numbers of the last run, see [api.md](api.md)"),
    ("GET", "/api/rooms/{room}/numbers.json", "viewer", "the same as JSON"),
    ("GET", "/api/rooms/{room}/export", "editor", "the whole room, a zip for `livedrag rooms import`"),
    ("GET", "/api/rooms/{room}/links", "owner", "`[{id, role, made, used}]`"),
    ("POST", "/api/rooms/{room}/links", "owner", "`{role}` creates a link: `{id, role, made, used, secret, url}`"),
    ("DELETE", "/api/rooms/{room}/links/{link}", "owner", "revokes a link and disconnects those who joined by it"),
    ("PUT", "/api/rooms/{room}/people/{person}", "owner", "`{role}` changes a person's role"),
    ("DELETE", "/api/rooms/{room}/people/{person}", "owner", "removes a person for good"),
    ("PATCH", "/api/rooms/{room}", "editor", "`{title}` renames the room"),
    (
        "POST",
        "/api/rooms/{room}/copy",
        "editor",
        "`{title}` makes a room like it, with its preparation: `{room, secret, url}`",
    ),
    ("DELETE", "/api/rooms/{room}", "owner", "deletes the room and everything in it"),
    ("GET", "/api/models", "anyone", "`{default, entries}`: what `set_model` may name, each a `CatalogEntry`"),
    ("GET", "/api/samples", "anyone", "sample pictures with drags to try"),
    ("GET", "/api/admin", "operator", "rooms, people, device time, disk, queue, and workers by node"),
    ("POST", "/api/admin/rooms/{room}/eject", "operator", "sends everyone out of a room; they may come back"),
    ("DELETE", "/api/admin/rooms/{room}", "operator", "deletes a room and everything in it"),
    ("POST", "/api/admin/drain", "operator", "`{worker}` takes a worker out of service"),
    ("GET", "/healthz", "anyone", "`{status, version, model, worker, workers, storage, capabilities, limits}`"),
    ("GET", "/metrics", "anyone", "metrics for Prometheus"),
)
"""Method, path below the base path, who may use it, and what it does."""

GENERATIONS = """### Progress of a generation

`GET /api/generations/{generation}` answers with lines of JSON (`application/x-ndjson`), each with a `type`: first the
latest line of each type, then new ones as they come. One of the last three ends the answer. Disconnecting does not stop
the generation.

| type | fields | |
|--|--|--|
| `waiting` | `before`, `seconds_left` or null | it waits for the device behind `before` others |
| `progress` | `step`, `steps`, `seconds_left` or null | `step` of `steps` are done |
| `preview` | `picture`, a data URL | a preview |
| `done` | | the picture is ready |
| `failed` | `message` | there will be no picture |
| `cancelled` | | it was cancelled, or not used for a long time |

Generations are held in memory only; `POST /api/rooms` with the JSON `{"generation": id}` creates a room from one.
"""

LIMITS = p.RoomLimits()
HEAD = f"""# The protocol `{p.VERSION}`

Generated from `server/document/protocol/` by `python -m livedrag.server.document.protocol_page`: do not edit.

A client opens a WebSocket at `{{base}}/ws/{{room}}` (subprotocol `{p.VERSION}`) and sends `hello`. The server answers
with `welcome`, then with `snapshot`, or with `resumed` and the records that the client has missed. Every message is one
binary MessagePack map whose `type` names it. The server refuses messages with unknown fields; clients should ignore
unknown types and fields, since later servers may send more.

- **doc** is reliable, ordered and acknowledged. A request carries an `op_id` chosen by the client. Its answer is the
  record that it became, sent to everyone once it is on disk, or `rejected`, sent to its sender only. Sending a request
  again with the same `op_id` changes nothing and repeats the answer. Every record raises the room's `seq` by one, and
  the document is the fold of the records. Of two edits of one property the later one wins.
- **presence** is volatile: a slow client gets the latest of each kind.
- **frame** is volatile too, and needs credit: a client holds at most {p.FRAME_CREDITS} frames that it has not
  acknowledged with `ack_frame`, and gets the newest when it has credit again.

A client pings every `heartbeat` seconds and gives up after `deadline` seconds without any message; the server does the
same with WebSocket pings. A client that reconnects says in `hello` what it has (`since`, `of`) and sends the requests
without an answer again, marked `offline` if they were made without a connection. Every run has exactly one `ended`,
even if no one is connected.

Points are `(x, y)` in pixels of the uploaded picture, with the origin at the centre of its top left pixel. A stroke
has at most {p.MAX_STROKE_POINTS} points. `welcome` has the other limits in `limits`; by default a message to the server
has at most {LIMITS.message_bytes} bytes, a room {LIMITS.drags} drags, a prompt {LIMITS.prompt} characters.

## Access

A link to a room is `{{base}}/r/{{room}}#{{secret}}`. `POST {{base}}/api/rooms/{{room}}/enter` with the JSON
`{{"secret": "...", "password": "..."}}` (the password only if the server has one) sets a cookie that opens the room
from then on, and answers `{{"role": "...", "ticket": "..."}}`. The WebSocket of a page is authenticated by the
cookie. A script sends the ticket, which is valid for one connection within a minute, or the secret itself in `hello`.
HTTP requests take the cookie, or `Authorization: Bearer <secret>` with `Livedrag-Name: <name>` (the name in `hello`, to
be the same person), and `Livedrag-Password: <password>` if the server has one; both are percent-encoded. The operator
sends the admin token, or without one the server's password, as `Authorization: Bearer <...>`, percent-encoded.
"""


def page() -> str:
    """The page in Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    yield "## Messages from clients\n"
    for record in _flat(p.ClientMessage):
        yield from _record(record, CLIENT)
    yield "## Operations of an `edit`\n"
    for record in _flat(p.Operation):
        yield from _record(record, OPERATIONS)
    yield "## Messages from the server\n"
    for record in _flat(p.ServerMessage):
        yield from _record(record, SERVER)
    yield "## Other operations in an `edited`\n"
    for record in (p.Restore, p.Raster):
        yield from _record(record, [RESTORE, RASTER])
    yield "## Types\n"
    for part in PARTS:
        yield f"### {part.__name__}\n"
        yield from _described(part)
    yield "## HTTP\n"
    yield 'Errors are `{"error": {"reason": ..., "message": ...}}`; 429 has `Retry-After`.\n'
    yield "| method | path | role | |\n|--|--|--|--|"
    for method, path, role, what in HTTP:
        yield f"| {method} | `{path}` | {role} | {what} |"
    yield ""
    yield GENERATIONS
    yield "## Close codes\n"
    yield "After a final code, reconnecting in the same way cannot succeed.\n"
    yield "| code | name | final | reason |\n|--:|--|--|--|"
    for code, why in CLOSES.items():
        yield f"| {code.value} | {code.name} | {'yes' if code in p.FINAL_CLOSES else ''} | {why} |"
    yield "| 1009 | | | a message was larger than `limits` allows |\n"


def _record(record: type[msgspec.Struct], examples: Sequence[msgspec.Struct]) -> Iterator[str]:
    yield f"### `{record.__struct_config__.tag}`\n"
    yield from _described(record)
    example = next(one for one in examples if type(one) is record)
    shown = json.dumps(json.loads(msgspec.json.encode(example)), ensure_ascii=False)
    yield f"```json\n{shown}\n```\n"


def _described(record: type[msgspec.Struct]) -> Iterator[str]:
    yield "\n".join(line.strip() for line in (record.__doc__ or "").strip().splitlines()).replace("``", "`") + "\n"
    fields = msgspec.structs.fields(record)
    if fields:
        hints = get_type_hints(record, include_extras=True)
        yield "| field | type | default |\n|--|--|--|"
        for field in fields:
            yield f"| `{field.name}` | {_type(hints[field.name])} | {_default(field)} |"
        yield ""


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "*required*"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{json.dumps(msgspec.to_builtins(value))}`"


def _type(hint: Any) -> str:
    """A type in the words of JSON."""
    if hint in NAMES:
        return NAMES[hint]
    if hint == p.XY:
        return "(x, y)"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{_type(arguments[0])}{_bounds(arguments[1])}"
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, types.UnionType):
        if p.AddDrag in arguments:
            rest = [argument for argument in arguments if argument not in get_args(p.Operation)]
            return ", ".join(["an operation", *map(_type, rest)])
        return " or ".join(map(_type, arguments))
    if origin is dict:
        return f"map of {_type(arguments[1])}"
    if origin in (list, tuple):
        inside = [argument for argument in arguments if argument is not Ellipsis]
        return f"list of {_type(inside[0])}" if len(set(inside)) == 1 else f"({', '.join(map(_type, inside))})"
    return str(hint.__name__)


def _bounds(meta: msgspec.Meta) -> str:
    words = {"ge": ">= ", "gt": "> ", "le": "<= ", "lt": "< ", "min_length": "length >= ", "max_length": "length <= "}
    shown = [f"{word}{getattr(meta, name):g}" for name, word in words.items() if getattr(meta, name) is not None]
    if meta.pattern is not None:
        shown.append(f"like `{meta.pattern}`".replace("|", "\\|"))
    return f" ({', '.join(shown)})" if shown else ""


def _flat(union: Any) -> tuple[type[msgspec.Struct], ...]:
    return get_args(union)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
