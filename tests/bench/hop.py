"""What a second hop costs: events and commands through Ray, against the TCP connection that the workers use.

An actor emits what a worker does, a preview of 20 KB and a few small events an iteration; the other end of either way
says how old they are when they arrive. Nothing is computed. Through Ray, one generator yields batches of what waits,
below 100 KiB, so that they stay out of the object store, and commands are calls of a concurrency group of their own.
"""

from __future__ import annotations

import asyncio
import importlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from livedrag.server.device.messages import AnyEvent, PreviewReady, RunProgress, Start, Stop
from livedrag.server.device.ray.hub import Hub
from livedrag.server.device.ray.link import WorkerLink
from livedrag.server.device.ray.picture_cache import PictureCache
from livedrag.server.device.ray.wire import BATCH_BYTES, Endpoint
from livedrag.server.document.protocol import Points

ITERATION = 0.03
"""Seconds of an iteration."""
FRAME_BYTES = 20_000
CALLS_PER_SECOND = 200


class Emitter:
    """An actor that emits events through Ray, or over a connection of its own if it is given one."""

    def __init__(self, endpoint: Endpoint | None) -> None:
        self._events: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._link = WorkerLink.connect(endpoint, PictureCache.of_this_machine()) if endpoint else None
        if self._link is not None:
            threading.Thread(target=self._answer, daemon=True).start()
        threading.Thread(target=self._emit, daemon=True).start()

    def events(self) -> Iterator[list[bytes]]:
        """Batches of what waits."""
        while True:
            batch = [self._events.get()]
            while not self._events.empty() and sum(map(len, batch)) < BATCH_BYTES // 2:
                batch.append(self._events.get())
            yield batch

    def command(self, packed: bytes) -> None:
        """A command that needs no answer but this call's own."""

    def _put(self, event: AnyEvent) -> None:
        packed = msgspec.msgpack.encode(event)
        self._link.send_bytes(packed) if self._link else self._events.put(packed)

    def _answer(self) -> None:
        assert self._link is not None
        while packed := self._link.recv_bytes():
            command = msgspec.msgpack.decode(packed, type=Stop)
            self._put(_points("answer", int(command.run)))

    def _emit(self) -> None:
        number = 0
        while True:
            number += 1
            self._put(_points("a", number))
            self._put(
                PreviewReady(
                    room=f"{number}",
                    run="r",
                    stage="dragging",
                    iteration=number,
                    format="webp",
                    width=1,
                    height=1,
                    time=time.time(),
                    data=bytes(FRAME_BYTES),
                )
            )
            time.sleep(ITERATION)


def _points(room: str, number: int) -> RunProgress:
    return RunProgress(room=room, record=Points(run="r", iteration=number, handles={}, distances={}, loss=0.0))


def _actor(endpoint: Endpoint | None) -> Any:
    ray: Any = importlib.import_module("ray")
    for name, group in (("events", "events"), ("command", "control")):
        setattr(Emitter, name, ray.method(concurrency_group=group)(getattr(Emitter, name)))
    groups = {"control": 2, "health": 1, "events": 1}
    return ray.remote(num_cpus=0, concurrency_groups=groups)(Emitter).remote(endpoint)


async def through_ray(seconds: float) -> tuple[list[float], list[float]]:
    """Seconds that events took through Ray, which is initialised, and commands until they were answered."""
    actor, ages, answers = _actor(None), list[float](), list[float]()

    async def listen() -> None:
        async for reference in actor.events.options(num_returns="streaming").remote():
            for packed in await reference:
                _note(msgspec.msgpack.decode(packed, type=AnyEvent), ages)

    async def call(number: int) -> None:
        began = time.perf_counter()
        await actor.command.remote(msgspec.msgpack.encode(Stop(room="a", run=f"{number}")))
        answers.append(time.perf_counter() - began)

    listening = asyncio.create_task(listen())
    await _warm(ages, answers, call)
    await _call(seconds, call)
    listening.cancel()
    importlib.import_module("ray").kill(actor)
    return ages, answers


async def over_tcp(seconds: float) -> tuple[list[float], list[float]]:
    """Likewise over a connection of the actor's own."""
    hub = Hub("127.0.0.1")
    await hub.start()
    _kept = _actor(hub.expect("one"))
    connection, ages, answers = await hub.connection("one"), list[float](), list[float]()
    sent: dict[int, tuple[float, asyncio.Future[None]]] = {}

    def on_event(event: AnyEvent) -> None:
        _note(event, ages)
        if isinstance(event, RunProgress) and event.room == "answer" and isinstance(event.record, Points):
            began, answered = sent.pop(event.record.iteration)
            answers.append(time.perf_counter() - began)
            answered.set_result(None)

    async def call(number: int) -> None:
        sent[number] = (time.perf_counter(), asyncio.get_running_loop().create_future())
        connection.send(Stop(room="a", run=f"{number}"))
        await sent[number][1]

    connection.serve(on_event, print)
    await _warm(ages, answers, call)
    await _call(seconds, call)
    await connection.end(0)
    hub.close()
    return ages, answers


def _note(event: AnyEvent | Start, ages: list[float]) -> None:
    if isinstance(event, PreviewReady):
        ages.append(time.time() - event.time)


async def _warm(ages: list[float], answers: list[float], call: Any) -> None:
    await call(-1)
    await asyncio.sleep(1)
    ages.clear()
    answers.clear()


async def _call(seconds: float, call: Any) -> None:
    """Call so many times a second, without waiting for the answers."""
    began, calls = time.perf_counter(), []
    for number in range(round(seconds * CALLS_PER_SECOND)):
        await asyncio.sleep(max(0.0, began + number / CALLS_PER_SECOND - time.perf_counter()))
        calls.append(asyncio.create_task(call(number)))
    await asyncio.gather(*calls)
