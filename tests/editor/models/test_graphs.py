"""Static buffers and the choice of what is recorded, with work that is done anew instead of CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from livedrag.editor.models import diffusion
from livedrag.editor.models import graphs as graphs_module
from livedrag.editor.models.graphs import CudaRecorder, GraphedFunction, Graphs
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


def test_runs_count_as_cold_until_there_is_a_graph() -> None:
    recorder = Counting()
    graphs = Graphs(recorder, eager_runs=2)
    seen = []
    for seed in range(5):
        graphs.run(("pass",), function, inputs(seed))
        seen.append(graphs.cold_runs)
    assert seen == [1, 2, 3, 3, 3]
    recorder.memory = False
    for seed in range(5):
        graphs.run(("other",), function, inputs(seed))
    assert graphs.cold_runs == 5, "without memory, later ones take as long"


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


def test_memory_that_only_graphs_can_use_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch counts a graph's pool as reserved and unused."""

    def segment(pool: tuple[int, int], total: int, allocated: int) -> dict[str, object]:
        return {"segment_pool_id": pool, "total_size": total, "allocated_size": allocated}

    class Graph:
        def pool(self) -> tuple[int, int]:
            return (0, 7)

    segments = [segment((0, 0), 100, 60), segment((0, 7), 30, 10), segment((0, 7), 5, 0), segment((0, 8), 50, 0)]
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")
    graph: Any = Graph()
    assert graphs_module._unused_in(graph) == 25

    recorder = EagerRecorder()
    recorder.held_bytes = 25
    monkeypatch.setattr(diffusion, "free_bytes", lambda _: 40)
    assert diffusion._free_beside(Graphs(recorder), torch.device("cuda:0")) == 15
    assert diffusion._free_beside(None, torch.device("cuda:0")) == 40


@pytest.fixture
def cuda() -> Iterator[CudaRecorder]:
    yield CudaRecorder(torch.device("cuda:0"))
    torch.cuda.synchronize()


def on_cuda(given: Given) -> Given:
    x, weights = given
    return x.cuda(), [weight.cuda() for weight in weights]


@pytest.mark.gpu
def test_graphs_of_one_pool_run_in_any_order(cuda: CudaRecorder) -> None:
    def other(given: Given) -> list[Tensor]:
        return [function(given)[1] * 3, given[0] + 1]

    one, two = (GraphedFunction(work, on_cuda(inputs(0)), cuda) for work in (function, other))
    assert cuda.held_bytes > 0
    for seed, (run, work) in enumerate([(two, other), (one, function), (one, function), (two, other)]):
        for ours, theirs in zip(run(on_cuda(inputs(seed))), work(inputs(seed)), strict=True):
            torch.testing.assert_close(ours.cpu(), theirs)


@pytest.mark.gpu
def test_a_capture_that_fails_leaves_the_stream_as_it_was(cuda: CudaRecorder, caplog: pytest.LogCaptureFixture) -> None:
    """`torch.cuda.graph` does not, if the device refuses the work."""
    before, graphs = torch.cuda.current_stream(), Graphs(cuda, eager_runs=0)
    ours, theirs = (graphs.run(("waits",), wait, on_cuda(inputs(1))), wait(inputs(1)))
    torch.testing.assert_close(ours[0].cpu(), theirs[0])
    assert len(caplog.records) == 1
    assert torch.cuda.current_stream() == before
    for seed in (1, 2):
        found = graphs.run(("pass",), function, on_cuda(inputs(seed)))
        torch.testing.assert_close([each.cpu() for each in found], function(inputs(seed)))
    assert len(graphs) == 1
