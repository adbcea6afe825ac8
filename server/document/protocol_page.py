"""Writes ``docs/protocol.md`` from the records: ``python -m livedrag.server.document.protocol_page``.

`CLIENT` and `SERVER` have one example of every record; the tests record them for the front end too.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from livedrag.server.document import protocol as p

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "protocol.md"

STROKE = p.Stroke(id="s1", mode="paint", radius=12.5, points=[(10.0, 20.0), (11.5, 22.25)], softness=0.5)
RASTER = p.Raster(id="m1", sha256="ab" * 32)
INVERT = p.Invert(id="i1")
DRAG = p.Drag(handle=(62.0, 150.0), target=(40.0, 110.0), tracked=(60.5, 147.25))
RUN = p.Run(id="r1", by="p1", iterations=12, outcome="arrived")
RESULT = p.Result(sha256="cd" * 32, run="r1")
RESTORE = p.Restore(
    drags={
        "d1": None,
        "d2": p.RestoredDrag(target=(40.0, 110.0)),
        "d3": p.RestoredDrag(handle=(5.0, 6.0), target=(7.5, 8.0)),
    },
    settings={"max_iterations": None, "latent_lr": 0.01},
    prompt="a bear",
    mask=(STROKE, INVERT),
)
OPERATIONS: list[p.Operation] = [
    p.AddDrag(id="d1", handle=(62.0, 150.0), target=(40.0, 110.0)),
    p.MoveDrag(id="d1", target=(45.0, 115.5)),
    p.RemoveDrag(id="d1"),
    p.AddStroke(stroke=STROKE),
    p.RemoveStroke(id="s1"),
    p.InvertMask(id="i1"),
    p.ClearMask(),
    p.SetPrompt(prompt="a teddy bear"),
    p.SetSettings(settings={"max_iterations": 40, "latent_lr": 0.02, "reference_control": True, "preset": None}),
]
CLIENT: list[p.ClientMessage] = [
    p.Hello(version=p.VERSION, ticket="t1ck3t", name="Ada", since=7, of="life1"),
    *(p.Edit(op_id=f"o{index}", base=6, op=op) for index, op in enumerate(OPERATIONS)),
    p.StartRun(op_id="o20"),
    p.StopRun(op_id="o21"),
    p.Reset(op_id="o22"),
    p.Undo(op_id="o23"),
    p.Redo(op_id="o24"),
    p.SeekMoment(op_id="o25", moment=4),
    p.Presence(cursor=(12.5, 40.0), selected="d1", tool="points", busy=True),
    p.Rename(name="Ada L."),
    p.AckFrame(frame=3),
    p.Ping(time=1234.5),
]
SERVER: list[p.ServerMessage] = [
    p.Welcome(
        version=p.VERSION,
        room="room1",
        instance="life1",
        you="c1",
        person="p1",
        role="owner",
        model=p.ModelInfo(
            name="built-in",
            kind="builtin",
            settings={"lora_steps": 80, "lora_targets": "to_q to_v", "preset": ""},
            presets=["paper"],
            ranges={"lora_steps": (0.0, 10_000.0)},
            words={"lora_targets": ("to_q", "to_k", "to_v", "to_out")},
        ),
        capabilities=("password",),
        limits=p.RoomLimits(upload_bytes=20 * 2**20, pixels=25_000_000),
        base="/drag",
        heartbeat=3.0,
        deadline=10.0,
        frame_credits=p.FRAME_CREDITS,
    ),
    p.Snapshot(
        seq=7,
        document=p.Document(
            picture=p.Picture(
                sha256="ef" * 32,
                width=256,
                height=192,
                generation=p.Generation(prompt="a teddy bear", seed=7, guidance=5.0, ddim_steps=50, model="built-in"),
            ),
            drags={"d1": DRAG},
            mask=(RASTER, STROKE, INVERT),
            prompt="a teddy bear",
            settings={"max_iterations": 40},
            run=RUN,
            result=RESULT,
            moment=4,
        ),
    ),
    p.Resumed(seq=7),
    *(p.Edited(seq=8 + index, op_id=f"o{index}", by="p1", op=op) for index, op in enumerate([*OPERATIONS, RASTER])),
    p.Edited(seq=19, op_id="o23", by="p1", op=RESTORE, undoes="o1"),
    p.Edited(seq=20, op_id="o24", by="p1", op=OPERATIONS[0], redoes="o1"),
    p.Rejected(op_id="o1", reason="busy", message="a run is under way already: press Stop first"),
    p.Started(seq=21, op_id="o20", run=p.Run(id="r1", by="p1")),
    p.Stopping(seq=22, op_id="o21", by="p1"),
    p.Ended(seq=23, run=RUN, tracked={"d1": (41.0, 112.0)}, result=RESULT),
    p.WasReset(seq=24, op_id="o22", by="p1"),
    p.Seeked(seq=25, op_id="o25", by="p1", moment=4, tracked={"d1": (50.0, 130.0)}),
    p.People(
        people={
            "p1": p.Person(name="Ada", colour="#2a6fdb", role="owner", here=True),
            "p2": p.Person(name="Grace", colour="#c2410c", role="viewer", here=False),
        }
    ),
    p.Presences(
        people={"p1": p.PersonPresence(cursor=(12.5, 40.0), selected="d1", tool="points", busy=True), "p2": None},
    ),
    p.History(undo="move_drag", redo=None),
    p.Moments(
        run="r1",
        moments=[
            p.Moment(id=0, parent=None, iteration=0, time=1700000000.0, thumbnail=True),
            p.Moment(id=4, parent=0, iteration=5, time=1700000001.5),
        ],
        current=4,
    ),
    p.EngineReport(state="restarting", message="the device's worker stopped (exit code -9) and is started again"),
    p.Prepared(stage="fitting", step=20, steps=80, seconds_left=12.0),
    p.Progress(run="r1", stage="fitting", step=20, steps=80, seconds=4.0, seconds_left=12.0, loss=0.125),
    p.Points(run="r1", iteration=5, handles={"d1": (60.5, 147.25)}, distances={"d1": 42.5}, loss=1.75),
    p.Frame(
        frame=3,
        run="r1",
        stage="dragging",
        iteration=4,
        format="webp",
        width=256,
        height=192,
        time=1700000000.5,
        data=b"\x00\x01webp\xff",
    ),
    p.Pong(time=1234.5),
    p.ErrorMessage(reason="wrong_secret", message="this secret does not open the room"),
]
PARTS: Sequence[type[msgspec.Struct]] = (
    p.Document,
    p.Picture,
    p.Generation,
    p.Drag,
    p.Stroke,
    p.Raster,
    p.Invert,
    p.Run,
    p.Result,
    p.ModelInfo,
    p.RoomLimits,
    p.Person,
    p.PersonPresence,
    p.Moment,
    p.RestoredDrag,
)
"""What messages are made of."""

NAMES: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    bytes: "bytes",
    type(None): "null",
}
CLOSES = {
    p.Close.BAD_MESSAGE: "what came is no message of this protocol, or none at that point",
    p.Close.PASSWORD: "the server asks for its password first: `POST /api/rooms/{room}/enter`",
    p.Close.WRONG_SECRET: "neither ticket, secret nor cookie opens this room",
    p.Close.UNKNOWN_ROOM: "there is no such room, or no longer",
    p.Close.UNKNOWN_VERSION: "the server speaks another version",
    p.Close.TIMED_OUT: "no hello came, or the client has stopped reading",
    p.Close.TOO_MANY: "too many connections or messages from there: try again later",
    p.Close.ROOM_DELETED: "an owner has deleted the room",
    p.Close.REMOVED: "an owner has put this person out, or revoked the link they came by",
    p.Close.GOING_AWAY: "the server stops, or its disk is full: come back in a moment",
}

HTTP = (
    (
        "POST",
        "/api/rooms",
        "anybody",
        "a form with `picture`, perhaps `mask`, `prompt`, `drags`, or the JSON `{generation}`: `{room, secret, url}`",
    ),
    (
        "POST",
        "/api/generations",
        "anybody",
        "`{prompt, seed}` has a picture made from words, `seed` null for any: `{id, prompt, seed}`",
    ),
    ("GET", "/api/generations/{generation}", "who has its id", "how far it is, a JSON object a line, see below"),
    ("GET", "/api/generations/{generation}/picture", "who has its id", "the picture that was made, PNG"),
    ("DELETE", "/api/generations/{generation}", "who has its id", "cancels it, or forgets it"),
    ("POST", "/api/password", "anybody", "`{password}` sets a cookie that has passed the server's password"),
    ("POST", "/api/rooms/{room}/enter", "anybody", "`{secret, password}` sets a cookie: `{role, ticket}`"),
    ("GET", "/api/rooms/{room}/picture", "viewer", "the uploaded picture, PNG"),
    ("GET", "/api/rooms/{room}/result", "viewer", "the picture that the last run left, PNG"),
    ("GET", "/api/rooms/{room}/mask", "viewer", "the mask as it is now, PNG; white may change"),
    ("PUT", "/api/rooms/{room}/mask", "editor", "a picture of the same size becomes the mask; `Op-Id` as in an edit"),
    ("GET", "/api/rooms/{room}/masks/{sha256}", "viewer", "a loaded mask, PNG"),
    ("GET", "/api/rooms/{room}/moments/{moment}", "viewer", "a small picture of a kept moment, WebP"),
    ("GET", "/api/rooms/{room}/trajectory.webp", "viewer", "how the content came to where it is, animated WebP"),
    ("GET", "/api/rooms/{room}/trajectory.mp4", "viewer", "the same as an MP4, where `capabilities` has `mp4`"),
    ("GET", "/api/rooms/{room}/export", "editor", "the whole room, a zip for `livedrag rooms import`"),
    ("GET", "/api/rooms/{room}/links", "owner", "`[{id, role, made, used}]`"),
    ("POST", "/api/rooms/{room}/links", "owner", "`{role}` makes a link: `{id, role, made, used, secret, url}`"),
    ("DELETE", "/api/rooms/{room}/links/{link}", "owner", "revokes a link; who came by it is put out"),
    ("PUT", "/api/rooms/{room}/people/{person}", "owner", "`{role}` lets somebody do more, or less"),
    ("DELETE", "/api/rooms/{room}/people/{person}", "owner", "puts somebody out for good"),
    ("DELETE", "/api/rooms/{room}", "owner", "deletes the room with everything in it"),
    ("GET", "/api/samples", "anybody", "pictures to try, with drags that work"),
    ("GET", "/healthz", "anybody", "`{status, version, model, worker, capabilities}`"),
    ("GET", "/metrics", "anybody", "what the server counts, for Prometheus"),
)
"""Method, path below the base path, who may, and what it is."""

GENERATIONS = """### Following a generation

`GET /api/generations/{generation}` answers with lines of JSON (`application/x-ndjson`), each with a `type`: the newest
of each kind at once, others as they come. The answer ends with one of the last three. Who leaves stops nothing.

| type | fields | |
|--|--|--|
| `waiting` | `before`, `seconds_left` or null | it waits for the device behind so many others |
| `progress` | `step`, `steps`, `seconds_left` or null | so much is done |
| `preview` | `picture`, a data URL | what it may come to |
| `done` | | the picture is there |
| `failed` | `message` | there will be none |
| `cancelled` | | somebody has cancelled it, or nobody has used it for long |

Generations are kept in memory only: a room is made of one by `POST /api/rooms` with the JSON `{"generation": id}`.
"""

HEAD = f"""# The protocol `{p.VERSION}`

Generated from `server/document/protocol.py` by `python -m livedrag.server.document.protocol_page`: do not edit.

A client opens a WebSocket at `{{base}}/ws/{{room}}` (subprotocol `{p.VERSION}`), says `hello` and is answered with
`welcome`, then with `snapshot`, or with `resumed` and the records it has missed. Every message is one binary
MessagePack map, whose `type` names it. The server refuses messages with fields that it does not know; clients should
pass over types and fields that they do not know: later servers may have more.

- **doc** is reliable, ordered and acknowledged. A request carries an `op_id` of the client's making; its answer is the
  record that it became, sent to everybody once it is on disk, or `rejected` to its sender alone. Sending a request
  again under its `op_id` changes nothing and is answered again. Every record raises the room's `seq` by one, and the
  document is the fold of the records. Of two edits of one property the later one wins.
- **presence** is volatile: of what a slow client has not taken yet, the latest counts.
- **frame** is volatile too, and needs credit: a client holds at most {p.FRAME_CREDITS} frames that it has not answered
  with `ack_frame`, and gets the newest when it has credit again.

A client pings every `heartbeat` seconds and gives up after `deadline` seconds without a word; the server does the same
by WebSocket's own pings. A client that comes back says in `hello` what it has seen (`since`, `of`), and sends again
what has not been answered, marked `offline` where it was made without a connection. A run has exactly one `ended`,
whoever is there to see it.

Points are `(x, y)` in pixels of the uploaded picture, the origin at the centre of its top left pixel. A stroke
has at most {p.MAX_STROKE_POINTS} points. What else is too much, `welcome` says in `limits`; unless set otherwise, a
message has at most {p.MAX_MESSAGE_BYTES} bytes on its way to the server, a room {p.MAX_DRAGS} drags, a prompt
{p.MAX_PROMPT} characters.

## Entering

The page's link is `{{base}}/r/{{room}}#{{secret}}`. `POST {{base}}/api/rooms/{{room}}/enter` with the JSON `{{"secret":
"...", "password": "..."}}` (the password where the server asks for one) sets a cookie that opens the room from then on,
and answers `{{"role": "...", "ticket": "..."}}`. A page's WebSocket is known by its cookie; a script sends in `hello`
the ticket, which is good for one connection within a minute, or the secret itself. HTTP requests take the cookie or
`Authorization: Bearer <secret>` with `Livedrag-Name: <name>` (the name in `hello`, to be the same person), and
`Livedrag-Password: <password>` where there is one; both are percent-encoded.
"""


def page() -> str:
    """The page in Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    yield "## What clients send\n"
    for record in _flat(p.ClientMessage):
        yield from _record(record, CLIENT)
    yield "## Operations of an `edit`\n"
    for record in _flat(p.Operation):
        yield from _record(record, OPERATIONS)
    yield "## What the server sends\n"
    for record in _flat(p.ServerMessage):
        yield from _record(record, SERVER)
    yield "## What an `edited` may have besides\n"
    for record in (p.Restore, p.Raster):
        yield from _record(record, [RESTORE, RASTER])
    yield "## What they are made of\n"
    for part in PARTS:
        yield f"### {part.__name__}\n"
        yield from _described(part)
    yield "## HTTP\n"
    yield 'Errors are `{"error": {"reason": ..., "message": ...}}`; 429 says in `Retry-After` when it works again.\n'
    yield "| | | for | |\n|--|--|--|--|"
    for method, path, who, what in HTTP:
        yield f"| {method} | `{path}` | {who} | {what} |"
    yield ""
    yield GENERATIONS
    yield "## Close codes\n"
    yield "| code | name | why |\n|--:|--|--|"
    for code, why in CLOSES.items():
        yield f"| {code.value} | {code.name} | {why} |"
    yield "| 1009 | | a message had more bytes than `limits` says |\n"


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
        yield "| field | type | if left out |\n|--|--|--|"
        for field in fields:
            yield f"| `{field.name}` | {_type(hints[field.name])} | {_default(field)} |"
        yield ""


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "*required*"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{json.dumps(msgspec.to_builtins(value))}`"


def _type(hint: Any) -> str:
    """A type for people who read JSON rather than Python."""
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
