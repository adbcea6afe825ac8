"""Static buffers, turns and the choice of what is recorded, with work that is done anew instead of CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from livedrag.editor.models.graphs import EagerRecorder, GraphedFunction, Graphs, Turns


def function(x: Tensor, weight: Tensor) -> Sequence[Tensor]:
    hidden = torch.tanh(x @ weight)
    return hidden.square().sum(1), hidden.detach() + 1


def inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, weight = (torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return x.requires_grad_(), weight


def graphed(turns: Turns | None = None) -> GraphedFunction:
    return GraphedFunction(function, inputs(0), EagerRecorder(), turns or Turns())


def test_it_gives_what_the_function_gives() -> None:
    run = graphed()
    for seed in (1, 2):
        x, weight = inputs(seed)
        for ours, theirs in zip(run((x, weight), contextlib.nullcontext), function(x, weight), strict=True):
            assert torch.equal(ours, theirs)
            assert ours.requires_grad == theirs.requires_grad


def test_gradients_are_the_functions() -> None:
    run = graphed()
    x, weight = inputs(1)
    (ours,) = torch.autograd.grad((run((x, weight), contextlib.nullcontext)[0] * torch.arange(3)).sum(), x)
    (theirs,) = torch.autograd.grad((function(x, weight)[0] * torch.arange(3)).sum(), x)
    assert torch.equal(ours, theirs)


def test_what_it_gave_stays_when_it_runs_again() -> None:
    run = graphed()
    first = run(inputs(1), contextlib.nullcontext)
    kept = [each.clone() for each in first]
    run(inputs(2), contextlib.nullcontext)
    assert all(torch.equal(one, other) for one, other in zip(first, kept, strict=True))


def test_a_run_between_forward_and_backward_changes_no_gradient() -> None:
    turns = Turns()
    run, other = graphed(turns), graphed(turns)
    for between in (run, other):
        x, weight = inputs(1)
        loss = run((x, weight), contextlib.nullcontext)[0].sum()
        between(inputs(2), contextlib.nullcontext)
        (ours,) = torch.autograd.grad(loss, x)
        (theirs,) = torch.autograd.grad(function(x, weight)[0].sum(), x)
        assert torch.equal(ours, theirs)


def test_weights_that_others_have_changed_are_put_back_for_the_gradient() -> None:
    weight = torch.eye(3, dtype=torch.float64)

    def reads_weight(x: Tensor) -> Sequence[Tensor]:
        return [torch.tanh(x @ weight)]

    @contextlib.contextmanager
    def use(scale: float) -> Iterator[None]:
        weight.copy_(scale * torch.eye(3))
        yield

    x, _ = inputs(1)
    run = GraphedFunction(reads_weight, [x], EagerRecorder(), Turns())
    with use(2):
        loss = run([x], lambda: use(2))[0].sum()
    with use(5):
        run([x], lambda: use(5))
    (ours,) = torch.autograd.grad(loss, x)
    other = x.detach().clone().requires_grad_()
    (theirs,) = torch.autograd.grad(torch.tanh(other @ (2 * torch.eye(3, dtype=torch.float64))).sum(), other)
    assert torch.equal(ours, theirs)


def test_without_gradients_none_are_prepared() -> None:
    run = GraphedFunction(function, [each.detach() for each in inputs(0)], EagerRecorder(), Turns())
    with torch.no_grad():
        assert not any(each.requires_grad for each in run(inputs(1), contextlib.nullcontext))


class Counting(EagerRecorder):
    """Counts what it records."""

    def __init__(self) -> None:
        self.recorded = 0
        self.memory = True
        self.error: RuntimeError | None = None

    def record(self, parts: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
        if self.error is not None:
            raise self.error
        self.recorded += 1
        return super().record(parts)

    def has_memory(self) -> bool:
        return self.memory


def test_the_first_runs_of_a_kind_are_eager() -> None:
    recorder = Counting()
    graphs = Graphs(recorder, eager_runs=2)
    for seed, recorded in ((1, 0), (2, 0), (3, 1), (4, 1)):
        (x, weight) = inputs(seed)
        outcome = graphs.run(("pass",), function, (x, weight))
        assert torch.equal(outcome[0], function(x, weight)[0])
        assert recorder.recorded == recorded
    graphs.run(("other",), function, inputs(1))
    assert len(graphs) == recorder.recorded == 1


def test_other_shapes_and_grad_modes_are_other_kinds() -> None:
    graphs = Graphs(EagerRecorder(), eager_runs=0)
    graphs.run(("pass",), function, inputs(1))
    with torch.no_grad():
        graphs.run(("pass",), function, inputs(1))
    x, weight = inputs(1)
    graphs.run(("pass",), function, (x[:2], weight))
    assert len(graphs) == 3


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
    x, weight = inputs(2)
    assert torch.equal(graphs.run(("pass",), function, (x, weight))[0], function(x, weight)[0])
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
        x, weight = inputs(seed)
        assert torch.equal(graphs.run(("pass",), function, (x, weight))[0], function(x, weight)[0])
    refused = not isinstance(error, torch.OutOfMemoryError)
    assert len(caplog.records) == (1 if refused else 2)


def test_what_will_not_run_again_is_dropped() -> None:
    graphs = Graphs(EagerRecorder(), eager_runs=0)
    layers = object()
    graphs.run(("pass", layers), function, inputs(1))
    graphs.run(("pass", object()), function, inputs(1))
    graphs.forget(layers)
    assert len(graphs) == 1
