"""Replica: one client's copy of a room, and the operations that it has asked for without knowing yet. No I/O.

Messages of the server go in by `receive`, in their order; `hello` and `resend` say what to send over a new connection.
Whatever happens between two of them, sending an operation again is harmless: the room knows it by its ``op_id``.
"""

from __future__ import annotations

from typing import Any

from livedrag.server.document.fold import fold
from livedrag.server.document.protocol import (
    VERSION,
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

Answer = Edited | Started | Stopping | WasReset | Seeked | Rejected
"""What a request is answered with."""


class Gap(LivedragError):
    """A record of the log is missing: only a snapshot helps."""


class Replica:
    """A client's copy of one room.

    Attributes:
        document: as the server has told it; None before the first snapshot.
        seq: number of the last record in it.
        pending: requests without an answer, by ``op_id``, in the order in which they were made.
        connected: whether the document is what the server has, but for what is on its way.
    """

    def __init__(self) -> None:
        self.document: Document | None = None
        self.seq = 0
        self.pending: dict[str, Request] = {}
        self.connected = False
        self._instance = ""

    def hello(self, **fields: Any) -> Hello:
        """The first message of a connection; ``fields`` are others of `Hello`."""
        known = {"since": self.seq, "of": self._instance} if self.document is not None else {}
        return Hello(**{"version": VERSION, **known, **fields})

    def ask(self, request: Request) -> Request:
        """Note a request, which is to be sent now or, without a connection, by the next `resend`."""
        self.pending[request.op_id] = request
        return request

    def resend(self) -> list[Request]:
        """What to send once the server's answer to ``hello`` has come."""
        return list(self.pending.values())

    def lose(self) -> None:
        """The connection is gone."""
        self.connected = False

    def receive(self, message: ServerMessage) -> Answer | None:
        """Take a message of the server; returns it where it answers a request that was pending.

        Raises:
            Gap: a record does not follow what this replica has. It has forgotten what it had: connect anew.
        """
        match message:
            case Welcome(instance=instance):
                self._instance = instance
            case Resumed():
                self.connected = True
            case Snapshot():
                self.document, self.seq = message.document, message.seq
                self.connected = True
            case Edited() | Started() | Stopping() | Ended() | WasReset() | Seeked():
                self._fold(message)
                if not isinstance(message, Ended) and self.pending.pop(message.op_id, None) is not None:
                    return message
            case Rejected() if self.pending.pop(message.op_id, None) is not None:
                return message
        return None

    def _fold(self, record: Any) -> None:
        if record.seq <= self.seq:
            return  # the answer to a request that was sent again
        if self.document is None or record.seq != self.seq + 1:
            self.document, seq = None, self.seq
            raise Gap(f"record {record.seq} came after {seq}")
        self.document, self.seq = fold(self.document, record), record.seq
