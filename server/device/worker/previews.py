"""Previews: sends small pictures of what a room's work predicts, and stores them for the moments of its timeline."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from PIL import Image

from livedrag.editor import DragSession, DragStep, RenderStep
from livedrag.editor.drag.preview import PendingPreview
from livedrag.editor.settings import Quality
from livedrag.server.device.messages import EventHandler, FrameFormat, PreviewReady
from livedrag.server.device.worker.device_room import DeviceRoom
from livedrag.server.device.worker.room_settings import service_setting
from livedrag.server.document.protocol import Stage
from livedrag.server.images.encoding import encode_preview, shrink

MAX_STORED_SIDE = 512
"""Longest side in pixels of a preview that is stored for its moment; larger ones are shrunk."""
MAX_PENDING = 2
"""Previews of a room that are being encoded; its iterations wait for the oldest before there is another one."""


@dataclass(frozen=True, eq=False)
class _Origin:
    """What a preview is of: a step of a run, and the moment that it is stored for, if any."""

    session: DragSession | None
    stage: Stage
    run: str
    iteration: int
    format: FrameFormat
    moment: int | None


@dataclass(frozen=True, eq=False)
class _Encoded:
    """A preview, what is sent of it and, with no more than `MAX_STORED_SIDE` pixels a side, stored; and when it was
    made, in seconds since the epoch."""

    picture: Image.Image
    data: bytes
    stored: bytes
    time: float


class Previews:
    """Makes previews with the session's decoder.

    Where the device goes on while a prediction is decoded, its preview is encoded in another thread, and is sent and
    stored between later steps by the thread that calls these methods, in order, and before the run's end.

    Args:
        on_event: takes every event.
        quality: of previews; by default what the device has the time for.
    """

    def __init__(self, on_event: EventHandler, quality: Quality | None) -> None:
        self._emit = on_event
        self.quality = quality
        self._encoder: ThreadPoolExecutor | None = None
        self._pending: WeakKeyDictionary[DeviceRoom, deque[tuple[_Origin, Future[_Encoded]]]] = WeakKeyDictionary()

    def show(self, room: DeviceRoom, session: DragSession, stage: Stage, step: DragStep | RenderStep) -> None:
        """Send the step's preview if it has one; that of an iteration is stored for its moment."""
        self.collect(room)
        side = service_setting(room.desired, "preview_side")
        pending = session.shared.begin_preview(step, longest_side=side, quality=self.quality)
        if pending is None:
            return
        moment = session.timeline.current if stage == "dragging" else None
        origin = _Origin(session, stage, room.run, room.count.iterations, room.desired.format, moment)
        if not pending.beside:
            self._finish(room, origin, _encode(pending, origin))
            return
        if self._encoder is None:
            self._encoder = ThreadPoolExecutor(1, thread_name_prefix="previews")
        queue = self._pending.setdefault(room, deque())
        queue.append((origin, self._encoder.submit(_encode, pending, origin)))
        self.collect(room, leaving=MAX_PENDING)

    def collect(self, room: DeviceRoom, *, leaving: int | None = None) -> None:
        """Send and store the room's previews that have been encoded meanwhile.

        Args:
            leaving: wait until no more than so many are left.
        """
        queue = self._pending.get(room, deque())
        while queue and (queue[0][1].done() or (leaving is not None and len(queue) > leaving)):
            origin, encoded = queue.popleft()
            self._finish(room, origin, encoded.result())

    def drop(self, room: DeviceRoom) -> None:
        """Send and store nothing of what is still to come."""
        self._pending.pop(room, None)

    def _finish(self, room: DeviceRoom, origin: _Origin, encoded: _Encoded) -> None:
        session = origin.session
        if origin.run != room.run or session is None or session is not room.session:
            return
        self._send(room, origin, encoded)
        moment = origin.moment
        if moment is not None and moment in [each.index for each in session.timeline]:
            session.timeline.set_thumbnail(encoded.picture, moment)
            store(room, session, moment, encoded.stored)

    def show_unedited(self, room: DeviceRoom, session: DragSession) -> None:
        """Store the uploaded picture for the first moment of the timeline."""
        current = session.timeline.current
        if current is None or session.timeline[current].parent is not None or current in room.timeline.thumbnails:
            return
        small = shrink(session.picture, min(service_setting(room.desired, "preview_side"), MAX_STORED_SIDE))
        session.timeline.set_thumbnail(small)
        store(room, session, current, encode_preview(small, "webp"))

    def store_result(self, room: DeviceRoom, session: DragSession, result: Image.Image) -> None:
        """Store the result for the moment that it was rendered of, unless that has a preview."""
        self.collect(room, leaving=0)
        current = session.timeline.current
        if current is None or current in room.timeline.thumbnails:
            return
        small = shrink(result, min(service_setting(room.desired, "preview_side"), MAX_STORED_SIDE))
        session.timeline.set_thumbnail(small)
        store(room, session, current, encode_preview(small, "webp"))

    def send_generated(self, room: DeviceRoom, picture: Image.Image) -> None:
        """Send what a step of a generation predicts."""
        origin = _Origin(None, "generating", room.run, room.count.iterations, room.desired.format, None)
        self._send(room, origin, _encode(picture, origin))

    def _send(self, room: DeviceRoom, origin: _Origin, encoded: _Encoded) -> None:
        self._emit(
            PreviewReady(
                room=room.id,
                run=origin.run,
                stage=origin.stage,
                iteration=origin.iteration,
                format=origin.format,
                width=encoded.picture.width,
                height=encoded.picture.height,
                time=encoded.time,
                data=encoded.data,
            )
        )


def _encode(preview: PendingPreview | Image.Image, origin: _Origin) -> _Encoded:
    picture = preview if isinstance(preview, Image.Image) else preview.make()
    data = encode_preview(picture, origin.format)
    small = picture if origin.moment is None else shrink(picture, MAX_STORED_SIDE)
    return _Encoded(picture, data, data if small is picture else encode_preview(small, origin.format), time.time())


def store(room: DeviceRoom, session: DragSession, moment: int, data: bytes) -> None:
    """Store a preview, and the editor's thumbnail, for a moment."""
    thumbnail = session.timeline[moment].thumbnail
    if thumbnail is not None:
        room.timeline.thumbnails[moment] = encode_preview(thumbnail, "webp")
    room.timeline.frames[moment] = data
