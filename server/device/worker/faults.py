"""What an error says about the device."""

from __future__ import annotations

import torch


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device had no memory left; CPUs and Apple's GPUs raise a plain `RuntimeError`."""
    message = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in message or "can't allocate memory" in message)
    )


def is_device_fault(error: Exception) -> bool:
    """Whether the device has stopped working for this process, as CUDA devices do after a fault in a kernel."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)
