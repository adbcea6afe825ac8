"""What runs from graphs is the same: bit for bit where a graph does the work anew, to rounding on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, DragStep, Point
from livedrag.editor.drag.passes import Answer, Request, answer, run_together
from livedrag.editor.fitting.lora import Lora
from livedrag.editor.models.graphs import Graphs, copied
from livedrag.editor.settings import Setting
from tests.editor.drag.test_passes import to_the_end
from tests.editor.drag.test_session import picture
from tests.fitting import fit_step
from tests.recorders import EagerRecorder, recorder_for
from tests.strict_recorder import StrictRecorder

R = TypeVar("R")

SIDE = 128
QUICK = {"lora_steps": 4, "lora_batch": 2, "lora_rank": 4, "ddim_steps": 6, "max_iterations": 5}
DEVICES = ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module", params=DEVICES)
def exact(request: pytest.FixtureRequest, tiny_folder: Path) -> Diffusion:
    return Diffusion.load(str(tiny_folder), device=request.param, dtype=torch.float64)


class Counting:
    """A model's own recorder; counts what it records."""

    def __init__(self, model: Diffusion) -> None:
        self._recorder = recorder_for(model)
        self.recorded = 0

    def run(self, work: Callable[[], R]) -> R:
        return self._recorder.run(work)

    def record(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
        self.recorded += 1
        return self._recorder.record(work)

    @property
    def held_bytes(self) -> int:
        return self._recorder.held_bytes

    def has_memory(self) -> bool:
        return self._recorder.has_memory()

    def forget(self) -> None:
        self._recorder.forget()


Recording = Counting | StrictRecorder


@pytest.fixture
def recorder(exact: Diffusion) -> Iterator[Recording]:
    """Of a model that runs from graphs; on the CPU it does the work anew and refuses what a graph could not do."""
    before, made = exact.graphs, StrictRecorder() if exact.device.type == "cpu" else Counting(exact)
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
def test_an_edit_is_the_same(exact: Diffusion, recorder: Recording, masked: bool, control: bool) -> None:
    graphed = edit(new_session(exact, masked=masked, reference_control=control))
    assert recorder.recorded >= 2
    exact.graphs = None
    assert_same(exact, graphed, edit(new_session(exact, masked=masked, reference_control=control)))


def prepared(model: Diffusion, numbers: range) -> list[DragSession]:
    """Sessions with LoRAs of their own, every other one with a mask."""
    sessions = [new_session(model, masked=bool(number % 2), seed=number) for number in numbers]
    for session in sessions:
        for _ in session.prepare():
            pass
    return sessions


def test_rooms_that_take_turns_share_graphs(exact: Diffusion, recorder: Recording) -> None:
    """Each iteration is of another room, with another LoRA, and with the one's mask or the other's none; all are aimed
    anew in between."""

    def in_turns() -> list[torch.Tensor]:
        sessions = prepared(exact, range(3))
        drags = [session.drag(preview_every=0) for session in sessions]
        latents = []
        for turn in range(4):
            for session, steps in zip(sessions, drags, strict=True):
                next(steps)
                latents.append(session.latent.cpu())
                session.set_target("a", Point(80 - turn, 70 + turn))
        for session, steps in zip(sessions, drags, strict=True):
            steps.close()
            session.close()
        return latents

    graphed = in_turns()
    # Of fitting, of inversion, and of iterations with and without the mask, for all three.
    assert recorder.recorded == 4
    exact.graphs = None
    assert_same(exact, graphed, in_turns())


def test_rooms_that_share_passes_run_from_graphs(exact: Diffusion, recorder: Recording) -> None:
    def together() -> list[torch.Tensor]:
        sessions = prepared(exact, range(2))
        loops = [session.shared.drag(0) for session in sessions]

        def resume(index: int, answered: Answer) -> Request | None:
            step = loops[index].send(answered)
            return step if isinstance(step, Request) else None

        latents = []
        for _ in range(4):
            run_together(
                {str(index): partial(resume, index) for index in range(2)}, lambda asked: answer(list(asked.values()))
            )
            latents += [session.latent.cpu() for session in sessions]
        for session, loop in zip(sessions, loops, strict=True):
            loop.close()
            session.close()
        return latents

    before = recorder.recorded
    graphed = together()
    assert recorder.recorded == before + 3  # of fitting, of inversion, and of both rooms' iteration
    exact.graphs = None
    assert_same(exact, graphed, together())


def test_previews_at_different_iterations_need_no_graph_for_each_combination(
    exact: Diffusion, recorder: Recording
) -> None:
    def together() -> tuple[list[torch.Tensor], list[bool]]:
        sessions = [new_session(exact, masked=False, seed=number, max_iterations=8) for number in range(3)]
        for session in sessions:
            for _ in session.prepare():
                pass
        before = recorder.recorded
        loops = [session.shared.drag(every) for session, every in zip(sessions, (2, 3, 0), strict=True)]
        latents, previewed = [], []

        def resume(index: int, answered: Answer) -> Request | None:
            step = loops[index].send(answered)
            if isinstance(step, Request):
                return step
            assert isinstance(step, DragStep)
            previewed.append(step.predicted_x0 is not None)
            return None

        for _ in range(6):
            run_together(
                {str(index): partial(resume, index) for index in range(3)}, lambda asked: answer(list(asked.values()))
            )
            latents += [session.latent.cpu() for session in sessions]
        for session, loop in zip(sessions, loops, strict=True):
            loop.close()
            session.close()
        assert recorder.recorded - before == (2 if exact.graphs else 0)  # with any preview, and with none
        return latents, previewed

    graphed, shown = together()
    exact.graphs = None
    eager, expected = together()
    assert shown == expected
    assert_same(exact, graphed, eager)


class Still(EagerRecorder):
    """As a graph, it runs none of Python's code again; nor does it anything else."""

    def record(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
        return copied(work()), lambda: None


def test_a_lora_that_is_fitted_further_is_merged_anew(exact: Diffusion) -> None:
    before, exact.graphs = exact.graphs, Graphs(Still(), eager_runs=0)
    lora = Lora(exact, rank=2, targets=("to_q",), learning_rate=0.1, generator=torch.Generator().manual_seed(0))
    prompt, latent = exact.embed_prompt("a cat"), torch.ones(1, 4, 16, 16, dtype=torch.float64, device=exact.device)
    try:
        for seed in range(3):
            fit_step(lora, latent, prompt, 2, torch.Generator().manual_seed(seed))
            with lora.active(), torch.no_grad():
                exact.predict(latent, 300, prompt)
            assert lora.layers._merged == (lora, lora.version)
    finally:
        lora.remove()
        exact.graphs = before


def test_rooms_inverted_and_rendered_together_run_from_graphs(exact: Diffusion, recorder: Recording) -> None:
    def together() -> list[torch.Tensor]:
        sessions = [new_session(exact, masked=False, seed=number) for number in range(2)]
        to_the_end([session.shared.prepare() for session in sessions])
        to_the_end([session.shared.render(0) for session in sessions])
        pixels = [torch.from_numpy(np.array(session.result())) for session in sessions]
        latents = [session.latent.cpu() for session in sessions]
        for session in sessions:
            session.close()
        return latents + pixels

    graphed = together()
    assert recorder.recorded == 2  # of both rooms' step of fitting, and of their pass
    exact.graphs = None
    assert_same(exact, graphed, together())


def test_a_model_on_a_cpu_has_no_graphs(model: Diffusion) -> None:
    assert model.graphs is None


def test_rendering_with_reference_control_runs_from_graphs(exact: Diffusion, recorder: Recording) -> None:
    session = new_session(exact, masked=False, reference_control=True)
    for _ in session.prepare():
        pass
    before = recorder.recorded
    for _ in session.render(0):
        pass
    session.close()
    assert recorder.recorded == before + 2  # of the unedited latent's pass, and of the one that it controls


@pytest.mark.parametrize("supervision", ["points", "region"])
@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
def test_after_a_warm_up_a_drag_records_nothing(
    exact: Diffusion, recorder: Recording, masked: bool, supervision: str
) -> None:
    """Nor does the warm-up change what the drag gives."""

    def dragged(*, warm: bool) -> list[torch.Tensor]:
        session = new_session(exact, masked=masked, supervision=supervision)
        for _ in session.prepare():
            pass
        if warm:
            before, latent = recorder.recorded, session.latent
            assert list(session.shared.warm_up())
            # Without and with a preview; or with the mask, which needs what previews do, the first and the others.
            assert recorder.recorded == before + 2
            assert torch.equal(session.latent, latent)
            assert not list(session.shared.warm_up())
            before = recorder.recorded
        latents = [session.latent.cpu() for _ in session.drag(preview_every=2)]
        if warm:
            assert recorder.recorded == before
        session.close()
        return latents

    warmed = dragged(warm=True)
    exact.graphs = None
    assert_same(exact, warmed, dragged(warm=False))


def test_nothing_is_warmed_up_without_graphs(exact: Diffusion) -> None:
    before, exact.graphs = exact.graphs, None
    session = new_session(exact, masked=False)
    try:
        for _ in session.prepare():
            pass
        assert not list(session.shared.warm_up())
    finally:
        exact.graphs = before
        session.close()
