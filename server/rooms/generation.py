"""Drawings: pictures that are being made from words, until rooms are made of them. All of it is in memory.

The device makes a job as it makes runs, see `engine.Draw`. Whoever follows one is told the newest of each kind of
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

from livedrag.server.device.engine import (
    AnyEvent,
    Engine,
    Generate,
    PreviewReady,
    ReleaseSession,
    RunFinished,
    RunProgress,
)
from livedrag.server.document.protocol import MAX_SEED, Generation, ModelInfo, Progress
from livedrag.server.errors import ServiceError
from livedrag.server.metrics import Metrics
from livedrag.server.settings import Settings

USUAL_STEPS = 50
"""Of a model that does not say."""


class Line(Struct, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """What those who follow a job are told, as JSON."""


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
class GenerationJob:
    """One of them. ``picture`` is its PNG, once it is done; ``used`` when somebody last cared, ``readers`` do now."""

    id: str
    generation: Generation
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


class Generations:
    """All generations of one server.

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
        self._jobs: dict[str, GenerationJob] = {}
        metrics.gauge("livedrag_generations", "Pictures made from words, or being made.", lambda: len(self._jobs))

    def begin(self, prompt: str, seed: int | None, model: ModelInfo) -> GenerationJob:
        """Have a picture made. Raises `ServiceError`."""
        prompt = prompt.strip()
        if not prompt:
            raise ServiceError(422, "empty_prompt", "the prompt is empty: say what the picture should show")
        if len(prompt) > self._settings.max_prompt:
            text = f"the prompt has {len(prompt)} characters: at most {self._settings.max_prompt} work"
            raise ServiceError(422, "prompt_too_long", text)
        if seed is not None and not 0 <= seed <= MAX_SEED:
            text = f"the seed is {seed}: 0 to {MAX_SEED} works, or null for one at random"
            raise ServiceError(422, "bad_seed", text)
        if self._engine.state != "ready":
            text = f"the device cannot generate now, its worker is {self._engine.state}: try again in a moment"
            raise ServiceError(503, "no_device", text)
        self._make_room()
        generation = Generation(
            prompt=prompt,
            seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
            guidance=self._settings.generation_guidance,
            ddim_steps=self._settings.generation_steps or steps_of(model),
            model=model.name,
        )
        job = GenerationJob(secrets.token_urlsafe(18), generation, self._clock())
        job.tell(Waiting(before=0))
        self._jobs[job.id] = job
        self._expire_later(job)
        self._engine.submit(Generate(room=job.id, generation=generation))
        return job

    def _make_room(self) -> None:
        """See that there is a place: the finished job that nobody has used for longest gives way."""
        if len(self._jobs) < self._settings.generations:
            return
        ended = [job for job in self._jobs.values() if job.ended]
        if not ended:
            most = self._settings.generations
            text = f"{len(self._jobs)} pictures are being generated: at most {most} at once work, try again in a moment"
            raise ServiceError(429, "too_many_generations", text)
        del self._jobs[min(ended, key=lambda job: (job.readers, job.used)).id]

    def find(self, id: str) -> GenerationJob:
        """A job by its id, which is used by that. Raises `ServiceError`."""
        job = self._jobs.get(id)
        if job is None:
            text = f"there is no job {id[:100]!r}: it was cancelled, or nobody has used it for long. generate it again"
            raise ServiceError(404, "unknown_generation", text)
        job.used = self._clock()
        return job

    def finished(self, id: str) -> tuple[bytes, Generation]:
        """The PNG of a job that is done, and how it was made. Raises `ServiceError`."""
        job = self.find(id)
        if job.picture is None:
            why = "could not be made" if job.ended else "is not done yet: follow it until it is"
            raise ServiceError(409, "not_generated", f"the picture of the job {id!r} {why}")
        return job.picture, job.generation

    async def follow(self, job: GenerationJob) -> AsyncIterator[bytes]:
        """The lines of a job, from the newest on until its end."""
        job.readers, since = job.readers + 1, 0
        try:
            while True:
                changed = job.changed
                for number, line in job.news(since):
                    since = number
                    yield line
                if job.ended and not job.news(since):
                    return
                await changed.wait()
        finally:
            job.readers -= 1
            job.used = self._clock()

    def cancel(self, id: str) -> None:
        """End a job that is being made, and forget it. Raises `ServiceError`."""
        self._forget(self.find(id))

    def _forget(self, job: GenerationJob) -> None:
        if not job.ended:
            self._engine.submit(ReleaseSession(room=job.id))
            self._end(job, Cancelled())
        self._jobs.pop(job.id, None)

    def _end(self, job: GenerationJob, line: Done | Failed | Cancelled) -> None:
        job.tell(line)
        self._metrics.generations.labels(type(line).__name__.lower()).inc()

    def close(self) -> None:
        """The server stops: let go whoever follows one."""
        for job in self._jobs.values():
            job.tell(Failed(message="the server stops: generate it again in a moment"))

    def _expire_later(self, job: GenerationJob) -> None:
        after = max(0.1, job.used + self._settings.generation_seconds - self._clock())
        asyncio.get_running_loop().call_later(after, self._expire, job)

    def _expire(self, job: GenerationJob) -> None:
        if self._jobs.get(job.id) is not job:
            return
        if job.readers:
            job.used = self._clock()
        if self._clock() - job.used >= self._settings.generation_seconds:
            self._forget(job)
        else:
            self._expire_later(job)

    def hear(self, event: AnyEvent) -> bool:
        """The engine tells something; whether it was about a job."""
        if not isinstance(event, RunProgress | PreviewReady | RunFinished) or event.room not in self._jobs:
            return False
        job = self._jobs[event.room]
        match event:
            case RunProgress(record=Progress(stage="queued", step=before, seconds_left=left)):
                job.tell(Waiting(before=before, seconds_left=left))
            case RunProgress(record=Progress(step=step, steps=steps, seconds_left=left)):
                job.tell(Progressed(step=step, steps=steps, seconds_left=left))
            case PreviewReady(format=format, data=data):
                job.tell(Preview(picture=f"data:image/{format};base64,{base64.b64encode(data).decode()}"))
            case RunFinished(picture=bytes(picture)):
                job.picture = picture
                self._end(job, Done())
            case RunFinished(message=message):
                self._end(job, Failed(message=message or "the picture could not be made: try again"))
        return True


def steps_of(model: ModelInfo) -> int:
    """How many steps the sessions of a model take, where nobody has set it otherwise."""
    steps = model.settings.get("ddim_steps", USUAL_STEPS)
    return int(steps)
