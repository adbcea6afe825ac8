"""A stand-in for a CUDA stream beside the iterations: what it gives is there later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from livedrag.editor import Diffusion
from livedrag.editor.models import side_stream
from livedrag.editor.models.side_stream import Fetched, SideStream


class Late:
    """Done when it is asked for the second time."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._asked = tensor, 0

    @property
    def done(self) -> bool:
        self._asked += 1
        return self._asked > 1

    @property
    def seconds(self) -> float | None:
        return 1e-3 if self._asked > 1 else None

    def on_device(self) -> Tensor:
        assert self._asked > 1
        return self._tensor

    def wait(self) -> Tensor:
        return self._tensor


class LateStream:
    beside = True

    def fetch(self, work: Callable[[], Tensor], _reads: Sequence[Tensor]) -> Fetched:
        return Late(work())


@contextmanager
def decoding_on(model: Diffusion, stream: SideStream) -> Iterator[None]:
    """Within this block new sessions of a model decode predictions on this stream."""
    before = side_stream.side_stream(model)
    side_stream._of_model[model] = stream
    try:
        yield
    finally:
        side_stream._of_model[model] = before
