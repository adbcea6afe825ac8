"""Previews: sends small pictures of what a room's work predicts, and stores them for the moments of its timeline."""

from __future__ import annotations

import time

from PIL import Image

from livedrag.editor import DragSession, DragStep, RenderStep
from livedrag.editor.settings import Quality
from livedrag.server.device.device_room import DeviceRoom
from livedrag.server.device.messages import EventHandler, PreviewReady
from livedrag.server.device.room_settings import service_setting
from livedrag.server.document.protocol import Stage
from livedrag.server.images.encoding import encode_preview, shrink

MAX_STORED_SIDE = 512
"""Longest side in pixels of a preview that is stored for its moment; larger ones are shrunk."""


class Previews:
    """Makes previews with the session's decoder; ``quality``: by default what the device has the time for."""

    def __init__(self, on_event: EventHandler, quality: Quality | None) -> None:
        self._emit = on_event
        self.quality = quality

    def show(self, room: DeviceRoom, session: DragSession, stage: Stage, step: DragStep | RenderStep) -> None:
        """Send the step's preview if it has one; that of an iteration is stored for its moment."""
        side = service_setting(room.desired, "preview_side")
        picture = session.preview(step, longest_side=side, quality=self.quality)
        if picture is None:
            return
        data = encode_preview(picture, room.desired.format)
        self.send(room, stage, picture, data)
        if stage == "dragging":
            small = shrink(picture, MAX_STORED_SIDE)
            store(room, session, data if small is picture else encode_preview(small, room.desired.format))

    def show_unedited(self, room: DeviceRoom, session: DragSession) -> None:
        """Store the uploaded picture for the first moment of the timeline."""
        current = session.timeline.current
        if current is None or session.timeline[current].parent is not None or current in room.timeline.thumbnails:
            return
        small = shrink(session.picture, min(service_setting(room.desired, "preview_side"), MAX_STORED_SIDE))
        session.timeline.set_thumbnail(small)
        store(room, session, encode_preview(small, "webp"))

    def store_result(self, room: DeviceRoom, session: DragSession, result: Image.Image) -> None:
        """Store the result for the moment that it was rendered of, unless that has a preview."""
        current = session.timeline.current
        if current is None or current in room.timeline.thumbnails:
            return
        small = shrink(result, min(service_setting(room.desired, "preview_side"), MAX_STORED_SIDE))
        session.timeline.set_thumbnail(small)
        store(room, session, encode_preview(small, "webp"))

    def send(self, room: DeviceRoom, stage: Stage, picture: Image.Image, data: bytes) -> None:
        """Send a picture and its encoding."""
        self._emit(
            PreviewReady(
                room=room.id,
                run=room.run,
                stage=stage,
                iteration=room.count.iterations,
                format=room.desired.format,
                width=picture.width,
                height=picture.height,
                time=time.time(),
                data=data,
            )
        )


def store(room: DeviceRoom, session: DragSession, data: bytes) -> None:
    """Store a preview, and the editor's thumbnail, for the current moment."""
    current = session.timeline.current
    assert current is not None
    thumbnail = session.timeline[current].thumbnail
    if thumbnail is not None:
        room.timeline.thumbnails[current] = encode_preview(thumbnail, "webp")
    room.timeline.frames[current] = data
