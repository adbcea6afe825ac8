"""Every message of ``livedrag.v1``, both ways, as typed records.

One WebSocket message is one MessagePack map whose ``type`` names the record. There are three kinds of traffic:

* **doc** is reliable, ordered and acknowledged: what the document is. Every accepted edit raises the room's ``seq`` by
  one.
* **presence** is volatile, the latest wins: who is here, and how far the run is.
* **frame** is volatile and credit-based: preview pictures. A client holds at most ``FRAME_CREDITS`` frames that it has
  not acknowledged; what it cannot take is dropped in favour of the next.

Points are ``(x, y)`` in pixels of the uploaded picture, the origin at the centre of its top left pixel. Colours, pens
and other matters of taste are the client's. This module does no I/O and imports neither Starlette nor torch.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal, get_args

import msgpack
import msgspec
from msgspec import Meta, Struct

VERSION = "livedrag.v1"
FRAME_CREDITS = 2
MAX_UPLOAD_BYTES = 20 * 2**20
MAX_PIXELS = 25_000_000
MAX_MESSAGE_BYTES = 64 * 1024
MAX_DRAGS = 64
MAX_PROMPT = 1000
"""What a server allows where nobody has set it otherwise; `RoomLimits` tells what this one does."""
MAX_PROMPT_LIMIT = 10_000
"""What may be set at most."""
MAX_STROKE_POINTS = 2000
MAX_SEED = 2**31 - 1
PRESENCE_RATE = 30
"""Times a second that cursors and the like are told at most."""

Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""Names a file: nothing else may, since it becomes part of a path. ``$`` would let a newline at the end pass."""
Pixel = Annotated[float, Meta(ge=-1e5, le=1e5)]
XY = tuple[Pixel, Pixel]
Setting = bool | int | float | str
Count = Annotated[int, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED)]
Name = Annotated[str, Meta(max_length=60)]
Role = Literal["owner", "editor", "viewer"]
"""Owners give out links and roles, editors change the document, viewers look on and point."""

LIVE_SETTINGS = frozenset(
    [
        "arrival_distance",
        "latent_lr",
        "mask_weight",
        "max_iterations",
        "preview_side",
        "supervision_radius",
        "tracking_radius",
    ]
)
"""What may be set while a run goes on; the other settings wait for its end."""


class ProtocolError(Exception):
    """A message that ``livedrag.v1`` does not allow; its text quotes the value and says what would work.

    ``op_id`` is known where an operation came whole, but not well formed: it is rejected, and the connection goes on.
    """

    def __init__(self, message: str, op_id: str | None = None) -> None:
        super().__init__(message)
        self.op_id = op_id


class Close(enum.IntEnum):
    """WebSocket close codes of our own, with the reason sent beside them."""

    BAD_MESSAGE = 4400
    PASSWORD = 4401
    WRONG_SECRET = 4403
    UNKNOWN_ROOM = 4404
    UNKNOWN_VERSION = 4406
    TIMED_OUT = 4408
    TOO_MANY = 4409
    ROOM_DELETED = 4410
    REMOVED = 4413
    GOING_AWAY = 4503


class Record(Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """What all messages and operations have in common: immutable, named by ``type``, no unknown fields."""


# The document and what it is made of ---------------------------------------------------------------------------------


class Drag(Struct, frozen=True, kw_only=True):
    """Content at ``handle`` is to move to ``target``. ``tracked`` is where the last run left the content."""

    handle: XY
    target: XY
    tracked: XY | None = None


class Stroke(Record, frozen=True, kw_only=True, tag="stroke"):
    """A round brush drawn through ``points``; ``radius`` in pixels; ``paint`` lets it change, ``erase`` keeps it.

    A mask whose first layer is an ``erase`` begins all white: everything may change but what was erased. ``softness``
    is 0 for a hard edge; at 1 the brush fades over its whole radius. It counts where it is at least half on.
    """

    id: Id
    mode: Literal["paint", "erase"]
    radius: Annotated[float, Meta(gt=0, le=10_000)]
    points: Annotated[list[XY], Meta(min_length=1, max_length=MAX_STROKE_POINTS)]
    softness: Annotated[float, Meta(ge=0, le=1)] = 0.0


class Invert(Record, frozen=True, kw_only=True, tag="invert"):
    """Turns what may change and what may not around, as far as it was drawn before."""

    id: Id


class Raster(Record, frozen=True, kw_only=True, tag="raster"):
    """A loaded mask file: replaces what was painted before. Its PNG is at ``/api/rooms/{room}/masks/{sha256}``."""

    id: Id
    sha256: Sha256


MaskLayer = Stroke | Raster | Invert


class Generation(Struct, frozen=True, kw_only=True):
    """How a picture was made from words: by what ``model``, in how many steps, from the noise of which seed.

    As long as the room's prompt, its ``ddim_steps`` and the server's model are the same, the picture is generated again
    and dragged from its own latent; otherwise it is inverted like any other picture.
    """

    prompt: Annotated[str, Meta(max_length=MAX_PROMPT_LIMIT)]
    seed: Seed
    guidance: Annotated[float, Meta(ge=0, le=50)]
    ddim_steps: Annotated[int, Meta(ge=2, le=999)]
    model: Annotated[str, Meta(max_length=1000)]


class Picture(Struct, frozen=True, kw_only=True):
    """The picture that is edited; ``width`` and ``height`` in pixels after EXIF orientation.

    ``generation`` says how the server has made it, where it was not uploaded.
    """

    sha256: Sha256
    width: int
    height: int
    generation: Generation | None = None


Stage = Literal["idle", "queued", "loading", "generating", "fitting", "inverting", "dragging", "rendering"]
EngineState = Literal["ready", "restarting", "starting"]
Outcome = Literal["arrived", "stopped", "exhausted", "failed"]


class Run(Struct, frozen=True, kw_only=True):
    """A press on Drag. ``outcome`` is None while it goes on; ``interrupted`` says that the machine stopped under it.

    Pressing Drag then goes on with it from its last checkpoint, under the same id. ``by`` is a person.
    """

    id: str
    by: str
    iterations: int = 0
    outcome: Outcome | None = None
    interrupted: bool = False
    message: str | None = None


class Result(Struct, frozen=True, kw_only=True):
    """The picture the last run left, at the uploaded size; its PNG is at ``/api/rooms/{room}/result``."""

    sha256: Sha256
    run: str


class Document(Struct, frozen=True, kw_only=True):
    """All that a room keeps. No mask layers mean that everything may change.

    ``moment`` is the one that was sought last on the timeline; where a run has gone from there, ``moments`` tells.
    """

    picture: Picture
    drags: dict[str, Drag] = {}
    mask: tuple[MaskLayer, ...] = ()
    prompt: str = ""
    settings: dict[str, Setting] = {}
    run: Run | None = None
    result: Result | None = None
    moment: int | None = None


# Operations on the document (doc) ------------------------------------------------------------------------------------


class AddDrag(Record, frozen=True, kw_only=True, tag="add_drag"):
    """Put down a handle and its target under an ``id`` that the client makes up."""

    id: Id
    handle: XY
    target: XY


class MoveDrag(Record, frozen=True, kw_only=True, tag="move_drag"):
    """Re-aim (``target``) or re-grab (``handle``), during a run too: it counts from the next iteration."""

    id: Id
    handle: XY | None = None
    target: XY | None = None


class RemoveDrag(Record, frozen=True, kw_only=True, tag="remove_drag"):
    """Take a handle and its target away."""

    id: Id


class AddStroke(Record, frozen=True, kw_only=True, tag="add_stroke"):
    """Paint or erase the mask."""

    stroke: Stroke


class RemoveStroke(Record, frozen=True, kw_only=True, tag="remove_stroke"):
    """Take one layer of the mask away, be it a stroke, an inversion or a loaded mask."""

    id: Id


class InvertMask(Record, frozen=True, kw_only=True, tag="invert_mask"):
    """What may change and what may not change places; ``id`` names the layer that does it."""

    id: Id


class ClearMask(Record, frozen=True, kw_only=True, tag="clear_mask"):
    """Forget the mask: everything may change again."""


class SetPrompt(Record, frozen=True, kw_only=True, tag="set_prompt"):
    """Say what the picture shows. Not during a run; the next run prepares the picture anew."""

    prompt: Annotated[str, Meta(max_length=MAX_PROMPT_LIMIT)]


class SetSettings(Record, frozen=True, kw_only=True, tag="set_settings"):
    """Change settings by name; a value of None goes back to the model's default."""

    settings: dict[Id, Setting | None]


Operation = (
    AddDrag | MoveDrag | RemoveDrag | AddStroke | RemoveStroke | InvertMask | ClearMask | SetPrompt | SetSettings
)


class RestoredDrag(Struct, frozen=True, kw_only=True):
    """The ends of a drag that go back to a place; both where the drag comes back itself."""

    handle: XY | None = None
    target: XY | None = None


class Restore(Record, frozen=True, kw_only=True, tag="restore"):
    """Made by the server alone, for an undo or a redo: puts properties back. What is None or absent stays as it is.

    ``drags``: None removes the drag. ``settings``: None goes back to the default. ``mask``: all of its layers.
    """

    drags: dict[str, RestoredDrag | None] = {}
    settings: dict[str, Setting | None] = {}
    prompt: str | None = None
    mask: tuple[MaskLayer, ...] | None = None


# What clients send ---------------------------------------------------------------------------------------------------


class Hello(Record, frozen=True, kw_only=True, tag="hello"):
    """First message of a connection. ``formats`` are the picture formats the client can show, best first.

    Who it is from: the ``ticket`` that entering gave, else the ``secret`` of a link, else the cookie of the handshake.
    ``since`` is the last ``seq`` that a client which comes back has seen, ``of`` the ``instance`` that it belongs to.
    """

    version: str
    secret: str = ""
    ticket: str | None = None
    name: Name = ""
    since: Count | None = None
    of: str | None = None
    formats: tuple[str, ...] = ("webp", "jpeg")


class Edit(Record, frozen=True, kw_only=True, tag="edit"):
    """doc: one operation. ``op_id`` makes re-sending harmless; ``base`` is the ``seq`` the client had seen.

    One made ``offline`` is refused as ``stale`` where others have changed the same since; else the last one wins.
    """

    op_id: Id
    base: Count
    op: Operation
    offline: bool = False


class StartRun(Record, frozen=True, kw_only=True, tag="run"):
    """doc: press Drag; goes on from where the last run stopped. Refused where the mask is black all over."""

    op_id: Id


class StopRun(Record, frozen=True, kw_only=True, tag="stop"):
    """doc: stop within one step. The picture reached is rendered; the next ``run`` goes on from it."""

    op_id: Id


class Reset(Record, frozen=True, kw_only=True, tag="reset"):
    """doc: back to the uploaded picture, all drags as they were put down. Not during a run."""

    op_id: Id


class Undo(Record, frozen=True, kw_only=True, tag="undo"):
    """doc: take one's own last edit back, but for what others have changed since."""

    op_id: Id


class Redo(Record, frozen=True, kw_only=True, tag="redo"):
    """doc: do again what one's own last undo took back, but for what others have changed since."""

    op_id: Id


class SeekMoment(Record, frozen=True, kw_only=True, tag="seek"):
    """doc: go back (or forth) to a kept moment; a run that is under way goes on from there, else the next one does."""

    op_id: Id
    moment: Count


class Presence(Record, frozen=True, kw_only=True, tag="presence"):
    """presence: where one points, what is selected, what tool is in the hand; ``busy`` while pressing or painting.

    Sent as often as it changes, up to ``limits.presence_rate`` times a second.
    """

    cursor: XY | None = None
    selected: Id | None = None
    tool: Literal["points", "brush", "eraser", "hand", ""] = ""
    busy: bool = False


class Rename(Record, frozen=True, kw_only=True, tag="name"):
    """presence: what one would like to be called."""

    name: Name


class AckFrame(Record, frozen=True, kw_only=True, tag="ack_frame"):
    """frame: ``frame`` has been shown or dropped; one credit back."""

    frame: Count


class Ping(Record, frozen=True, kw_only=True, tag="ping"):
    """presence: sent every ``heartbeat`` seconds; ``time`` is the client's clock and comes back."""

    time: float


Request = Edit | StartRun | StopRun | Reset | Undo | Redo | SeekMoment
"""What is answered under its ``op_id``: by the record that it became, or by `Rejected`."""
ClientMessage = Hello | Request | Presence | Rename | AckFrame | Ping


# What the server sends -----------------------------------------------------------------------------------------------


class ModelInfo(Struct, frozen=True, kw_only=True):
    """The model in use; ``settings`` are its defaults by name, ``kind`` is ``builtin`` or ``stable-diffusion``.

    ``live`` names the settings that may change during a run.
    ``ranges`` are the least and the largest value of each setting that is a number, both included. ``words`` are those
    that a setting may consist of which is a list of words, separated by blanks.
    """

    name: str
    kind: str
    settings: dict[str, Setting]
    presets: list[str]
    live: tuple[str, ...] = ()
    ranges: dict[str, tuple[float, float]] = {}
    words: dict[str, tuple[str, ...]] = {}


class RoomLimits(Struct, frozen=True, kw_only=True):
    """What is too much: bytes and pixels of an upload, drags of a room, letters of a prompt, bytes of a message.

    ``presence_rate`` is how many ``presence`` messages a second work.
    """

    upload_bytes: int = MAX_UPLOAD_BYTES
    pixels: int = MAX_PIXELS
    drags: int = MAX_DRAGS
    prompt: int = MAX_PROMPT
    message_bytes: int = MAX_MESSAGE_BYTES
    presence_rate: int = PRESENCE_RATE


class Welcome(Record, frozen=True, kw_only=True, tag="welcome"):
    """First answer to ``hello``. ``heartbeat``, ``deadline`` in seconds: ping this often, give up after this long.

    ``you`` is this connection; ``person`` is who holds it, the same over reconnects and tabs, and what ``by`` names
    elsewhere. ``instance`` names the life of the room that ``seq`` counts in. ``capabilities`` are what this server can
    do beside what every one can. ``base`` is the path that it is served below, empty or such as ``/drag``.
    """

    version: str
    room: str
    instance: str
    you: str
    person: str
    role: Role
    model: ModelInfo
    capabilities: tuple[str, ...] = ()
    limits: RoomLimits
    base: str = ""
    heartbeat: float
    deadline: float
    frame_credits: int


class Snapshot(Record, frozen=True, kw_only=True, tag="snapshot"):
    """doc: the whole document at ``seq``."""

    seq: Count
    document: Document


class Resumed(Record, frozen=True, kw_only=True, tag="resumed"):
    """doc: in place of a snapshot, to who comes back: the records after ``seq``, which they have seen, follow."""

    seq: Count


class Edited(Record, frozen=True, kw_only=True, tag="edited"):
    """doc: an accepted operation, to everybody, its sender included: their acknowledgement. Safe on disk by then.

    ``undoes`` and ``redoes`` are the ``op_id`` of the edit that was taken back or done again.
    """

    seq: Count
    op_id: str
    by: str
    op: Operation | Raster | Restore
    undoes: str | None = None
    redoes: str | None = None


Reason = Literal["invalid", "stale", "busy", "forbidden", "too_many", "unknown", "nothing", "slow_down"]


class Rejected(Record, frozen=True, kw_only=True, tag="rejected"):
    """doc: to the sender alone: this was not done, and why."""

    op_id: str
    reason: Reason
    message: str


class Started(Record, frozen=True, kw_only=True, tag="started"):
    """doc: a run has begun (or an interrupted one goes on)."""

    seq: Count
    op_id: str
    run: Run


class Stopping(Record, frozen=True, kw_only=True, tag="stopping"):
    """doc: a stop was accepted; ``ended`` follows within one step and a render."""

    seq: Count
    op_id: str
    by: str


class Ended(Record, frozen=True, kw_only=True, tag="ended"):
    """doc: the one terminal event of a run. Its picture is at ``/result`` by then.

    ``tracked`` is where the content is now; ``result`` the picture there is, of an earlier run if this one made none.
    """

    seq: Count
    run: Run
    tracked: dict[str, XY]
    result: Result | None


class WasReset(Record, frozen=True, kw_only=True, tag="was_reset"):
    """doc: the picture is the uploaded one again; result and tracked points are gone."""

    seq: Count
    op_id: str
    by: str


class Seeked(Record, frozen=True, kw_only=True, tag="seeked"):
    """doc: the room is at another moment of its timeline; ``tracked`` is where the content of each drag is there."""

    seq: Count
    op_id: str
    by: str
    moment: int
    tracked: dict[str, XY]


class Person(Struct, frozen=True, kw_only=True):
    """Somebody; ``colour`` is ``#rrggbb``, chosen by the server; ``here`` while one of their connections is open."""

    name: str
    colour: str
    role: Role
    here: bool


class People(Record, frozen=True, kw_only=True, tag="people"):
    """presence: who is in the room and who has edited it, by person; whole, whenever it changes."""

    people: dict[str, Person]


class PersonPresence(Struct, frozen=True, kw_only=True):
    """What somebody's last ``presence`` said."""

    cursor: XY | None = None
    selected: str | None = None
    tool: str = ""
    busy: bool = False


class Presences(Record, frozen=True, kw_only=True, tag="presences"):
    """presence: what people point at, those alone who have changed, None for who has gone; 30 times a second."""

    people: dict[str, PersonPresence | None]


class History(Record, frozen=True, kw_only=True, tag="history"):
    """presence: to one person, the type of the operation that their undo and redo would be about; None: of none."""

    undo: str | None
    redo: str | None


class Moment(Struct, frozen=True, kw_only=True):
    """A kept iteration; ``parent`` is the one it came from, ``time`` in seconds since the epoch."""

    id: int
    parent: int | None
    iteration: int
    time: float
    thumbnail: bool = False


class Moments(Record, frozen=True, kw_only=True, tag="moments"):
    """presence: the timeline, whole, at most twice a second. A thumbnail is at ``/api/rooms/{room}/moments/{id}``.

    ``current`` is the moment that the content has just reached or gone back to; ``run`` the one under way, if any.
    """

    run: str | None = None
    moments: list[Moment]
    current: int | None


class EngineReport(Record, frozen=True, kw_only=True, tag="engine"):
    """presence: whether this room's device is there; what runs while it restarts goes on by itself afterwards."""

    state: EngineState
    message: str | None = None


class Prepared(Record, frozen=True, kw_only=True, tag="prepared"):
    """presence: how far the picture is prepared before anybody has pressed Drag; ``failed`` is told when they do."""

    stage: Literal["generating", "fitting", "inverting", "ready", "failed"]
    step: int
    steps: int
    seconds_left: float | None = None


class Progress(Record, frozen=True, kw_only=True, tag="progress"):
    """presence: the stage of the run with its own numbers; ``seconds_left`` is None until it can be known.

    While ``queued``, ``step`` is the number of rooms ahead. ``loss`` is the stage's own loss, where it has one.
    """

    run: str
    stage: Stage
    step: int
    steps: int
    seconds: float
    seconds_left: float | None = None
    loss: float | None = None


class Points(Record, frozen=True, kw_only=True, tag="points"):
    """presence: after every iteration, where each handle is now and its distance to its target in pixels."""

    run: str
    iteration: int
    handles: dict[str, XY]
    distances: dict[str, float]
    loss: float


class Frame(Record, frozen=True, kw_only=True, tag="frame"):
    """frame: a preview, decoded by the model's decoder; answer with ``ack_frame``. ``time`` is the server's clock."""

    frame: Count
    run: str
    stage: Stage
    iteration: int
    format: Literal["webp", "jpeg"]
    width: int
    height: int
    time: float
    data: bytes


class Pong(Record, frozen=True, kw_only=True, tag="pong"):
    """presence: answers ``ping``."""

    time: float


class ErrorMessage(Record, frozen=True, kw_only=True, tag="error"):
    """Something outside any operation went wrong; the connection may be closed after it."""

    reason: str
    message: str


ServerMessage = (
    Welcome
    | Snapshot
    | Resumed
    | Edited
    | Rejected
    | Started
    | Stopping
    | Ended
    | WasReset
    | Seeked
    | People
    | Presences
    | History
    | Moments
    | EngineReport
    | Prepared
    | Progress
    | Points
    | Frame
    | Pong
    | ErrorMessage
)


DocRecord = Edited | Started | Stopping | Ended | WasReset | Seeked
"""What raises ``seq``: a room's log. The document is the fold of these over the uploaded picture."""


REQUESTS = frozenset(str(record.__struct_config__.tag) for record in get_args(Request))


def encode(message: ServerMessage | ClientMessage) -> bytes:
    """Pack a record as one MessagePack map."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))
    return packed


def decode_client(data: bytes | str, most_bytes: int = MAX_MESSAGE_BYTES) -> ClientMessage:
    """Read what a client sent. Raises `ProtocolError`."""
    return _decode(data, ClientMessage, most_bytes)  # type: ignore[no-any-return]


def decode_server(data: bytes | str) -> ServerMessage:
    """Read what a server sent. Raises `ProtocolError`."""
    return _decode(data, ServerMessage, None)  # type: ignore[no-any-return]


def _decode(data: bytes | str, records: Any, limit: int | None) -> Any:
    if isinstance(data, str):
        raise ProtocolError(f"text message {_short(data)}: {VERSION} takes binary MessagePack messages")
    if limit is not None and len(data) > limit:
        raise ProtocolError(f"message of {len(data)} bytes: at most {limit} are allowed")
    try:
        value = msgpack.unpackb(data)
    except (ValueError, TypeError, RecursionError) as error:  # msgpack's exceptions are ValueErrors
        raise ProtocolError(
            f"not a MessagePack message ({_short(data)}): {str(error) or type(error).__name__}"
        ) from None
    try:
        return msgspec.convert(value, records, strict=True)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{error}, in {_short(value)}", _op_id(value)) from None


def _op_id(value: object) -> str | None:
    """The id of the operation that a malformed message was meant to be, if it was one."""
    named = isinstance(value, dict) and value.get("type") in REQUESTS
    try:
        return msgspec.convert(value["op_id"], Id) if named else None  # type: ignore[index]
    except (KeyError, msgspec.ValidationError):
        return None


def _short(value: object, length: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."
