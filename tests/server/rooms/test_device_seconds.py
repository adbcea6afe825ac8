"""Device time by room, over workers and over visits to a device."""

from __future__ import annotations

from livedrag.server.metrics import DeviceStats
from livedrag.server.rooms.device_seconds import DeviceSeconds


def report(**rooms: float) -> DeviceStats:
    return DeviceStats(worker="w", rooms=rooms)


def test_what_workers_report_is_added_up_however_often_it_is_read() -> None:
    seconds = DeviceSeconds()
    seconds.note([report(r=1.0, s=5.0)])
    seconds.note([report(r=3.0, s=5.0)])
    seconds.note([report(r=3.0, s=5.0)])
    assert (seconds.of("r"), seconds.of("s"), seconds.of("never seen")) == (3.0, 5.0, 0.0)


def test_a_room_that_leaves_a_device_and_comes_back_keeps_its_time() -> None:
    seconds = DeviceSeconds()
    seconds.note([report(r=3.0)])
    seconds.note([report()])
    assert seconds.of("r") == 3.0
    seconds.note([report(r=4.0)])  # more than before, and yet a new visit
    seconds.note([report(r=0.5)])  # it left and came back between two reports
    assert seconds.of("r") == 7.5


def test_a_room_may_have_been_on_several_workers() -> None:
    seconds = DeviceSeconds()
    seconds.note([report(r=3.0), DeviceStats(worker="other", rooms={"r": 1.0})])
    assert seconds.of("r") == 4.0
