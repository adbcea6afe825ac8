"""CUDA graphs: a pass of a network is recorded once, from static buffers, and then launched as one piece of work.

Launching a pass of Stable Diffusion kernel by kernel takes longer than a fast GPU takes to compute it. A graph depends
on nothing but the contents of its buffers and of tensors that stay where they are, such as the network's weights.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Function = Callable[..., Sequence[Tensor]]
"""Of tensors; gives tensors."""
Key = tuple[tuple[Hashable, ...], bool, tuple[Hashable, ...]]
"""Of a graph: the kind of work, whether it can be differentiated, and shapes and types of its inputs."""
Surroundings = Callable[[], contextlib.AbstractContextManager[None]]

EAGER_RUNS = 2
"""Runs of a kind before it is recorded, as it is not worth it for what runs once; they warm up libraries, too."""
WARM_UPS = 2
"""Runs on the stream that records, before it does."""
CAPACITY = 16
"""Graphs that are kept; the one that was run longest ago is dropped for a new one."""
MIN_FREE = 0.1
"""Share of the device's memory below which graphs are dropped, and none is recorded."""
CHECK_EVERY = 64
"""Runs between two looks at the device's memory."""


class Recorder(Protocol):
    """Records work on a device."""

    def record(self, parts: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
        """For each part, what does its work again. They run in this order, and no part of another record in between."""

    def has_memory(self) -> bool:
        """Whether the device has memory to spare."""

    def forget(self) -> None:
        """What was recorded has been dropped, and its memory can be given back."""


class EagerRecorder:
    """Does the work itself each time, on any device: for tests of all but the graphs."""

    def record(self, parts: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
        """The parts themselves."""
        return list(parts)

    def has_memory(self) -> bool:
        """It needs none."""
        return True

    def forget(self) -> None:
        """It holds nothing."""


class CudaRecorder:
    """Records CUDA graphs, which share one pool of memory: as much as the largest of them needs.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._recorded: torch.cuda.CUDAGraph | None = None

    def record(self, parts: Sequence[Callable[[], None]]) -> list[Callable[[], None]]:
        """A graph for each part."""
        graphs: list[torch.cuda.CUDAGraph] = []
        with torch.cuda.device(self._device):
            if self._stream is None:
                self._stream = torch.cuda.Stream(self._device)
            current = torch.cuda.current_stream(self._device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    for part in parts:
                        part()
            current.wait_stream(self._stream)
            for part in parts:
                graph = torch.cuda.CUDAGraph()
                pool = None if self._recorded is None else self._recorded.pool()
                # Other threads may go on: they copy previews and snapshots from the device.
                with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                    part()
                graphs.append(graph)
                self._recorded = graph  # as long as one graph of a pool lives, the pool does
        return [graph.replay for graph in graphs]

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
        self._recorded = None


class Turns:
    """Counts the runs of all graphs that share memory, so that each can tell whether another has run since."""

    def __init__(self) -> None:
        self.latest = 0

    def take(self) -> int:
        """The number of a run that begins now."""
        self.latest += 1
        return self.latest


class GraphedFunction:
    """A function that runs from static buffers, and can be differentiated once.

    Args:
        function: of tensors.
        examples: of its arguments; it is differentiated with respect to those that require grad.
        recorder: of its work, and of that of its gradient.
        turns: of all graphs of the recorder.
    """

    def __init__(self, function: Function, examples: Sequence[Tensor], recorder: Recorder, turns: Turns) -> None:
        self._function, self._turns = function, turns
        self._inputs = [_static(example) for example in examples]
        dtypes = [tensor.dtype for tensor in self._inputs]
        self._by_dtype = [
            [place for place, other in enumerate(dtypes) if other == dtype] for dtype in dict.fromkeys(dtypes)
        ]
        self._leaves = [tensor for tensor in self._inputs if tensor.requires_grad]
        with torch.set_grad_enabled(bool(self._leaves)):
            outputs = function(*self._inputs)
        self._outputs = [torch.empty_like(output, requires_grad=False) for output in outputs]
        self._has_graph = [output.requires_grad for output in outputs]
        self._produced: list[Tensor] = []
        self._sensitivities = [torch.zeros_like(output) for output in outputs if output.requires_grad]
        self._gradients = [torch.zeros_like(leaf, requires_grad=False) for leaf in self._leaves]
        del outputs
        parts = [self._forward, self._backward] if self._leaves else [self._forward]
        self._replays = recorder.record(parts)
        self._produced = []

    def __call__(self, inputs: Sequence[Tensor], within: Surroundings) -> tuple[Tensor, ...]:
        """The function's outcome, in tensors of its own.

        Args:
            inputs: of the shapes and types of the examples.
            within: where all else that the function reads, such as weights, has the contents that it has now; entered
                to compute a gradient.
        """
        if self._leaves and torch.is_grad_enabled():
            outputs: tuple[Tensor, ...] = _Run.apply(self, within, *inputs)  # type: ignore[no-untyped-call]  # torch's
            return outputs
        self.run(inputs)
        return self.outcome()

    @torch.no_grad()
    def run(self, inputs: Sequence[Tensor]) -> int:
        """Fill the buffers; returns the number of the run."""
        for places in self._by_dtype:  # of one type they are copied at once
            torch._foreach_copy_([self._inputs[place] for place in places], [inputs[place] for place in places])
        self._replays[0]()
        return self._turns.take()

    def outcome(self) -> tuple[Tensor, ...]:
        """Copies of what the latest run gave."""
        return tuple(output.clone() for output in self._outputs)

    @torch.no_grad()
    def differentiate(self, run: int, inputs: Sequence[Tensor], sensitivities: Sequence[Tensor]) -> list[Tensor]:
        """Gradients with respect to the inputs that require grad.

        Args:
            run: its number. If another graph has run since, it is repeated.
            inputs: of the run.
            sensitivities: gradients of a loss with respect to the outputs that have a graph.
        """
        if run != self._turns.latest:
            self.run(inputs)
        torch._foreach_copy_(self._sensitivities, list(sensitivities))
        self._replays[1]()
        self._turns.take()  # the gradient has used up what the run left
        return [gradient.clone() for gradient in self._gradients]

    @property
    def differentiable(self) -> list[bool]:
        """Of each input, whether it requires grad."""
        return [tensor.requires_grad for tensor in self._inputs]

    @property
    def has_graph(self) -> list[bool]:
        """Of each output, whether it depends on such an input."""
        return self._has_graph

    def _forward(self) -> None:
        with torch.set_grad_enabled(bool(self._leaves)):
            outputs = self._function(*self._inputs)
        self._produced = [output for output in outputs if output.requires_grad]
        with torch.no_grad():
            for output, produced in zip(self._outputs, outputs, strict=True):
                output.copy_(produced)

    def _backward(self) -> None:
        gradients = torch.autograd.grad(self._produced, self._leaves, self._sensitivities)
        self._produced = []
        with torch.no_grad():
            for static, gradient in zip(self._gradients, gradients, strict=True):
                static.copy_(gradient)


class _Run(torch.autograd.Function):
    """One run of a `GraphedFunction`, as a node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, graphed: GraphedFunction, within: Surroundings, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the graph."""
        ctx.graphed, ctx.within, ctx.number = graphed, within, graphed.run(inputs)
        ctx.save_for_backward(*inputs)
        outputs = graphed.outcome()
        ctx.mark_non_differentiable(
            *(output for output, has_graph in zip(outputs, graphed.has_graph, strict=True) if not has_graph)
        )
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *sensitivities: Tensor) -> tuple[Tensor | None, ...]:
        """Run the graph of the gradient."""
        graphed: GraphedFunction = ctx.graphed
        wanted = [each for each, has_graph in zip(sensitivities, graphed.has_graph, strict=True) if has_graph]
        with ctx.within():
            gradients = iter(graphed.differentiate(ctx.number, ctx.saved_tensors, wanted))
        by_input = [next(gradients) if needed else None for needed in graphed.differentiable]
        return None, None, *by_input


class Graphs:
    """The graphs of one model, recorded as they are needed.

    Args:
        recorder: for its device.
        eager_runs: of a kind before it is recorded.
        capacity: graphs that are kept.
    """

    def __init__(self, recorder: Recorder, *, eager_runs: int = EAGER_RUNS, capacity: int = CAPACITY) -> None:
        self._recorder, self._eager_runs, self._capacity = recorder, eager_runs, capacity
        self._graphs: OrderedDict[Key, GraphedFunction] = OrderedDict()
        self._runs: dict[Key, int] = {}
        self._refused: set[Key] = set()
        self._turns, self._calls = Turns(), 0

    def __len__(self) -> int:
        return len(self._graphs)

    def run(
        self,
        kind: tuple[Hashable, ...],
        function: Function,
        inputs: Sequence[Tensor],
        within: Surroundings = contextlib.nullcontext,
    ) -> Sequence[Tensor]:
        """What the function gives, from a graph if there is one; the first runs of a kind are eager.

        Args:
            kind: of work, what tells it from others: functions of one kind do the same with inputs of the same shapes
                and types.
            function: see `GraphedFunction`.
            inputs: of the function.
            within: see `GraphedFunction.__call__`.
        """
        self._calls += 1
        if self._calls % CHECK_EVERY == 0 and self._graphs and not self._recorder.has_memory():
            self.clear()
        shapes = tuple((each.shape, each.dtype, each.requires_grad) for each in inputs)
        key = (kind, torch.is_grad_enabled(), shapes)
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._record(key, function, inputs)
        if graph is None:
            return function(*inputs)
        self._graphs.move_to_end(key)
        return graph(inputs, within)

    def clear(self) -> None:
        """Drop all graphs, and with them their memory; each kind may be recorded again."""
        self._graphs.clear()
        self._runs.clear()
        self._recorder.forget()

    def forget(self, part: object) -> None:
        """Drop the graphs of all kinds of work that this is a part of: it will not run again."""
        for key in [key for key in self._runs if part in key[0]]:
            del self._runs[key]
            self._graphs.pop(key, None)

    def _record(self, key: Key, function: Function, inputs: Sequence[Tensor]) -> GraphedFunction | None:
        self._runs[key] = self._runs.get(key, 0) + 1
        if key in self._refused or self._runs[key] <= self._eager_runs:
            return None
        if not self._recorder.has_memory():
            self._runs[key] -= CHECK_EVERY
            return None
        while len(self._graphs) >= self._capacity:
            self._graphs.popitem(last=False)
        try:
            self._graphs[key] = GraphedFunction(function, inputs, self._recorder, self._turns)
        except torch.OutOfMemoryError:
            log.warning("no memory for a CUDA graph: passes go on without")
            self.clear()
            return None
        except RuntimeError:
            log.warning("a pass could not be recorded as a CUDA graph and goes on without", exc_info=True)
            self._refused.add(key)
            return None
        return self._graphs[key]


def _static(example: Tensor) -> Tensor:
    """A buffer like an argument, with its contents."""
    copied = example.detach().clone()
    if isinstance(example, nn.Parameter):
        return nn.Parameter(copied, example.requires_grad)
    return copied.requires_grad_(example.requires_grad)
