"""Points, drags and sizes in pixels of a picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A point of the picture in pixels: ``x`` to the right, ``y`` down."""

    x: float
    y: float


@dataclass(frozen=True)
class Drag:
    """Move the content at ``handle`` to ``target``."""

    handle: Point
    target: Point


@dataclass(frozen=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"
