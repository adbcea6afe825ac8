"""What was measured, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SECONDS, MIB = "s", "MiB"


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        measurement: its number, 1 to 7.
        what, value: the product's.
        against, baseline: what it is compared with.
        aim: the ratio aimed at, at Stable Diffusion's size; None where none is set.
        unit: of both values.
    """

    measurement: int
    what: str
    value: float
    against: str
    baseline: float
    aim: float | None = None
    unit: str = SECONDS

    @property
    def ratio(self) -> float:
        return self.value / self.baseline


def to_markdown(facts: dict[str, str], rows: Sequence[Row], *, aims: bool) -> str:
    """A list of facts and a table; ``aims`` only where they are meant, at Stable Diffusion's size."""
    lines = [f"- {name}: {fact}" for name, fact in facts.items()]
    lines += ["", "| # | Ours | | Against | | Ratio | Aim |", "|--|--|--:|--|--:|--:|--:|"]
    for row in rows:
        value, baseline = (f"{_short(number)} {row.unit}" for number in (row.value, row.baseline))
        aim = f"≤ {row.aim:.2f}" if aims and row.aim is not None else ""
        cells = (str(row.measurement), row.what, value, row.against, baseline, f"{row.ratio:.2f}", aim)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def to_json(facts: dict[str, str], rows: Sequence[Row], times: dict[str, list[float]]) -> dict[str, Any]:
    """Facts, rows with their ratios, and the seconds of every repetition by case."""
    return {"facts": facts, "rows": [{**asdict(row), "ratio": row.ratio} for row in rows], "times": times}


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
