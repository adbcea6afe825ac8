"""Sessions: opens the sessions of rooms, from disk or anew, and makes them follow what their rooms want."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence

from msgspec.structs import replace
from PIL import Image

from livedrag.editor import DragSession, EditorError
from livedrag.editor.drag.following import changes, read_mask
from livedrag.editor.generate import GenerationStep
from livedrag.server.device.checkpoints import CheckpointError
from livedrag.server.device.edit_log import GENERATED, JUMPED, OLDER, EditLog
from livedrag.server.device.messages import CommandFailed, DesiredState, EventHandler, PictureRef
from livedrag.server.device.run_numbers import PREFIX, RunNumbers
from livedrag.server.device.worker.device_room import DeviceRoom, RunCount
from livedrag.server.device.worker.follow import placed_drags, without_drags
from livedrag.server.device.worker.generator import look_alike
from livedrag.server.device.worker.models import Models
from livedrag.server.device.worker.pictures import PictureFiles
from livedrag.server.device.worker.room_settings import SessionKey, service_setting
from livedrag.server.device.worker.room_timeline import RoomTimeline
from livedrag.server.device.worker.session_files import SessionFiles

log = logging.getLogger(__name__)


class Sessions:
    """Opens sessions with the models of a device."""

    def __init__(
        self,
        models: Models,
        files: SessionFiles,
        on_event: EventHandler,
    ) -> None:
        self._models = models
        self._files = files
        self._pictures = PictureFiles()
        self._emit = on_event

    def regenerate(self, room: DeviceRoom, picture: PictureRef, desired: DesiredState) -> Iterator[GenerationStep]:
        """Generate the room's picture again if a new session will be opened that starts from its latents.

        Raises:
            EditorError: the settings are impossible.
        """
        desired = newest(room, desired)
        model = self._models.loaded(desired.model)
        key = model.settings.key(picture.sha256, desired)
        exists = self._files.last_key(room.id, room) == key
        if desired.generation is None or exists or not model.generator.matches(desired):
            return iter(())
        return model.generator.steps(desired.generation)

    def open(
        self,
        room: DeviceRoom,
        picture: PictureRef,
        desired: DesiredState,
        generation_steps: Sequence[GenerationStep] = (),
    ) -> DragSession:
        """Give the room the session that it wants: the one that it has, the one on disk, or a new one.

        Args:
            generation_steps: all that `regenerate` gave.

        Raises:
            EditorError: the picture, the mask or the settings are impossible.
        """
        desired = newest(room, desired)
        read_mask(desired.mask)
        model = self._models.loaded(desired.model)
        key = model.settings.key(picture.sha256, desired)
        next_moment = self._files.next_moment(room)
        if room.session is not None and room.key != key:
            room.close_session()
        if room.session is None:
            latest = room.desired if room.desired.seq > desired.seq else desired  # edited while it waited
            opened = self._pictures.read(picture)
            model.settings.check(desired, *opened.size)
            if not self._restore(room, opened, key):
                self._make(room, opened, desired, generation_steps, next_moment)
            room.key, desired = key, latest
        session = room.session
        assert session is not None
        self.follow(room, desired)
        return session

    def _make(
        self,
        room: DeviceRoom,
        picture: Image.Image,
        desired: DesiredState,
        generation_steps: Sequence[GenerationStep],
        next_moment: int,
    ) -> None:
        room.session = self._new(picture, desired, generation_steps)
        room.session.timeline.begin_at(next_moment)
        room.desired, room.has_result = without_drags(desired), False
        room.count, room.checkpoint, room.timeline = RunCount(room.run), None, RoomTimeline()
        room.log, room.numbers = EditLog(problems=[GENERATED] if generation_steps else []), RunNumbers()

    def _new(
        self, picture: Image.Image, desired: DesiredState, generation_steps: Sequence[GenerationStep]
    ) -> DragSession:
        model = self._models.loaded(desired.model)
        settings = model.settings.editor(desired)
        prompt, seed = desired.prompt, service_setting(desired, "seed")
        if desired.generation is not None and generation_steps:
            if look_alike(model.generator.picture(generation_steps[-1]), picture):
                return DragSession.from_generation(
                    model.diffusion,
                    prompt,
                    generation_steps,
                    guidance=desired.generation.guidance,
                    picture=picture,
                    settings=settings,
                    seed=seed,
                )
            log.warning("room %s: the model no longer generates this picture: inverting it instead", desired.room)
        return DragSession(model.diffusion, picture, prompt=prompt, settings=settings, seed=seed)

    def _restore(self, room: DeviceRoom, picture: Image.Image, key: SessionKey) -> bool:
        """Open the newest usable session on disk, if it has this key; whether there is one."""
        checkpoints = self._files.checkpoints
        for checkpoint, parts in checkpoints.load(room.id, key.picture):
            try:
                if self._files.key_of(checkpoint) != key:
                    return False
                session = DragSession.restore(self._models.loaded(key.model).diffusion, picture, tensors_of(parts))
                thumbnails = checkpoints.pictures(room.id, checkpoint, "thumbnails")
                frames = checkpoints.pictures(room.id, checkpoint, "frames")
            except (EditorError, CheckpointError, OSError) as error:
                log.warning("a checkpoint of room %s cannot be used: %s", room.id, error)
                continue
            times = {moment.info.id: moment.info.time for moment in checkpoint.moments}
            tracked = {moment.info.id: moment.tracked for moment in checkpoint.moments}
            room.session, room.timeline = session, RoomTimeline(times, tracked, thumbnails, frames)
            room.desired, room.checkpoint, room.has_result = checkpoint.desired, checkpoint, checkpoint.has_picture
            older = EditLog(problems=[OLDER] if len(checkpoint.moments) > 1 else [])
            room.log = older if checkpoint.log is None else checkpoint.log.copy()
            room.numbers = RunNumbers.read(parts)
            if room.work is not None and room.work.continues(checkpoint.run):
                room.count = RunCount(checkpoint.run, checkpoint.iterations, checkpoint.branched_at)
            if checkpoint.pending_reset:
                self.reset(room, session)
            elif checkpoint.pending_seek is not None:
                self._jump(room, session, checkpoint.pending_seek, room.desired)
            self._files.report_timeline(room)
            return True
        return False

    def follow(self, room: DeviceRoom, desired: DesiredState) -> None:
        """Apply what is new to the session; what it refuses is reported as `CommandFailed`."""
        before, room.desired = room.desired, desired
        if room.session is None:
            return
        try:
            settings = self._models.loaded(desired.model).settings
            settings.check(desired, *room.session.picture.size)
            old = settings.editor(before).as_dict()
            new = settings.editor(desired).as_dict()
        except EditorError as error:
            self._emit(CommandFailed(room=room.id, message=str(error)))
            room.desired = replace(desired, settings=before.settings)
            old = new = {}
        changed = {name: value for name, value in new.items() if value != old[name]}
        for change in changes(room.session, before, desired, changed):
            try:
                change()
            except EditorError as error:
                self._emit(CommandFailed(room=room.id, message=str(error)))
        room.log.follow(room.desired)
        if room.work is not None:
            room.work.stopping = room.work.stopping or not desired.drags
            room.work.reaimed = room.work.reaimed or bool(desired.drags.items() - before.drags.items())

    def seek(self, room: DeviceRoom, session: DragSession, moment: int, desired: DesiredState) -> None:
        """Jump to a moment, then apply what else is desired. Raises `EditorError` where there is no such moment."""
        self._jump(room, session, moment, desired)
        self.follow(room, desired)
        if room.work is not None:
            room.work.jumped = True

    def _jump(self, room: DeviceRoom, session: DragSession, moment: int, desired: DesiredState) -> None:
        session.seek(moment)
        room.log.note_problem(JUMPED)
        room.desired = replace(room.desired, drags=placed_drags(session, desired))
        room.count = dataclasses.replace(room.count, branched_at=room.count.iterations)

    def reset(self, room: DeviceRoom, session: DragSession) -> None:
        """Back to the uploaded picture."""
        session.reset()
        for id in session.drags:  # the next run places them where the room has them
            session.remove_drag(id)
        room.desired = replace(room.desired, drags={})
        room.has_result = False
        room.log.clear()


def newest(room: DeviceRoom, desired: DesiredState) -> DesiredState:
    """The desired state of a command, unless the session follows one that is as new."""
    return desired if room.session is None or room.desired.seq < desired.seq else room.desired


def tensors_of(parts: dict[str, bytes]) -> dict[str, bytes]:
    """The parts of a checkpoint that are the editor's."""
    return {name: data for name, data in parts.items() if not name.startswith(("thumbnails-", "frames-", PREFIX))}
