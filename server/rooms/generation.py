"""Pictures that are generated from a prompt, in memory until a room is created from them.

The engine treats a job like a run, see `engine.Generate`. Its followers get the latest line of each kind: a late or
slow one misses nothing that still counts, and the job continues without any.
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

from livedrag.server.device.engine import Engine
from livedrag.server.device.messages import AnyEvent, Generate, PreviewReady, ReleaseSession, RunFinished, RunProgress
from livedrag.server.document.protocol import MAX_SEED, Generation, ModelInfo, Progress
from livedrag.server.errors import ServiceError
from livedrag.server.metrics import Metrics
from livedrag.server.settings import Settings

DEFAULT_STEPS = 50
"""For a model that has no default."""


class Line(Struct, frozen=True, kw_only=True, tag_field="type", tag=str.lower):
    """One line of JSON for the followers of a job."""


class Waiting(Line, frozen=True, kw_only=True):
    """The job waits for the device behind ``before`` others; ``seconds_left`` is None until it can be estimated."""

    before: int
    seconds_left: float | None = None


class Progressed(Line, frozen=True, kw_only=True, tag="progress"):
    """``step`` of ``steps`` are done."""

    step: int
    steps: int
    seconds_left: float | None = None


class Preview(Line, frozen=True, kw_only=True):
    """A preview; ``picture`` is a data URL."""

    picture: str


class Done(Line, frozen=True, kw_only=True):
    """The picture is ready. This and the next two end the lines."""


class Failed(Line, frozen=True, kw_only=True):
    """The picture could not be generated."""

    message: str


class Cancelled(Line, frozen=True, kw_only=True):
    """The job was cancelled, or not used for a long time."""


@dataclass(eq=False)
class GenerationJob:
    """One generation.

    Attributes:
        used: when it was last used, by the clock of `Generations`.
        picture: the PNG, once it is done.
        followers: how many follow it now.
        changed: set, and replaced, at every new line.
    """

    id: str
    generation: Generation
    used: float
    picture: bytes | None = None
    ended: bool = False
    followers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _count: int = 0
    _lines: dict[Literal["state", "preview", "end"], tuple[int, bytes]] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Add a line; after the end there are no more."""
        if self.ended:
            return
        self.ended = isinstance(line, Done | Failed | Cancelled)
        kind: Literal["state", "preview", "end"] = (
            "end" if self.ended else "preview" if isinstance(line, Preview) else "state"
        )
        self._count += 1
        self._lines[kind] = (self._count, msgspec.json.encode(line) + b"\n")
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def lines_after(self, number: int) -> list[tuple[int, bytes]]:
        """The lines after this number that still count, each with its number."""
        return sorted(line for line in self._lines.values() if line[0] > number)


class Generations:
    """All generations of one server.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(
        self, settings: Settings, engine: Engine, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        self._clock = clock
        self._jobs: dict[str, GenerationJob] = {}
        metrics.gauge("livedrag_generations", "Generated pictures, finished or under way.", lambda: len(self._jobs))

    def begin(self, prompt: str, seed: int | None, model: ModelInfo) -> GenerationJob:
        """Start to generate a picture. Raises `ServiceError`."""
        prompt = prompt.strip()
        if not prompt:
            raise ServiceError(422, "empty_prompt", "the prompt is empty: describe the picture")
        if len(prompt) > self._settings.max_prompt:
            text = f"the prompt has {len(prompt)} characters, the limit is {self._settings.max_prompt}"
            raise ServiceError(422, "prompt_too_long", text)
        if seed is not None and not 0 <= seed <= MAX_SEED:
            text = f"the seed is {seed}, but must be between 0 and {MAX_SEED}, or null for a random one"
            raise ServiceError(422, "bad_seed", text)
        if self._engine.state != "ready":
            text = f"the device is {self._engine.state}: try again in a moment"
            raise ServiceError(503, "no_device", text)
        self._make_place()
        generation = Generation(
            prompt=prompt,
            seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
            guidance=self._settings.generation_guidance,
            ddim_steps=self._settings.generation_steps or max(steps_of(model), DEFAULT_STEPS),
            model=model.name,
        )
        job = GenerationJob(secrets.token_urlsafe(18), generation, self._clock())
        job.add(Waiting(before=0))
        self._jobs[job.id] = job
        self._expire_later(job)
        self._engine.submit(Generate(room=job.id, generation=generation))
        return job

    def _make_place(self) -> None:
        """Drop the finished job that was not used for the longest time if there are too many."""
        if len(self._jobs) < self._settings.generations:
            return
        ended = [job for job in self._jobs.values() if job.ended]
        if not ended:
            limit = self._settings.generations
            text = f"{len(self._jobs)} pictures are being generated, the limit is {limit}: try again in a moment"
            raise ServiceError(429, "too_many_generations", text)
        del self._jobs[min(ended, key=lambda job: (job.followers, job.used)).id]

    def find(self, id: str) -> GenerationJob:
        """A job by its id, which counts as using it. Raises `ServiceError`."""
        job = self._jobs.get(id)
        if job is None:
            text = f"there is no generation {id[:100]!r} (any more): generate the picture again"
            raise ServiceError(404, "unknown_generation", text)
        job.used = self._clock()
        return job

    def finished(self, id: str) -> tuple[bytes, Generation]:
        """The PNG of a finished job, and how it was generated. Raises `ServiceError`."""
        job = self.find(id)
        if job.picture is None:
            why = "could not be generated" if job.ended else "is not ready yet: follow it until it is done"
            raise ServiceError(409, "not_generated", f"the picture of generation {id!r} {why}")
        return job.picture, job.generation

    async def follow(self, job: GenerationJob) -> AsyncIterator[bytes]:
        """The latest lines of a job, then new ones until its end."""
        job.followers, since = job.followers + 1, 0
        try:
            while True:
                changed = job.changed
                for number, line in job.lines_after(since):
                    since = number
                    yield line
                if job.ended and not job.lines_after(since):
                    return
                await changed.wait()
        finally:
            job.followers -= 1
            job.used = self._clock()

    def cancel(self, id: str) -> None:
        """Cancel a job and discard it. Raises `ServiceError`."""
        self._discard(self.find(id))

    def _discard(self, job: GenerationJob) -> None:
        if not job.ended:
            self._engine.submit(ReleaseSession(room=job.id))
            self._end(job, Cancelled())
        self._jobs.pop(job.id, None)

    def _end(self, job: GenerationJob, line: Done | Failed | Cancelled) -> None:
        job.add(line)
        self._metrics.generations.labels(type(line).__name__.lower()).inc()

    def close(self) -> None:
        """The server stops: end the answers of all followers."""
        for job in self._jobs.values():
            job.add(Failed(message="the server is stopping: try again in a moment"))

    def _expire_later(self, job: GenerationJob) -> None:
        after = max(0.1, job.used + self._settings.generation_seconds - self._clock())
        asyncio.get_running_loop().call_later(after, self._expire, job)

    def _expire(self, job: GenerationJob) -> None:
        if self._jobs.get(job.id) is not job:
            return
        if job.followers:
            job.used = self._clock()
        if self._clock() - job.used >= self._settings.generation_seconds:
            self._discard(job)
        else:
            self._expire_later(job)

    def on_event(self, event: AnyEvent) -> bool:
        """Take in an event of the engine; returns whether it was about a job."""
        if not isinstance(event, RunProgress | PreviewReady | RunFinished) or event.room not in self._jobs:
            return False
        job = self._jobs[event.room]
        match event:
            case RunProgress(record=Progress(stage="queued", step=before, seconds_left=left)):
                job.add(Waiting(before=before, seconds_left=left))
            case RunProgress(record=Progress(step=step, steps=steps, seconds_left=left)):
                job.add(Progressed(step=step, steps=steps, seconds_left=left))
            case PreviewReady(format=format, data=data):
                job.add(Preview(picture=f"data:image/{format};base64,{base64.b64encode(data).decode()}"))
            case RunFinished(picture=bytes(picture)):
                job.picture = picture
                self._end(job, Done())
            case RunFinished(message=message):
                self._end(job, Failed(message=message or "the picture could not be generated: try again"))
        return True


def steps_of(model: ModelInfo) -> int:
    """The default number of DDIM steps of a model."""
    steps = model.settings.get("ddim_steps", DEFAULT_STEPS)
    return int(steps)
