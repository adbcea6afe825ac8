"""A step of one room, or of several rooms that share the passes of the UNet in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from livedrag.editor.drag.passes import Answer, Request, answer, run_together
from livedrag.server.device.worker.device_room import DeviceRoom, Work
from livedrag.server.device.worker.faults import is_device_fault
from livedrag.server.errors import LivedragError


class SharedPassError(LivedragError):
    """A pass of several rooms failed, by none's fault: each goes on from before the step, in smaller company."""


@dataclass
class Taken:
    """What a step took.

    Args:
        seconds: by room: its own, and its share of those of passes.
        sizes: rooms of each pass.
        failures: by room, why its step failed.
        ended: the rooms whose work is done.
        shared: the rooms that had a pass with others.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)


class SharedStep:
    """Takes one step of the work of some rooms.

    Args:
        members: rooms and their work.
        clock: in seconds.
    """

    def __init__(self, members: Sequence[tuple[DeviceRoom, Work]], clock: Callable[[], float]) -> None:
        self._members = {room.id: work for room, work in members}
        self._clock = clock
        self._taken = Taken()

    def take(self) -> Taken:
        """Take the step. What a room's own part of it raises is its failure alone."""
        began = self._clock()
        if len(self._members) == 1:  # read the clock no more than needed
            (id,) = self._members
            run_together({id: self._resumed(id)}, self._answer)
            self._taken.seconds[id] = self._clock() - began
            return self._taken
        self._taken.seconds = dict.fromkeys(self._members, 0.0)
        run_together({id: self._timed(id, self._resumed(id)) for id in self._members}, self._timed_answer)
        return self._taken

    def _resumed(self, id: str) -> Callable[[Answer], Request | None]:
        def go_on(answered: Answer) -> Request | None:
            steps = self._members[id].steps
            try:
                return steps.throw(answered) if isinstance(answered, Exception) else steps.send(answered)
            except StopIteration:
                self._taken.ended.add(id)
            except Exception as error:
                self._taken.failures[id] = error
            return None

        return go_on

    def _timed(self, id: str, go_on: Callable[[Answer], Request | None]) -> Callable[[Answer], Request | None]:
        def timed(answered: Answer) -> Request | None:
            began = self._clock()
            request = go_on(answered)
            self._taken.seconds[id] += self._clock() - began
            return request

        return timed

    def _answer(self, requests: Mapping[str, Request]) -> Sequence[Answer]:
        self._taken.sizes.append(len(requests))
        try:
            answers = answer(list(requests.values()))
        except Exception as error:
            if len(requests) == 1 or is_device_fault(error):
                return [error] * len(requests)
            failure = SharedPassError(f"a pass of {len(requests)} rooms failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            return [failure] * len(requests)
        if len(requests) > 1:
            self._taken.shared.update(requests)
        return answers

    def _timed_answer(self, requests: Mapping[str, Request]) -> Iterator[Answer]:
        began = self._clock()
        answers = list(self._answer(requests))
        seconds = self._clock() - began
        for id in requests:
            self._taken.seconds[id] += seconds / len(requests)
        return iter(answers)
