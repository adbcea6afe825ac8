"""Recorders for tests of all but the graphs themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from livedrag.editor.models.graphs import CudaRecorder, Recorder, copied, copy_into

if TYPE_CHECKING:
    from livedrag.editor import Diffusion

R = TypeVar("R")


class EagerRecorder:
    """Does the work itself each time, on any device."""

    held_bytes = 0

    def run(self, work: Callable[[], R]) -> R:
        return work()

    def record(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
        outcome = copied(work())
        return outcome, lambda: copy_into(outcome, work())

    def has_memory(self) -> bool:
        return True

    def forget(self) -> None:
        pass


def recorder_for(model: Diffusion) -> Recorder:
    """Records CUDA graphs where the model's device has them."""
    return CudaRecorder(model.device) if model.device.type == "cuda" else EagerRecorder()
