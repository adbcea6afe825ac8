"""Rasterising masks without holding up anything else: small ones in a thread, large ones in a process of their own.

Pillow holds the interpreter's lock while it draws, so a stroke that covers millions of pixels thousands of times would
stop every other room in this process. ``python -m livedrag.server.images.rasteriser`` is that other process.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from PIL import Image

from livedrag.server.document.protocol import MaskLayer, Raster
from livedrag.server.document.strokes import max_rasterising_work
from livedrag.server.errors import ServiceError
from livedrag.server.images.encoding import encode_png
from livedrag.server.images.mask import lets_nothing_change, rasterise

THREAD_WORK = 100e6
"""Pixels to write up to which a mask is rasterised in a thread; no single stroke's segment then takes 20 ms."""
SECONDS = 60.0
"""Time limit of the other process."""
NICENESS = 10


class RasterisedMask(msgspec.Struct, frozen=True):
    """A mask as a PNG; ``frozen`` if it lets nothing change."""

    png: bytes
    frozen: bool


class _Job(msgspec.Struct, frozen=True):
    layers: tuple[MaskLayer, ...]
    size: tuple[int, int]
    files: dict[str, str]


class Rasteriser:
    """Rasterises the masks of a server; of large ones one at a time."""

    def __init__(self) -> None:
        self._process = asyncio.Semaphore(1)

    async def rasterise(
        self, layers: tuple[MaskLayer, ...], size: tuple[int, int], file_of: Callable[[str], Path]
    ) -> RasterisedMask:
        """Rasterise layers, see `mask.rasterise`.

        Args:
            file_of: the file of a loaded mask by its SHA-256.

        Raises:
            ServiceError: it takes too long.
            OSError, ValueError: a loaded mask cannot be read.
        """
        loaded = [layer.sha256 for layer in layers if isinstance(layer, Raster)]
        job = _Job(layers, size, {sha256: str(file_of(sha256)) for sha256 in loaded})
        mask = await asyncio.to_thread(_rasterise_if_small, job)
        if mask is not None:
            return mask
        async with self._process:
            return await _rasterise_in_process(job)


def _rasterise_if_small(job: _Job) -> RasterisedMask | None:
    return _rasterise(job) if max_rasterising_work(job.layers, job.size) <= THREAD_WORK else None


def _rasterise(job: _Job) -> RasterisedMask:
    def load(sha256: str) -> Image.Image:
        return Image.open(io.BytesIO(Path(job.files[sha256]).read_bytes()))

    mask = rasterise(job.layers, job.size, load)
    return RasterisedMask(encode_png(mask), lets_nothing_change(mask))


async def _rasterise_in_process(job: _Job) -> RasterisedMask:
    with await asyncio.to_thread(_start_process) as process:
        try:
            async with asyncio.timeout(SECONDS):
                packed, _ = await asyncio.to_thread(process.communicate, msgspec.msgpack.encode(job))
        except TimeoutError:
            text = f"the mask takes more than {SECONDS:g} s to draw: undo the last stroke, or clear the mask"
            raise ServiceError(503, "mask_too_complex", text) from None
        finally:
            process.kill()  # does nothing to one that has ended; the thread that waits for it ends at once, too
    if process.returncode:
        raise OSError(f"the mask could not be rasterised: exit code {process.returncode}")
    return msgspec.msgpack.decode(packed, type=RasterisedMask)


def _start_process() -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C, which reaches all of a terminal's processes, must not end it with a traceback.
    command = [sys.executable, "-m", __name__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def main() -> None:
    """Rasterise the job on standard input; the mask goes to standard output."""
    os.nice(NICENESS)
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=_Job)
    sys.stdout.buffer.write(msgspec.msgpack.encode(_rasterise(job)))


if __name__ == "__main__":
    main()
