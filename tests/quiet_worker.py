"""A worker without sessions and without torch, for tests of the engine that supervises it.

Its runs take as many iterations as their settings say, count them in a file, and end as exhausted. In a room named
deadly the process ends in the first iteration; in one named silent it hangs there, once, after making a file of that
name. If there is a file named loads-for-ever, the process deletes it and never loads. Resets and wiped rooms are
appended to a file named done.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from livedrag.server.device.messages import (
    AnyCommand,
    AnyEvent,
    CommandFailed,
    Generate,
    PreparationProgress,
    Prepare,
    Ready,
    ReleaseSession,
    ResetSession,
    RunFinished,
    RunProgress,
    Seek,
    SeekCompleted,
    SessionReleased,
    SessionReset,
    Start,
    StatsReported,
    StepStarted,
    Stop,
)
from livedrag.server.device.worker_process import WorkerOptions
from livedrag.server.document.protocol import Points
from livedrag.server.metrics import DeviceStats
from tests.quiet import MODEL, png

STEP = 0.02
"""Seconds that a step takes."""


def serve(connection: Connection, options: WorkerOptions) -> None:
    """Obey the commands from the pipe until it ends."""
    commands: queue.SimpleQueue[AnyCommand | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, commands), daemon=True).start()
    folder = Path(options.checkpoints_dir)
    if (folder / "loads-for-ever").exists():
        (folder / "loads-for-ever").unlink()
        time.sleep(600)
    _send(connection, Ready(model=MODEL, device=options.device))
    work: dict[str, Start | Prepare | Generate] = {}
    stopped: set[str] = set()
    while True:
        while not work or not commands.empty():
            match commands.get():
                case None:
                    return
                case Start() | Prepare() as command:
                    work[command.desired.room] = command
                case Generate(room=room) as command:
                    work[room] = command
                case Stop(run=run):
                    stopped.add(run)
                case Seek(desired=desired, moment=moment):
                    known = moment < 100
                    answer = SeekCompleted(room=desired.room, moment=moment, tracked={})
                    refusal = CommandFailed(room=desired.room, message="no such moment", moment=moment)
                    _send(connection, answer if known else refusal)
                case ResetSession(room=room):
                    _note(folder, f"reset {room}")
                    _send(connection, SessionReset(room=room))
                case ReleaseSession(room=room, wipe=wipe):
                    work.pop(room, None)
                    if wipe:
                        _note(folder, f"wiped {room}")
                    _send(connection, SessionReleased(room=room, requested=True))
                case _:
                    pass
        for room, command in list(work.items()):
            time.sleep(STEP)
            done = _step(connection, folder, room, command, stopped)
            if done:
                del work[room]
        stats = DeviceStats(state="ready", sessions=len(work), running=len(work))
        _send(connection, StatsReported(stats=stats))


def _note(folder: Path, what: str) -> None:
    with (folder / "done").open("a") as file:
        file.write(what + "\n")


def _step(
    connection: Connection, folder: Path, room: str, command: Start | Prepare | Generate, stopped: set[str]
) -> bool:
    """One step of a run, a generation or a preparation; whether that was the last one."""
    run = "" if isinstance(command, Prepare) else room if isinstance(command, Generate) else command.run
    _send(connection, StepStarted(room=room, run=run))
    if isinstance(command, Prepare):
        _send(connection, PreparationProgress(room=room, stage="ready", step=1, steps=1))
        return True
    counter = folder / f"{run}.count"
    count = 1 + (int(counter.read_text()) if counter.exists() else 0)
    if room == "deadly":
        os._exit(7)
    if room == "silent" and not (folder / "silent").exists():
        (folder / "silent").touch()
        time.sleep(600)
    draft = counter.with_suffix(".draft")
    draft.write_text(str(count))
    draft.replace(counter)  # it may be killed at any time
    if isinstance(command, Generate):
        _send(
            connection,
            RunFinished(room=room, run=room, outcome="arrived", iterations=count, seq=0, tracked={}, picture=png()),
        )
        return True
    points = Points(run=run, iteration=count, handles={}, distances={}, loss=0.0)
    _send(connection, RunProgress(room=room, record=points))
    ends = run in stopped or count >= int(command.desired.settings["max_iterations"])
    if ends:
        _send(
            connection,
            RunFinished(
                room=room,
                run=run,
                outcome="stopped" if run in stopped else "exhausted",
                iterations=count,
                seq=command.desired.seq,
                tracked={},
            ),
        )
    return ends


def _listen(connection: Connection, commands: queue.SimpleQueue[AnyCommand | None]) -> None:
    decoder = msgspec.msgpack.Decoder(AnyCommand)
    while packed := connection.recv_bytes():
        commands.put(decoder.decode(packed))
    os._exit(0)


def _send(connection: Connection, event: AnyEvent) -> None:
    connection.send_bytes(msgspec.msgpack.encode(event))
