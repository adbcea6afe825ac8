"""Messages from clients to the server."""

from __future__ import annotations

from typing import Literal

from livedrag.server.document.protocol.base import XY, Count, Id, Name, Record, Sight
from livedrag.server.document.protocol.operations import Operation


class Hello(Record, frozen=True, kw_only=True, tag="hello"):
    """First message of a connection. ``formats`` are the picture formats that the client can show, best first.

    The person is identified by the ``ticket`` from ``enter``, else by the ``secret`` of a link, else by the cookie of
    the handshake. A client that reconnects sends the last ``seq`` it has as ``since``, and its ``instance`` as ``of``.
    """

    version: str
    secret: str = ""
    ticket: str | None = None
    name: Name = ""
    since: Count | None = None
    of: str | None = None
    formats: tuple[str, ...] = ("webp", "jpeg")


class Edit(Record, frozen=True, kw_only=True, tag="edit"):
    """doc: one operation. ``op_id`` makes sending it again harmless; ``base`` is the ``seq`` that the client had.

    The last edit of a property wins. An edit made ``offline`` is refused as ``stale`` if others have changed the same
    property since ``base``.
    """

    op_id: Id
    base: Count
    op: Operation
    offline: bool = False


class StartRun(Record, frozen=True, kw_only=True, tag="run"):
    """doc: press Drag; continues from where the last run stopped. Refused if the mask protects the whole picture."""

    op_id: Id


class StopRun(Record, frozen=True, kw_only=True, tag="stop"):
    """doc: stop within one step. The picture reached is rendered, and the next ``run`` continues from it."""

    op_id: Id


class Reset(Record, frozen=True, kw_only=True, tag="reset"):
    """doc: go back to the uploaded picture and to the drags as they were placed. Not during a run."""

    op_id: Id


class EditFurther(Record, frozen=True, kw_only=True, tag="edit_further"):
    """doc: make the result the picture that is edited. Its drags are done and go; the mask stays. Not during a run."""

    op_id: Id


class RestoreRun(Record, frozen=True, kw_only=True, tag="restore_run"):
    """doc: make the result of an earlier run the room's result again, with the settings that it had. Not during a run.

    The answer is an ``edited`` with a ``restore``. If the run's last step is not on the timeline any more, the next run
    starts anew.
    """

    op_id: Id
    run: Id


class Undo(Record, frozen=True, kw_only=True, tag="undo"):
    """doc: undo one's own last edit, except for properties that others have changed since.

    Runs, resets, jumps and changes of the base picture are undone too, by the person who made them. They are refused as
    ``stale`` if others have edited, run or jumped since; the next ``undo`` then undoes what was before.
    """

    op_id: Id


class Redo(Record, frozen=True, kw_only=True, tag="redo"):
    """doc: redo one's own last undo, except for properties that others have changed since."""

    op_id: Id


class SeekMoment(Record, frozen=True, kw_only=True, tag="seek"):
    """doc: jump to a moment of the timeline. A run under way continues from there, otherwise the next run does."""

    op_id: Id
    moment: Count


class Presence(Record, frozen=True, kw_only=True, tag="presence"):
    """presence: cursor, selection and tool of a person; ``busy`` while they press or paint.

    ``view`` is what they see: ``(x, y, width)``, its centre and its width in pixels of the picture; null: all of it.

    Sent whenever it changes, up to ``limits.presence_rate`` times a second.
    """

    cursor: XY | None = None
    selected: Id | None = None
    tool: Literal["points", "brush", "eraser", "hand", ""] = ""
    busy: bool = False
    view: Sight | None = None


class Rename(Record, frozen=True, kw_only=True, tag="name"):
    """presence: change one's name."""

    name: Name


class AckFrame(Record, frozen=True, kw_only=True, tag="ack_frame"):
    """frame: ``frame`` was shown or dropped, which returns one credit."""

    frame: Count


class Ping(Record, frozen=True, kw_only=True, tag="ping"):
    """presence: sent every ``heartbeat`` seconds; ``time`` is the client's clock and comes back in ``pong``."""

    time: float


Request = Edit | StartRun | StopRun | Reset | Undo | Redo | SeekMoment | EditFurther | RestoreRun
"""Messages that are answered under their ``op_id``, by the record that they became or by ``rejected``."""
ClientMessage = Hello | Request | Presence | Rename | AckFrame | Ping
