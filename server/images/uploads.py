"""Uploaded pictures and masks as the PNGs that are stored. Blocking: call it in a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import IO

from livedrag.pictures import PictureFileError, read_mask, read_picture
from livedrag.server.errors import ServiceError
from livedrag.server.images.encoding import encode_png

_webp = threading.Lock()
"""Held while a WebP is decoded, which takes the memory of four pictures; other formats take that of two."""


def encode_picture(file: IO[bytes], name: str, max_pixels: int) -> tuple[bytes, tuple[int, int]]:
    """A picture to edit as a PNG, and its width and height. Raises `ServiceError` for a file that cannot be used."""
    with _service_errors(), _turn(file):
        picture = read_picture(file, name, max_pixels)
        return encode_png(picture), picture.size


def encode_mask(file: IO[bytes], name: str, size: tuple[int, int], max_pixels: int, *, fit: bool = False) -> bytes:
    """A mask as a PNG of 0 and 255; ``fit`` scales one of another size. Raises `ServiceError` for an unusable file."""
    with _service_errors(), _turn(file):
        return encode_png(read_mask(file, name, size, max_pixels, fit=fit))


@contextlib.contextmanager
def _turn(file: IO[bytes]) -> Iterator[None]:
    """Let one WebP at a time be read and encoded."""
    is_webp = file.read(12)[8:] == b"WEBP"
    file.seek(0)
    with _webp if is_webp else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _service_errors() -> Iterator[None]:
    try:
        yield
    except PictureFileError as error:
        status = 413 if error.reason == "too_many_pixels" else 422
        raise ServiceError(status, error.reason, str(error)) from error
