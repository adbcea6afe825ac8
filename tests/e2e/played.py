"""Runs and generations that a test plays through a `QuietEngine`: what people would see, the same each time."""

from __future__ import annotations

import io
import re
import time
from typing import Literal

from PIL import Image, ImageEnhance
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page

from livedrag.server.device.messages import (
    Generate,
    MomentInfo,
    PreviewReady,
    RunFinished,
    RunProgress,
    Start,
    TimelineChanged,
)
from livedrag.server.document.protocol import XY, Points, Progress, Stage
from tests.quiet import QuietEngine, png


def room_of(page: Page) -> str:
    """The id of the room that a page is in."""
    found = re.search(r"/r/([\w-]+)", page.url)
    assert found is not None
    return found[1]


class PlayedRun:
    """The run that was just started in a page's room."""

    def __init__(self, engine: QuietEngine, page: Page) -> None:
        self.engine = engine
        self.room = room_of(page)
        self.start: Start = engine.expect(Start, self.room)
        with Image.open(self.start.picture.path) as picture:
            self.picture = picture.convert("RGB")
        self.moments: list[MomentInfo] = []

    def step(self, iteration: int, share: float, *, preview: bool = True) -> None:
        """Every point has gone a ``share`` of its way, in [0, 1]."""
        desired = self.engine.desired[self.room]
        handles: dict[str, XY] = {}
        distances: dict[str, float] = {}
        for id, grip in desired.drags.items():
            (x, y), (to_x, to_y) = grip.handle, grip.target
            handles[id] = (x + share * (to_x - x), y + share * (to_y - y))
            distances[id] = (1 - share) * ((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5
        run = self.start.run
        progress = Progress(
            run=run,
            stage="dragging",
            step=iteration,
            steps=80,
            seconds=iteration / 7,
            seconds_left=(80 - iteration) / 7,
        )
        points = Points(run=run, iteration=iteration, handles=handles, distances=distances, loss=1 - share)
        self.engine.tell(RunProgress(room=self.room, record=progress))
        self.engine.tell(RunProgress(room=self.room, record=points))
        if preview:
            self.show(iteration)

    def render(self, step: int) -> None:
        """The result is being rendered."""
        progress = Progress(run=self.start.run, stage="rendering", step=step, steps=36, seconds=1.0, seconds_left=9.0)
        self.engine.tell(RunProgress(room=self.room, record=progress))

    def arrive(
        self,
        iterations: int,
        left: float = 0.0,
        color: str = "teal",
        outcome: Literal["arrived", "exhausted"] = "arrived",
    ) -> None:
        """The run ends with each handle at its target, or ``left`` pixels to the right of it."""
        desired = self.engine.desired[self.room]
        targets = {id: (drag.target[0] + left, drag.target[1]) for id, drag in desired.drags.items()}
        self.engine.tell(
            RunFinished(
                room=self.room,
                run=self.start.run,
                outcome=outcome,
                iterations=iterations,
                seq=desired.seq,
                tracked=targets,
                moment=self.moments[-1].id if self.moments else None,
                picture=_result(self.picture.size, color),
            )
        )

    def show(self, iteration: int) -> None:
        """A preview that looks different at every iteration."""
        small = self._picture(iteration, 160)
        event = PreviewReady(
            room=self.room,
            run=self.start.run,
            stage="dragging",
            iteration=iteration,
            format="webp",
            width=small.width,
            height=small.height,
            time=time.time(),
            data=_webp(small),
        )
        self.engine.tell(event)

    def keep(self, iteration: int, parent: int | None = None) -> int:
        """The timeline grows by a moment, after ``parent`` or the last one. Returns its id."""
        id = len(self.moments) + 1
        before = parent if parent is not None else (self.moments[-1].id if self.moments else None)
        self.moments.append(MomentInfo(id=id, parent=before, iteration=iteration, time=time.time(), thumbnail=True))
        thumbnails = {id: _webp(self._picture(iteration, 96))}
        self.engine.tell(TimelineChanged(room=self.room, moments=list(self.moments), current=id, thumbnails=thumbnails))
        return id

    def _picture(self, iteration: int, side: int) -> Image.Image:
        small = self.picture.copy()
        small.thumbnail((side, side))
        return ImageEnhance.Color(small).enhance(1 + iteration / 40)


def ask_for(page: Page, words: str) -> None:
    page.get_by_label("Prompt").fill(words)
    page.get_by_label("Prompt").press("Enter")


class PlayedGeneration:
    """The generation that was just requested."""

    def __init__(self, engine: QuietEngine) -> None:
        self.engine = engine
        self.id: str = engine.expect_any(Generate).room

    def tell(self, stage: Stage, step: int, seconds_left: float | None) -> None:
        record = Progress(run=self.id, stage=stage, step=step, steps=50, seconds=1.0, seconds_left=seconds_left)
        self.engine.tell(RunProgress(room=self.id, record=record))

    def show(self, color: str) -> None:
        self.engine.tell(
            PreviewReady(
                room=self.id,
                run=self.id,
                stage="generating",
                iteration=4,
                format="webp",
                width=64,
                height=64,
                time=0.0,
                data=png(64, 64, color),
            )
        )

    def end(self, picture: bytes | None, message: str | None = None) -> None:
        self.engine.tell(
            RunFinished(
                room=self.id,
                run=self.id,
                outcome="failed" if picture is None else "arrived",
                iterations=50,
                seq=0,
                tracked={},
                picture=picture,
                message=message,
            )
        )


def _result(size: tuple[int, int], color: str) -> bytes:
    """A result that says something of how it was made, as real ones do."""
    made, buffer = PngInfo(), io.BytesIO()
    made.add_text("Comment", "played")
    Image.new("RGB", size, color).save(buffer, "PNG", pnginfo=made)
    return buffer.getvalue()


def _webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
