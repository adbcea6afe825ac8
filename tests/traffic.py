"""A server for tests of traffic: everything is real but its engine, which sends frames and computes nothing.

``python -m tests.traffic PORT DATA`` serves until it is terminated; `serving_traffic` starts it and waits for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from livedrag.server.device.messages import AnyCommand, PreviewReady, RunFinished, Start, Stop
from livedrag.server.settings import Rate, Settings
from livedrag.server.web.serve import serve
from tests.conftest import ROOT, wait_until_healthy
from tests.quiet import QuietEngine, png

FRAME_SECONDS = 0.2
FRAME_BYTES = 8000
UNLIMITED = {field.name: Rate(0, 0) for field in dataclasses.fields(Settings) if field.type == "Rate"}
"""Without these settings, clients that all come from one address and never pause would be rate limited."""


class BusyEngine(QuietEngine):
    """Sends a frame every `FRAME_SECONDS` for each run until it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self._showing: dict[str, asyncio.Task[None]] = {}

    def submit(self, command: AnyCommand) -> None:
        match command:
            case Start(run=run, desired=desired):
                self.desired[desired.room] = desired
                self._showing[desired.room] = asyncio.get_running_loop().create_task(self._show(desired.room, run))
            case Stop(room=room, run=run) if room in self._showing:
                self._showing.pop(room).cancel()
                desired = self.desired[room]
                self._tell(
                    RunFinished(
                        room=room, run=run, outcome="stopped", iterations=1, seq=desired.seq, tracked={}, picture=png()
                    )
                )

    async def close(self) -> None:
        for task in self._showing.values():
            task.cancel()

    async def _show(self, room: str, run: str) -> None:
        iteration = 0
        while True:
            iteration += 1
            self._tell(
                PreviewReady(
                    room=room,
                    run=run,
                    stage="dragging",
                    iteration=iteration,
                    format="webp",
                    width=256,
                    height=256,
                    time=time.time(),
                    data=bytes(FRAME_BYTES),
                )
            )
            await asyncio.sleep(FRAME_SECONDS)


@contextmanager
def serving_traffic(data: Path, port: int, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server in a process of its own, which the caller may kill; gives it once it answers.

    Args:
        data: the data directory; the log is written beside it.
        port: to listen on.
        settings: of the server. With ``rate_limits=1`` the default rate limits apply, otherwise none.
    """
    log = data.with_suffix(".log")
    arguments = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "tests.traffic", str(port), str(data), *arguments]
    with log.open("ab") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process:
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", process, log)
            yield process
        finally:
            process.terminate()
            process.wait(20)


def main() -> None:
    port, data, *settings = sys.argv[1:]
    chosen = {name: float(value) for name, value in (setting.split("=") for setting in settings)}
    rates = {} if chosen.pop("rate_limits", 0) else UNLIMITED
    served = Settings(port=int(port), data_dir=Path(data), **rates, **chosen)  # type: ignore[arg-type]
    asyncio.run(serve(served, BusyEngine(), started=lambda address, server: None))


if __name__ == "__main__":
    main()
