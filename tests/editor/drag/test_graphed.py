"""Passes from graphs give what eager passes give: bit for bit where a graph does the work anew, to rounding on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, Point
from livedrag.editor.models.graphs import Graphs
from livedrag.editor.settings import Setting
from tests.editor.drag.test_session import picture

SIDE = 128
QUICK = {"lora_steps": 4, "lora_batch": 2, "lora_rank": 4, "ddim_steps": 6, "max_iterations": 5}
DEVICES = ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module", params=DEVICES)
def exact(request: pytest.FixtureRequest, tiny_folder: Path) -> Diffusion:
    return Diffusion.load(str(tiny_folder), device=request.param, dtype=torch.float64)


class Counting:
    """A model's own recorder, which on the CPU has the work done anew at each run; counts what it records."""

    def __init__(self, model: Diffusion) -> None:
        self._recorder = model.new_recorder()
        self.recorded = 0

    def record(self, parts: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
        self.recorded += 1
        return self._recorder.record(parts)

    def has_memory(self) -> bool:
        return self._recorder.has_memory()

    def forget(self) -> None:
        self._recorder.forget()


@pytest.fixture
def recorder(exact: Diffusion) -> Iterator[Counting]:
    """Of a model whose passes run from graphs."""
    before, made = exact.graphs, Counting(exact)
    exact.graphs = Graphs(made, eager_runs=1)
    yield made
    exact.graphs = before


def new_session(model: Diffusion, *, masked: bool, seed: int = 0, **changed: Setting) -> DragSession:
    settings = DragSettings.resolve(None, {}, {**QUICK, **changed})
    session = DragSession(model, picture(), prompt="a cat", settings=settings, seed=seed)
    session.add_drag("a", Drag(Point(40, 60), Point(80, 70)))
    if masked:
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        mask[:, 20:100] = True
        session.set_mask(mask)
    return session


def edit(session: DragSession) -> list[torch.Tensor]:
    """Latents and losses of all that is done to a picture."""
    seen = [torch.tensor([step.loss for step in session.prepare() if hasattr(step, "loss")])]
    for step in session.drag(preview_every=2):
        seen += [session.latent.cpu(), torch.tensor(step.loss)]
        if step.predicted_x0 is not None:
            seen.append(step.predicted_x0.cpu())
    for _ in session.render():
        pass
    seen.append(torch.from_numpy(np.array(session.result())))
    session.close()
    return seen


def assert_same(model: Diffusion, ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        if model.device.type == "cpu":
            assert torch.equal(one, other)
        else:
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1 if one.dtype == torch.uint8 else 1e-9)


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
@pytest.mark.parametrize("control", [False, True], ids=["plain", "reference control"])
def test_an_edit_is_the_same(exact: Diffusion, recorder: Counting, masked: bool, control: bool) -> None:
    graphed = edit(new_session(exact, masked=masked, reference_control=control))
    assert recorder.recorded >= 2
    exact.graphs = None
    assert_same(exact, graphed, edit(new_session(exact, masked=masked, reference_control=control)))


def test_rooms_that_take_turns_share_graphs(exact: Diffusion, recorder: Counting) -> None:
    """Each iteration is of another room, with another LoRA, and with the one's mask or the other's none."""

    def together() -> list[torch.Tensor]:
        sessions = [new_session(exact, masked=bool(number % 2), seed=number) for number in range(3)]
        for session in sessions:
            for _ in session.prepare():
                pass
        drags = [session.drag(preview_every=0) for session in sessions]
        latents = []
        for _ in range(3):
            for session, steps in zip(sessions, drags, strict=True):
                next(steps)
                latents.append(session.latent.cpu())
        for session, steps in zip(sessions, drags, strict=True):
            steps.close()
            session.close()
        return latents

    graphed = together()
    # Of inversion, and of passes with and without the mask, for all three.
    assert recorder.recorded == 3
    exact.graphs = None
    assert_same(exact, graphed, together())


def test_a_model_on_a_cpu_has_no_graphs(model: Diffusion) -> None:
    assert model.graphs is None
