"""Previews that are decoded beside the iterations: encoded in another thread, sent in order and before the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from livedrag.editor.models.side_stream import NoStream
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import PreviewReady, RunFinished
from livedrag.server.device.worker.previews import MAX_PENDING
from livedrag.server.document.protocol import Points
from livedrag.server.images.encoding import encode_preview
from tests.late_stream import LateStream, decoding_on
from tests.server.device.workers import DESIRED, SHORT, Events, a_worker, advance_to, finish, start

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker.device_worker import DeviceWorker

RUN = replace(DESIRED, settings={**SHORT, "max_iterations": 6, "preview_every": 1, "arrival_check": "tracker"})


def in_the_encoder() -> bool:
    return threading.current_thread().name.startswith("previews")


def frames(events: Events) -> list[tuple[Any, ...]]:
    return [(each.run, each.stage, each.iteration, each.data) for each in events.of(PreviewReady)]


def stored(worker: DeviceWorker) -> tuple[dict[int, bytes], dict[int, bytes]]:
    timeline = worker._rooms["a"].timeline
    return dict(timeline.frames), dict(timeline.thumbnails)


@pytest.fixture
def late(small: Diffusion, events: Events, checkpoints: Checkpoints) -> Iterator[DeviceWorker]:
    """A worker whose device goes on while predictions are decoded."""
    with decoding_on(small, LateStream()), a_worker(small, events, checkpoints, quality="full") as worker:
        yield worker


def test_all_are_sent_in_order_and_stored(
    small: Diffusion, late: DeviceWorker, events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: set[bool] = set()

    def noting(*args: Any) -> bytes:
        beside.add(in_the_encoder())
        return encode_preview(*args)

    monkeypatch.setattr("livedrag.server.device.worker.previews.encode_preview", noting)
    start(late, RUN)
    finish(late, events)
    assert True in beside
    kinds = [type(event) for event in events if isinstance(event, PreviewReady | RunFinished)]
    assert kinds.index(RunFinished) == len(kinds) - 1
    sent, kept = frames(events), stored(late)
    events.clear()
    others = Checkpoints(tmp_path / "others")
    with decoding_on(small, NoStream()), a_worker(small, events, others, quality="full") as plain:
        start(plain, RUN)
        finish(plain, events)
        assert sent == frames(events)
        assert kept == stored(plain)


def test_iterations_go_on_while_one_is_encoded(
    late: DeviceWorker, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()

    def waiting(*args: Any) -> bytes:
        if in_the_encoder():
            held.wait()
        return encode_preview(*args)

    monkeypatch.setattr("livedrag.server.device.worker.previews.encode_preview", waiting)
    start(late, RUN)
    try:
        advance_to(late, events, "dragging")
        while len(events.records(Points)) < MAX_PENDING:
            late.advance()
        assert not events.of(PreviewReady)
    finally:
        held.set()
    finish(late, events)
    assert len([each for each in events.of(PreviewReady) if each.stage == "dragging"]) == 6


def test_one_that_cannot_be_encoded_ends_the_run_with_an_error(
    late: DeviceWorker, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any) -> bytes:
        if in_the_encoder():
            raise OSError("no encoder")
        return encode_preview(*args)

    monkeypatch.setattr("livedrag.server.device.worker.previews.encode_preview", failing)
    start(late, RUN)
    ended = finish(late, events)
    assert ended.outcome == "failed"
    assert "no encoder" in (ended.message or "")
    assert not events.of(PreviewReady)
