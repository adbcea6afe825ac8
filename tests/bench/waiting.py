"""What people wait for: the first moving preview, and the result after Stop (measurement 6).

Against how it was before: 40 steps of fitting where 16 do, 50 levels where 22 do, and all of the unedited picture
denoised and decoded after Stop, where the service now does that before the drag.
"""

from __future__ import annotations

from functools import partial

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, Point
from livedrag.editor.settings import Setting
from tests.bench.clock import Clock
from tests.bench.model import Bench, picture_for
from tests.bench.table import Row

PREPARING, FIRST, STOPPING = "fitting and inversion", "picture to the first preview that moved", "Stop to the result"
BEFORE = ", as before"
AS_BEFORE: dict[str, Setting] = {"lora_steps": 40, "ddim_steps": 50, "inversion_strength": 0.2}
ITERATIONS = 5
"""Of a drag before it is stopped: the first preview of moved content comes with the fifth."""


def edit(model: Diffusion, clock: Clock, overrides: dict[str, Setting], suffix: str = "") -> None:
    """Prepare a picture, drag it a little, stop, and take the result, as the service does."""
    side = model.native_side
    began = clock.now()
    settings = DragSettings.resolve(None, model.defaults, overrides)
    session = DragSession(model, picture_for(model), settings=settings)
    session.add_drag("a", Drag(Point(side / 4, side / 2), Point(side * 3 / 4, side / 2)))
    for _ in session.prepare():
        pass
    prepared = clock.now()
    if not suffix:
        for _ in session.reconstruct():
            pass
    for _, step in zip(range(ITERATIONS), session.drag(), strict=False):
        session.preview(step)
    moved = clock.now()
    for rendering in session.render():
        session.preview(rendering)
    session.result()
    clock.times[PREPARING + suffix].append(prepared - began)
    clock.times[FIRST + suffix].append(moved - began)
    clock.times[STOPPING + suffix].append(clock.now() - moved)
    session.close()


def measure(model: Diffusion, bench: Bench, clock: Clock) -> list[Row]:
    """Seconds; only of the built-in model, whose defaults these are."""
    before = {**AS_BEFORE, **({"lora_steps": 2, "ddim_steps": 8} if bench.name == "tiny" else {})}
    now: dict[str, Setting] = {"lora_steps": 1, "ddim_steps": 4} if bench.name == "tiny" else {}
    visits = [partial(edit, model, clock, before, BEFORE), partial(edit, model, clock, now)]
    clock.take_turns(visits, rounds=max(1, bench.rounds // 4), warm_up=False)
    return [
        Row(6, what, clock.median(what), "as before", clock.median(what + BEFORE), 0.5)
        for what in (PREPARING, FIRST, STOPPING)
    ]
