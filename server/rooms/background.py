"""Work that nothing waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

log = logging.getLogger(__name__)


class BackgroundTasks:
    """Tasks that nothing waits for. They are cancelled together; an unexpected error is logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def running(self) -> list[asyncio.Task[None]]:
        """The tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a background task failed", exc_info=task.exception())


def log_failure(saving: Future[None]) -> None:
    """Log it if something small, such as a member's name, could not be saved."""

    def done(saving: asyncio.Future[None]) -> None:
        if not saving.cancelled() and saving.exception() is not None:
            log.error("a link or a member was not saved: %s", saving.exception())

    asyncio.wrap_future(saving).add_done_callback(done)
