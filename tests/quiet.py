"""A server whose engine computes nothing, for tests in which only the traffic matters. Everything else is real."""

from __future__ import annotations

import asyncio
import io
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from livedrag.server.device.engine import Engine
from livedrag.server.device.messages import (
    AnyCommand,
    AnyEvent,
    DesiredState,
    EventHandler,
    Prepare,
    PreviewReady,
    RunFinished,
    Seek,
    Start,
    Stop,
    UpdateRun,
)
from livedrag.server.document.protocol import ModelInfo
from livedrag.server.settings import Settings
from livedrag.server.web.serve import Server, serve

C = TypeVar("C", bound=AnyCommand)

MODEL = ModelInfo(
    name="quiet",
    kind="builtin",
    settings={
        "lora_steps": 80,
        "lora_targets": "to_q to_k to_v to_out",
        "latent_lr": 0.01,
        "warp_share": 0.0,
        "background": "loss",
        "feather": 2.0,
        "max_iterations": 80,
        "reference_control": False,
        "preset": "",
        "seed": 0,
        "preview_every": 4,
        "preview_side": 256,
    },
    presets=["official", "paper"],
    choices={"background": ("loss", "keep")},
    live=("feather", "latent_lr", "max_iterations", "preview_side", "warp_share"),
    ranges={
        "lora_steps": (0, 10_000),
        "latent_lr": (1e-6, 10),
        "warp_share": (0, 1),
        "feather": (0, 64),
        "max_iterations": (1, 10_000),
        "preview_every": (1, 99),
    },
    words={"lora_targets": ("to_q", "to_k", "to_v", "to_out")},
)


def png(width: int = 64, height: int = 48, color: str = "teal", mode: str = "RGB") -> bytes:
    """A small PNG of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, (width, height), color).save(buffer, "PNG")
    return buffer.getvalue()


class QuietEngine(Engine):
    """Records its commands; its runs do nothing until they are stopped."""

    ends_stopped_runs = True

    def __init__(self) -> None:
        self.commands: queue.Queue[AnyCommand] = queue.Queue()
        self.desired: dict[str, DesiredState] = {}

    async def start(self, on_event: EventHandler) -> ModelInfo:
        self._loop, self._tell = asyncio.get_running_loop(), on_event
        self.state = "ready"
        return MODEL

    def submit(self, command: AnyCommand) -> None:
        self.commands.put(command)
        match command:
            case Start(desired=desired) | UpdateRun(desired=desired):
                self.desired[desired.room] = desired
            case Stop(room=room, run=run) if self.ends_stopped_runs:
                desired = self.desired[room]
                tracked = {id: drag.target for id, drag in desired.drags.items()}
                self._tell(
                    RunFinished(
                        room=room,
                        run=run,
                        outcome="stopped",
                        iterations=3,
                        seq=desired.seq,
                        tracked=tracked,
                        picture=png(),
                    )
                )

    async def close(self) -> None:
        pass

    def tell(self, event: AnyEvent) -> None:
        """Report an event, from any thread."""
        self._loop.call_soon_threadsafe(self._tell, event)

    def show(self, room: str, run: str, iteration: int, *, size: int = 5000) -> None:
        """Report a preview."""
        self.tell(
            PreviewReady(
                room=room,
                run=run,
                stage="dragging",
                iteration=iteration,
                format="webp",
                width=8,
                height=8,
                time=time.time(),
                data=bytes(size),
            )
        )

    def submitted(self, kind: type[C]) -> list[C]:
        """The commands of a kind that no `expect` has taken, oldest first."""
        return [command for command in self.commands.queue if isinstance(command, kind)]

    def expect(self, kind: type[Any], room: str, seconds: float = 60.0) -> Any:
        """The next command of a kind for a room."""
        while True:
            command = self.commands.get(timeout=seconds)
            about = command.desired.room if isinstance(command, Start | UpdateRun | Prepare | Seek) else command.room
            if isinstance(command, kind) and about == room:
                return command

    def expect_any(self, kind: type[Any], seconds: float = 60.0) -> Any:
        """The next command of a kind, for any room."""
        while not isinstance(command := self.commands.get(timeout=seconds), kind):
            pass
        return command


@contextmanager
def quiet_server(data: Path, **settings: Any) -> Iterator[tuple[str, QuietEngine]]:
    """Serve with a `QuietEngine` in a thread; gives the address and the engine."""
    engine = QuietEngine()
    with serving_in_thread(Settings(data_dir=data, **{"port": 0, **settings}), engine, patience=60) as address:
        yield address, engine


@contextmanager
def serving_in_thread(settings: Settings, engine: Engine, *, patience: float) -> Iterator[str]:
    """Serve in a thread; gives the address. ``patience``: seconds to wait for the server to start, and to end."""
    started: queue.Queue[tuple[str, Server] | BaseException] = queue.Queue()

    def run() -> None:
        try:
            asyncio.run(serve(settings, engine, started=lambda address, server: started.put((address, server))))
        except BaseException as error:
            started.put(error)
            raise

    thread = threading.Thread(target=run, name="server")
    thread.start()
    answer = started.get(timeout=patience)
    if isinstance(answer, BaseException):
        raise answer
    address, server = answer
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(patience)
