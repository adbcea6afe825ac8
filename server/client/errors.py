"""What a client raises besides `websockets.ConnectionClosed`."""

from __future__ import annotations

from livedrag.server.document.protocol import Rejected
from livedrag.server.errors import LivedragError, ServiceError


class RequestFailed(ServiceError):
    """An HTTP request was answered with an error. ``reason`` is "http" if it did not come from livedrag."""


class OperationRejected(LivedragError):
    """The room rejected an operation."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(rejected.message)
        self.reason = rejected.reason
