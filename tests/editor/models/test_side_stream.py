"""Decoding beside the iterations gives the same pictures; on CUDA, what a stream reads stays until it is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from livedrag.editor import Diffusion, DragSession
from livedrag.editor.models.side_stream import CudaSideStream, NoStream, side_stream
from tests.editor.drag.test_session import make_session
from tests.late_stream import LateStream, decoding_on

SLEEP = 500_000_000
"""Cycles, about a third of a second of a GPU."""


def previews_of(session: DragSession) -> tuple[list[np.ndarray], list[Mapping[str, float]]]:
    """All previews of an edit, and the content that each iteration reports."""
    for _ in session.prepare():
        pass
    pictures: list[np.ndarray] = []
    content: list[Mapping[str, float]] = []
    for step in session.drag(preview_every=2, quality="full"):
        content.append(step.content)
        if (picture := session.preview(step, 64, "full")) is not None:
            pictures.append(np.asarray(picture))
    for rendered in session.render(preview_every=1):
        if (picture := session.preview(rendered, 64, "full")) is not None:
            pictures.append(np.asarray(picture))
    thumbnails = [moment.thumbnail for moment in session.timeline]
    session.close()
    return [*pictures, *(np.asarray(each) for each in thumbnails if each is not None)], content


def test_pictures_are_the_same_and_content_is_reported_an_iteration_later(tiny: Diffusion) -> None:
    settings: dict[str, Any] = {"max_iterations": 5, "arrival_check": "tracker"}
    pictures, content = previews_of(make_session(tiny, **settings))
    with decoding_on(tiny, LateStream()):
        late_pictures, late_content = previews_of(make_session(tiny, **settings))
    assert len(pictures) == len(late_pictures) > 5
    assert all(np.array_equal(one, other) for one, other in zip(pictures, late_pictures, strict=True))
    assert content[0]
    assert not content[1]
    assert late_content[1].keys() == content[0].keys()
    assert not late_content[0]


def test_without_streams_nothing_runs_beside(tiny: Diffusion) -> None:
    stream = side_stream(tiny)
    assert isinstance(stream, NoStream)
    assert side_stream(tiny) is stream
    given = torch.arange(4.0)
    fetched = stream.fetch(lambda: given * 2, [given])
    assert fetched.done
    assert fetched.wait() is fetched.on_device()
    assert fetched.seconds is not None


@pytest.fixture
def cuda() -> Iterator[CudaSideStream]:
    stream = CudaSideStream(torch.device("cuda:0"), iter([]))
    stream.fetch(lambda: torch.zeros(1 << 20, device="cuda:0"), []).wait()  # so that there is pinned memory
    yield stream
    torch.cuda.synchronize()


@pytest.mark.gpu
def test_what_is_read_stays_until_the_work_is_done(cuda: CudaSideStream) -> None:
    def slowly(tensor: torch.Tensor) -> torch.Tensor:
        torch.cuda._sleep(SLEEP)
        return tensor * 2

    fetched = []
    for number in range(8):
        given = torch.full((1 << 20,), float(number), device="cuda:0")
        place = given.data_ptr()
        fetched.append(cuda.fetch(partial(slowly, given), [given]))
        del given
        other = torch.full((1 << 20,), -1.0, device="cuda:0")
        assert other.data_ptr() != place
    for number, each in enumerate(fetched):
        assert torch.equal(each.wait(), torch.full((1 << 20,), 2.0 * number))
        assert each.done
        assert each.seconds is not None
        assert torch.equal(each.on_device().cpu(), each.wait())


@pytest.mark.gpu
def test_work_waits_for_what_was_given_to_the_device_before(cuda: CudaSideStream) -> None:
    torch.cuda._sleep(SLEEP)
    given = torch.ones(1 << 20, device="cuda:0") * 3
    fetched = cuda.fetch(lambda: given + 1, [given])
    assert not fetched.done
    found: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: found.append(fetched.wait().clone()))
    thread.start()
    thread.join()
    assert torch.equal(found[0], torch.full((1 << 20,), 4.0))


@pytest.mark.gpu
def test_an_edit_on_cuda_has_the_same_previews(tiny_folder: Path) -> None:
    model = Diffusion.load(str(tiny_folder), device="cuda:0", dtype=torch.float64)
    settings: dict[str, Any] = {"max_iterations": 5, "arrival_check": "tracker"}
    assert isinstance(side_stream(model), CudaSideStream)
    beside, _ = previews_of(make_session(model, **settings))
    session = make_session(model, **settings)
    session._previewer._side_stream = NoStream()
    plain, _ = previews_of(session)
    for one, other in zip(beside, plain, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
