"""The report of a benchmark: means by method, as JSON and as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {
    "mean_distance": "mean distance (px)",
    "masked_mean_distance": "masked mean distance (px)",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "drag_back": "drag-back difference (of 255)",
    "seconds": "seconds",
    "peak_memory_mb": "memory (MiB)",
}
"""What is measured, and how the table calls it."""


def summarise(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, float | int | None]]:
    """By method, how many samples there are and the mean of each measure over those that have it."""
    return {method: {"samples": len(rows), **_means(rows)} for method, rows in results.items()}


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | int | None]:
    means: dict[str, float | int | None] = {}
    for name in COLUMNS:
        values = [float(row[name]) for row in rows if row.get(name) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def to_markdown(summary: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """A table, and what its numbers are."""
    shown = [name for name in COLUMNS if any(row.get(name) is not None for row in summary.values())]
    lines = [
        "| method | samples | " + " | ".join(COLUMNS[name] for name in shown) + " |",
        "|---|--:|" + "--:|" * len(shown),
    ]
    for method, row in summary.items():
        cells = ["" if row.get(name) is None else f"{row[name]:.3f}" for name in shown]
        lines.append(f"| {method} | {row['samples']} | " + " | ".join(cells) + " |")
    notes = [
        f"Model: {about['model']}. Distances are measured by {about['measure']}; others can't be compared with them.",
        "Drag-back: the result is dragged back and compared with the original.",
    ]
    if failed := about.get("failed"):
        notes.append(f"{len(failed)} samples failed, such as {failed[0]['sample']!r}: {failed[0]['error']}")
    return "\n".join([*lines, "", *notes]) + "\n"
