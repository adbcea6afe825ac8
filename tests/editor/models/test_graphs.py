"""Static buffers and the choice of what is recorded, with work that is done anew instead of CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from livedrag.editor.models import diffusion
from livedrag.editor.models import graphs as graphs_module
from livedrag.editor.models.graphs import CudaRecorder, GraphedFunction, Graphs
from tests.recorders import EagerRecorder
from tests.strict_recorder import StrictRecorder

Given = tuple[Tensor, list[Tensor]]
R = TypeVar("R")


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

    def record(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
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


class Noting(EagerRecorder):
    """Notes what is asked of it, and how often the work itself runs meanwhile; replays run none of Python's code."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def run(self, work: Callable[[], R]) -> R:
        self.seen.append("run")
        return work()

    def record(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
        self.seen.append("record")
        outcome, _ = super().record(work)
        return outcome, lambda: self.seen.append("replay")

    def noting(self, given: Given) -> list[Tensor]:
        self.seen.append("work")
        return function(given)


def test_the_eager_runs_are_the_warm_up_and_recording_runs_the_work_once() -> None:
    recorder = Noting()
    graphs = Graphs(recorder, eager_runs=2)
    for seed in range(4):
        graphs.run(("pass",), recorder.noting, inputs(seed))
    warm_up = ["run", "work", "run", "work"]
    assert recorder.seen == [*warm_up, "record", "work", "replay", "replay"]
    recorder.seen.clear()
    graphs.clear()
    for seed in range(2):
        graphs.run(("pass",), recorder.noting, inputs(seed))
    assert recorder.seen == warm_up, "what was dropped is warmed up again"


def test_what_is_not_going_to_be_recorded_is_not_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Noting):
        def record(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
            raise RuntimeError("not capturable")

    refusing = Refusing()
    graphs = Graphs(refusing, eager_runs=1)
    for seed in range(3):
        graphs.run(("pass",), refusing.noting, inputs(seed))
    assert refusing.seen == ["run", "work", "work", "work"]

    monkeypatch.setattr(graphs_module, "CHECK_EVERY", 3)
    waiting, memory = Noting(), iter((False, True, True))
    monkeypatch.setattr(waiting, "has_memory", lambda: next(memory))
    graphs = Graphs(waiting, eager_runs=1)
    for seed in range(6):
        graphs.run(("pass",), waiting.noting, inputs(seed))
    assert waiting.seen == ["run", "work", "work", "work", "run", "work", "record", "work", "replay", "replay"]


def test_an_outcome_is_recorded_without_its_gradients() -> None:
    """Else a graph would keep the memory of all that its backward pass would need."""

    def with_gradients(given: Given) -> list[Tensor]:
        x, (weight,) = given
        with torch.enable_grad():
            return [torch.tanh(x.detach().requires_grad_() @ weight)]

    outcome, _ = StrictRecorder().record(lambda: with_gradients(inputs(0)))
    assert not outcome[0].requires_grad
    assert torch.equal(outcome[0], with_gradients(inputs(0))[0])


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


class Stream:
    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self._seen = name, seen

    def wait_stream(self, other: Stream) -> None:
        self._seen.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done with the streams of a device, which need not be there."""
    seen: list[str] = []

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        seen.append(f"on {stream.name}")
        yield
        seen.append(f"off {stream.name}")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream("current", seen))
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream("recording", seen))
    monkeypatch.setattr(torch.cuda, "stream", on)
    return seen


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_both_streams_wait_for_each_other_around_an_eager_run(streams: list[str], fails: bool) -> None:
    recorder = CudaRecorder(torch.device("cuda:0"))

    def work() -> int:
        streams.append("work")
        return 1 // (not fails)

    if fails:
        with pytest.raises(ZeroDivisionError):
            recorder.run(work)
    else:
        assert recorder.run(work) == 1
    off = [] if fails else ["off recording"]
    before, after = "recording waits for current", "current waits for recording"
    assert streams == [before, "on recording", "work", *off, after]


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
@pytest.mark.parametrize("free", [60, 40], ids=["much memory", "less memory"])
def test_a_capture_waits_for_the_device_only_where_memory_is_short(
    streams: list[str], monkeypatch: pytest.MonkeyPatch, free: int, fails: bool
) -> None:
    class Graph:
        def capture_begin(self, pool: object, capture_error_mode: str) -> None:
            streams.append(f"begin {pool} {capture_error_mode}")

        def capture_end(self) -> None:
            streams.append("end")

        def pool(self) -> object:
            return (0, 7)

        def replay(self) -> None:
            streams.append("replay")

    def work() -> torch.Tensor:
        streams.append("work")
        if fails:
            raise RuntimeError("not capturable")
        return torch.ones(2)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 100))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: streams.append("empty"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: streams.append("wait"))
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "other")
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: streams.append("clear"), raising=False)
    monkeypatch.setattr(graphs_module, "_closing", lambda _: nullcontext())
    recorder = CudaRecorder(torch.device("cuda:0"))
    emptied = ["empty"] if free < 50 else []
    captured = ["on recording", "clear", "begin (0, 7) thread_local", "work", "end", "clear"]
    if fails:
        with pytest.raises(RuntimeError, match="not capturable"):
            recorder.record(work)
        assert streams == [*emptied, *captured]
        return
    outcome, replay = recorder.record(work)
    replay()
    assert torch.equal(outcome, torch.ones(2))
    assert streams == [*emptied, *captured, "off recording", "replay"]


@pytest.mark.parametrize("name", ["_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"])
@pytest.mark.parametrize("underway", [False, True], ids=["ended", "underway"])
def test_a_capture_that_failed_is_ended(monkeypatch: pytest.MonkeyPatch, underway: bool, name: str) -> None:
    """Its pool is given back once: if it has ended, by the graph."""
    seen: list[str] = []

    def end(device: int, pool: tuple[int, int]) -> None:
        seen.append(f"end {pool} on {device}")
        if not underway:
            raise RuntimeError("not currently recording to mempool_id")

    def release(device: int, pool: tuple[int, int]) -> None:
        seen.append(f"release {pool} on {device}")

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool", raising=False)
    monkeypatch.setattr(torch._C, name, end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", release, raising=False)
    with pytest.raises(RuntimeError, match="during capture"), graphs_module._closing((0, 7)):
        raise RuntimeError("operation failed due to a previous error during capture")
    assert seen == ["end (0, 7) on 1", "release (0, 7) on 1"][: 1 + underway]


@pytest.fixture
def cuda() -> Iterator[CudaRecorder]:
    torch.cuda.empty_cache()
    yield CudaRecorder(torch.device("cuda:0"))
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # which fails while a capture is underway


def on_cuda(given: Given) -> Given:
    x, weights = given
    return x.cuda(), [weight.cuda() for weight in weights]


def graphed(recorder: CudaRecorder, work: Callable[[Given], list[Tensor]]) -> GraphedFunction[Given, list[Tensor]]:
    example = on_cuda(inputs(0))
    recorder.run(lambda: work(example))
    return GraphedFunction(work, example, recorder)


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    torch.testing.assert_close([each.cpu() for each in ours], theirs)


@pytest.mark.gpu
def test_what_runs_eagerly_is_recorded_and_runs_again_is_the_same(cuda: CudaRecorder) -> None:
    before, graphs = torch.cuda.current_stream(), Graphs(cuda)
    for seed in range(5):
        assert_close(graphs.run(("pass",), function, on_cuda(inputs(seed))), function(inputs(seed)))
        assert torch.cuda.current_stream() == before
    assert len(graphs) == 1


@pytest.mark.gpu
def test_graphs_of_one_pool_run_in_any_order(cuda: CudaRecorder) -> None:
    def other(given: Given) -> list[Tensor]:
        return [function(given)[1] * 3, given[0] + 1]

    one, two = (graphed(cuda, work) for work in (function, other))
    assert cuda.held_bytes > 0
    for seed, (run, work) in enumerate([(two, other), (one, function), (one, function), (two, other)]):
        assert_close(run(on_cuda(inputs(seed))), work(inputs(seed)))


@pytest.mark.gpu
def test_a_graph_outlives_another_one_of_its_pool(cuda: CudaRecorder) -> None:
    """Torch frees the stream's workspaces of cuBLAS with the other one; those in the graph must stay where they are."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(1024, 1024, generator=generator).half() for _ in range(2))

    def product(given: Given) -> list[Tensor]:
        return [given[0] @ weight for weight in given[1]]

    given = on_cuda((left, [right]))
    expected = product(given)
    cuda.run(lambda: product(given))
    run, other = (GraphedFunction(product, given, cuda) for _ in range(2))
    del other
    torch.cuda.empty_cache()
    held = [cuda.run(lambda: torch.ones(1 << 20, device="cuda:0")) for _ in range(64)]
    torch.testing.assert_close(run(given), expected)
    assert all(bool((each == 1).all()) for each in held)


@pytest.mark.gpu
@pytest.mark.parametrize("earlier", [0, 1], ids=["the first", "a later one"])
def test_a_capture_that_fails_leaves_all_as_it_was(
    cuda: CudaRecorder, caplog: pytest.LogCaptureFixture, earlier: int
) -> None:
    """Torch does not see to that, if the device refuses the work."""
    before, graphs = torch.cuda.current_stream(), Graphs(cuda, eager_runs=1)

    def twice(kind: str, work: Callable[[Given], list[Tensor]]) -> None:
        for seed in (1, 2):
            assert_close(graphs.run((kind,), work, on_cuda(inputs(seed))), work(inputs(seed)))

    for number in range(earlier):
        twice(f"earlier {number}", function)
    twice("waits", wait)
    assert len(caplog.records) == 1
    assert torch.cuda.current_stream() == before
    torch.cuda.empty_cache()  # which fails while a capture is underway
    twice("pass", function)
    assert len(graphs) == earlier + 1
    for number in range(earlier):
        twice(f"earlier {number}", function)


SLOW = 200_000_000
"""Cycles of the device, about a tenth of a second: the host is far ahead."""


def ones() -> Tensor:
    return torch.ones(1 << 20, device="cuda:0")


@pytest.mark.gpu
def test_memory_of_the_recording_stream_is_not_used_again_before_its_readers_are_done(cuda: CudaRecorder) -> None:
    made = cuda.run(ones)
    place = made.data_ptr()
    torch.cuda._sleep(SLOW)
    copy = made.clone()
    del made
    others = [cuda.run(lambda: ones() * 2) for _ in range(8)]
    assert place in {other.data_ptr() for other in others}, "its place was used again"
    assert bool((copy == 1).all())


@pytest.mark.gpu
def test_memory_that_the_recording_stream_reads_is_not_used_again_before_it_has(cuda: CudaRecorder) -> None:
    def late(given: Tensor) -> Tensor:
        torch.cuda._sleep(SLOW)
        return given.clone()

    given = ones()
    place = given.data_ptr()
    copy = cuda.run(partial(late, given))
    del given
    others = [torch.full((1 << 20,), 2.0, device="cuda:0") for _ in range(8)]
    assert place in {other.data_ptr() for other in others}, "its place was used again"
    assert bool((copy == 1).all())
