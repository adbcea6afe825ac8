"""Where a picture shows a handle's content: normalised cross-correlation of pixels in the decoded prediction.

Motion supervision changes the UNet's features and point tracking reads them, so that a tracker may report that content
arrived which never moved. Pixels are what neither of them sees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from livedrag.editor.drag.decoding import decode_preview
from livedrag.editor.drag.handles import Handle, Handles, current_position
from livedrag.editor.drag.state import SessionState
from livedrag.editor.points import Point, Rasters, distance
from livedrag.editor.settings import Quality

SIDE = 256
"""Longest side of the pictures that are searched, in pixels; larger ones are scaled down."""
RADIUS = 10
"""A handle's patch reaches so far to each side, in pixels of such a picture."""
CONTRAST = 0.25
"""What has less than this share of the patch's contrast is not compared as if it had as much: noise on a flat ground
would be like anything."""
MIN_CONTRAST = 0.02
"""Mean standard deviation of its colours below which a patch can't be recognised, in levels from -1 to 1."""
ALIKE = 0.02
"""Places whose correlation is this close to the best one count as equally good; the one nearest to the target is taken:
along an edge, content looks the same everywhere."""
BESIDE = 2
"""A handle's cell is the nearest one to its content, which lies up to so far beside it, in pixels of such a picture."""
NEAR = 10.0
"""Content that is this near to where it should be is there, in pixels of such a picture."""


class ContentSearch:
    """Finds the content of handles in decoded predictions, for one session.

    Args:
        state: of the session.
    """

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._unedited: tuple[Tensor, int, Tensor] | None = None

    def decode(self, x0: Tensor) -> Tensor:
        """A predicted clean latent ``(1, 4, H/8, W/8)`` as pixels ``(3, h, w)`` to be searched."""
        return decode_preview(self._state.model, x0, self._decoder, SIDE)[0].float()

    def find(self, handles: Handles, pixels: Tensor, side: int = SIDE) -> dict[str, Point]:
        """Where the picture shows the content of each handle whose content can be recognised.

        Args:
            handles: to look for.
            pixels: the decoded prediction, ``(3, h, w)``.
            side: that it was decoded for.

        Returns:
            By drag, points in pixels of the picture.
        """
        patches = self._patches(handles, side)
        scale = _pixels_per_working_pixel(self._state, side)
        return {
            name: place
            for name, patch in patches.items()
            if (place := _find_one(pixels, patch, handles[name], self._state.rasters, scale)) is not None
        }

    def likeness(self, handles: Handles, pixels: Tensor, places: Mapping[str, Point]) -> dict[str, float]:
        """How much the picture looks like the content of each handle at a place, if its content can be recognised.

        Args:
            handles: to compare with.
            pixels: the decoded prediction, ``(3, h, w)`` of `decode`.
            places: by drag, points in pixels of the picture.

        Returns:
            By drag, the largest correlation within `BESIDE` pixels of its place, -1 to 1.
        """
        patches, scale = self._patches(handles, SIDE), _pixels_per_working_pixel(self._state, SIDE)
        return {
            name: _likeness(pixels, patch, _pixel(places[name], self._state.rasters, scale))
            for name, patch in patches.items()
            if name in places and _is_recognisable(patch)
        }

    def with_looks(self, handles: Handles, pixels: Tensor) -> dict[str, Handle]:
        """The handles; those placed on an edited picture and new take what it shows there, ``pixels`` of `decode`."""
        scale, rasters = _pixels_per_working_pixel(self._state, SIDE), self._state.rasters
        return {
            name: replace(handle, look=_patch(pixels, current_position(handle, rasters), rasters, scale))
            if lacks_look(handle)
            else handle
            for name, handle in handles.items()
        }

    @property
    def _decoder(self) -> Quality:
        return "full" if self._state.model.tiny is None else "tiny"

    def _patches(self, handles: Handles, side: int) -> Mapping[str, Tensor]:
        """What the content of each handle looks like; those placed on an edited picture only at `SIDE`."""
        rasters, scale = self._state.rasters, _pixels_per_working_pixel(self._state, side)
        unedited = self._decode_unedited(side)
        patches = {}
        for name, handle in handles.items():
            if handle.original:
                patches[name] = _patch(unedited, handle.warp.handle, rasters, scale)
            elif handle.look is not None and side == SIDE:
                patches[name] = handle.look.to(unedited)
        return patches

    def _decode_unedited(self, side: int) -> Tensor:
        """The unedited picture as the same kind of prediction shows it, ``(3, h, w)``."""
        x0 = self._state.reference.x0()
        if self._unedited is None or self._unedited[1] != side or not torch.equal(self._unedited[0], x0):
            self._unedited = x0, side, decode_preview(self._state.model, x0, self._decoder, side)[0].float()
        return self._unedited[2]


def lacks_look(handle: Handle) -> bool:
    """Whether a handle was placed on an edited picture, and what it shows there has not been noted yet."""
    return not handle.original and handle.look is None


def near(rasters: Rasters) -> float:
    """`NEAR` in pixels of the picture."""
    return NEAR / SIDE * max(rasters.covered.width, rasters.covered.height)


def has_followed(handle: Handle, place: Point, rasters: Rasters) -> bool:
    """Whether content that was found at a place has reached its handle's target, rather than stayed where it was."""
    way = distance(handle.warp.handle, handle.target)
    return distance(place, handle.target) <= min(near(rasters), way / 2)


def correlate(picture: Tensor, patch: Tensor) -> Tensor:
    """Normalised cross-correlation of a patch wherever all of it is within a picture; colours' means do not count.

    Args:
        picture: ``(3, H, W)``.
        patch: ``(3, k, k)``.

    Returns:
        ``(H - k + 1, W - k + 1)`` in [-1, 1], less where there is little `CONTRAST`.
    """
    side = patch.shape[-1]
    wanted = patch - patch.mean((1, 2), keepdim=True)
    mean, square = (avg_pool2d(part[None], side, stride=1) for part in (picture, picture**2))
    contrast = wanted.square().mean().sqrt().clamp(min=1e-3)
    variance = (square - mean**2).clamp(min=0).mean(1, keepdim=True)
    together = conv2d(picture[None], wanted[None]) / wanted.numel()
    return (together / variance.sqrt().clamp(min=CONTRAST * contrast) / contrast)[0, 0]


def _pixels_per_working_pixel(state: SessionState, side: int) -> float:
    """The scale of a picture decoded by `decode_preview` for this longest side."""
    working = state.rasters.working
    return 1 / max(1, max(working.width, working.height) // side)


def _pixel(point: Point, rasters: Rasters, scale: float) -> tuple[float, float]:
    """A point of the picture in a decoded one of this scale, x and y."""
    working = rasters.to_working(point)
    return (working.x + 0.5) * scale - 0.5, (working.y + 0.5) * scale - 0.5


def _patch(pixels: Tensor, centre: Point, rasters: Rasters, scale: float) -> Tensor:
    """``(3, k, k)`` around a point of the picture, the border repeated."""
    (x, y), (_, rows, columns) = _pixel(centre, rasters, scale), pixels.shape
    radius = max(2, round(RADIUS * max(rows, columns) / SIDE))
    column, row = min(max(round(x), 0), columns - 1), min(max(round(y), 0), rows - 1)
    padded = pad(pixels[None], (radius,) * 4, mode="replicate")[0]
    return padded[:, row : row + 2 * radius + 1, column : column + 2 * radius + 1].clone()


def _is_recognisable(patch: Tensor) -> bool:
    """Whether a patch ``(3, k, k)`` has any detail."""
    return float(patch.std((1, 2)).mean()) >= MIN_CONTRAST


def _likeness(pixels: Tensor, patch: Tensor, place: tuple[float, float]) -> float:
    """The largest correlation of a patch with a picture ``(3, h, w)`` around a pixel, x and y."""
    radius, (_, rows, columns) = patch.shape[-1] // 2, pixels.shape
    column, row = min(max(round(place[0]), 0), columns - 1), min(max(round(place[1]), 0), rows - 1)
    left, right = _window(column - BESIDE, column + BESIDE, columns)
    top, bottom = _window(row - BESIDE, row + BESIDE, rows)
    padded = pad(pixels[None], (radius,) * 4, mode="replicate")[0]
    return float(correlate(padded[:, top : bottom + 2 * radius, left : right + 2 * radius], patch).max())


def _find_one(pixels: Tensor, patch: Tensor, handle: Handle, rasters: Rasters, scale: float) -> Point | None:
    """Where a picture ``(3, h, w)`` shows a patch on its way from a handle's origin to its target, about."""
    if not _is_recognisable(patch):
        return None
    points = (handle.warp.handle, current_position(handle, rasters), handle.target)
    (xs, ys), (_, rows, columns) = zip(*(_pixel(point, rasters, scale) for point in points), strict=True), pixels.shape
    radius = patch.shape[-1] // 2
    margin = 2 * radius + max(max(xs) - min(xs), max(ys) - min(ys)) / 2
    left, right = _window(min(xs) - margin, max(xs) + margin, columns)
    top, bottom = _window(min(ys) - margin, max(ys) + margin, rows)
    padded = pad(pixels[None], (radius,) * 4, mode="replicate")[0]
    likeness = correlate(padded[:, top : bottom + 2 * radius, left : right + 2 * radius], patch)
    found = torch.nonzero(likeness >= likeness.max() - ALIKE).to(likeness) + likeness.new_tensor([top, left])
    away = (found - found.new_tensor([ys[-1], xs[-1]])).norm(dim=-1)
    row, column = found[away.argmin()].tolist()
    across, down = (
        covered / working / scale
        for covered, working in (
            (rasters.covered.width, rasters.working.width),
            (rasters.covered.height, rasters.working.height),
        )
    )
    # The patch was cut around the whole pixel nearest to the handle.
    column, row = column + xs[0] - round(xs[0]), row + ys[0] - round(ys[0])
    return Point((column + 0.5) * across - 0.5, (row + 0.5) * down - 0.5)


def _window(first: float, last: float, size: int) -> tuple[int, int]:
    """Whole pixels from ``first`` to ``last`` within a side of a picture; the end is excluded."""
    return max(0, math.floor(first)), min(size, math.ceil(last) + 1)
