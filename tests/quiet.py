"""A server whose sessions do nothing, quickly: for tests in which only traffic matters. All else of it is real."""

from __future__ import annotations

import asyncio
import io
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from livedrag.server.device.engine import (
    AnyCommand,
    AnyEvent,
    DesiredState,
    Engine,
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

MODEL = ModelInfo(
    name="quiet",
    kind="builtin",
    settings={
        "lora_steps": 80,
        "lora_targets": "to_q to_k to_v to_out",
        "latent_lr": 0.01,
        "warp_share": 0.0,
        "max_iterations": 80,
        "reference_control": False,
        "preset": "",
        "seed": 0,
        "preview_every": 4,
        "preview_side": 256,
    },
    presets=["official", "paper"],
    live=("latent_lr", "max_iterations", "preview_side", "warp_share"),
    ranges={
        "lora_steps": (0, 10_000),
        "latent_lr": (1e-6, 10),
        "warp_share": (0, 1),
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
    """Notes what it is asked; its runs do nothing until somebody presses Stop."""

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
            case Stop(room=room, run=run):
                desired = self.desired[room]
                tracked = {id: grip.target for id, grip in desired.drags.items()}
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
        """From any thread, as if a session had told it."""
        self._loop.call_soon_threadsafe(self._tell, event)

    def show(self, room: str, run: str, iteration: int, *, size: int = 5000) -> None:
        """A preview."""
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

    def expect(self, kind: type[Any], room: str, seconds: float = 60.0) -> Any:
        """The next command of a kind for a room."""
        while True:
            command = self.commands.get(timeout=seconds)
            about = command.desired.room if isinstance(command, Start | UpdateRun | Prepare | Seek) else command.room
            if isinstance(command, kind) and about == room:
                return command

    def expect_any(self, kind: type[Any], seconds: float = 60.0) -> Any:
        """The next command of a kind, whatever room it is for."""
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
