"""The errors of the service, one tree.

``LivedragError`` is everything that is raised on purpose: the command line prints it as one line. ``ServiceError`` is
what a request is answered with. Its subclasses lie beside the code that raises them.
"""

from __future__ import annotations


class LivedragError(Exception):
    """An expected failure. The message quotes the offending value and says what to do."""


class ServiceError(LivedragError):
    """A request that is refused, or that failed.

    Args:
        status: the HTTP status.
        reason: a word for programs, such as ``unknown_room``.
        message: a sentence for people.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def headers(self) -> dict[str, str]:
        """Further headers of the response."""
        return {}


class UnknownRoom(ServiceError):
    """There is no room with this id."""

    def __init__(self, room: str) -> None:
        super().__init__(404, "unknown_room", f"there is no room {room!r}: create one by uploading a picture")


class Busy(ServiceError):
    """The server has too much to do at the moment."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(503, "busy", f"{message}: try again in {seconds:g} s")
        self.seconds = seconds

    @property
    def headers(self) -> dict[str, str]:
        """When to try again."""
        return {"Retry-After": f"{self.seconds:.0f}"}
