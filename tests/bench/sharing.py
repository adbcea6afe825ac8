"""Iterations of several rooms that share passes of the UNet, against one room after another (measurement 7)."""

from __future__ import annotations

from functools import partial

import numpy as np

from livedrag.editor import Diffusion, Drag, DragSession, Point
from livedrag.editor.drag.passes import Answer, Request, answer, run_together
from tests.bench.clock import Clock
from tests.bench.drag import STILL
from tests.bench.model import Bench, picture_for, settings_for
from tests.bench.table import Row

ROOMS = (2, 4)


def measure(
    model: Diffusion, bench: Bench, clock: Clock, rooms: tuple[int, ...] = ROOMS, warm_ups: int = 1
) -> list[Row]:
    """Seconds per iteration of all rooms, half of which have a mask; nothing is previewed."""
    sessions = [_session(model, masked=bool(index % 2)) for index in range(max(rooms))]
    visits = []
    for count in rooms:
        visits.append(partial(_one_after_another, sessions[:count], clock))
        visits.append(partial(_together, sessions[:count], clock))
    for _ in range(warm_ups - 1):
        clock.take_turns(visits, rounds=0, warm_up=True)
    clock.take_turns(visits, rounds=bench.rounds, warm_up=True)
    for session in sessions:
        session.close()
    return [
        Row(7, f"iteration of {count} rooms together", clock.median(f"{count} together"), "one after another",
            clock.median(f"{count} one after another"))
        for count in rooms
    ]  # fmt: skip


def _session(model: Diffusion, *, masked: bool) -> DragSession:
    side = model.native_side
    settings = settings_for(model, lora_steps=0, ddim_steps=2, latent_lr=STILL, max_iterations=10_000)
    session = DragSession(model, picture_for(model), settings=settings)
    for _ in session.prepare():
        pass
    session.add_drag("a", Drag(Point(side / 4, side / 2), Point(side * 3 / 4, side / 2)))
    mask = np.zeros((side, side), dtype=bool)
    mask[:, : side // 2] = True
    session.set_mask(mask if masked else None)
    next(session.drag(0))
    return session


def _one_after_another(sessions: list[DragSession], clock: Clock) -> None:
    # With other sessions in between, each has to merge its own LoRA first, as in the service.
    loops = [session.drag(0) for session in sessions]
    with clock.timing(f"{len(sessions)} one after another"):
        for loop in loops:
            next(loop)


def _together(sessions: list[DragSession], clock: Clock) -> None:
    loops = [session.shared.drag(0) for session in sessions]

    def resume(index: int, answered: Answer) -> Request | None:
        step = loops[index].send(answered)
        return step if isinstance(step, Request) else None

    with clock.timing(f"{len(sessions)} together"):
        run_together(
            {str(index): partial(resume, index) for index in range(len(loops))},
            lambda requests: answer(list(requests.values())),
        )
