"""Metrics: what a server counts and times, in Prometheus' text format. Belongs to the event loop's thread."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from livedrag.server.document.protocol import EngineState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SAVE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
FRAME_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
Labels = tuple[str, ...]


class DeviceStats(Struct, frozen=True, kw_only=True):
    """What one device has done and holds. Steps and seconds of device time are counted by stage since its worker began.

    ``rooms`` has the seconds of device time of each room since it came; ``memory_bytes`` is what their sessions hold.
    """

    device: str = ""
    state: EngineState = "starting"
    restarts: int = 0
    sessions: int = 0
    running: int = 0
    queued: int = 0
    steps: dict[str, int] = {}
    seconds: dict[str, float] = {}
    rooms: dict[str, float] = {}
    memory_bytes: int = 0


class EngineStats(Struct, frozen=True, kw_only=True):
    """The devices of an engine, for whoever watches it."""

    devices: tuple[DeviceStats, ...] = ()


class Series(Protocol):
    """Something that can be shown."""

    def lines(self) -> Iterator[str]:
        """Its lines in the text format."""


class Counter:
    """Counts what happens, by the values of its labels. It never goes down."""

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self._name, self._help, self._labels = name, help, labels
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, *values: str, by: float = 1.0) -> None:
        """It has happened; one value for each label."""
        assert len(values) == len(self._labels), f"{self._name} has the labels {self._labels}"
        self._values[values] = self._values.get(values, 0.0) + by

    def lines(self) -> Iterator[str]:
        yield from _head(self._name, self._help, "counter")
        for values, number in sorted(self._values.items()):
            yield f"{self._name}{_labelled(self._labels, values)} {number:.12g}"


class Gauge:
    """Reads, whenever somebody looks, what there is now; ``kind`` is ``counter`` where it never goes down."""

    def __init__(
        self,
        name: str,
        help: str,
        read: Callable[[], Mapping[Labels, float]],
        labels: Labels = (),
        kind: str = "gauge",
    ) -> None:
        self._name, self._help, self._read, self._labels, self._kind = name, help, read, labels, kind

    def lines(self) -> Iterator[str]:
        yield from _head(self._name, self._help, self._kind)
        for values, number in sorted(self._read().items()):
            yield f"{self._name}{_labelled(self._labels, values)} {number:.12g}"


class Histogram:
    """Counts how long something takes, in seconds; ``bounds`` are the upper ends of its buckets, ascending."""

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self._name, self._help, self._bounds = name, help, tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """It took so long."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def lines(self) -> Iterator[str]:
        yield from _head(self._name, self._help, "histogram")
        total = 0
        for bound, count in zip((*(f"{bound:g}" for bound in self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{self._name}_bucket{{le="{bound}"}} {total}'
        yield f"{self._name}_sum {self._sum:.12g}"
        yield f"{self._name}_count {total}"


class Metrics:
    """All that one server counts.

    Attributes:
        operations: accepted operations on a document, by ``type``.
        rejects: refused operations by ``reason``, and by ``rate_...`` whatever came too fast; neither who was turned
            away at the door, nor what else an HTTP request was refused for, nor what could not be saved.
        runs: ended runs, by ``outcome``.
        generations: pictures made from words, by how they ended.
        frames: previews by what became of them, ``sent``, ``acknowledged`` or ``replaced`` by their successor.
        closes: connections that the server closed, by ``code``.
        save_seconds: from accepting an operation until it is on disk.
        frame_age: from decoding a preview until a client has acknowledged it.
    """

    def __init__(self) -> None:
        self.operations = Counter("livedrag_operations_total", "Accepted operations on documents.", ("type",))
        self.rejects = Counter(
            "livedrag_rejects_total", "Operations that were refused, and what came too fast.", ("reason",)
        )
        self.runs = Counter("livedrag_runs_total", "Runs that have ended.", ("outcome",))
        self.generations = Counter(
            "livedrag_generations_total", "Pictures made from words, by how they ended.", ("outcome",)
        )
        self.frames = Counter("livedrag_frames_total", "Previews, for each client, by what became of them.", ("what",))
        self.closes = Counter("livedrag_closes_total", "Connections closed by the server.", ("code",))
        self.save_seconds = Histogram(
            "livedrag_save_seconds", "From accepting an operation until it is on disk.", SAVE_SECONDS
        )
        self.frame_age = Histogram(
            "livedrag_frame_age_seconds", "From decoding a preview until a client acknowledged it.", FRAME_SECONDS
        )
        self._series: list[Series] = [series for series in vars(self).values() if hasattr(series, "lines")]

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Show a number that is read whenever somebody looks."""
        self._series.append(Gauge(name, help, lambda: {(): read()}))

    def watch_engine(self, read: Callable[[], EngineStats]) -> None:
        """Show what the devices do."""

        def show(name: str, help: str, number: Callable[[DeviceStats], float], kind: str = "gauge") -> None:
            def values() -> dict[Labels, float]:
                return {_place(index, device): number(device) for index, device in enumerate(read().devices)}

            self._series.append(Gauge(name, help, values, ("device",), kind))

        def show_stages(name: str, help: str, numbers: Callable[[DeviceStats], Mapping[str, float]]) -> None:
            def values() -> dict[Labels, float]:
                return {
                    (*_place(index, device), stage): number
                    for index, device in enumerate(read().devices)
                    for stage, number in numbers(device).items()
                }

            self._series.append(Gauge(name, help, values, ("device", "stage"), "counter"))

        show("livedrag_device_ready", "Whether the device's worker is ready.", lambda d: float(d.state == "ready"))
        show("livedrag_device_restarts_total", "Restarts of the device's worker.", lambda d: d.restarts, "counter")
        show("livedrag_sessions", "Sessions on the device.", lambda d: d.sessions)
        show("livedrag_session_bytes", "Memory that they hold.", lambda d: d.memory_bytes)
        show("livedrag_runs_active", "Runs under way.", lambda d: d.running)
        show("livedrag_queue", "Runs that wait for the device.", lambda d: d.queued)
        show_stages("livedrag_steps_total", "Steps since the device's worker began.", lambda d: d.steps)
        show_stages("livedrag_step_seconds_total", "Device time of these steps.", lambda d: d.seconds)

    def text(self) -> str:
        """Everything, for ``/metrics``."""
        return "".join(f"{line}\n" for series in self._series for line in series.lines())


def _place(index: int, device: DeviceStats) -> Labels:
    """A device's label; several workers may share one device, and the name of one may not be known yet."""
    return (f"{index}:{device.device}" if device.device else f"{index}",)


def _head(name: str, help: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"


def _labelled(labels: Labels, values: Labels) -> str:
    pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(labels, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
