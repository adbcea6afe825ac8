"""What the latest runs of a room came to, so that the result of an earlier one can be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from livedrag.server.document.checks import Refused
from livedrag.server.document.history import content_of
from livedrag.server.document.protocol import Content, DocRecord, Document, Ended, Restore, Setting

MAX_RUNS = 16
"""Runs that are remembered."""


@dataclass(frozen=True)
class PastRun:
    """What a picture showed at the end of a run, and the settings it was made with."""

    content: Content
    settings: Mapping[str, Setting]

    def restore(self, document: Document, has_moment: Callable[[int], bool]) -> Restore:
        """The operation that goes back to this; without its step on the timeline, as a picture that was kept.

        Raises:
            Refused: another picture is edited now.
        """
        content = self.content
        if content.picture != document.picture:
            raise Refused("stale", "this result is of a picture that is not edited any more")
        if content.moment is None or not has_moment(content.moment):
            assert content.run is not None
            assert content.result is not None
            run, result = replace(content.run, outcome="kept"), replace(content.result, moment=None)
            content = replace(content, run=run, result=result, moment=None)
        names = self.settings.keys() | document.settings.keys()
        changed = {
            name: self.settings.get(name)
            for name in sorted(names)
            if self.settings.get(name) != document.settings.get(name)
        }
        return Restore(content=content, settings=changed)


class PastRuns:
    """The latest runs of a room that produced a picture."""

    def __init__(self) -> None:
        self._runs: dict[str, PastRun] = {}

    def note(self, record: DocRecord, after: Document) -> None:
        """Take in an accepted record, which led to this document."""
        match record:
            case Ended(run=run, result=result) if result is not None and result.run == run.id:
                self._runs.pop(run.id, None)
                self._runs[run.id] = PastRun(content_of(after), after.settings)
                if len(self._runs) > MAX_RUNS:
                    del self._runs[next(iter(self._runs))]

    def find(self, run: str) -> PastRun:
        """A run by its id. Raises `Refused` if it is not known (any more)."""
        if run not in self._runs:
            known = ", ".join(map(repr, self._runs)) or "none"
            raise Refused("unknown", f"run {run!r} is not one of the latest with a result: those are {known}")
        return self._runs[run]
