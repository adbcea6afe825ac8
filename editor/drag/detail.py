"""Carrying detail: where an edit only moved content, the result shows the uploaded picture's own pixels, moved.

The working picture is small, and what a model paints on it is soft. So the displacement from the unedited to the edited
working picture is estimated, the uploaded picture is warped by it at full size, and the two are blended by how well
they agree: what the model made anew, where content was uncovered, comes from the model. A difference counts for less
where the model does not even reproduce the unedited picture. The drags' own field is kept where no other displacement
explains the edit clearly better: it is smooth, and an estimate is not. Where it explains nearly all of the edit around
a place, a difference there is what the model lost or blurred when the content moved, and does not count.

At the edge of the mask, the model's colours fade into the uploaded ones. Content that moved does not, as it would be
seen twice: there its displacement is the drags' own, which ends at the edge.

Not in the paper; the setting ``detail`` = ``model`` turns it off. The estimate is pyramidal Lucas-Kanade (Bouguet 2001)
at every pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from livedrag.editor.drag.warp import WarpField
from livedrag.editor.picture import resize, resize_mask, soften, to_picture, to_working_tensor, with_margin
from livedrag.editor.points import Drag, Point, Rasters, Size, moved_inside

LEVELS = (4, 2, 1)
"""Shrinking factors of the pyramid, coarsest first."""
UPDATES = 8
"""On each level."""
WINDOW, SMOOTHNESS = 4.0, 0.8
"""Standard deviations, in pixels of a level, of the window that moves as one, and of smoothing after each update."""
DAMPING = 5e-4
"""Added to the diagonal of the normal equations: flat places keep the displacement that they had."""
MAX_UPDATE = 2.0
"""Pixels of a level."""
JUDGED = 1.5
"""Standard deviation, in pixels of the working picture, of the window in which a displacement is judged."""
DECISIVENESS = 8
"""Of two displacements the one with the smaller residual counts more, by this power of their ratio."""
MAX_RATIO, FIELD_WINDOW = 0.55, 16.0
"""An estimate replaces the field of the drags where its residual is below this share of the field's, and the standard
deviation, in pixels of the working picture, of the window in which they are compared."""
ROUGH = 2.5
"""An estimate whose differences from the field differ among themselves by so many pixels (their standard deviation
in a window) has to be better by twice as much."""
EXPLAINED, UNEXPLAINED = 0.3, 0.6
"""Shares of the change in such a window that the field leaves as a residual: up to the first it explains the edit, from
the second on it does not."""
RESIDUAL_FLOOR = 0.02
"""Added to both of these residuals (black to white is 2): smaller ones say nothing."""
TOLERANCE = 0.1
"""Mean residual (black to white is 2) at which the carried picture counts for 1 / e."""
ERROR_WEIGHT = 4
"""Weight of the `reconstruction_error` of a place, which is added to the tolerance."""
NEAR = 5
"""Side in pixels of the working picture's neighbourhood whose colours `without_small_excess` looks at."""
EXCESS = 0.4
"""A colour this far (black to white is 2) from those nearby is content that the model made."""
TORN = 2.0
"""A displacement that changes by so many pixels from one pixel to the next counts for 1 / e: something was
uncovered."""
STILL, STILL_WINDOW = 0.004, 8.0
"""A mean change (black to white is 2) below this does not count as movement, and the standard deviation of the window
for it: flat ground moves with the edge that it meets, but only near it."""
UNCHANGED = 1e-3
"""A change below this (black to white is 2) is none."""
REACH = 48
"""Pixels of the working picture around what changed that the estimate looks at."""
CUBIC = 1 / 3
"""Share of bicubic interpolation in the carried picture, the rest is bilinear. More would be sharper, but further from
the truth where the displacement is somewhat off; torch's cubic alone (a = -0.75) overshoots at outlines."""
ROWS = 128
"""Rows of the uploaded picture that are made at once, to limit memory."""


def carry_detail(
    uploaded: Image.Image,
    edited: Tensor,
    unedited: Tensor,
    mask: NDArray[np.bool_] | None,
    rasters: Rasters,
    moves: Sequence[Sequence[Drag]],
    *,
    feather: float = 2.0,
) -> Image.Image:
    """Apply an edit of the working picture to the uploaded one, as `livedrag.editor.picture.compose`, carrying detail.

    Args:
        uploaded: RGB picture, of any size.
        edited: the working picture with the edit, ``(1, 3, h, w)`` in [-1, 1].
        unedited: the working picture as the model reconstructs it without the edit, same shape.
        mask: ``(H, W)`` at the size of ``uploaded``, True may change; None means everything may.
        rasters: of the picture.
        moves: what may have moved, as drags from where content was to where it is, in pixels of the picture: where it
            was tracked, where it was to go. The field that explains the edit best counts.
        feather: how softly what the model painted ends at the mask, in pixels of the working picture.

    Returns:
        RGB picture of the size of ``uploaded``; outside the mask, and where nothing changed, its very pixels.
    """
    edited, unedited = edited.float().cpu(), unedited.float().cpu()
    result = np.array(uploaded.convert("RGB"))
    changed = (edited - unedited).abs().amax(1)[0] > UNCHANGED
    box = _changed_box(changed, mask, rasters)
    if box is None:
        return Image.fromarray(result)
    working = to_working_tensor(uploaded, rasters)
    error = reconstruction_error(working, unedited)
    field = likeliest(unedited, edited, [_drags_field(drags, mask, rasters) for drags in moves])
    flow = _flow_of_changed(changed, unedited, edited, field, _freedom(mask, rasters, feather))
    scale = [size / small for size, small in zip(_sides(rasters.covered), _sides(rasters.working), strict=True)]
    painted = without_small_excess(edited, working, flow)
    share = agreement(unedited, edited, flow, error)
    share = torch.lerp(share, torch.ones_like(share), explained(unedited, edited, flow, field))
    planes = _Stretched(torch.cat([painted, share, flow * torch.tensor(scale)[:, None, None]], 1), rasters)
    left, top, right, bottom = box
    soft = None if mask is None else torch.from_numpy(soften(mask, feather * math.sqrt(math.prod(scale))))
    source = torch.from_numpy(result.copy()).permute(2, 0, 1)
    for first in range(top, bottom, ROWS):
        last = min(first + ROWS, bottom)
        model, share, moved = planes.rows(first, last)[..., left:right].split((3, 1, 2), 1)
        own = _to_floats(source[:, first:last, left:right])
        carried = _displaced_part(source, moved, left, first) if moved.any() else own
        shown = torch.lerp(model, carried, share)
        if mask is not None and soft is not None:
            hard = torch.from_numpy(mask[first:last, left:right].astype(np.float32))
            shown = torch.lerp(own, shown, torch.lerp(soft[first:last, left:right], hard, share))
        result[first:last, left:right] = np.asarray(to_picture(shown))
    return Image.fromarray(result)


# The displacement -----------------------------------------------------------------------------------------------------


def likeliest(unedited: Tensor, edited: Tensor, fields: Iterable[Tensor]) -> Tensor:
    """Of several displacements the one that explains the edit best.

    Args:
        unedited, edited: ``(1, 3, h, w)`` in [-1, 1].
        fields: ``(1, 2, h, w)`` each, in pixels; those that are 0 everywhere do not count.

    Returns:
        ``(1, 2, h, w)``; 0 if there are none.
    """
    moving = [field for field in fields if field.any()]
    still = torch.zeros_like(edited[:, :2])
    return min(moving, key=lambda field: float(_residual(unedited, edited, field).mean()), default=still)


def estimate_displacement(unedited: Tensor, edited: Tensor, field: Tensor, freedom: Tensor | float = 1.0) -> Tensor:
    """Where each place of the edited picture came from.

    Args:
        unedited, edited: ``(1, 3, h, w)`` in [-1, 1].
        field: a displacement that may be right, ``(1, 2, h, w)``; it is kept where no other one is clearly better. The
            estimate begins with it, and also without any: the content may not have followed the drags.
        freedom: how far the estimate may differ from the field: ``(1, 1, h, w)`` from 0 (not) to 1 (by anything), or
            one for all places.

    Returns:
        ``(1, 2, h, w)``, (dx, dy) in pixels: the edited picture shows at ``p`` what the unedited one has at
        ``p + d(p)``; 0 where nothing changed.
    """
    still = torch.zeros_like(field)
    flow = _estimate_from(unedited, edited, still)
    if field.any():
        flow = _better(unedited, edited, flow, _estimate_from(unedited, edited, field), WINDOW)
        weight = (1 + (_roughness(flow - field) / ROUGH) ** 4) / MAX_RATIO
        flow = _better(unedited, edited, field, flow, FIELD_WINDOW, floor=RESIDUAL_FLOOR, weight=weight)
    change = _blur(_residual(unedited, edited, still), STILL_WINDOW)
    flow = torch.lerp(field, flow, torch.as_tensor(freedom))
    return flow * (change / STILL).clamp(max=1)


def agreement(unedited: Tensor, edited: Tensor, flow: Tensor, error: Tensor) -> Tensor:
    """How far the unedited picture, displaced, is the edited one; ``(1, 1, h, w)`` from 0 to 1."""
    off = _blur(_residual(unedited, edited, flow), JUDGED) / (TOLERANCE + ERROR_WEIGHT * displace(error, flow))
    return torch.exp(-(off**2) - (_jump(flow) / TORN) ** 4)


def explained(unedited: Tensor, edited: Tensor, flow: Tensor, field: Tensor) -> Tensor:
    """How far the edit around each place is nothing but a move by a field; ``(1, 1, h, w)`` from 0 to 1.

    Args:
        unedited, edited: ``(1, 3, h, w)`` in [-1, 1].
        flow: the displacement that is used, ``(1, 2, h, w)`` in pixels; as far as it is another one, the field explains
            nothing.
        field: that of the drags, same shape.
    """
    change, left = (
        _blur(_residual(unedited, edited, each), FIELD_WINDOW) + STILL for each in (torch.zeros_like(field), field)
    )
    share = ((UNEXPLAINED - left / change) / (UNEXPLAINED - EXPLAINED)).clamp(0, 1)
    return share * torch.exp(-(flow - field).square().sum(1, keepdim=True))


def without_small_excess(edited: Tensor, working: Tensor, flow: Tensor) -> Tensor:
    """The edited picture without light rims at outlines and a slightly different ground, which models add.

    Args:
        edited: ``(1, 3, h, w)`` in about [-1, 1].
        working: the picture itself, same shape.
        flow: the displacement between them, ``(1, 2, h, w)`` in pixels.

    Returns:
        The edited picture; colours somewhat beyond all that the working picture has nearby, here or where the content
        came from, are the nearest of those, and ones beyond by `EXCESS` or more are as they were.
    """

    def highest(planes: Tensor) -> Tensor:
        return nn.functional.max_pool2d(planes, NEAR, 1, NEAR // 2).amax(0, keepdim=True)

    known = torch.cat([working, displace(working, flow)])
    nearest = edited.minimum(highest(known)).maximum(-highest(-known))
    excess = edited - nearest
    kept = (excess.abs().amax(1, keepdim=True) / EXCESS).clamp(max=1)
    return nearest + excess * kept * kept * (3 - 2 * kept)


def reconstruction_error(working: Tensor, unedited: Tensor) -> Tensor:
    """How far a model is from reproducing the working picture around each place.

    Args:
        working: the picture itself, ``(1, 3, h, w)`` in [-1, 1].
        unedited: as the model reconstructs it, same shape.

    Returns:
        Mean absolute difference of the colours, ``(1, 1, h, w)``.
    """
    return _blur((working - unedited).abs().mean(1, keepdim=True), WINDOW)


def displace(picture: Tensor, flow: Tensor) -> Tensor:
    """The picture ``(1, C, h, w)`` with at ``p`` what it has at ``p + flow(p)``; bilinear, its border repeated."""
    height, width = flow.shape[-2:]
    return _sample(picture, torch.arange(width) + flow[:, 0], torch.arange(height)[:, None] + flow[:, 1], "bilinear")


def _drags_field(drags: Iterable[Drag], mask: NDArray[np.bool_] | None, rasters: Rasters) -> Tensor:
    """The displacement field of drags, ``(1, 2, h, w)``, in pixels of the working picture; arguments as above."""
    working = rasters.working
    if mask is not None:
        mask = resize_mask(with_margin(mask, rasters), working)
        if not mask.any():  # the editable area is smaller than a pixel here
            return torch.zeros(1, 2, working.height, working.width)

    def at(point: Point) -> Point:
        return moved_inside(rasters.to_working(point), working)

    field = WarpField([Drag(at(drag.handle), at(drag.target)) for drag in drags], mask, working)
    y, x = np.mgrid[: working.height, : working.width].astype(np.float64)
    return torch.from_numpy(np.stack(field.at(x, y))).float()[None]


def _freedom(mask: NDArray[np.bool_] | None, rasters: Rasters, feather: float) -> Tensor:
    """That of an estimate, ``(1, 1, h, w)`` of the working picture: none where the mask ends; arguments as above."""
    working = rasters.working
    if mask is None:
        return torch.ones(1, 1, working.height, working.width)
    return torch.from_numpy(soften(resize_mask(with_margin(mask, rasters), working), feather))[None, None]


def _flow_of_changed(changed: Tensor, unedited: Tensor, edited: Tensor, field: Tensor, freedom: Tensor) -> Tensor:
    """`estimate_displacement` around the places ``(h, w)`` that changed, of which there are some; 0 elsewhere."""
    rows, columns = (
        slice(max(0, int(places.min()) - REACH), int(places.max()) + REACH + 1)
        for places in (changed.any(axis).nonzero() for axis in (1, 0))
    )
    flow = torch.zeros_like(field)
    parts = (each[..., rows, columns] for each in (unedited, edited, field, freedom))
    flow[..., rows, columns] = estimate_displacement(*parts)
    return flow


def _estimate_from(unedited: Tensor, edited: Tensor, flow: Tensor) -> Tensor:
    """A displacement refined on each level, where that is better."""
    for factor in LEVELS:
        flow = _better(unedited, edited, flow, _refine(unedited, edited, flow, factor), JUDGED)
    return flow


def _better(
    unedited: Tensor,
    edited: Tensor,
    one: Tensor,
    other: Tensor,
    sigma: float,
    *,
    floor: float = 1e-4,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """The better of two displacements at each place, by their residuals in a window; between them where neither is.

    ``floor`` is added to both residuals, and then the other's counts ``weight`` times.
    """
    first, second = (_blur(_residual(unedited, edited, flow), sigma) + floor for flow in (one, other))
    return torch.lerp(one, other, 1 / (1 + (weight * second / first) ** DECISIVENESS))


def _roughness(flow: Tensor) -> Tensor:
    """Standard deviation of a displacement in a window around each place, in pixels, ``(1, 1, h, w)``."""
    variance = _blur(flow * flow, WINDOW) - _blur(flow, WINDOW) ** 2
    return variance.clamp(min=0).sum(1, keepdim=True).sqrt()


def _refine(unedited: Tensor, edited: Tensor, flow: Tensor, factor: int) -> Tensor:
    """A displacement after `UPDATES` on one level of the pyramid; all at full size."""
    size = flow.shape[-2:]
    small = [max(1, side // factor) for side in size]
    scale = torch.tensor([small[1] / size[1], small[0] / size[0]])[:, None, None]
    source, wanted, flow = (_shrink(each, small) for each in (unedited, edited, flow * scale))
    for _ in range(UPDATES):
        moved = displace(source, flow)
        across, down = _gradients((moved + wanted) / 2)
        off = wanted - moved
        products = [across * across, down * down, across * down, across * off, down * off]
        xx, yy, xy, xt, yt = _blur(torch.cat([each.sum(1, keepdim=True) for each in products], 1), WINDOW).split(1, 1)
        xx, yy = xx + DAMPING, yy + DAMPING
        update = torch.cat([yy * xt - xy * yt, xx * yt - xy * xt], 1) / (xx * yy - xy * xy)
        flow = _blur(flow + update.clamp(-MAX_UPDATE, MAX_UPDATE), SMOOTHNESS)
    return resize(flow, (size[0], size[1])) / scale


def _shrink(planes: Tensor, size: list[int]) -> Tensor:
    """By averaging; as it is, where it has this size."""
    return planes if [*planes.shape[-2:]] == size else nn.functional.interpolate(planes, size, mode="area")


def _gradients(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences across and down, ``(1, C, h, w)`` each."""
    padded = nn.functional.pad(picture, (1, 1, 1, 1), mode="replicate")
    return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2


def _residual(unedited: Tensor, edited: Tensor, flow: Tensor) -> Tensor:
    """Mean absolute difference of the colours, ``(1, 1, h, w)``."""
    return (displace(unedited, flow) - edited).abs().mean(1, keepdim=True)


def _jump(flow: Tensor) -> Tensor:
    """By how many pixels a displacement changes from one pixel to the next at most, ``(1, 1, h, w)``."""
    padded = nn.functional.pad(flow, (1, 1, 1, 1), mode="replicate")
    spread = nn.functional.max_pool2d(padded, 3, 1) + nn.functional.max_pool2d(-padded, 3, 1)
    return spread.amax(1, keepdim=True) / 2


def _blur(planes: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of ``(1, C, h, w)``, its border repeated; two matrix products, ten times faster than `conv2d`."""
    height, width = planes.shape[-2:]
    return _gaussian(height, sigma) @ planes @ _gaussian(width, sigma).T


@lru_cache(maxsize=32)
def _gaussian(length: int, sigma: float) -> Tensor:
    """``(length, length)``: each row weighs the surroundings of a place."""
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    places = (torch.arange(length)[:, None] + offsets).clamp(0, length - 1)
    return torch.zeros(length, length).scatter_add_(1, places, (weights / weights.sum()).expand(length, -1))


# Full size ------------------------------------------------------------------------------------------------------------


class _Stretched:
    """Planes ``(1, C, h, w)`` of the working picture at the size of the uploaded one, a few rows at a time."""

    def __init__(self, planes: Tensor, rasters: Rasters) -> None:
        width, height = _sides(rasters.covered)
        rows = min(planes.shape[-2], height)
        self._planes = resize(planes, (rows, width))
        self._step = rows / height

    def rows(self, first: int, last: int) -> Tensor:
        """``(1, C, last - first, W)``, bilinear."""
        end = self._planes.shape[-2] - 1
        at = ((torch.arange(first, last) + 0.5) * self._step - 0.5).clamp(0, end)
        upper = at.floor().long()
        lower = (upper + 1).clamp(max=end)
        return torch.lerp(self._planes[..., upper, :], self._planes[..., lower, :], (at - upper)[:, None])


def _displaced_part(source: Tensor, moved: Tensor, left: int, top: int) -> Tensor:
    """Part of the uploaded picture, displaced; see `CUBIC`; its border repeated.

    Args:
        source: the whole, uint8 ``(3, H, W)``.
        moved: (dx, dy) in its pixels, ``(1, 2, rows, columns)``, of the part that begins at ``left`` and ``top``.

    Returns:
        ``(1, 3, rows, columns)``, about [-1, 1].
    """
    height, width = source.shape[-2:]
    x = (torch.arange(left, left + moved.shape[-1]) + moved[:, 0]).clamp(0, width - 1)
    y = (torch.arange(top, top + moved.shape[-2])[:, None] + moved[:, 1]).clamp(0, height - 1)
    x0, y0 = max(0, int(x.min()) - 2), max(0, int(y.min()) - 2)  # cubic: two pixels further
    needed = _to_floats(source[:, y0 : int(y.max()) + 4, x0 : int(x.max()) + 4])
    needed = needed.contiguous(memory_format=torch.channels_last)
    linear, cubic = (_sample(needed, x - x0, y - y0, mode) for mode in ("bilinear", "bicubic"))
    return torch.lerp(linear, cubic, CUBIC)


def _sample(picture: Tensor, x: Tensor, y: Tensor, mode: str) -> Tensor:
    """``(1, C, rows, columns)``: a picture ``(1, C, h, w)`` at places ``(1, rows, columns)``, in its pixels."""
    height, width = picture.shape[-2:]
    grid = torch.stack([(x + 0.5) * (2 / width) - 1, (y + 0.5) * (2 / height) - 1], dim=-1)
    return nn.functional.grid_sample(picture, grid, mode=mode, padding_mode="border", align_corners=False)


def _changed_box(changed: Tensor, mask: NDArray[np.bool_] | None, rasters: Rasters) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what has to change in the uploaded picture; None if nothing has.

    Args:
        changed: ``(h, w)`` of the working picture.
        mask: ``(H, W)`` of the picture, True may change; None means everything may.
        rasters: of the picture.
    """
    ends = []
    sides = zip(_sides(rasters.covered), _sides(rasters.working), _sides(rasters.picture), strict=True)
    for axis, (covered, working, length) in enumerate(sides):
        places = changed.any(axis).nonzero()
        if not len(places):
            return None
        # Bilinear: a pixel reaches as far as the centres of the next ones.
        low = max(0, math.floor((int(places.min()) - 1) * covered / working))
        high = min(length, math.ceil((int(places.max()) + 2) * covered / working))
        if mask is not None:
            editable = np.flatnonzero(mask.any(axis))
            low, high = max(low, int(editable[0])), min(high, int(editable[-1]) + 1)
        if low >= high:
            return None
        ends.append((low, high))
    (left, right), (top, bottom) = ends
    return left, top, right, bottom


def _to_floats(part: Tensor) -> Tensor:
    """uint8 ``(3, h, w)`` as floats ``(1, 3, h, w)`` in [-1, 1]."""
    return part[None] / 127.5 - 1


def _sides(size: Size) -> tuple[int, int]:
    return size.width, size.height
