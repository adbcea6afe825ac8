"""What every message is built from: the version, the close codes, constrained types and the base of all records."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Literal, cast

from msgspec import Meta, Struct

from livedrag.limits import MAX_SEED

if TYPE_CHECKING:
    from websockets import Subprotocol

VERSION = cast("Subprotocol", "livedrag.v1")
FRAME_CREDITS = 2
"""Frames that a client may hold without having acknowledged them."""
MAX_STROKE_POINTS = 2000
MAX_TITLE = 100
PRESENCE_RATE = 30
"""How many presence updates a second are sent at most."""

Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""Names a file, so it must not contain anything else: it becomes part of a path. ``$`` would allow a final newline."""
Pixel = Annotated[float, Meta(ge=-1e5, le=1e5)]
XY = tuple[Pixel, Pixel]
Sight = tuple[Pixel, Pixel, Annotated[float, Meta(gt=0, le=1e6)]]
"""The centre of what a person sees of the picture, and its width, in pixels of the picture."""
Setting = bool | int | float | str
Count = Annotated[int, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED)]
Name = Annotated[str, Meta(max_length=60)]
Title = Annotated[str, Meta(max_length=MAX_TITLE)]
ModelName = Annotated[str, Meta(max_length=500)]
"""Of a model, a LoRA or an autoencoder: a name in the server's catalog, never a path."""
Growth = Annotated[float, Meta(ge=-1000, le=1000)]
"""In pixels."""
Role = Literal["owner", "editor", "viewer"]
"""Owners manage links and roles, editors change the document, viewers watch and point."""


class Close(enum.IntEnum):
    """WebSocket close codes of this protocol; the close reason says more."""

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


FINAL_CLOSES = frozenset(
    {
        Close.BAD_MESSAGE,
        Close.PASSWORD,
        Close.WRONG_SECRET,
        Close.UNKNOWN_ROOM,
        Close.UNKNOWN_VERSION,
        Close.ROOM_DELETED,
        Close.REMOVED,
    }
)
"""Codes after which reconnecting in the same way cannot succeed."""


class Record(Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """Base of all messages and operations: immutable, named by ``type``, without unknown fields."""
