"""The timeline: every iteration of a session, thinned by age within a memory budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from livedrag.editor.drag.handles import Handle, Handles
from livedrag.editor.errors import EditorError

THUMBNAIL_SIDE = 96
"""Longest side of a moment's thumbnail, in pixels."""
MOST_MOMENTS = 500
"""On one timeline, however small their latents are: more than people can tell apart, and few enough to list at once."""


@dataclass(frozen=True)
class Moment:
    """A kept iteration.

    Args:
        index: its name on the timeline; never used again.
        parent: the index of the kept moment it came from; None for the first.
        iteration: motion supervision steps taken from the unedited latent to here.
        handles: where the content was found.
        latent: in half precision, ``(1, 4, H/8, W/8)``: going on from here is not bit for bit the run of then.
        thumbnail: a small picture, where one was made.
    """

    index: int
    parent: int | None
    iteration: int
    handles: dict[str, Handle]
    latent: Tensor
    thumbnail: Image.Image | None = None

    @property
    def size(self) -> int:
        """Bytes it holds."""
        pixels = 0 if self.thumbnail is None else 3 * self.thumbnail.width * self.thumbnail.height
        return self.latent.nbytes + pixels


class Timeline:
    """The moments of a session, oldest first.

    Over its budget, or over `MOST_MOMENTS`, it forgets the moment whose absence leaves the smallest gap for its age,
    but never the first, the current one, the last of a branch, or one that branches go out from.

    Args:
        budget: bytes.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._moments: dict[int, Moment] = {}
        self._next = 0
        self._bytes = 0
        self.current: int | None = None
        """The moment that the session has just reached or gone back to."""

    def __iter__(self) -> Iterator[Moment]:
        return iter(self._moments.values())

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: int) -> Moment:
        """The moment of this index. Raises `EditorError` where it is not kept."""
        if index not in self._moments:
            kept = ", ".join(map(str, list(self._moments)[-20:])) or "none"
            raise EditorError(f"moment {index} is not on the timeline: of the last ones, {kept} are")
        return self._moments[index]

    def add(self, iteration: int, handles: Handles, latent: Tensor) -> Moment:
        """Keep what an iteration reached, as going on from the current moment; it becomes the current one."""
        half = latent.detach().to(torch.float16)
        moment = Moment(self._next, self.current, iteration, dict(handles), half)
        self.put(moment)
        self.current = moment.index
        self._thin()
        return moment

    def put(self, moment: Moment) -> None:
        """Take a moment that already has its index and parent."""
        self._moments[moment.index] = moment
        self._bytes += moment.size
        self._next = max(self._next, moment.index + 1)

    def begin_at(self, index: int) -> None:
        """Give no moment from now on a lower index than this."""
        self._next = max(self._next, index)

    def show(self, thumbnail: Image.Image) -> None:
        """Give the current moment a thumbnail."""
        if self.current is not None and self.current in self._moments:
            small = thumbnail.copy()
            small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            before = self._moments[self.current]
            self._bytes -= before.size
            self.put(replace(before, thumbnail=small))

    def _thin(self) -> None:
        while self._bytes > self._budget or len(self) > MOST_MOMENTS:
            spare = self._spare()
            if not spare:
                return
            _, index = min(spare)
            gone = self._moments.pop(index)
            self._bytes -= gone.size
            for moment in [moment for moment in self if moment.parent == index]:
                self._moments[moment.index] = replace(moment, parent=gone.parent)

    def _spare(self) -> list[tuple[float, int]]:
        """The moments that may go, each with how much it would be missed: the gap it leaves over its age."""
        onward: dict[int, list[Moment]] = {}
        for moment in self:
            if moment.parent is not None:
                onward.setdefault(moment.parent, []).append(moment)
        return [
            (
                (onward[moment.index][0].iteration - self[moment.parent].iteration) / (self._next - moment.index),
                moment.index,
            )
            for moment in self
            if moment.parent is not None and len(onward.get(moment.index, ())) == 1 and moment.index != self.current
        ]
