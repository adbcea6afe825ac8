"""Work beside the iterations: on CUDA it runs on a stream of its own, and its outcome is copied to the host meanwhile.

Only the thread that owns the device starts such work, as networks have state in Python too; any thread may wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from livedrag.editor.models.diffusion import Diffusion


class Fetched(Protocol):
    """A tensor that is being computed, and copied to the host."""

    @property
    def done(self) -> bool:
        """Whether it is there."""

    @property
    def seconds(self) -> float | None:
        """That the device took for it; None: it is not done."""

    def on_device(self) -> Tensor:
        """The tensor on the device, for the current stream; it has to be done."""

    def wait(self) -> Tensor:
        """The tensor on the host, once it is there; may be called in any thread."""


class SideStream(Protocol):
    """Where work runs beside what the device computes next."""

    @property
    def beside(self) -> bool:
        """Whether `fetch` returns before the work is done."""

    def fetch(self, work: Callable[[], Tensor], reads: Sequence[Tensor]) -> Fetched:
        """Start some work, after what the device has been given so far.

        Args:
            work: gives a tensor, without waiting for the device.
            reads: the tensors that it reads, but for weights of the autoencoders.
        """


class _Here:
    def __init__(self, tensor: Tensor, seconds: float) -> None:
        self._tensor, self.seconds = tensor, seconds
        self.done = True

    def on_device(self) -> Tensor:
        return self._tensor

    def wait(self) -> Tensor:
        return self._tensor.cpu()


class NoStream:
    """Does the work at once, on devices without streams."""

    beside = False

    def fetch(self, work: Callable[[], Tensor], _reads: Sequence[Tensor]) -> Fetched:
        """The work's outcome."""
        began = time.perf_counter()
        tensor = work()
        return _Here(tensor, time.perf_counter() - began)


class _Underway:
    """Of a CUDA stream; both events are recorded there, around the work."""

    def __init__(self, tensor: Tensor, host: Tensor, began: torch.cuda.Event, end: torch.cuda.Event) -> None:
        self._tensor, self._host, self._began, self._end = tensor, host, began, end

    @property
    def done(self) -> bool:
        return bool(self._end.query())

    @property
    def seconds(self) -> float | None:
        return self._began.elapsed_time(self._end) / 1000 if self.done else None

    def on_device(self) -> Tensor:
        assert self.done
        self._tensor.record_stream(torch.cuda.current_stream(self._tensor.device))
        return self._tensor

    def wait(self) -> Tensor:
        self._end.synchronize()
        return self._host


class CudaSideStream:
    """A CUDA stream.

    Args:
        device: of all tensors.
        weights: that work may read; their memory is not used for anything else before it is done.
    """

    beside = True

    def __init__(self, device: torch.device, weights: Iterator[Tensor]) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        for weight in weights:
            weight.record_stream(self._stream)

    def fetch(self, work: Callable[[], Tensor], reads: Sequence[Tensor]) -> Fetched:
        """Start some work; see `SideStream`."""
        began, end = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        for read in reads:  # also by work that fails
            read.record_stream(self._stream)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            began.record(self._stream)
            tensor = work()
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host.copy_(tensor, non_blocking=True)
            end.record(self._stream)
        return _Underway(tensor, host, began, end)


_of_model: WeakKeyDictionary[Diffusion, SideStream] = WeakKeyDictionary()


def side_stream(model: Diffusion) -> SideStream:
    """That of a model's device and autoencoders."""
    if model not in _of_model:
        cuda = model.device.type == "cuda"
        _of_model[model] = CudaSideStream(model.device, _weights(model)) if cuda else NoStream()
    return _of_model[model]


def _weights(model: Diffusion) -> Iterator[Tensor]:
    for network in filter(None, (model.vae, model.tiny)):
        yield from network.parameters()
        yield from network.buffers()
