"""Files that a command writes: whole or not at all, even when Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


class OutputFiles:
    """Writes files under a temporary name, and renames them once they are complete."""

    def __init__(self) -> None:
        self._unfinished: set[Path] = set()
        self._frames = itertools.count()

    def next_frame(self) -> int:
        """The number of the next preview that is saved, from 0."""
        return next(self._frames)

    def save(self, picture: Image.Image, path: Path) -> None:
        """Write a PNG file, replacing an existing one. Raises `OSError`."""
        self.write(lambda part: picture.save(part, format="PNG"), path)

    def write(self, writer: Callable[[Path], object], path: Path) -> None:
        """Have a file written, replacing an existing one. Raises `OSError`."""
        path = path.resolve()  # what a link points to, not the link
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._unfinished.add(part)
        try:
            writer(part)
            part.replace(path)
        finally:
            self.discard(part)

    def write_text(self, text: str, path: Path) -> None:
        """Write a text file in UTF-8, replacing an existing one. Raises `OSError`."""
        self.write(lambda part: part.write_text(text, encoding="utf-8"), path)

    def discard(self, part: Path) -> None:
        """Remove an unfinished file, if it is there."""
        part.unlink(missing_ok=True)
        self._unfinished.discard(part)

    def discard_all(self) -> None:
        """Remove all unfinished files."""
        for part in list(self._unfinished):
            self.discard(part)


@contextlib.contextmanager
def interruptible(command: str, files: OutputFiles) -> Iterator[None]:
    """Within this block Ctrl-C ends the process with one line, `INTERRUPTED` and no unfinished file.

    Not by an exception: libraries print its traceback, turn it into another one, or swallow it in a callback.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield
        return

    def leave(_signal: int, _frame: FrameType | None) -> None:
        files.discard_all()
        sys.stderr.write(f"\n{command}: interrupted\n" if sys.stderr.isatty() else f"{command}: interrupted\n")
        sys.stderr.flush()
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
