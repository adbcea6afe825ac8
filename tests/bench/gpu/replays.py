"""What the loop adds to its graph: how long an iteration takes to record, and what lies between two replays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from livedrag.editor import Diffusion, DragSession
from livedrag.editor.models.graphs import Graphs
from tests.bench.gpu.bench import WARM_UPS, Stopwatch, graphs_switched
from tests.bench.gpu.report import Figure, Report


def replays(report: Report, model: Diffusion, session: DragSession, watch: Stopwatch, prefix: str = "") -> None:
    """Of the iterations of a session without a mask, nothing being previewed."""
    recording, loop, replay = (
        f"{prefix}{what}"
        for what in (
            "iteration without a mask that records its graph",
            "iteration without a mask, graphed",
            "replay of an iteration without a mask",
        )
    )
    session.reset()
    with graphs_switched(model, on=True), contextlib.closing(session.drag(preview_every=0)) as steps:
        graphs, iterate = model.graphs, partial(next, steps)
        assert graphs is not None
        report.measure(recording, "ms", partial(recording_run, graphs, iterate, watch))
        report.measure(replay, "ms", lambda: watch.milliseconds_on_device(last_replay(graphs)))
    eager = f"{prefix}iteration without a mask, eager"
    report.ratio(f"{prefix}recording an iteration's graph, in eager iterations", recording, eager, "about 2")
    if {loop, replay} <= report.values.keys():
        share = 100 * (1 - report.values[replay] / report.values[loop])
        note = "of the time of an iteration among others, what its replay does not take"
        report.add(Figure(f"{prefix}share of the time between replays", share, "%", note=note))


def recording_run(graphs: Graphs, run: Callable[[], object], watch: Stopwatch) -> float:
    """Milliseconds of the first run in which a graph is recorded; those before it are its warm-up."""
    for _ in range(2 * WARM_UPS):
        before = len(graphs)
        seconds = watch.once(run)
        if len(graphs) > before:
            return 1000 * seconds
    raise RuntimeError("no graph was recorded")


def last_replay(graphs: Graphs) -> Callable[[], None]:
    """Replays the graph that ran last, alone."""
    return next(reversed(graphs._graphs.values()))._replay
