"""The numbers of a run: where each drag's content was after each iteration, how far from its target, and the loss."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class LogRow:
    """A drag after an iteration.

    Args:
        iteration: since the run began.
        drag: its name.
        x, y: where the tracker found its content, in pixels of the picture.
        distance: from there to the target, in pixels.
        content: from where the picture shows its content to the target, in pixels; None: it was not searched.
        loss: of the iteration; 0 if the latent was not optimised.
        lost: whether its content did not follow though it was tracked to its target.
    """

    iteration: int
    drag: str
    x: float
    y: float
    distance: float
    content: float | None
    loss: float
    lost: bool


def rows_of(
    iteration: int,
    handles: Mapping[str, tuple[float, float]],
    distances: Mapping[str, float],
    content: Mapping[str, float],
    loss: float,
    lost: Iterable[str],
) -> list[LogRow]:
    """The rows of one iteration, a drag each; see `LogRow`."""
    return [
        LogRow(iteration, name, x, y, distances[name], content.get(name), loss, name in lost)
        for name, (x, y) in handles.items()
        if name in distances
    ]


def to_csv(rows: Iterable[LogRow]) -> str:
    """A line with the columns' names, then one for each row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(LogRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else value for name, value in asdict(row).items()})
    return text.getvalue()


def to_json(rows: Iterable[LogRow]) -> str:
    """A list of objects."""
    return json.dumps([asdict(row) for row in rows], indent=1) + "\n"


def encode_log(rows: Iterable[LogRow], ending: str) -> str:
    """As CSV, or as JSON for the ending ``.json``."""
    return to_json(rows) if ending == ".json" else to_csv(rows)
