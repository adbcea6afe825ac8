"""On a CUDA device: the loop is the paper's, drags arrive in half precision, memory comes back. `pytest -m gpu`."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, Point
from livedrag.editor.models.references import BUILTIN
from tests.editor.test_paper import Opened, assert_agrees, both, half_mask

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def on_cuda() -> Diffusion:
    return Diffusion.load("builtin", device="cuda:0")


def run(model: Diffusion, samples: Path) -> tuple[DragSession, float, float]:
    session = DragSession(model, Image.open(samples / "teddy-bear.png"), prompt="a teddy bear")
    session.add_drag("arm", Drag(Point(62, 150), Point(40, 110)))
    session.set_mask(np.asarray(Image.open(samples / "teddy-bear-mask.png").convert("L")))
    for _ in session.prepare():
        pass
    distances = []
    for step in session.drag():
        session.preview(step)
        distances.append(step.distances["arm"])
    for _ in session.render():
        pass
    return session, distances[0], distances[-1]


def test_a_drag_in_half_precision(on_cuda: Diffusion, samples: Path) -> None:
    assert on_cuda.dtype in (torch.bfloat16, torch.float16)
    session, began, ended = run(on_cuda, samples)
    assert session.latent.is_cuda
    assert session.latent.dtype == torch.float32
    assert ended < began / 2
    assert session.result().size == (256, 256)
    session.close()


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
def test_the_loop_is_the_papers_in_float64(samples: Path, masked: bool) -> None:
    model = Diffusion.load("builtin", device="cuda:0", dtype=torch.float64)
    picture = Image.open(samples / "teddy-bear.png").convert("RGB")
    mask = half_mask(256, 256) if masked else None
    assert_agrees(*both(Opened(model, BUILTIN), picture, [Drag(Point(62, 150), Point(40, 110))], mask))


def test_closing_gives_the_memory_back(on_cuda: Diffusion, samples: Path) -> None:
    used = []
    for _ in itertools.repeat(None, 3):
        session, _, _ = run(on_cuda, samples)
        session.close()
        del session
        used.append(torch.cuda.memory_allocated())
    assert used[2] <= used[1] * 1.01


def test_an_iteration_waits_for_nothing_but_its_own_numbers(on_cuda: Diffusion, samples: Path) -> None:
    session = DragSession(on_cuda, Image.open(samples / "teddy-bear.png"), prompt="a teddy bear")
    session.change({"arrival_check": "tracker", "warp_share": 0.0})
    session.add_drag("arm", Drag(Point(62, 150), Point(40, 110)))
    for _ in session.prepare():
        pass
    steps = session.drag(preview_every=0)
    for _ in range(5):  # the third is recorded
        next(steps)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            next(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    session.close()
    # They are waited for by an event, which torch does not count.
    assert not [warning for warning in seen if "called a synchronizing" in str(warning.message)]
