"""How many points of strokes may be painted and restored in a room, which bounds the work and traffic they cause."""

from __future__ import annotations

from livedrag.server.access.rate_limits import Buckets
from livedrag.server.document.checks import Refused
from livedrag.server.document.memory import strokes_of
from livedrag.server.document.protocol import AddStroke, DocRecord, Edit, Redo, Request, Undo
from livedrag.server.rooms.clock import Clock
from livedrag.server.settings import Rate


class StrokeBudget:
    """The budget of one room, in points."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._clock = clock
        self._points = Buckets(rate)

    def check(self, request: Request) -> None:
        """Raise `Refused` for a request that may paint or restore strokes while there have been too many."""
        paints = isinstance(request, Edit) and isinstance(request.op, AddStroke)
        if not paints and not isinstance(request, Undo | Redo):
            return
        seconds = self._points.wait("", self._clock.now())
        if seconds:
            raise Refused("slow_down", f"too many strokes in this room: try again in {max(seconds, 1):.0f} s")

    def spend(self, record: DocRecord) -> None:
        """Count the strokes of an accepted record."""
        points = sum(len(stroke.points) for stroke in strokes_of(record))
        if points:
            self._points.spend("", points, self._clock.now())
