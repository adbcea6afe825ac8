"""Calls: a thread for calls that block, in their order, and that may never return."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Calls:
    """A daemon thread that lives as long as this process.

    A thread of a pool will not do. The processes of a cluster that Ray starts end with the thread that started them,
    and Python waits for the threads of pools before it exits.
    """

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def __call__(self, function: Callable[[], T], seconds: float) -> T:
        """The function's result. Raises what it raises, or `TimeoutError` after so many seconds."""
        future = Future[T]()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:
                    future.set_exception(error)
                except BaseException as error:  # Ray raises SystemExit in calls that are under way when it shuts down
                    future.set_exception(RuntimeError(repr(error)))

        self._queue.put(call)
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(future)

    def _work(self) -> None:
        while True:
            self._queue.get()()
