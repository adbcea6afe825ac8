"""Drags whose true answer is known: a held-out picture, a smooth warp of it, and where a place of it so went.

Where content really is in an edited picture is found by normalised cross-correlation of pixels, which shares nothing
with the features that the editor itself tracks by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, grid_sample

from livedrag.editor.points import Drag, Point
from livedrag.editor.similarity import peak_signal_to_noise
from livedrag.editor.training.pictures import SIDE, Collection
from livedrag.editor.training.scenes import still_scene

REACH = 2.8
"""Radius of the region that a drag bends, in lengths of the drag: far enough that nothing folds."""
SHORTEST, LONGEST = 14.0, 30.0
"""Pixels of the 256 x 256 picture that content has to go."""
PATCH = 10
"""The handle's patch for cross-correlation reaches so far to each side, in pixels."""
SURE = 2.0
"""A trial counts only if cross-correlation finds its handle in the true answer within so many pixels."""
CONTRAST = 0.25
"""What has less than this share of the patch's contrast is not compared as if it had as much: noise on a flat ground
would be like anything."""
ARRIVED = 10.0
"""Content that is this near to its target is counted as moved, in pixels."""


AROUND = 16
"""The square around the target in which a result is compared with the true answer reaches so far to each side."""
MIN_LIKENESS = 13.0
"""A result with less PSNR to the true answer than this around the target is wrong: the content is torn or elsewhere.
Chosen on the ten pictures of the search: the true answer shifted by 2, 4, 6 and 10 pixels has 20.0, 14.7, 13.0 and
10.9 dB there, the unedited picture 10.2."""


@dataclass(frozen=True)
class Trial:
    """One drag on one picture.

    Args:
        caption: of the picture.
        picture: ``(3, 256, 256)`` in [-1, 1].
        truth: what the picture should become, same shape.
        drag: in pixels.
        mask: ``(256, 256)``, True where the true answer differs from the picture.
    """

    caption: str
    picture: Tensor
    truth: Tensor
    drag: Drag
    mask: NDArray[np.bool_]


def make_trials(pictures: Collection, concepts: Sequence[int], each: int, *, seed: int = 0) -> list[list[Trial]]:
    """For each concept (an index of a picture) so many trials, those that cross-correlation can judge."""
    trials = []
    for index in concepts:
        solid = torch.from_numpy(np.ascontiguousarray(pictures[index][3]))
        random = np.random.default_rng((seed, index))
        trials.append(_trials_on(pictures.emojis[index].caption, still_scene(pictures[index]), solid, each, random))
    return [found for found in trials if len(found) == each]


def make_trials_on(pictures: Mapping[str, Tensor], each: int, *, seed: int = 0) -> list[list[Trial]]:
    """The same on any pictures ``(3, 256, 256)`` in [-1, 1], by their captions."""
    trials = []
    for index, (caption, picture) in enumerate(pictures.items()):
        random = np.random.default_rng((seed, index))
        trials.append(_trials_on(caption, picture, torch.ones(SIDE, SIDE), each, random))
    return [found for found in trials if len(found) == each]


def _trials_on(caption: str, picture: Tensor, solid: Tensor, each: int, random: np.random.Generator) -> list[Trial]:
    """At most so many trials at the strongest corners of what is ``solid``, ``(256, 256)``, apart from each other."""
    found: list[Trial] = []
    for place in corners(picture, solid):
        if len(found) == each:
            break
        if all(math.dist((place.x, place.y), (t.drag.handle.x, t.drag.handle.y)) > 30 for t in found):
            trial = _trial(caption, picture, place, random)
            if trial is not None:
                found.append(trial)
    return found


def corners(picture: Tensor, solid: Tensor) -> list[Point]:
    """Places of the object with detail in both directions, the strongest first (Shi and Tomasi's least eigenvalue)."""
    grey = picture.mean(0)[None, None]
    across, down = torch.zeros_like(grey), torch.zeros_like(grey)
    across[..., 1:-1] = (grey[..., 2:] - grey[..., :-2]) / 2
    down[..., 1:-1, :] = (grey[..., 2:, :] - grey[..., :-2, :]) / 2

    def spread(product: Tensor) -> Tensor:
        return avg_pool2d(product, 2 * PATCH + 1, 1, PATCH)

    xx, yy, xy = spread(across**2), spread(down**2), spread(across * down)
    least = ((xx + yy) - ((xx - yy) ** 2 + 4 * xy**2).sqrt())[0, 0] / 2
    inside = torch.zeros(SIDE, SIDE)
    side = 200
    corner = (SIDE - side) // 2
    shrunk = torch.nn.functional.interpolate(solid[None, None], (side, side), mode="bilinear", antialias=True)[0, 0]
    inside[corner : corner + side, corner : corner + side] = shrunk
    least = torch.where(inside > 0.5, least, 0)
    peaks = least == torch.nn.functional.max_pool2d(least[None, None], 15, 1, 7)[0, 0]
    rows, columns = torch.nonzero(peaks & (least > 0), as_tuple=True)
    order = least[rows, columns].argsort(descending=True)[:12]
    return [Point(float(columns[index]), float(rows[index])) for index in order]


def _trial(caption: str, picture: Tensor, handle: Point, random: np.random.Generator) -> Trial | None:
    """A drag of this place in the first of some random directions that leaves room and can be judged."""
    for _ in range(8):
        angle, length = random.uniform(0, 2 * math.pi), random.uniform(SHORTEST, LONGEST)
        target = Point(round(handle.x + length * math.cos(angle)), round(handle.y + length * math.sin(angle)))
        if not all(PATCH + 4 <= value < SIDE - PATCH - 4 for value in (target.x, target.y)):
            continue
        truth, mask = bend(picture, Drag(handle, target))
        if distance_left(picture, truth, Drag(handle, target), mask) <= SURE:
            return Trial(caption, picture, truth, Drag(handle, target), mask)
    return None


def bend(picture: Tensor, drag: Drag) -> tuple[Tensor, NDArray[np.bool_]]:
    """Move what is at the handle to the target, all around it less and less, nothing beyond `REACH`.

    Returns:
        the bent picture ``(3, 256, 256)``, and the disc in which it differs.
    """
    dx, dy = drag.target.x - drag.handle.x, drag.target.y - drag.handle.y
    reach = REACH * math.hypot(dx, dy)
    rows, columns = torch.meshgrid(torch.arange(SIDE).double(), torch.arange(SIDE).double(), indexing="ij")
    x, y = columns, rows
    for _ in range(40):  # from where each place's content comes: a contraction, since nothing folds
        strength = _strength((x - drag.handle.x).hypot(y - drag.handle.y) / reach)
        x, y = columns - dx * strength, rows - dy * strength
    grid = (torch.stack([x, y], dim=-1) + 0.5) * 2 / SIDE - 1
    bent: Tensor = grid_sample(
        picture[None], grid[None].float(), mode="bicubic", padding_mode="border", align_corners=False
    )[0]
    disc = (columns - drag.handle.x).hypot(rows - drag.handle.y) < reach
    return torch.where(disc, bent.clamp(-1, 1), picture), disc.numpy()


def _strength(radius: Tensor) -> Tensor:
    """From 1 in the middle to 0 at radius 1 and beyond."""
    return torch.cos(radius.clamp(max=1) * math.pi / 2) ** 2


def distance_left(before: Tensor, after: Tensor, drag: Drag, mask: NDArray[np.bool_]) -> float:
    """How far from the target the handle's content is, in pixels, by normalised cross-correlation within the mask.

    Args:
        before, after: pictures ``(3, 256, 256)`` in [-1, 1].
        mask: ``(256, 256)``, where content may have gone.
    """
    x, y = round(drag.handle.x), round(drag.handle.y)
    padded = torch.nn.functional.pad(before[None], (PATCH,) * 4, mode="replicate")[0]
    patch = padded[:, y : y + 2 * PATCH + 1, x : x + 2 * PATCH + 1]
    likeness = cross_correlation(after, patch)
    likeness[~torch.from_numpy(mask)] = -math.inf
    row, column = divmod(int(likeness.argmax()), SIDE)
    return math.dist((column, row), (drag.target.x, drag.target.y))


def cross_correlation(picture: Tensor, patch: Tensor) -> Tensor:
    """Normalised cross-correlation of a patch at every place of a picture, less where there is little `CONTRAST`.

    Args:
        picture: ``(3, H, W)``.
        patch: ``(3, k, k)``, k odd.

    Returns:
        ``(H, W)`` in [-1, 1].
    """
    side = patch.shape[-1]
    padded = torch.nn.functional.pad(picture[None], (side // 2,) * 4, mode="replicate")
    wanted = patch - patch.mean()
    ones = torch.ones_like(wanted)[None] / wanted.numel()
    mean, square = conv2d(padded, ones), conv2d(padded**2, ones)
    contrast = wanted.square().mean().sqrt().clamp(min=1e-3)
    deviation = (square - mean**2).clamp(min=0).sqrt().clamp(min=CONTRAST * contrast)
    together = conv2d(padded, wanted[None]) / wanted.numel()
    return (together / deviation / contrast)[0, 0]


def is_wrong(trial: Trial, edited: Tensor) -> bool:
    """Whether an edited picture ``(3, 256, 256)`` is not the true answer around the target.

    It is further from it than the unedited picture is, or less like it than `MIN_LIKENESS`. No correlation is used:
    arrival may have been judged by one.
    """
    x, y = round(trial.drag.target.x), round(trial.drag.target.y)
    window = slice(max(0, y - AROUND), y + AROUND + 1), slice(max(0, x - AROUND), x + AROUND + 1)
    error, unedited = ((picture - trial.truth)[:, *window].square().mean() for picture in (edited, trial.picture))
    return bool(error > unedited or peak_signal_to_noise(error) < MIN_LIKENESS)
