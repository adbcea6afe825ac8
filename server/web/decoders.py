"""Threads that decode uploads: few at a time, since a decoded picture takes a hundred times the memory of its file."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from starlette.requests import ClientDisconnect, Request

from livedrag.server.errors import Busy

T = TypeVar("T")
P = ParamSpec("P")


NICENESS = 10
"""Of the threads, so that the event loop does not wait for a core; Linux has a priority for each thread."""


class Decoders:
    """Runs work on pictures' pixels in ``count`` threads of its own.

    Work must hold no decoded picture when it returns, so that memory is bounded however many uploads wait.

    Args:
        patience: seconds that work may wait for its turn.
    """

    def __init__(self, count: int = 2, patience: float = 30.0) -> None:
        self._patience = patience
        self._free = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, "decoder", initializer=_lower_priority)

    async def run(self, request: Request, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``work`` for a request once it is its turn.

        Raises:
            Busy: that takes too long.
            ClientDisconnect: the client has gone meanwhile.
        """
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise Busy("too many pictures are being uploaded", 10) from None
        try:
            if await request.is_disconnected():
                raise ClientDisconnect
        except BaseException:
            self._free.release()
            raise
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, partial(work, *args, **kwargs))
        running.add_done_callback(self._end)
        return await asyncio.shield(running)  # a client that goes away does not free a thread that still decodes

    def _end(self, running: asyncio.Future[T]) -> None:
        self._free.release()
        if not running.cancelled():
            running.exception()  # marks it as retrieved, as nothing waits for it once the request is cancelled


def _lower_priority() -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
