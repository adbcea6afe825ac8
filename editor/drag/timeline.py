"""The timeline: the iterations of a session that one can jump back to, thinned by age within a memory budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from livedrag.editor.drag.handles import Handle, Handles
from livedrag.editor.errors import EditorError
from livedrag.editor.points import Cell

THUMBNAIL_SIDE = 96
"""Longest side of a moment's thumbnail, in pixels."""
MAX_MOMENTS = 500
"""On one timeline, however small their latents: more than people can tell apart, and few enough to list at once."""


@dataclass(frozen=True)
class Moment:
    """A stored iteration.

    Args:
        index: identifies it on the timeline; never reused.
        parent: index of the stored moment it came from; None for the first.
        iteration: iterations from the unedited latent to here.
        handles: where the content was, by the name of the drag.
        latent: in half precision, ``(1, 4, H/8, W/8)``: a run from here does not repeat the old one bit for bit.
        thumbnail: a small picture, if one was made.
        descended: levels that the latent has been denoised since it was inverted.
    """

    index: int
    parent: int | None
    iteration: int
    handles: dict[str, Handle]
    latent: Tensor
    thumbnail: Image.Image | None = None
    descended: int = 0

    @property
    def size(self) -> int:
        """Bytes of latent and thumbnail."""
        pixels = 0 if self.thumbnail is None else 3 * self.thumbnail.width * self.thumbnail.height
        return self.latent.nbytes + pixels


@dataclass(frozen=True)
class Agreement:
    """A moment at which the picture showed the content where it was tracked.

    Args:
        index: of the moment.
        handles: as they were tracked there, by the name of the drag.
    """

    index: int
    handles: dict[str, Handle]


class Timeline:
    """The moments of a session, oldest first.

    Over its budget, or over `MAX_MOMENTS`, it drops the moment that leaves the smallest gap relative to its age, but
    never the first, the current one, the one last agreed on, the end of a branch, or one where branches start.

    Args:
        budget: bytes.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._moments: dict[int, Moment] = {}
        self._next = 0
        self._bytes = 0
        self.current: int | None = None
        """Index of the moment that the session has just reached or jumped to."""
        self.agreed: Agreement | None = None
        """The last moment at which the picture showed the content where it was tracked, or the beginning of the run; a
        lost drag goes back there."""

    def __iter__(self) -> Iterator[Moment]:
        return iter(self._moments.values())

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: int) -> Moment:
        """The moment of this index. Raises `EditorError` if there is none."""
        if index not in self._moments:
            latest = ", ".join(map(str, list(self._moments)[-20:])) or "none"
            raise EditorError(f"moment {index} is not on the timeline; the latest ones are: {latest}")
        return self._moments[index]

    def add(self, iteration: int, handles: Handles, latent: Tensor, descended: int = 0) -> Moment:
        """Store what an iteration reached, as a child of the current moment; it becomes the current one.

        If the same iteration was reached from there before, that moment becomes the current one: dragging again after a
        reset makes no other branch, even if the earlier run has been thinned.

        Args:
            iteration: iterations from the unedited latent to here.
            handles: where the content is.
            latent: ``(1, 4, H/8, W/8)``; stored in half precision.
            descended: levels that it has been denoised since it was inverted.
        """
        half = latent.detach().to(torch.float16)
        known = self._like(iteration, handles, half)
        if known is not None:
            self._drop_repeated(known)
            self.current = known.index
            return known
        moment = Moment(self._next, self.current, iteration, dict(handles), half, descended=descended)
        self.insert(moment)
        self.current = moment.index
        self._thin()
        return moment

    def _like(self, iteration: int, handles: Handles, latent: Tensor) -> Moment | None:
        """The moment that equals this one and whose parent is the current moment or one of its ancestors, if any."""
        lineage = set(self._lineage())
        for moment in self:
            if (
                moment.parent in lineage
                and moment.iteration == iteration
                and moment.handles.keys() == handles.keys()
                and all(_place(moment.handles[name]) == _place(handle) for name, handle in handles.items())
                and torch.equal(moment.latent, latent)
            ):
                return moment
        return None

    def _lineage(self) -> Iterator[int | None]:
        """The indices of the current moment and its ancestors; None if there is no current moment."""
        index = self.current
        yield index
        while index in self._moments:
            index = self._moments[index].parent
            if index is not None:
                yield index

    def _drop_repeated(self, known: Moment) -> None:
        """Drop what a repeated run has added up to ``known``, where the moments of the earlier run were thinned."""
        for index in list(self._lineage()):
            if index is None or index == known.parent or index == (self.agreed and self.agreed.index):
                return
            if any(moment.parent == index for moment in self):
                return
            self._bytes -= self._moments.pop(index).size

    def insert(self, moment: Moment) -> None:
        """Add or replace a moment that already has its index and parent."""
        self._moments[moment.index] = moment
        self._bytes += moment.size
        self._next = max(self._next, moment.index + 1)

    def begin_at(self, index: int) -> None:
        """Number new moments from this index on, or higher."""
        self._next = max(self._next, index)

    def set_thumbnail(self, thumbnail: Image.Image, index: int | None = None) -> None:
        """Give a moment, by default the current one, a thumbnail, if it is still there."""
        index = self.current if index is None else index
        if index is not None and index in self._moments:
            small = thumbnail.copy()
            small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            before = self._moments[index]
            self._bytes -= before.size
            self.insert(replace(before, thumbnail=small))

    def mark_agreed(self, handles: Handles) -> None:
        """The picture shows the content of these handles at the current moment where they are tracked."""
        if self.current is not None and self.current in self._moments:
            self.agreed = Agreement(self.current, dict(handles))

    def _thin(self) -> None:
        while self._bytes > self._budget or len(self) > MAX_MOMENTS:
            droppable = self._droppable()
            if not droppable:
                return
            _, index = min(droppable)
            dropped = self._moments.pop(index)
            self._bytes -= dropped.size
            for moment in [moment for moment in self if moment.parent == index]:
                self._moments[moment.index] = replace(moment, parent=dropped.parent)

    def _droppable(self) -> list[tuple[float, int]]:
        """The moments that may be dropped, each after the gap it would leave divided by its age."""
        children: dict[int, list[Moment]] = {}
        for moment in self:
            if moment.parent is not None:
                children.setdefault(moment.parent, []).append(moment)
        return [
            (
                (children[moment.index][0].iteration - self[moment.parent].iteration) / (self._next - moment.index),
                moment.index,
            )
            for moment in self
            if moment.parent is not None
            and len(children.get(moment.index, ())) == 1
            and moment.index not in (self.current, self.agreed and self.agreed.index)
        ]


def _place(handle: Handle) -> tuple[Cell, Cell]:
    return handle.cell, handle.offset
