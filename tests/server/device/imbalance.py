"""How unevenly rooms are placed on workers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from livedrag.server.device.placement import WorkerLoad, load, step_paces

MAX_IMBALANCE = 1.2
"""The highest that is allowed, where rooms that run do not prevent it: `TARGET_IMBALANCE`, and some more for runs that
begin and end meanwhile."""


def imbalance(workers: Sequence[WorkerLoad]) -> float:
    """The highest load over the mean load of the workers that take rooms; 1 if they have nothing to do."""
    paces = step_paces(workers)
    loads = [load(worker, paces) for worker in workers if not worker.draining]
    mean = fmean(loads) if loads else 0.0
    return max(loads) / mean if mean else 1.0
