"""Scenes to train on, as an editor meets them: one or two pictures, moved, turned and bent, on a background."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate
from torch.utils.data import Dataset

from livedrag.editor.training.pictures import SIDE, Collection, Emoji

Floats = NDArray[np.float32]

TWO_OBJECTS = 0.2
BENT = 0.5
FLIPPED = 0.5
ALIASED = 0.4
"""Share of the pictures that have other names which are called by one of those."""
MOST_BENDING = 0.05
"""Standard deviation of the smooth warp, in parts of half the scene's side."""

COLOURS = {
    "red": (0.86, 0.24, 0.22),
    "orange": (0.96, 0.6, 0.25),
    "yellow": (0.97, 0.86, 0.4),
    "green": (0.42, 0.74, 0.42),
    "blue": (0.36, 0.55, 0.88),
    "purple": (0.6, 0.44, 0.8),
    "pink": (0.95, 0.66, 0.78),
    "brown": (0.55, 0.4, 0.3),
    "white": (0.97, 0.97, 0.97),
    "grey": (0.6, 0.6, 0.62),
    "black": (0.1, 0.1, 0.12),
    "beige": (0.92, 0.87, 0.76),
}
"""Words for backgrounds."""


@dataclass(frozen=True)
class Crop:
    """A square part of a scene: ``side`` pixels, its top left corner at ``(x, y)``."""

    side: int = SIDE
    x: int = 0
    y: int = 0


@dataclass(frozen=True)
class Scene:
    """Pixels ``(3, side, side)`` in [-1, 1], and words for the whole scene."""

    pixels: Tensor
    caption: str


class Scenes(Dataset[tuple[Tensor, str]]):
    """Whole scenes by their number, each the same whenever and wherever it is drawn: pixels and words.

    Args:
        pictures: to make scenes of.
        seed: of all of them.
        count: how many there are.
    """

    def __init__(self, pictures: Collection, seed: int, count: int) -> None:
        self._pictures, self._seed, self._count = pictures, seed, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[Tensor, str]:
        scene = draw_scene(self._pictures, np.random.default_rng((self._seed, 2, number)))
        return scene.pixels, scene.caption


def draw_scene(pictures: Collection, random: np.random.Generator, crop_side: int = SIDE) -> Scene:
    """A random scene of 256 x 256 pixels, or a random square part of one."""
    x, y = (int(random.integers(0, SIDE - crop_side + 1)) for _ in "xy")
    return scene_at(pictures, random, Crop(crop_side, x, y))


def scene_at(pictures: Collection, random: np.random.Generator, crop: Crop) -> Scene:
    """This part of a random scene."""
    ground, colour = _background(random, crop)
    indices = [pictures.draw(random) for _ in range(2 if random.random() < TWO_OBJECTS else 1)]
    names = [_name(pictures.emojis[index], random) for index in indices]
    for index, place in zip(indices, _places(len(indices), random), strict=True):
        ground = _over(ground, _placed(torch.from_numpy(pictures[index]), place, random, crop))
    return Scene(ground.clamp(0, 1) * 2 - 1, _words(names, colour, random))


def still_scene(picture: Floats, side: int = 200, colour: tuple[float, float, float] = (0.92, 0.88, 0.94)) -> Tensor:
    """One picture upright in the middle of a plain ground, ``(3, 256, 256)`` in [-1, 1]: what is evaluated on."""
    small = interpolate(torch.from_numpy(picture)[None], (side, side), mode="bilinear", antialias=True)[0]
    layer = torch.zeros(4, SIDE, SIDE)
    corner = (SIDE - side) // 2
    layer[:, corner : corner + side, corner : corner + side] = small
    return _over(torch.tensor(colour)[:, None, None].expand(3, SIDE, SIDE), layer) * 2 - 1


def _over(ground: Tensor, layer: Tensor) -> Tensor:
    return layer[:3] + ground * (1 - layer[3:])


def _places(count: int, random: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centre and size of each object, in a scene from -1 to 1."""
    if count == 1:
        size = math.exp(random.uniform(math.log(0.55), math.log(1.0)))
        room = 1.05 - size
        return [(random.uniform(-room, room), random.uniform(-room, room), size)]
    lean = random.uniform(-0.3, 0.3)
    sides = [-0.48, 0.48] if random.random() < 0.5 else [0.48, -0.48]
    return [
        (side + random.uniform(-0.08, 0.08), sign * lean, random.uniform(0.36, 0.52))
        for side, sign in zip(sides, (1, -1), strict=True)
    ]


def _placed(picture: Tensor, place: tuple[float, float, float], random: np.random.Generator, crop: Crop) -> Tensor:
    """A picture ``(4, 256, 256)`` turned, stretched, bent and put in its place, ``(4, side, side)``."""
    centre_x, centre_y, size = place
    angle = math.radians(random.normal(0, 20 if random.random() < 0.2 else 5))
    stretch = math.exp(random.normal(0, 0.07))
    flip = -1 if random.random() < FLIPPED else 1
    xs, ys = _axes(crop)
    x, y = xs - centre_x, ys - centre_y
    cosine, sine = math.cos(angle), math.sin(angle)
    across = flip * (x * cosine + y * sine) / (size * stretch)
    down = (y * cosine - x * sine) * stretch / size
    grid = torch.stack(torch.broadcast_tensors(across, down), dim=-1)[None]
    if random.random() < BENT:
        grid = grid + _smooth(random, 2, 5, crop)[None].movedim(1, -1) * random.uniform(0.2, 1) * MOST_BENDING
    placed: Tensor = grid_sample(picture[None], grid, align_corners=False)[0]
    return placed


def _axes(crop: Crop) -> tuple[Tensor, Tensor]:
    """Places of the crop's columns ``(1, side)`` and rows ``(side, 1)`` in a scene from -1 to 1."""
    pixels = (torch.arange(crop.side) + 0.5) * 2 / SIDE - 1
    return (pixels + 2 * crop.x / SIDE)[None, :], (pixels + 2 * crop.y / SIDE)[:, None]


def _smooth(random: np.random.Generator, channels: int, cells: int, crop: Crop) -> Tensor:
    """Smooth noise of unit variance at its knots, ``(channels, side, side)``."""
    knots = torch.from_numpy(random.standard_normal((1, channels, cells, cells), dtype=np.float32))
    xs, ys = _axes(crop)
    grid = torch.stack(torch.broadcast_tensors(xs, ys), dim=-1)[None]
    noise: Tensor = grid_sample(knots, grid, mode="bicubic", padding_mode="border", align_corners=False)[0]
    return noise


def _background(random: np.random.Generator, crop: Crop) -> tuple[Tensor, str]:
    """A plain, graded or mottled ground ``(3, side, side)`` in [0, 1], and its colour's name."""
    kind = random.random()
    first = _colour(random)
    flat = torch.tensor(first)[:, None, None].expand(3, crop.side, crop.side)
    if kind < 0.4:
        return flat, name_of(first)
    near = [component + random.normal(0, 0.12) for component in first]
    other = torch.tensor(near, dtype=torch.float32).clamp(0, 1)[:, None, None]
    if kind < 0.85:
        angle = random.uniform(0, 2 * math.pi)
        xs, ys = _axes(crop)
        share = ((xs * math.cos(angle) + ys * math.sin(angle)) / 2.8 + 0.5).clamp(0, 1)
    else:
        share = (_smooth(random, 1, 4, crop)[0] * 0.4 + 0.5).clamp(0, 1)
    return torch.lerp(flat, other.expand_as(flat), share.expand(crop.side, crop.side)), name_of(first)


def _colour(random: np.random.Generator) -> tuple[float, float, float]:
    if random.random() < 0.35:  # the pale grounds that people choose
        return colorsys.hsv_to_rgb(random.random(), random.uniform(0, 0.15), random.uniform(0.85, 1))
    if random.random() < 0.15:
        return colorsys.hsv_to_rgb(random.random(), random.uniform(0, 0.1), random.uniform(0.05, 0.7))
    return colorsys.hsv_to_rgb(random.random(), random.uniform(0.15, 0.75), random.uniform(0.4, 1))


def name_of(colour: tuple[float, float, float]) -> str:
    """The word of `COLOURS` that is nearest to a colour in [0, 1]."""
    return min(COLOURS, key=lambda name: math.dist(COLOURS[name], colour))


def _name(emoji: Emoji, random: np.random.Generator) -> str:
    if emoji.aliases and random.random() < ALIASED:
        return emoji.aliases[random.integers(len(emoji.aliases))]
    return emoji.caption


def _words(names: list[str], colour: str, random: np.random.Generator) -> str:
    article = random.random() < 0.5
    things = " and ".join(f"{_article(name)} {name}" if article else name for name in names)
    return f"{things} on a {colour} background" if random.random() < 0.5 else things


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"
