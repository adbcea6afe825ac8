"""Which device a model runs on, in which precision, and tensors on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from livedrag.editor.errors import ModelError
from livedrag.editor.models.trees import leaves, mapped

T = TypeVar("T")


def pick_device(name: str | None) -> torch.device:
    """The torch device of this name; None picks the first CUDA device, else Apple's GPU, else the CPU.

    Raises:
        ModelError: there is no such device, or it can't be used.
    """
    if name is None:
        name = "cuda:0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the device {name!r} can't be used ({reason}): try 'cpu'") from None
    return device


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, without waiting for the copy."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def send_all(tree: T, device: torch.device) -> T:
    """A tree of tensors with all of them on a device, as by `send`; see `livedrag.editor.models.trees`.

    To a GPU, all from the host go in one copy per type: each copy takes longer than such small tensors do.
    """
    if device.type != "cuda":
        return mapped(tree, lambda tensor: send(tensor, device))
    return moved_together(tree, lambda tensor: not tensor.is_cuda, lambda tensor: send(tensor, device))


def fetch(tensor: Tensor) -> Callable[[], Tensor]:
    """Start to copy a tensor to the host; what is given waits for the copy, and for nothing that the device is given
    later."""
    if not tensor.is_cuda:
        return tensor.cpu
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.current_stream(tensor.device).record_event()

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait


def moved_together(tree: T, moves: Callable[[Tensor], bool], move: Callable[[Tensor], Tensor]) -> T:
    """A tree in which some tensors have been moved, all of one type at once.

    Args:
        tree: of tensors.
        moves: tells which tensors to move.
        move: moves a tensor ``(n,)``.
    """
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in filter(moves, leaves(tree)):
        groups.setdefault(tensor.dtype, []).append(tensor)
    moved = {
        dtype: iter(move(torch.cat([tensor.flatten() for tensor in group])).split([*map(Tensor.numel, group)]))
        for dtype, group in groups.items()
    }
    return mapped(tree, lambda tensor: next(moved[tensor.dtype]).view(tensor.shape) if moves(tensor) else tensor)


class ConstantTensors:
    """Small tensors of constants on a device. They are made once and stay where they are, so that graphs may read them.

    Args:
        device: of the tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tensors: dict[tuple[tuple[int, ...], torch.dtype], Tensor] = {}

    def of(self, numbers: tuple[int, ...], dtype: torch.dtype = torch.int64) -> Tensor:
        """These numbers, ``(n,)``."""
        if (numbers, dtype) not in self._tensors:
            self._tensors[numbers, dtype] = torch.tensor(numbers, dtype=dtype, device=self._device)
        return self._tensors[numbers, dtype]


def best_dtype(device: torch.device, *, wide_range: bool) -> torch.dtype:
    """Float16 on CUDA, bfloat16 there if the model needs its range, float32 elsewhere.

    Bfloat16 only where it must be: steps of 0.01 on latents of 1 to 4 are below its spacing there, and above float16's.
    """
    if device.type != "cuda":
        return torch.float32
    has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if wide_range and has_bfloat16 else torch.float16


def free_bytes(device: torch.device) -> int:
    """Bytes that this process can still allocate on a GPU, with those that torch holds unused.

    Of Apple's GPUs, which share the machine's memory, it is what Metal recommends to use at most.
    """
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
