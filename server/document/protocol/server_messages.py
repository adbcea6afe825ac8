"""Messages from the server to clients."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from livedrag.server.document.protocol.base import PRESENCE_RATE, XY, Count, Record, Role, Setting, Sight
from livedrag.server.document.protocol.model import (
    Document,
    EngineState,
    Picture,
    Raster,
    Result,
    Run,
    Stage,
)
from livedrag.server.document.protocol.operations import Operation, Restore
from livedrag.server.settings import Settings


class ModelInfo(Struct, frozen=True, kw_only=True):
    """The model in use. ``kind`` is ``builtin``, ``stable-diffusion`` or ``stable-diffusion-xl``; ``settings`` are its
    defaults by name.

    ``live`` names the settings that may change during a run. ``ranges`` has the smallest and largest value of each
    numeric setting. ``words`` has the words of which a text setting may consist, separated by spaces; ``choices`` has
    the values of one that has only a few. ``unsuitable`` has the reason for each preset that destroys pictures on this
    model.
    """

    name: str
    kind: str
    settings: dict[str, Setting]
    presets: list[str]
    live: tuple[str, ...] = ()
    ranges: dict[str, tuple[float, float]] = {}
    words: dict[str, tuple[str, ...]] = {}
    choices: dict[str, tuple[str, ...]] = {}
    unsuitable: dict[str, str] = {}


class CatalogEntry(Struct, frozen=True, kw_only=True):
    """A model, a LoRA or an autoencoder that a room may choose, or why it can't.

    ``kind`` is ``model``, ``lora``, ``vae`` or ``other``; ``architecture`` is what it is, or is for, such as ``Stable
    Diffusion XL``, empty if its file does not say. ``bytes`` are of its weights. ``problem`` says why it can't be used.
    ``info`` is what a room with this model has. ``needs_vae``: the model has no autoencoder, and can only be chosen
    together with a ``vae``.
    """

    name: str
    kind: Literal["model", "lora", "vae", "other"]
    architecture: str = ""
    bytes: int = 0
    problem: str = ""
    info: ModelInfo | None = None
    needs_vae: bool = False


class RoomLimits(Struct, frozen=True, kw_only=True):
    """Limits of this server: bytes and pixels of an upload, drags of a room, characters of a prompt.

    ``message_bytes`` limits a message to the server, ``presence_rate`` the ``presence`` messages of a client a second.
    """

    upload_bytes: int = Settings.max_upload_bytes
    pixels: int = Settings.max_pixels
    drags: int = Settings.max_drags
    prompt: int = Settings.max_prompt
    message_bytes: int = Settings.max_message_bytes
    presence_rate: int = PRESENCE_RATE

    @classmethod
    def of(cls, settings: Settings) -> RoomLimits:
        """The limits that a server's settings give."""
        return cls(
            upload_bytes=settings.max_upload_bytes,
            pixels=settings.max_pixels,
            drags=settings.max_drags,
            prompt=settings.max_prompt,
            message_bytes=settings.max_message_bytes,
        )


class Welcome(Record, frozen=True, kw_only=True, tag="welcome"):
    """First answer to ``hello``. Clients ping every ``heartbeat`` seconds and give up after ``deadline`` seconds.

    ``you`` is this connection; ``person`` stays the same over reconnects and tabs, and is what ``by`` names elsewhere.
    ``instance`` names the sequence of records that ``seq`` counts in. ``capabilities`` are optional features of this
    server. ``base`` is the path that it is served below, empty or such as ``/drag``. ``page`` names the script of the
    page that it serves, so that an older page notices; empty if it serves none.
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
    page: str = ""
    heartbeat: float
    deadline: float
    frame_credits: int


class Snapshot(Record, frozen=True, kw_only=True, tag="snapshot"):
    """doc: the whole document at ``seq``."""

    seq: Count
    document: Document


class Resumed(Record, frozen=True, kw_only=True, tag="resumed"):
    """doc: sent instead of a snapshot to a client that reconnects; the records after ``seq`` follow."""

    seq: Count


class Edited(Record, frozen=True, kw_only=True, tag="edited"):
    """doc: an accepted operation, sent to everyone once it is on disk; to its sender it is the acknowledgement.

    ``undoes`` and ``redoes`` are the ``op_id`` of the edit that was undone or redone.
    """

    seq: Count
    op_id: str
    by: str
    op: Operation | Raster | Restore
    undoes: str | None = None
    redoes: str | None = None


class LogEntry(Struct, frozen=True, kw_only=True):
    """What one record of the log did, in short.

    ``type`` is that of the operation or, for other records, that of the record; ``ended`` has the outcome. ``op_id`` is
    what ``undoes`` and ``redoes`` of later entries refer to: of a run, its id.
    """

    seq: Count
    by: str
    type: str
    op_id: str = ""
    undoes: str | None = None
    redoes: str | None = None


class Log(Record, frozen=True, kw_only=True, tag="log"):
    """doc: what was done lately, oldest first, by everyone; sent after a ``snapshot``."""

    entries: list[LogEntry]


Reason = Literal["invalid", "stale", "busy", "forbidden", "too_many", "unknown", "nothing", "slow_down", "damaged"]


class Rejected(Record, frozen=True, kw_only=True, tag="rejected"):
    """doc: sent to the sender of a request only: it was refused, and why."""

    op_id: str
    reason: Reason
    message: str


class Started(Record, frozen=True, kw_only=True, tag="started"):
    """doc: a run has started, or an interrupted one continues."""

    seq: Count
    op_id: str
    run: Run


class Stopping(Record, frozen=True, kw_only=True, tag="stopping"):
    """doc: a stop was accepted; ``ended`` follows after one step and a render."""

    seq: Count
    op_id: str
    by: str


class Ended(Record, frozen=True, kw_only=True, tag="ended"):
    """doc: the single terminal event of a run. Its picture is at ``/result`` by then.

    ``tracked`` is where the content is now, ``moment`` its moment of the timeline. ``result`` is the current picture,
    from an earlier run if this one made none. ``lost`` names the drags whose content did not follow.
    """

    seq: Count
    run: Run
    tracked: dict[str, XY]
    result: Result | None
    moment: int | None = None
    lost: tuple[str, ...] = ()


class WasReset(Record, frozen=True, kw_only=True, tag="was_reset"):
    """doc: the picture is shown unedited again, without result and tracked points."""

    seq: Count
    op_id: str
    by: str


class Seeked(Record, frozen=True, kw_only=True, tag="seeked"):
    """doc: the room has jumped to another moment; ``tracked`` is where the content of each drag is there."""

    seq: Count
    op_id: str
    by: str
    moment: int
    tracked: dict[str, XY]


class BaseReplaced(Record, frozen=True, kw_only=True, tag="base_replaced"):
    """doc: another picture is edited now, the result or an uploaded one, without drags, result and run.

    Mask and pins stay if it has the size of the one before; otherwise they are cleared.
    """

    seq: Count
    op_id: str
    by: str
    picture: Picture


class Person(Struct, frozen=True, kw_only=True):
    """A person in the room. ``colour`` is ``#rrggbb``, chosen by the server; ``here`` means connected."""

    name: str
    colour: str
    role: Role
    here: bool


class People(Record, frozen=True, kw_only=True, tag="people"):
    """presence: everyone who is in the room or has edited it, by person. Sent whole whenever it changes."""

    people: dict[str, Person]


class PersonPresence(Struct, frozen=True, kw_only=True):
    """The last ``presence`` of a person."""

    cursor: XY | None = None
    selected: str | None = None
    tool: str = ""
    busy: bool = False
    view: Sight | None = None


class Presences(Record, frozen=True, kw_only=True, tag="presences"):
    """presence: the people whose presence has changed, null for those who left; at most 30 times a second."""

    people: dict[str, PersonPresence | None]


class History(Record, frozen=True, kw_only=True, tag="history"):
    """presence: sent to one person: the types of the operations that their undo and redo would change, if any."""

    undo: str | None
    redo: str | None


class Moment(Struct, frozen=True, kw_only=True):
    """A saved iteration. ``parent`` is the moment it continued from, ``time`` is in seconds since the epoch."""

    id: int
    parent: int | None
    iteration: int
    time: float
    thumbnail: bool = False


class Moments(Record, frozen=True, kw_only=True, tag="moments"):
    """presence: the whole timeline, at most twice a second. A thumbnail is at ``/api/rooms/{room}/moments/{id}``.

    ``current`` is the moment that the content is at; ``run`` is the run under way, if any.
    """

    run: str | None = None
    moments: list[Moment]
    current: int | None


class EngineReport(Record, frozen=True, kw_only=True, tag="engine"):
    """presence: whether this room's device is available. Runs continue by themselves after a restart."""

    state: EngineState
    message: str | None = None


class Prepared(Record, frozen=True, kw_only=True, tag="prepared"):
    """presence: progress of preparing the picture before anyone presses Drag. Pressing Drag reports why it failed.

    ``ignored_prompt`` is the end of a prompt that is too long for the model, from the first word not read whole on.
    ``unknown``, once it is ready: the model does not know pictures of this kind, so that the instant preview may look
    better than its results.

    ``loading``: a model is loaded for the room; it edits with the one that it has until then.
    """

    stage: Literal["loading", "generating", "fitting", "inverting", "ready", "failed"]
    step: int
    steps: int
    seconds_left: float | None = None
    ignored_prompt: str = ""
    unknown: bool = False


class RoomModel(Record, frozen=True, kw_only=True, tag="model"):
    """presence: the room has another model, whose settings these are from now on; ``welcome`` has the one before."""

    model: ModelInfo


class Progress(Record, frozen=True, kw_only=True, tag="progress"):
    """presence: progress of a run in its stage; ``seconds_left`` is null until it can be estimated.

    While ``queued``, ``step`` is the number of rooms ahead. ``loss`` is the stage's own loss, if it has one.
    """

    run: str
    stage: Stage
    step: int
    steps: int
    seconds: float
    seconds_left: float | None = None
    loss: float | None = None


class Points(Record, frozen=True, kw_only=True, tag="points"):
    """presence: after every iteration, where each handle is and its distance to its target in pixels.

    ``content`` has the distances from where the picture shows the content, of those drags whose content was searched:
    with previews, and when a handle seems to arrive. ``lost`` names the drags whose content did not follow.
    """

    run: str
    iteration: int
    handles: dict[str, XY]
    distances: dict[str, float]
    loss: float
    content: dict[str, float] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


class Frame(Record, frozen=True, kw_only=True, tag="frame"):
    """frame: a preview; answer with ``ack_frame``. ``time`` is the server's clock."""

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
    """An error outside any request; the connection may be closed after it."""

    reason: str
    message: str


ServerMessage = (
    Welcome
    | Snapshot
    | Resumed
    | Log
    | Edited
    | Rejected
    | Started
    | Stopping
    | Ended
    | WasReset
    | Seeked
    | BaseReplaced
    | People
    | Presences
    | History
    | Moments
    | EngineReport
    | Prepared
    | RoomModel
    | Progress
    | Points
    | Frame
    | Pong
    | ErrorMessage
)


DocRecord = Edited | Started | Stopping | Ended | WasReset | Seeked | BaseReplaced
"""The records of a room's log, which raise ``seq``. The document is the fold of these over the uploaded picture."""
