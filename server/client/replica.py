"""Replica: one client's copy of a room's document, and its requests without an answer. No I/O.

`receive` takes the server's messages in their order; `hello` and `resend` give what to send over a new connection.
Sending a request again is harmless, because the room recognises its ``op_id``.
"""

from __future__ import annotations

from typing import Any

from livedrag.server.document.fold import fold
from livedrag.server.document.protocol import (
    VERSION,
    BaseReplaced,
    Document,
    Edited,
    Ended,
    Hello,
    Rejected,
    Request,
    Resumed,
    Seeked,
    ServerMessage,
    Snapshot,
    Started,
    Stopping,
    WasReset,
    Welcome,
)
from livedrag.server.errors import LivedragError

Answer = Edited | Started | Stopping | WasReset | Seeked | BaseReplaced | Rejected
"""The answer to a request."""


class Gap(LivedragError):
    """A record of the log is missing; the replica needs a snapshot."""


class Replica:
    """A client's copy of one room.

    Attributes:
        document: None before the first snapshot.
        seq: number of the last record in it.
        pending: requests without an answer, by ``op_id``, in their order.
        connected: whether the replica is up to date and receives every further record.
    """

    def __init__(self) -> None:
        self.document: Document | None = None
        self.seq = 0
        self.pending: dict[str, Request] = {}
        self.connected = False
        self._instance = ""

    def hello(self, **fields: Any) -> Hello:
        """The first message of a connection; ``fields`` are further ones of `Hello`."""
        known = {"since": self.seq, "of": self._instance} if self.document is not None else {}
        return Hello(**{"version": VERSION, **known, **fields})

    def ask(self, request: Request) -> Request:
        """Note a request; send it now or, without a connection, with the next `resend`."""
        self.pending[request.op_id] = request
        return request

    def resend(self) -> list[Request]:
        """What to send once the server has answered ``hello``."""
        return list(self.pending.values())

    def lose(self) -> None:
        """The connection was lost."""
        self.connected = False

    def receive(self, message: ServerMessage) -> Answer | None:
        """Take a message of the server; returns it if it answers a pending request.

        Raises:
            Gap: a record does not follow the last one. The replica is empty now: connect again.
        """
        match message:
            case Welcome(instance=instance):
                self._instance = instance
            case Resumed():
                self.connected = True
            case Snapshot():
                self.document, self.seq = message.document, message.seq
                self.connected = True
            case Edited() | Started() | Stopping() | Ended() | WasReset() | Seeked() | BaseReplaced():
                self._fold(message)
                if not isinstance(message, Ended) and self.pending.pop(message.op_id, None) is not None:
                    return message
            case Rejected() if self.pending.pop(message.op_id, None) is not None:
                return message
        return None

    def _fold(self, record: Any) -> None:
        if record.seq <= self.seq:
            return  # it answers a request that was sent again
        if self.document is None or record.seq != self.seq + 1:
            self.document, seq = None, self.seq
            raise Gap(f"record {record.seq} came after {seq}")
        self.document, self.seq = fold(self.document, record), record.seq
