"""CUDA graphs: work such as a pass is recorded once, from static buffers, and then launched as one piece.

Launching a pass of Stable Diffusion kernel by kernel takes longer than a fast GPU takes to compute it. A graph depends
on nothing but the contents of its buffers and of tensors that stay where they are, such as the network's weights.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from livedrag.editor.models.trees import layout, leaves, mapped

log = logging.getLogger(__name__)

Key = tuple[tuple[Hashable, ...], Hashable]
"""Of a graph: the kind of work, and the layout of its argument."""
T = TypeVar("T")
R = TypeVar("R")

EAGER_RUNS = 2
"""Runs of a kind before it is recorded, as it is not worth it for what runs once; they are its warm-up, too."""
CAPACITY = 16
"""Graphs that are kept; the one that was run longest ago is dropped for a new one."""
MIN_FREE = 0.1
"""Share of the device's memory below which graphs are dropped, and none is recorded."""
ROOMY = 0.5
"""Share of the device's memory below which what torch holds without using it is given back before a capture, which
can't do so itself, and needs memory of its own. The device is waited for then."""
CHECK_EVERY = 64
"""Runs between two looks at the device's memory."""


class Recorder(Protocol):
    """Records work on a device."""

    def run(self, work: Callable[[], R]) -> R:
        """Do work that will be recorded later, which warms up what recording needs."""

    def record(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
        """Record work that has been run before.

        Returns:
            Where each replay puts the outcome, a tree of tensors; and what replays the work.
        """

    @property
    def held_bytes(self) -> int:
        """Of the device's memory, that nothing but what was recorded can use."""

    def has_memory(self) -> bool:
        """Whether the device has memory to spare."""

    def forget(self) -> None:
        """What was recorded has been dropped, and its memory can be given back."""


class CudaRecorder:
    """Records CUDA graphs, which share one pool of memory: as much as the largest of them needs.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._recorded: torch.cuda.CUDAGraph | None = None
        self.held_bytes = 0

    def run(self, work: Callable[[], R]) -> R:
        """Do some work on the stream that records, between what the current stream has and gets to do.

        Libraries have their handles and autograd its threads afterwards, which a capture can't make.
        """
        current, stream = torch.cuda.current_stream(self._device), self._recording_stream()
        # Either stream waits for the other here, so that memory which was used on both and then freed, whichever it
        # belongs to, is not used again too early. Only what other streams read needs `record_stream`.
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                return work()
        finally:
            current.wait_stream(stream)

    def record(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
        """A graph of it, and where its outcome is: in the pool, where no later graph of the pool writes."""
        stream, graph = self._recording_stream(), torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle() if self._recorded is None else self._recorded.pool()
        if self._free_share() < ROOMY:
            torch.cuda.empty_cache()
        # As `torch.cuda.graph` does it, which waits for the device and empties torch's cache each time. Here the device
        # goes on with what it was given, such as the iteration before. Other threads may go on: they copy previews and
        # snapshots from the device.
        with torch.cuda.device(self._device), torch.cuda.stream(stream), _workspaces_in_graph(), _closing(pool):
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                outcome = copied(work())
            finally:
                graph.capture_end()
        self._recorded = graph  # as long as one graph of a pool lives, the pool does
        self.held_bytes = _unused_in(graph)
        return outcome, graph.replay

    def _recording_stream(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        return self._stream

    def has_memory(self) -> bool:
        """Whether more than `MIN_FREE` of the memory is free."""
        if self._free_share() < MIN_FREE:
            torch.cuda.empty_cache()  # what torch holds without using it is free as well
        return self._free_share() >= MIN_FREE

    def _free_share(self) -> float:
        free, total = torch.cuda.mem_get_info(self._device)
        return free / total

    def forget(self) -> None:
        """The next graph begins a new pool, so that the old one's memory is free once its graphs are."""
        self._recorded, self.held_bytes = None, 0


@contextlib.contextmanager
def _workspaces_in_graph() -> Iterator[None]:
    """Within this block, cuBLAS takes its workspaces from the pool that is captured into.

    A graph goes on to use those of its capture, but torch frees a stream's workspaces with any graph that was captured
    on it (https://github.com/pytorch/pytorch/issues/193402). What is in the pool stays there as long as the pool does.
    """
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()


@contextlib.contextmanager
def _closing(pool: tuple[int, int]) -> Iterator[None]:
    """After a capture that the device refused, torch's allocator goes on as if it were underway: no memory could be
    given back, and nothing recorded any more. This ends it."""
    try:
        yield
    except BaseException:
        device = torch.cuda.current_device()
        names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")  # of torch 2.8, and before
        end = next(getattr(torch._C, name) for name in names if hasattr(torch._C, name))
        with contextlib.suppress(RuntimeError):  # it has ended
            end(device, pool)
            torch._C._cuda_releasePool(device, pool)
        raise


def _unused_in(graph: torch.cuda.CUDAGraph) -> int:
    """Bytes of a graph's pool that nothing is stored in between its runs, which is all but a little of it."""
    if torch.cuda.get_allocator_backend() != "native":  # others can't say
        return 0
    pool = graph.pool()
    segments = [segment for segment in torch.cuda.memory_snapshot() if segment["segment_pool_id"] == pool]
    return sum(segment["total_size"] - segment["allocated_size"] for segment in segments)


class GraphedFunction(Generic[T, R]):
    """A function that runs from static buffers.

    Args:
        function: of a tree of tensors; gives a tree of tensors.
        example: of its argument.
        recorder: of its work.
    """

    def __init__(self, function: Callable[[T], R], example: T, recorder: Recorder) -> None:
        self._function = function  # with what it reads beside its argument
        self._given = mapped(example, lambda tensor: tensor.detach().clone())
        self._outcome, self._replay = recorder.record(partial(function, self._given))

    def __call__(self, given: T) -> R:
        """The function's outcome, in tensors of its own.

        Args:
            given: with tensors of the shapes and types of the example's.
        """
        copy_into(self._given, given)
        self._replay()
        return copied(self._outcome)


def copied(tree: R) -> R:
    """A tree like this one, with the same in tensors of its own, without gradients."""
    copy = mapped(tree, torch.empty_like)
    copy_into(copy, tree)
    return copy


@torch.no_grad()
def copy_into(places: object, tree: object) -> None:
    """Copy a tree's tensors into those of another one; those of one type at once, as there may be hundreds."""
    by_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for place, value in zip(leaves(places), leaves(tree), strict=True):
        into, of = by_dtype.setdefault(value.dtype, ([], []))
        into.append(place)
        of.append(value)
    for into, of in by_dtype.values():
        torch._foreach_copy_(into, of)


class Graphs:
    """The graphs of one model, recorded as they are needed.

    Args:
        recorder: for its device.
        eager_runs: of a kind before it is recorded; CUDA needs one.
        capacity: graphs that are kept.

    Attributes:
        cold_runs: that ran before there was a graph of their kind, or recorded it: later ones take less time.
    """

    def __init__(self, recorder: Recorder, *, eager_runs: int = EAGER_RUNS, capacity: int = CAPACITY) -> None:
        self._recorder, self._eager_runs, self._capacity = recorder, eager_runs, capacity
        self._graphs: OrderedDict[Key, GraphedFunction[Any, Any]] = OrderedDict()
        self._runs: dict[Key, int] = {}
        self._refused: set[Key] = set()
        self._calls = 0
        self.cold_runs = 0

    def __len__(self) -> int:
        return len(self._graphs)

    @property
    def held_bytes(self) -> int:
        """Of the device's memory, that only graphs can use: torch counts them as free."""
        return self._recorder.held_bytes

    def run(self, kind: tuple[Hashable, ...], function: Callable[[T], R], given: T) -> R:
        """What the function gives, from a graph if there is one; the first runs of a kind are eager.

        Args:
            kind: of work, what tells it from others: functions of one kind do the same with arguments of one layout.
            function: see `GraphedFunction`. What it reads beside its argument stays where it is.
            given: its argument, a tree of tensors; see `livedrag.editor.models.trees`.
        """
        self._calls += 1
        if self._calls % CHECK_EVERY == 0 and self._graphs and not self._recorder.has_memory():
            self.clear()
        key = (kind, layout(given))
        graph: GraphedFunction[T, R] | None = self._graphs.get(key)
        if graph is None:
            self._runs[key] = self._runs.get(key, 0) + 1
            if self._warms_up(key):
                self.cold_runs += 1
                return self._recorder.run(partial(function, given))
            graph = self._record(key, function, given)
        if graph is None:
            return function(given)
        self._graphs.move_to_end(key)
        return graph(given)

    def holds(self, kind: tuple[Hashable, ...], given: object) -> bool:
        """Whether `run` has a graph for this."""
        return (kind, layout(given)) in self._graphs

    def clear(self) -> None:
        """Drop all graphs, and with them their memory; each kind may be recorded again."""
        self._graphs.clear()
        self._runs.clear()
        self._recorder.forget()

    def forget(self, part: object) -> None:
        """Drop all that is known of the kinds of work that this is a part of: they will not run again."""
        self._refused = {key for key in self._refused if part not in key[0]}
        for key in [key for key in self._runs if part in key[0]]:
            del self._runs[key]
            self._graphs.pop(key, None)

    def _warms_up(self, key: Key) -> bool:
        return key not in self._refused and 0 < self._runs[key] <= self._eager_runs

    def _record(self, key: Key, function: Callable[[T], R], given: T) -> GraphedFunction[T, R] | None:
        if key in self._refused or self._runs[key] <= 0:  # which waits for memory
            return None
        if not self._recorder.has_memory():
            self._runs[key] -= CHECK_EVERY
            return None
        self.cold_runs += 1
        while len(self._graphs) >= self._capacity:
            self._graphs.popitem(last=False)
        try:
            graph = self._graphs[key] = GraphedFunction(function, given, self._recorder)
        except torch.OutOfMemoryError:
            log.warning("no memory for a CUDA graph: passes go on without")
            self.clear()
            return None
        except RuntimeError:
            log.warning("a pass could not be recorded as a CUDA graph and goes on without", exc_info=True)
            self._refused.add(key)
            return None
        return graph
