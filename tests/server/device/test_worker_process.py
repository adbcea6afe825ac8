"""The process of a device worker."""

from __future__ import annotations

import asyncio
import os

import pytest

from livedrag.server.device.messages import AnyEvent, LoadFailed
from livedrag.server.device.worker_process import WorkerOptions, WorkerProcess


@pytest.mark.skipif(os.name != "posix", reason="SIGINT")
def test_ctrl_c_leaves_a_worker_that_is_starting_to_its_server(capfd: pytest.CaptureFixture[str]) -> None:
    async def story() -> None:
        events: asyncio.Queue[AnyEvent | None] = asyncio.Queue()
        process = await WorkerProcess.spawn(
            "tests.interrupted_worker:serve",
            WorkerOptions(model="none"),
            events.put_nowait,
            lambda: events.put_nowait(None),
        )
        assert await events.get() == LoadFailed(message="still here")
        assert await events.get() is None
        process.forget()

    asyncio.run(story())
    assert capfd.readouterr().err == ""
