"""BackgroundCheckpoints: checkpoints that are written in a thread of their own, because their place is far away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

from livedrag.server.device.checkpoint_files import CheckpointFiles, open_files
from livedrag.server.device.checkpoints import Checkpoint, Checkpoints, Part, with_parts

log = logging.getLogger(__name__)


class BackgroundCheckpoints(Checkpoints):
    """Saving returns at once; of a room only the latest checkpoint waits to be written.

    What reads or deletes a room's checkpoints waits until it is. If the process is killed, what waits is lost: a run
    then goes on from the checkpoint before. A failure is reported by the next `save` or `flush` of the room.
    """

    def __init__(self, files: CheckpointFiles) -> None:
        super().__init__(files)
        self._waiting: dict[str, tuple[Checkpoint, dict[str, bytes]]] = {}
        self._writing = ""
        self._failed: dict[str, OSError] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="checkpoints", daemon=True).start()

    def save(
        self, room: str, checkpoint: Checkpoint, parts: Sequence[Part], before: Checkpoint | None = None
    ) -> Checkpoint:
        with self._changed:
            failed = self._failed.pop(room, None)
        # After a failure the parts of the one before may not be there: all are made again.
        known = before.parts if before is not None and failed is None else {}
        saved, made = with_parts(checkpoint, parts, known)
        with self._changed:
            _, unwritten = self._waiting.get(room, (None, {}))
            wanted = {ref.sha256 for ref in saved.parts.values()}
            self._waiting[room] = saved, {sha: data for sha, data in unwritten.items() if sha in wanted} | made
            self._changed.notify_all()
        if failed is not None:
            raise failed
        return saved

    def amend(self, room: str, checkpoint: Checkpoint) -> None:
        self.flush(room)
        super().amend(room, checkpoint)

    def wipe(self, room: str) -> None:
        with self._changed:
            self._waiting.pop(room, None)
            self._failed.pop(room, None)
            self._changed.wait_for(lambda: self._writing != room)
            self._failed.pop(room, None)
        super().wipe(room)

    def finish(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._writing, seconds)

    def flush(self, room: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_written(room))
            failed = self._failed.pop(room, None)
        if failed is not None:
            raise failed

    def _lists(self, room: str, picture: str | None = None) -> Iterator[Checkpoint]:
        with self._changed:
            self._changed.wait_for(lambda: self._is_written(room))
        yield from super()._lists(room, picture)

    def _is_written(self, room: str) -> bool:
        return self._writing != room and room not in self._waiting

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                room = next(iter(self._waiting))
                checkpoint, made = self._waiting.pop(room)
                self._writing = room
            failed: OSError | None = None
            try:
                self.write(room, checkpoint, made)
            except OSError as error:
                log.error("a checkpoint of room %s could not be written: %s", room, error)
                failed = error
            with self._changed:
                if failed is not None:
                    self._failed[room] = failed
                self._writing = ""
                self._changed.notify_all()


def open_checkpoints(place: str) -> Checkpoints:
    """A worker's checkpoints in a folder or, written in the background, at a URL. Raises `CheckpointsUrlError`."""
    files = open_files(place)
    return BackgroundCheckpoints(files) if "://" in place else Checkpoints(files)
