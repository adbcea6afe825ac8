"""RunNumbers: the numbers of a room's last run, which its checkpoints contain; see `livedrag.run_log`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import msgspec

from livedrag.run_log import LogRow, rows_of
from livedrag.server.device.checkpoints import CheckpointError, Checkpoints, Part
from livedrag.server.document.protocol import Points

MAX_ROWS = 100_000
"""Of a run: later ones are not stored."""
ROWS_A_PART = 1000
PREFIX = "numbers-"
"""Of the names of the parts of a checkpoint."""


class RunNumbers:
    """The rows of one run, oldest first."""

    def __init__(self, run: str = "", rows: list[LogRow] | None = None) -> None:
        self.run, self.rows = run, rows or []

    def note(self, points: Points) -> None:
        """A run has done an iteration; the rows of another run are dropped."""
        if points.run != self.run:
            self.run, self.rows = points.run, []
        if len(self.rows) < MAX_ROWS:
            self.rows += rows_of(
                points.iteration, points.handles, points.distances, points.content, points.loss, points.lost
            )

    def parts(self) -> list[Part]:
        """The parts of a checkpoint that have them; all but the last one stay as they are."""
        return [
            Part(
                name=f"{PREFIX}{start // ROWS_A_PART}",
                make=partial(msgspec.msgpack.encode, (self.run, self.rows[start : start + ROWS_A_PART])),
                stamp=f"{self.run} {min(len(self.rows), start + ROWS_A_PART)}",
            )
            for start in range(0, len(self.rows), ROWS_A_PART)
        ]

    @classmethod
    def read(cls, parts: Mapping[str, bytes]) -> RunNumbers:
        """From the parts of a checkpoint; those of an older version have none."""
        numbers = cls()
        for name in sorted((name for name in parts if name.startswith(PREFIX)), key=_number):
            numbers.run, rows = msgspec.msgpack.decode(parts[name], type=tuple[str, list[LogRow]])
            numbers.rows += rows
        return numbers


def stored_numbers(checkpoints: Checkpoints, room: str, picture: str) -> RunNumbers:
    """The numbers in a room's newest checkpoint of this picture; none without one. Raises `OSError`."""
    newest = checkpoints.newest(room, picture)
    if newest is None:
        return RunNumbers()
    try:
        return RunNumbers.read(checkpoints.parts(room, newest, PREFIX))
    except CheckpointError:
        return RunNumbers()


def _number(name: str) -> int:
    return int(name.removeprefix(PREFIX))
