"""SessionFiles: the sessions of rooms on disk, so that they can leave the device and outlive the worker."""

from __future__ import annotations

import contextlib
import logging
import time

from msgspec.structs import replace

from livedrag.editor import EditorError
from livedrag.server.device.checkpoints import Checkpoint, CheckpointError, Checkpoints
from livedrag.server.device.messages import CommandFailed, DesiredState, EventHandler, SeekCompleted, TimelineChanged
from livedrag.server.device.worker.device_room import DeviceRoom
from livedrag.server.device.worker.models import Models
from livedrag.server.device.worker.room_settings import SessionKey

log = logging.getLogger(__name__)


class SessionFiles:
    """Writes checkpoints, reports timelines, and answers for rooms whose sessions are only on disk."""

    def __init__(self, models: Models, checkpoints: Checkpoints, on_event: EventHandler) -> None:
        self._models = models
        self.checkpoints = checkpoints
        self._emit = on_event

    def save(self, room: DeviceRoom, *, leaves: bool = False) -> None:
        """Write a checkpoint. If the disk refuses, report it once a run; the run continues without.

        Args:
            leaves: another worker may need it: return only when it is there.
        """
        if room.session is None:
            return
        room.saved_at = time.monotonic()
        try:
            checkpoint, parts = room.to_checkpoint()
            room.checkpoint = self.checkpoints.save(room.id, checkpoint, parts, before=room.checkpoint)
            if leaves:
                self.checkpoints.flush(room.id)
        except OSError as error:
            log.error("no checkpoint of room %s could be written: %s", room.id, error)
            if not room.save_failed:
                message = f"this edit cannot be saved to disk and would not survive a restart: {error}"
                self._emit(CommandFailed(room=room.id, message=message))
            room.save_failed = True

    def wipe(self, room: str) -> None:
        """Delete the checkpoints of a room; what cannot be deleted is swept away later, when the server starts."""
        try:
            self.checkpoints.wipe(room)
        except OSError as error:
            log.error("the checkpoints of room %s could not be deleted: %s", room, error)

    def report_timeline(self, room: DeviceRoom, *, throttled: bool = False) -> None:
        """Report a room's timeline if it has changed; ``throttled``: not too often."""
        if room.session is None:
            return
        changed = room.timeline.report(room.id, room.session, throttled=throttled)
        if changed is not None:
            self._emit(changed)

    def is_edited(self, id: str, room: DeviceRoom | None) -> bool:
        """Whether a run has moved the content of a room, which a new session would discard."""
        if room is not None and room.session is not None:
            return len(room.session.timeline) > 1
        checkpoint = self.checkpoints.newest(id)
        return checkpoint is not None and len(checkpoint.moments) > 1

    def last_key(self, id: str, room: DeviceRoom | None) -> SessionKey | None:
        """The key of the room's session, whether on the device or on disk."""
        if room is not None and room.session is not None:
            return room.key
        checkpoint = self.checkpoints.newest(id)
        return None if checkpoint is None else self.key_of(checkpoint)

    def key_of(self, checkpoint: Checkpoint) -> SessionKey:
        """The key of a session on disk. Raises `SettingsError` where its settings are no longer possible."""
        return self._models.settings(checkpoint.desired.model).key(checkpoint.picture, checkpoint.desired)

    def may_make(self, id: str, room: DeviceRoom | None, key: SessionKey) -> bool:
        """Whether a new session with this key would discard no edit of the same picture."""
        last = self.last_key(id, room)
        return last is None or last.picture != key.picture or last == key or not self.is_edited(id, room)

    def next_moment(self, room: DeviceRoom) -> int:
        """An id that no moment of the room has had: browsers cache what moments look like."""
        if room.session is not None:
            return 1 + max((moment.index for moment in room.session.timeline), default=-1)
        checkpoint = self.checkpoints.newest(room.id)
        return 1 + max((moment.info.id for moment in checkpoint.moments), default=-1) if checkpoint else 0

    def seek(self, moment: int, desired: DesiredState, picture: str | None = None) -> None:
        """Jump to a moment in a room whose session is only on disk: it does so when it is opened.

        Args:
            picture: SHA-256 of the one that the room has again, if it had another one.

        Raises:
            EditorError: the timeline has no such moment.
        """
        checkpoint = self.checkpoints.newest(desired.room, picture)
        known = {saved.info.id: saved for saved in checkpoint.moments} if checkpoint else {}
        if checkpoint is None or moment not in known:
            raise EditorError(f"moment {moment} is not on the timeline: it may have been removed to save space")
        there = {} if known[moment].info.parent is None else known[moment].tracked
        self.checkpoints.amend(
            desired.room, replace(checkpoint, pending_seek=moment, current=moment, desired=desired, pending_reset=False)
        )
        tracked = {id: there.get(id, drag.handle) for id, drag in desired.drags.items()}
        self._emit(SeekCompleted(room=desired.room, moment=moment, tracked=tracked))
        self._report_stored(desired.room, checkpoint, moment, picture)

    def _report_stored(self, room: str, checkpoint: Checkpoint, current: int | None, picture: str | None) -> None:
        """Report the timeline of a checkpoint, with its thumbnails if it is of another ``picture`` than before."""
        thumbnails: dict[int, bytes] = {}
        if picture is not None:
            with contextlib.suppress(CheckpointError):
                thumbnails = self.checkpoints.pictures(room, checkpoint, "thumbnails")
        moments = [saved.info for saved in checkpoint.moments]
        self._emit(TimelineChanged(room=room, moments=moments, current=current, thumbnails=thumbnails))

    def reset(self, room: str, picture: str | None = None) -> None:
        """Likewise back to the unedited picture."""
        checkpoint = self.checkpoints.newest(room, picture)
        if checkpoint is None:
            return
        first = checkpoint.moments[0].info.id if checkpoint.moments else None
        self.checkpoints.amend(
            room, replace(checkpoint, pending_reset=True, pending_seek=None, current=first, has_picture=False)
        )
        self._report_stored(room, checkpoint, first, picture)
