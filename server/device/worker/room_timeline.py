"""RoomTimeline: what the service stores of a session's moments, and what it has reported of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from livedrag.editor import DragSession, Point
from livedrag.server.device.checkpoints import SavedMoment
from livedrag.server.device.messages import MomentInfo, TimelineChanged
from livedrag.server.document.protocol import XY

REPORT_SECONDS = 0.5
"""Between two reports of a timeline that keeps changing, at least."""


@dataclass
class RoomTimeline:
    """By moment: when it was reached, where the content of each drag was, a thumbnail, and a preview."""

    times: dict[int, float] = field(default_factory=dict)
    tracked: dict[int, dict[str, XY]] = field(default_factory=dict)
    thumbnails: dict[int, bytes] = field(default_factory=dict)
    frames: dict[int, bytes] = field(default_factory=dict)
    _reported: tuple[list[MomentInfo], int | None] | None = None
    _reported_at: float = 0.0
    _reported_thumbnails: set[int] = field(default_factory=set)

    def moments(self, session: DragSession) -> list[SavedMoment]:
        """The session's moments; forgets what it has of others."""
        for moment in session.timeline:
            if moment.index not in self.times:
                self.times[moment.index] = time.time()
                self.tracked[moment.index] = to_xy(session.tracked(moment.index))
        for gone in self.times.keys() - {moment.index for moment in session.timeline}:
            del self.times[gone], self.tracked[gone]
            self.thumbnails.pop(gone, None)
            self.frames.pop(gone, None)
        return [
            SavedMoment(
                info=MomentInfo(
                    id=moment.index,
                    parent=moment.parent,
                    iteration=moment.iteration,
                    time=self.times[moment.index],
                    thumbnail=moment.index in self.thumbnails,
                ),
                tracked=self.tracked[moment.index],
            )
            for moment in session.timeline
        ]

    def report(self, room: str, session: DragSession, *, throttled: bool) -> TimelineChanged | None:
        """What has to be reported now, if anything.

        Args:
            throttled: not sooner than `REPORT_SECONDS` after the last report.
        """
        now = time.monotonic()
        if throttled and now - self._reported_at < REPORT_SECONDS:
            return None
        moments = [moment.info for moment in self.moments(session)]
        current = session.timeline.current
        if not moments or (moments, current) == self._reported:
            return None
        new = {id: data for id, data in self.thumbnails.items() if id not in self._reported_thumbnails}
        self._reported, self._reported_at = (moments, current), now
        self._reported_thumbnails |= new.keys()
        return TimelineChanged(room=room, moments=moments, current=current, thumbnails=new)


def to_xy(points: Mapping[str, Point]) -> dict[str, XY]:
    """The editor's points as the protocol has them."""
    return {id: (point.x, point.y) for id, point in points.items()}


def tracked_now(session: DragSession) -> dict[str, XY]:
    """Where the content of each drag is."""
    return to_xy({id: drag.handle for id, drag in session.drags.items()})
