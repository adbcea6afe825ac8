"""Static buffers and the choice of what is recorded, with work that is done anew instead of CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from livedrag.editor.models.graphs import GraphedFunction, Graphs
from tests.recorders import EagerRecorder
from tests.strict_recorder import StrictRecorder

Given = tuple[Tensor, list[Tensor]]


def function(given: Given) -> list[Tensor]:
    x, (weight,) = given
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = torch.tanh(leaf @ weight).square().sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
    return [loss.detach(), gradient]


def inputs(seed: int) -> Given:
    generator = torch.Generator().manual_seed(seed)
    x, weight = (torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, [weight]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_it_gives_what_the_function_gives() -> None:
    run = GraphedFunction(function, inputs(0), StrictRecorder())
    for seed in (1, 2):
        assert same(run(inputs(seed)), function(inputs(seed)))


def test_what_it_gave_stays_when_it_runs_again() -> None:
    run = GraphedFunction(function, inputs(0), StrictRecorder())
    first = run(inputs(1))
    run(inputs(2))
    assert same(first, function(inputs(1)))


def wait(given: Given) -> list[Tensor]:
    return [given[0] * float(given[0].sum())]


def copy_from_the_host(given: Given) -> list[Tensor]:
    return [given[0] * torch.tensor([1.0, 2.0, 3.0])]


def select(given: Given) -> list[Tensor]:
    return [given[0][given[0] > 0].sum()]


@pytest.mark.parametrize("work", [wait, copy_from_the_host, select])
def test_the_stand_in_refuses_what_no_graph_could_do(work: Callable[[Given], list[Tensor]]) -> None:
    with pytest.raises(AssertionError):
        GraphedFunction(work, inputs(0), StrictRecorder())


def test_the_stand_in_refuses_to_read_what_has_moved() -> None:
    elsewhere = [torch.ones(3, 3, dtype=torch.float64)]
    run = GraphedFunction(lambda given: [given[0] @ elsewhere[0]], inputs(0), StrictRecorder())
    elsewhere[0].mul_(2)
    assert torch.equal(run(inputs(1))[0], inputs(1)[0] @ elsewhere[0])
    elsewhere[0] = elsewhere[0] * 2
    with pytest.raises(AssertionError):
        run(inputs(1))


class Counting(EagerRecorder):
    """Counts what it records."""

    def __init__(self) -> None:
        self.recorded = 0
        self.memory = True
        self.error: RuntimeError | None = None

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.error is not None:
            raise self.error
        self.recorded += 1
        return super().record(work)

    def has_memory(self) -> bool:
        return self.memory


def test_the_first_runs_of_a_kind_are_eager() -> None:
    recorder = Counting()
    graphs = Graphs(recorder, eager_runs=2)
    for seed, recorded in ((1, 0), (2, 0), (3, 1), (4, 1)):
        assert same(graphs.run(("pass",), function, inputs(seed)), function(inputs(seed)))
        assert recorder.recorded == recorded
    graphs.run(("other",), function, inputs(1))
    assert len(graphs) == recorder.recorded == 1


def test_other_shapes_are_other_kinds() -> None:
    graphs = Graphs(EagerRecorder(), eager_runs=0)
    graphs.run(("pass",), function, inputs(1))
    graphs.run(("pass",), function, inputs(2))
    x, weights = inputs(1)
    graphs.run(("pass",), function, (x[:2], weights))
    assert len(graphs) == 2


def test_the_graph_not_used_for_longest_is_dropped() -> None:
    recorder = Counting()
    graphs = Graphs(recorder, eager_runs=0, capacity=2)
    for kind in ("a", "b", "a", "c", "a"):
        graphs.run((kind,), function, inputs(1))
    assert (len(graphs), recorder.recorded) == (2, 3)
    graphs.run(("b",), function, inputs(1))
    assert recorder.recorded == 4


def test_without_memory_all_are_dropped_and_none_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedrag.editor.models.graphs.CHECK_EVERY", 1)
    recorder = Counting()
    graphs = Graphs(recorder, eager_runs=0)
    graphs.run(("pass",), function, inputs(1))
    recorder.memory = False
    assert same(graphs.run(("pass",), function, inputs(2)), function(inputs(2)))
    assert len(graphs) == 0
    recorder.memory = True
    graphs.run(("pass",), function, inputs(1))
    assert len(graphs) == 1


@pytest.mark.parametrize("error", [RuntimeError("not capturable"), torch.OutOfMemoryError("no memory")])
def test_what_cannot_be_recorded_goes_on_without(error: RuntimeError, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Counting()
    recorder.error = error
    graphs = Graphs(recorder, eager_runs=0)
    for seed in (1, 2):
        assert same(graphs.run(("pass",), function, inputs(seed)), function(inputs(seed)))
    refused = not isinstance(error, torch.OutOfMemoryError)
    assert len(caplog.records) == (1 if refused else 2)


def test_what_will_not_run_again_is_dropped() -> None:
    graphs = Graphs(EagerRecorder(), eager_runs=0)
    layers = object()
    graphs.run(("pass", layers), function, inputs(1))
    graphs.run(("pass", object()), function, inputs(1))
    graphs.forget(layers)
    assert len(graphs) == 1


def test_it_is_also_forgotten_that_something_could_not_be_recorded() -> None:
    recorder = Counting()
    recorder.error = RuntimeError("not capturable")
    graphs, layers = Graphs(recorder, eager_runs=0), object()
    graphs.run(("pass", layers), function, inputs(1))
    recorder.error = None
    graphs.run(("pass", layers), function, inputs(1))
    assert len(graphs) == 0
    graphs.forget(layers)
    graphs.run(("pass", layers), function, inputs(1))
    assert len(graphs) == 1
