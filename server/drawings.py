"""Drawings: pictures that are being made from words, until rooms are made of them. All of it is in memory.

The device makes a drawing as it makes runs, see `engine.Draw`. Whoever follows one is told the newest of each kind of
line: one that comes late, or is slow, misses nothing that still counts, and one that leaves stops nothing.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from msgspec import Struct

from server.engine import AnyEvent, Draw, Engine, Finished, Forget, Pictured, Reported
from server.metrics import Metrics
from server.protocol import MAX_SEED, Drawn, ModelInfo, Progress
from server.settings import Settings

USUAL_STEPS = 50
"""Of a model that does not say."""


class DrawingFault(Exception):
    """A drawing that cannot be asked for, or is not there; the text says what would work."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Line(Struct, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """What those who follow a drawing are told, as JSON."""


class Waiting(Line, frozen=True, kw_only=True):
    """It waits for a place on the device behind ``before`` others; ``seconds_left`` is None until it can be known."""

    before: int
    seconds_left: float | None = None


class Progressed(Line, frozen=True, kw_only=True, tag="progress"):
    """``step`` of ``steps`` are done."""

    step: int
    steps: int
    seconds_left: float | None = None


class Preview(Line, frozen=True, kw_only=True):
    """What it may come to; ``picture`` is a data URL."""

    picture: str


class Done(Line, frozen=True, kw_only=True):
    """The picture is there. This and the next two are the last of all lines."""


class Failed(Line, frozen=True, kw_only=True):
    """The picture could not be made."""

    message: str


class Cancelled(Line, frozen=True, kw_only=True):
    """Somebody does not want it any more."""


@dataclass(eq=False)
class Drawing:
    """One of them. ``picture`` is its PNG, once it is done; ``used`` when somebody last cared, ``readers`` do now."""

    id: str
    drawn: Drawn
    used: float
    picture: bytes | None = None
    ended: bool = False
    readers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _told: int = 0
    _lines: dict[Literal["state", "preview", "end"], tuple[int, bytes]] = field(default_factory=dict)

    def tell(self, line: Line) -> None:
        """Something has changed; nothing does any more after the end."""
        if self.ended:
            return
        self.ended = isinstance(line, Done | Failed | Cancelled)
        kind: Literal["state", "preview", "end"] = (
            "end" if self.ended else "preview" if isinstance(line, Preview) else "state"
        )
        self._told += 1
        self._lines[kind] = (self._told, msgspec.json.encode(line) + b"\n")
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def news(self, since: int) -> list[tuple[int, bytes]]:
        """The lines after number ``since`` that still count, each with its number."""
        return sorted(line for line in self._lines.values() if line[0] > since)


class Drawings:
    """All drawings of one server.

    Args:
        metrics: in which they are counted.
        clock: in seconds.
    """

    def __init__(
        self, settings: Settings, engine: Engine, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        self._clock = clock
        self._drawings: dict[str, Drawing] = {}
        metrics.gauge("livedrag_drawings", "Pictures made from words, or being made.", lambda: len(self._drawings))

    def begin(self, prompt: str, seed: int | None, model: ModelInfo) -> Drawing:
        """Have a picture made. Raises `DrawingFault`."""
        prompt = prompt.strip()
        if not prompt:
            raise DrawingFault(422, "empty_prompt", "the prompt is empty: say what the picture should show")
        if len(prompt) > self._settings.max_prompt:
            text = f"the prompt has {len(prompt)} characters: at most {self._settings.max_prompt} work"
            raise DrawingFault(422, "prompt_too_long", text)
        if seed is not None and not 0 <= seed <= MAX_SEED:
            text = f"the seed is {seed}: 0 to {MAX_SEED} works, or null for one at random"
            raise DrawingFault(422, "bad_seed", text)
        if self._engine.state != "ready":
            text = f"the device cannot draw now, its worker is {self._engine.state}: try again in a moment"
            raise DrawingFault(503, "no_device", text)
        self._make_room()
        drawn = Drawn(
            prompt=prompt,
            seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
            guidance=self._settings.drawing_guidance,
            ddim_steps=self._settings.drawing_steps or steps_of(model),
            model=model.name,
        )
        drawing = Drawing(secrets.token_urlsafe(18), drawn, self._clock())
        drawing.tell(Waiting(before=0))
        self._drawings[drawing.id] = drawing
        self._expire_later(drawing)
        self._engine.submit(Draw(room=drawing.id, drawn=drawn))
        return drawing

    def _make_room(self) -> None:
        """See that there is a place: the finished drawing that nobody has used for longest gives way."""
        if len(self._drawings) < self._settings.drawings:
            return
        ended = [drawing for drawing in self._drawings.values() if drawing.ended]
        if not ended:
            most = self._settings.drawings
            text = f"{len(self._drawings)} pictures are being drawn: at most {most} at once work, try again in a moment"
            raise DrawingFault(429, "too_many_drawings", text)
        del self._drawings[min(ended, key=lambda drawing: (drawing.readers, drawing.used)).id]

    def find(self, id: str) -> Drawing:
        """A drawing by its id, which is used by that. Raises `DrawingFault`."""
        drawing = self._drawings.get(id)
        if drawing is None:
            text = f"there is no drawing {id[:100]!r}: it was cancelled, or nobody has used it for long. Draw it again"
            raise DrawingFault(404, "unknown_drawing", text)
        drawing.used = self._clock()
        return drawing

    def finished(self, id: str) -> tuple[bytes, Drawn]:
        """The PNG of a drawing that is done, and how it was made. Raises `DrawingFault`."""
        drawing = self.find(id)
        if drawing.picture is None:
            why = "could not be made" if drawing.ended else "is not done yet: follow it until it is"
            raise DrawingFault(409, "not_drawn", f"the picture of the drawing {id!r} {why}")
        return drawing.picture, drawing.drawn

    async def follow(self, drawing: Drawing) -> AsyncIterator[bytes]:
        """The lines of a drawing, from the newest on until its end."""
        drawing.readers, since = drawing.readers + 1, 0
        try:
            while True:
                changed = drawing.changed
                for number, line in drawing.news(since):
                    since = number
                    yield line
                if drawing.ended and not drawing.news(since):
                    return
                await changed.wait()
        finally:
            drawing.readers -= 1
            drawing.used = self._clock()

    def cancel(self, id: str) -> None:
        """End a drawing that is being made, and forget it. Raises `DrawingFault`."""
        self._forget(self.find(id))

    def _forget(self, drawing: Drawing) -> None:
        if not drawing.ended:
            self._engine.submit(Forget(room=drawing.id))
            self._end(drawing, Cancelled())
        self._drawings.pop(drawing.id, None)

    def _end(self, drawing: Drawing, line: Done | Failed | Cancelled) -> None:
        drawing.tell(line)
        self._metrics.drawings.add(type(line).__name__.lower())

    def close(self) -> None:
        """The server stops: let go whoever follows one."""
        for drawing in self._drawings.values():
            drawing.tell(Failed(message="the server stops: draw it again in a moment"))

    def _expire_later(self, drawing: Drawing) -> None:
        after = max(0.1, drawing.used + self._settings.drawing_seconds - self._clock())
        asyncio.get_running_loop().call_later(after, self._expire, drawing)

    def _expire(self, drawing: Drawing) -> None:
        if self._drawings.get(drawing.id) is not drawing:
            return
        if drawing.readers:
            drawing.used = self._clock()
        if self._clock() - drawing.used >= self._settings.drawing_seconds:
            self._forget(drawing)
        else:
            self._expire_later(drawing)

    def hear(self, event: AnyEvent) -> bool:
        """The engine tells something; whether it was about a drawing."""
        if not isinstance(event, Reported | Pictured | Finished) or event.room not in self._drawings:
            return False
        drawing = self._drawings[event.room]
        match event:
            case Reported(record=Progress(stage="queued", step=before, seconds_left=left)):
                drawing.tell(Waiting(before=before, seconds_left=left))
            case Reported(record=Progress(step=step, steps=steps, seconds_left=left)):
                drawing.tell(Progressed(step=step, steps=steps, seconds_left=left))
            case Pictured(format=format, data=data):
                drawing.tell(Preview(picture=f"data:image/{format};base64,{base64.b64encode(data).decode()}"))
            case Finished(picture=bytes(picture)):
                drawing.picture = picture
                self._end(drawing, Done())
            case Finished(message=message):
                self._end(drawing, Failed(message=message or "the picture could not be made: try again"))
        return True


def steps_of(model: ModelInfo) -> int:
    """How many steps the sessions of a model take, where nobody has set it otherwise."""
    steps = model.settings.get("ddim_steps", USUAL_STEPS)
    return int(steps)
