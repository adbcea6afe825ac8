"""Sessions: opens the sessions of rooms, has them follow what their rooms want, and keeps them on disk as they go.

So a session may leave the device at any time, and another process can go on with it: see `checkpoints`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec
from PIL import Image

from livedrag.editor import LIVE_SETTINGS, Diffusion, DragSession, DragSettings, EditorError
from livedrag.editor.drag.preview import Quality, decode_preview
from livedrag.editor.generate import GenerationStep, generate
from livedrag.editor.picture import to_picture
from livedrag.server.device.checkpoints import CheckpointError, Checkpoints
from livedrag.server.device.engine import (
    AnyEvent,
    CommandFailed,
    DesiredState,
    MomentInfo,
    PictureRef,
    SeekCompleted,
    TimelineChanged,
)
from livedrag.server.device.job import (
    Job,
    SessionKey,
    TimelinePictures,
    alike,
    changes,
    grips_of,
    read_mask,
    without_drags,
)
from livedrag.server.device.model_info import editor_settings, service_setting
from livedrag.server.device.pictures import PictureFiles
from livedrag.server.document.protocol import Generation

log = logging.getLogger(__name__)

TIMELINES_APART = 0.5
"""Least seconds between two tellings of one room's timeline."""


class Sessions:
    """What the sessions on one device have in common: its model, and where they are kept.

    Args:
        model: loaded on the device.
        checkpoints: where sessions are kept.
        tell: takes every event.
    """

    def __init__(self, model: Diffusion, checkpoints: Checkpoints, tell: Callable[[AnyEvent], None]) -> None:
        self._model = model
        self._checkpoints = checkpoints
        self._pictures = PictureFiles()
        self._tell = tell

    def settings(self, desired: DesiredState) -> DragSettings:
        """The editor's settings that a room wants. Raises `EditorError`."""
        return editor_settings(desired, self._model)

    def built_of(self, picture: str, desired: DesiredState) -> SessionKey:
        """What a session of this picture, by its digest, would be built of. Raises `EditorError`."""
        settings = self.settings(desired).as_dict()
        fixed = {name: value for name, value in settings.items() if name not in LIVE_SETTINGS}
        return SessionKey(picture, desired.prompt, service_setting(desired, "seed"), fixed)

    def generate(self, generation: Generation) -> Iterator[GenerationStep]:
        """Make a picture from words."""
        return generate(
            self._model,
            generation.prompt,
            seed=generation.seed,
            guidance=generation.guidance,
            ddim_steps=generation.ddim_steps,
        )

    def picture_of(self, step: GenerationStep) -> Image.Image:
        """The generated picture."""
        return to_picture(self._model.decode(step.latent))

    def preview_of(self, step: GenerationStep, side: int, quality: Quality | None) -> Image.Image:
        """A preview of a generation step; a decoded one has at least ``side`` pixels a side."""
        decoder: Quality = "full" if self._model.tiny is None else "tiny"
        return to_picture(decode_preview(self._model, step.predicted_x0, quality or decoder, side))

    def matches_generation(self, desired: DesiredState) -> bool:
        """Whether this session would generate the same picture. Raises `EditorError`."""
        generation = desired.generation
        return (
            generation is not None
            and (generation.model, generation.prompt) == (self._model.name, desired.prompt)
            and generation.ddim_steps == self.settings(desired).ddim_steps
        )

    def regeneration(self, job: Job, picture: PictureRef, desired: DesiredState) -> Iterator[GenerationStep]:
        """Generate the picture again if `open` needs its latents, which is so for a new session."""
        desired = desired if job.session is None or job.desired.seq < desired.seq else job.desired
        there = self.built_of_last(job.room, job) == self.built_of(picture.sha256, desired)
        return (
            self.generate(desired.generation)
            if desired.generation and self.matches_generation(desired) and not there
            else iter(())
        )

    def open(
        self,
        job: Job,
        picture: PictureRef,
        desired: DesiredState,
        generation_steps: Sequence[GenerationStep] = (),
        resume: str | None = None,
    ) -> DragSession:
        """Give the job a session that fits the desired: the one that it has, or the one on disk, or a new one.

        Args:
            generation_steps: all of what `generation_steps` gave.
            resume: the run whose iterations go on being counted.
        """
        desired = desired if job.session is None or job.desired.seq < desired.seq else job.desired
        read_mask(desired.mask)
        settings = self.settings(desired)
        built_of = self.built_of(picture.sha256, desired)
        moments = self._moments_so_far(job)
        if job.session is not None and job.built_of != built_of:
            job.session.close()
            job.session = None
        if job.session is None:
            latest = job.desired if job.desired.seq > desired.seq else desired  # edited while it waited
            opened = self._pictures.read(picture)
            if not self._restore(job, opened, built_of, resume):
                job.session = self._new(opened, desired, settings, generation_steps)
                job.session.timeline.begin_at(moments)
                job.desired, job.has_picture = without_drags(desired), False
                job.checkpoint, job.shown, job.told_thumbnails = None, TimelinePictures(), set()
            job.built_of, desired = built_of, latest
        session = job.session
        assert session is not None
        self.follow(job, desired)
        return session

    def _new(
        self,
        picture: Image.Image,
        desired: DesiredState,
        settings: DragSettings,
        generation_steps: Sequence[GenerationStep],
    ) -> DragSession:
        prompt, seed = desired.prompt, service_setting(desired, "seed")
        if desired.generation is not None and generation_steps:
            if alike(self.picture_of(generation_steps[-1]), picture):
                return DragSession.from_generation(
                    self._model,
                    prompt,
                    generation_steps,
                    guidance=desired.generation.guidance,
                    picture=picture,
                    settings=settings,
                    seed=seed,
                )
            log.warning("room %s: the model no longer generates this picture: inverting it instead", desired.room)
        return DragSession(self._model, picture, prompt=prompt, settings=settings, seed=seed)

    def _moments_so_far(self, job: Job) -> int:
        """A number above those of all moments of the room: what they looked like may be in browsers' caches."""
        if job.session is not None:
            return 1 + max((moment.index for moment in job.session.timeline), default=-1)
        checkpoint = self._checkpoints.newest(job.room)
        return 1 + max((moment.info.id for moment in checkpoint.moments), default=-1) if checkpoint else 0

    def _restore(self, job: Job, picture: Image.Image, built_of: SessionKey, resume: str | None) -> bool:
        """Take up the session that is on disk, if it was built in the same way; whether there is one."""
        room = job.room
        for checkpoint, parts in self._checkpoints.load(room):
            try:
                if self.built_of(checkpoint.picture, checkpoint.desired) != built_of:
                    return False
                session = DragSession.restore(self._model, picture, tensors_of(parts))
                thumbnails = self._checkpoints.pictures(room, checkpoint, "thumbnails")
                frames = self._checkpoints.pictures(room, checkpoint, "frames")
            except (EditorError, CheckpointError, OSError) as error:
                log.warning("a checkpoint of room %s cannot be used: %s", room, error)
                continue
            times = {moment.info.id: moment.info.time for moment in checkpoint.moments}
            tracked = {moment.info.id: moment.tracked for moment in checkpoint.moments}
            job.session, job.shown, job.told_thumbnails = (
                session,
                TimelinePictures(times, tracked, thumbnails, frames),
                set(),
            )
            job.desired, job.checkpoint, job.has_picture = checkpoint.desired, checkpoint, checkpoint.has_picture
            if resume is not None and resume == checkpoint.run:
                job.iterations, job.branched_at = checkpoint.iterations, checkpoint.branched_at
            if checkpoint.pending_reset:
                self.put_back(job, session)
            elif checkpoint.pending_seek is not None:
                session.seek(checkpoint.pending_seek)
                job.desired = msgspec.structs.replace(job.desired, drags=grips_of(session, job.desired))
                job.branched_at = job.iterations
            self.tell_timeline(job)
            return True
        return False

    def keep(self, job: Job) -> None:
        """Write a checkpoint. Where the disk refuses, the room is told, once a run, and goes on without."""
        if job.session is None:
            return
        job.kept = time.monotonic()
        try:
            checkpoint, parts = job.to_checkpoint()
            job.checkpoint = self._checkpoints.save(job.room, checkpoint, parts, before=job.checkpoint)
        except OSError as error:
            log.error("no checkpoint of room %s could be written: %s", job.room, error)
            if not job.unkept:
                message = f"what is done here could not be kept on disk and would not survive a restart: {error}"
                self._tell(CommandFailed(room=job.room, message=message))
            job.unkept = True

    def has_moved(self, room: str, job: Job | None) -> bool:
        """Whether a run has moved the content of a room, and so left something to lose."""
        if job is not None and job.session is not None:
            return len(job.session.timeline) > 1
        checkpoint = self._checkpoints.newest(room)
        return checkpoint is not None and len(checkpoint.moments) > 1

    def built_of_last(self, room: str, job: Job | None) -> SessionKey | None:
        """What the room's last session was built of, be it on the device or on disk."""
        if job is not None and job.session is not None:
            return job.built_of
        checkpoint = self._checkpoints.newest(room)
        return None if checkpoint is None else self.built_of(checkpoint.picture, checkpoint.desired)

    def follow(self, job: Job, desired: DesiredState) -> None:
        """Make the session's points, mask and settings those of the desired; complain of what cannot be followed."""
        before, job.desired = job.desired, desired
        if job.session is None:
            return
        try:
            old, new = self.settings(before).as_dict(), self.settings(desired).as_dict()
        except EditorError as error:
            self._tell(CommandFailed(room=desired.room, message=str(error)))
            job.desired = msgspec.structs.replace(desired, settings=before.settings)
            old = new = {}
        changed = {name: value for name, value in new.items() if value != old[name]}
        for change in changes(job.session, before, desired, changed):
            try:
                change()
            except EditorError as error:
                self._tell(CommandFailed(room=desired.room, message=str(error)))
        if not desired.drags:
            job.stopping = True

    def go_to(self, job: Job, session: DragSession, moment: int, desired: DesiredState) -> None:
        """Put the content where it was at a moment; then what the desired has otherwise. Raises `EditorError`."""
        session.seek(moment)
        job.desired = msgspec.structs.replace(job.desired, drags=grips_of(session, desired))
        self.follow(job, desired)
        job.sought, job.branched_at = True, job.iterations

    def put_back(self, job: Job, session: DragSession) -> None:
        """Back to the uploaded picture."""
        session.reset()
        for id in session.drags:  # the next run puts them down where the room has them
            session.remove_drag(id)
        job.desired = msgspec.structs.replace(job.desired, drags={})
        job.has_picture = False

    def tell_timeline(self, job: Job, *, at_most_so_often: bool = False) -> None:
        """Tell what is on the timeline, where that has changed."""
        now = time.monotonic()
        if job.session is None or (at_most_so_often and now - job.told_at < TIMELINES_APART):
            return
        moments: list[MomentInfo] = [moment.info for moment in job.moments()]
        current = job.session.timeline.current
        if not moments or (moments, current) == job.told:
            return
        here = {moment.id for moment in moments}
        new = {id: data for id, data in job.shown.thumbnails.items() if id in here - job.told_thumbnails}
        job.told, job.told_at = (moments, current), now
        job.told_thumbnails |= new.keys()
        self._tell(TimelineChanged(room=job.room, moments=moments, current=current, thumbnails=new))

    def seek_on_disk(self, moment: int, desired: DesiredState) -> None:
        """Go to a moment in a room whose session is not on the device; it will be there when it is opened.

        Raises:
            EditorError: it is not kept.
        """
        checkpoint = self._checkpoints.newest(desired.room)
        known = {kept.info.id: kept for kept in checkpoint.moments} if checkpoint else {}
        if checkpoint is None or moment not in known:
            raise EditorError(f"moment {moment} is not on the timeline: it may have been thinned away")
        put_down = {id: grip.handle for id, grip in desired.drags.items()}
        there = {} if known[moment].info.parent is None else known[moment].tracked
        self._checkpoints.amend(
            desired.room,
            msgspec.structs.replace(
                checkpoint, pending_seek=moment, current=moment, desired=desired, pending_reset=False
            ),
        )
        tracked = {id: there.get(id, place) for id, place in put_down.items()}
        self._tell(SeekCompleted(room=desired.room, moment=moment, tracked=tracked))
        moments = [kept.info for kept in checkpoint.moments]
        self._tell(TimelineChanged(room=desired.room, moments=moments, current=moment))

    def rewind_on_disk(self, room: str) -> None:
        """Likewise back to the uploaded picture."""
        checkpoint = self._checkpoints.newest(room)
        if checkpoint is not None:
            moments = [moment.info for moment in checkpoint.moments]
            first = moments[0].id if moments else None
            self._checkpoints.amend(
                room,
                msgspec.structs.replace(
                    checkpoint, pending_reset=True, pending_seek=None, current=first, has_picture=False
                ),
            )
            self._tell(TimelineChanged(room=room, moments=moments, current=first))


def tensors_of(parts: dict[str, bytes]) -> dict[str, bytes]:
    """Those parts of a checkpoint that are the session's own."""
    return {name: data for name, data in parts.items() if not name.startswith(("thumbnails-", "frames-"))}
