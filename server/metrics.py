"""Metrics for Prometheus. One `Metrics` belongs to one server, and to its event loop's thread."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from livedrag.server.document.protocol import EngineState

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SAVE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
FRAME_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histograms' buckets."""


class DeviceStats(Struct, frozen=True, kw_only=True):
    """What the worker of one device has done and holds.

    Args:
        worker: its id, unique in the engine; the engine sets this and the next one.
        node: the machine that it runs on.
        draining: it gets no more rooms, and ends when it has given away those that it has.
        steps, seconds: by stage, since the worker started.
        rooms: each room's seconds of device time since it was loaded.
        memory_bytes: held by all sessions.
        models: names of the models that it has loaded beside the server's own, see `base_name`.
        error: why it takes no rooms, such as a model that it cannot load; empty: it does.
    """

    worker: str = ""
    node: str = ""
    device: str = ""
    state: EngineState = "starting"
    draining: bool = False
    error: str = ""
    restarts: int = 0
    sessions: int = 0
    running: int = 0
    queued: int = 0
    steps: dict[str, int] = {}
    seconds: dict[str, float] = {}
    rooms: dict[str, float] = {}
    memory_bytes: int = 0
    models: tuple[str, ...] = ()


class EngineStats(Struct, frozen=True, kw_only=True):
    """The devices of an engine."""

    devices: tuple[DeviceStats, ...] = ()


class Metrics:
    """The metrics of one server.

    Attributes:
        operations: accepted operations on documents, by ``type``.
        rejects: rejected operations by ``reason``, and exceeded rate limits by the limit's name; neither people who
            were not admitted, nor other HTTP errors, nor what could not be saved.
        runs: ended runs, by ``outcome``.
        generations: generated pictures, by ``outcome``.
        frames: previews by ``what`` became of them: ``sent``, ``acknowledged`` or ``replaced`` by a newer one.
        closes: connections that the server closed, by ``code``.
        save_seconds: from accepting an operation until it is on disk.
        frame_age: from decoding a preview until a client has acknowledged it.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # else every counter has a second series
        self._registry = registry = CollectorRegistry()

        def counter(name: str, help: str, label: str) -> Counter:
            return Counter(name, help, (label,), registry=registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, help, buckets=buckets, registry=registry)

        self.operations = counter("livedrag_operations_total", "Accepted operations on documents.", "type")
        self.rejects = counter("livedrag_rejects_total", "Rejected operations, and exceeded rate limits.", "reason")
        self.runs = counter("livedrag_runs_total", "Ended runs.", "outcome")
        self.generations = counter("livedrag_generations_total", "Generated pictures, by how they ended.", "outcome")
        self.frames = counter("livedrag_frames_total", "Previews, for each client, by what became of them.", "what")
        self.closes = counter("livedrag_closes_total", "Connections closed by the server.", "code")
        self.save_seconds = histogram(
            "livedrag_save_seconds", "From accepting an operation until it is on disk.", SAVE_SECONDS
        )
        self.frame_age = histogram(
            "livedrag_frame_age_seconds", "From decoding a preview until a client acknowledged it.", FRAME_SECONDS
        )

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Add a number that is read at every scrape."""
        self._registry.register(GaugeCollector(name, help, read))

    def watch_engine(self, read: Callable[[], EngineStats]) -> None:
        """Add the devices of an engine."""
        self._registry.register(DeviceCollector(read))

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry).decode()


class GaugeCollector(Collector):
    """A number that is read at every scrape.

    Unlike `prometheus_client.Gauge` it may be named like a counter without ``_total``: ``livedrag_generations``.
    """

    def __init__(self, name: str, help: str, read: Callable[[], float]) -> None:
        self._name, self._help, self._read = name, help, read

    def collect(self) -> Iterator[Metric]:
        """The number as it is now."""
        yield GaugeMetricFamily(self._name, self._help, value=self._read())


class DeviceCollector(Collector):
    """The metrics of each device, read at every scrape."""

    GAUGES: ClassVar[Mapping[str, tuple[str, Callable[[DeviceStats], float]]]] = {
        "livedrag_device_ready": ("Whether the device's worker is ready.", lambda device: device.state == "ready"),
        "livedrag_sessions": ("Sessions on the device.", lambda device: device.sessions),
        "livedrag_session_bytes": ("Memory that they hold.", lambda device: device.memory_bytes),
        "livedrag_runs_active": ("Runs under way.", lambda device: device.running),
        "livedrag_queue": ("Runs that wait for the device.", lambda device: device.queued),
    }
    STAGE_COUNTERS: ClassVar[Mapping[str, tuple[str, Callable[[DeviceStats], Mapping[str, float]]]]] = {
        "livedrag_steps_total": ("Steps since the device's worker started.", lambda device: device.steps),
        "livedrag_step_seconds_total": ("Device time of these steps.", lambda device: device.seconds),
    }

    def __init__(self, read: Callable[[], EngineStats]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now."""
        found = self._read().devices
        devices = {(_label(index, device), device.node): device for index, device in enumerate(found)}
        workers = GaugeMetricFamily("livedrag_workers", "Workers.", labels=("node", "state"))
        for (node, state), count in Counts((device.node, state_of(device)) for device in found).items():
            workers.add_metric((node, state), count)
        yield workers
        for name, (help, number) in self.GAUGES.items():
            gauge = GaugeMetricFamily(name, help, labels=("device", "node"))
            for label, device in devices.items():
                gauge.add_metric(label, number(device))
            yield gauge
        restarts = CounterMetricFamily(
            "livedrag_device_restarts_total", "Restarts of the device's worker.", labels=("device", "node")
        )
        for label, device in devices.items():
            restarts.add_metric(label, device.restarts)
        yield restarts
        for name, (help, numbers) in self.STAGE_COUNTERS.items():
            counter = CounterMetricFamily(name, help, labels=("device", "node", "stage"))
            for label, device in devices.items():
                for stage, value in numbers(device).items():
                    counter.add_metric((*label, stage), value)
            yield counter


def state_of(worker: DeviceStats) -> str:
    """The state of a worker for people: ``draining``, or else its engine state."""
    return "draining" if worker.draining else worker.state


def named_device(device: str) -> str:
    """A torch device for people; the empty one is the default, the best that there is."""
    return f"device {device}" if device else "the default device"


def _label(index: int, device: DeviceStats) -> str:
    """A worker's id; else a number, because several may share one device, and its name if that is known yet."""
    return device.worker or (f"{index}:{device.device}" if device.device else f"{index}")
