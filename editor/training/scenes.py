"""Scenes to train on, as an editor meets them: one or two pictures, moved, turned and bent, on a background.

What is random about a scene is a few numbers, drawn by numpy on the host; rendering them is the same code on every
device, a batch at a time, and at any places: a view of a scene through a flow loses nothing.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from livedrag.editor.training.flows import apply_affine
from livedrag.editor.training.pictures import SIDE, Collection, Emoji

Numbers = NDArray[np.float64]

TWO_OBJECTS = 0.2
BENT = 0.5
FLIPPED = 0.5
ALIASED = 0.4
"""Share of the pictures that have other names which are called by one of those."""
MAX_BENDING = 0.05
"""Standard deviation of the smooth warp, in parts of half the scene's side."""
PLAIN, GRADED = 0.4, 0.45
"""Shares of grounds in one colour, and of those with a gradient; the others are mottled."""

STILL_SIDE, STILL_COLOUR = 200, (0.92, 0.88, 0.94)

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
class Scenes:
    """The numbers of N scenes, on the host until they are rendered. Places are (x, y) from -1 to 1 across a scene.

    Args:
        captions: words for each whole scene.
        chosen: ``(N, 2)``, index of the picture of each object, the second in front; -1 for no second object.
        placing: ``(N, 2, 2, 3)``, affine map from places of the scene to places of each object's picture.
        bending: ``(N, 2, 2, 5, 5)``, knots of what is added to that.
        colours: ``(N, 2, 3)`` in [0, 1], of the ground.
        gradient: ``(N, 2)``, how the second colour's share grows along x and y from one half in the middle.
        mottle: ``(N, 1, 4, 4)``, knots of what is added to that share.
    """

    captions: tuple[str, ...]
    chosen: Tensor
    placing: Tensor
    bending: Tensor
    colours: Tensor
    gradient: Tensor
    mottle: Tensor


def draw_scenes(pictures: Collection, random: np.random.Generator, count: int) -> Scenes:
    """The numbers of so many random scenes."""
    chosen = pictures.draw(random, (count, 2))
    chosen[random.random(count) >= TWO_OBJECTS, 1] = -1
    placing = _affine(*_places(chosen[:, 1] >= 0, random), random)
    amount = random.uniform(0.2, 1, (count, 2)) * (random.random((count, 2)) < BENT) * MAX_BENDING
    bending = random.standard_normal((count, 2, 2, 5, 5)) * amount[..., None, None, None]
    colours, gradient, mottle = _grounds(count, random)
    captions = tuple(
        _words([_name(pictures.emojis[index], random) for index in indices if index >= 0], name_of(colour), random)
        for indices, colour in zip(chosen.tolist(), colours[:, 0].tolist(), strict=True)
    )
    floats = (torch.from_numpy(part.astype(np.float32)) for part in (placing, bending, colours, gradient, mottle))
    return Scenes(captions, torch.from_numpy(chosen), *floats)


def draw_anchors(scenes: Scenes, random: np.random.Generator, each: int) -> Numbers:
    """Random places ``(N, each, 2)`` on the objects of scenes."""
    count = len(scenes.captions)
    second = (random.random((count, each)) < 0.5) & (scenes.chosen[:, 1:].numpy() >= 0)
    maps = scenes.placing.double().numpy()[np.arange(count)[:, None], second.astype(np.int64)]
    inside = random.uniform(-0.8, 0.8, (count, each, 2))
    places: Numbers = np.linalg.solve(maps[..., :2], (inside - maps[..., 2])[..., None])[..., 0]
    return places


def render(scenes: Scenes, atlas: Tensor, places: Tensor) -> Tensor:
    """What is at these places of scenes.

    Args:
        atlas: all pictures, ``(P, 4, 256, 256)`` uint8, on the device to render on.
        places: ``(N, H, W, 2)`` there, or with N = 1 for all the same.

    Returns:
        ``(N, 3, H, W)`` in [-1, 1].
    """
    device = atlas.device
    places = places.expand(len(scenes.captions), -1, -1, -1)
    ground = _ground(scenes, places)
    for layer in range(2):
        (rows,) = torch.nonzero(scenes.chosen[:, layer] >= 0, as_tuple=True)  # on the host: no device is waited for
        if len(rows) == 0:
            continue
        pictures = atlas[send(scenes.chosen[rows, layer], device)].float() / 255
        pictures = torch.cat([pictures[:, :3] * pictures[:, 3:], pictures[:, 3:]], dim=1)
        placing, bending = (send(part[rows, layer], device) for part in (scenes.placing, scenes.bending))
        rows = send(rows, device)
        grid = apply_affine(placing, places[rows]) + _smooth(bending, places[rows]).movedim(1, -1)
        placed = grid_sample(pictures, grid, align_corners=False)
        ground = ground.index_copy(0, rows, _over(ground[rows], placed))
    return ground.clamp(0, 1) * 2 - 1


def whole(device: torch.device | None = None) -> Tensor:
    """The places of a scene's 256 x 256 pixels, ``(1, 256, 256, 2)``."""
    return crops(torch.zeros(1, 2, device=device), SIDE)


def crops(corners: Tensor, side: int) -> Tensor:
    """The places of square parts of scenes, ``(N, side, side, 2)``; corners ``(N, 2)``, top left, (x, y) in pixels."""
    pixels = torch.arange(side, device=corners.device) + 0.5
    axes = (corners[..., None] + pixels) * 2 / SIDE - 1
    across, down = axes[:, 0, None, :], axes[:, 1, :, None]
    return torch.stack(torch.broadcast_tensors(across, down), dim=-1)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's on a device, whose queued work is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def still_scene(
    picture: NDArray[np.float32], side: int = STILL_SIDE, colour: tuple[float, float, float] = STILL_COLOUR
) -> Tensor:
    """One picture upright in the middle of a plain ground, ``(3, 256, 256)`` in [-1, 1]: what is evaluated on."""
    small = interpolate(torch.from_numpy(picture)[None], (side, side), mode="bilinear", antialias=True)
    layer = torch.zeros(1, 4, SIDE, SIDE)
    corner = (SIDE - side) // 2
    layer[..., corner : corner + side, corner : corner + side] = small
    return _over(torch.tensor(colour)[:, None, None].expand(1, 3, SIDE, SIDE), layer)[0] * 2 - 1


def still_scenes(pictures: Collection, indices: Sequence[int]) -> Scenes:
    """The same, of several pictures, as numbers that can be rendered at any places."""
    count = len(indices)
    chosen = torch.tensor([[index, -1] for index in indices])
    placing = torch.eye(2, 3).expand(count, 2, 2, 3) * SIDE / STILL_SIDE
    colours = torch.tensor(STILL_COLOUR).expand(count, 2, 3)
    captions = tuple(pictures.emojis[index].caption for index in indices)
    nothing = (torch.zeros(count, *shape) for shape in ((2,), (1, 4, 4)))
    return Scenes(captions, chosen, placing, torch.zeros(count, 2, 2, 5, 5), colours, *nothing)


def _over(ground: Tensor, layers: Tensor) -> Tensor:
    return layers[:, :3] + ground * (1 - layers[:, 3:])


def _smooth(knots: Tensor, places: Tensor) -> Tensor:
    """What knots ``(N, C, k, k)`` make at places ``(N, H, W, 2)``: ``(N, C, H, W)``."""
    return grid_sample(knots, places, mode="bicubic", padding_mode="border", align_corners=False)


def _ground(scenes: Scenes, places: Tensor) -> Tensor:
    """Plain, graded or mottled grounds ``(N, 3, H, W)`` in [0, 1]."""
    colours, gradient, mottle = (send(part, places.device) for part in (scenes.colours, scenes.gradient, scenes.mottle))
    first, second = (colours[:, index, :, None, None] for index in range(2))
    along = (places * gradient[:, None, None]).sum(-1)[:, None]
    share = (along + _smooth(mottle, places) + 0.5).clamp(0, 1)
    return torch.lerp(first, second, share)


def _places(two: NDArray[np.bool_], random: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Centres ``(N, 2, 2)`` and sizes ``(N, 2)`` of objects, alone in a scene or beside each other."""
    count = len(two)
    alone = np.exp(random.uniform(math.log(0.55), math.log(1.0), count))
    middle = random.uniform(-1, 1, (count, 1, 2)) * (1.05 - alone)[:, None, None]
    sides = np.where(random.random((count, 1)) < 0.5, [[-0.48, 0.48]], [[0.48, -0.48]])
    lean = random.uniform(-0.3, 0.3, (count, 1)) * [[1, -1]]
    beside = np.stack([sides + random.uniform(-0.08, 0.08, (count, 2)), lean], axis=2)
    centres = np.where(two[:, None, None], beside, middle)
    sizes = np.where(two[:, None], random.uniform(0.36, 0.52, (count, 2)), alone[:, None])
    return centres, sizes


def _affine(centres: Numbers, sizes: Numbers, random: np.random.Generator) -> Numbers:
    """Maps ``(N, 2, 2, 3)`` from the scene to each object's picture, turned, stretched and flipped at random."""
    shape = sizes.shape
    angle = np.radians(random.standard_normal(shape) * np.where(random.random(shape) < 0.2, 20, 5))
    stretch = np.exp(random.normal(0, 0.07, shape))
    flip = np.where(random.random(shape) < FLIPPED, -1, 1)
    cosine, sine = np.cos(angle), np.sin(angle)
    across = np.stack([cosine, sine], axis=-1) * (flip / (sizes * stretch))[..., None]
    down = np.stack([-sine, cosine], axis=-1) * (stretch / sizes)[..., None]
    turn = np.stack([across, down], axis=-2)
    return np.concatenate([turn, -(turn @ centres[..., None])], axis=-1)


def _grounds(count: int, random: np.random.Generator) -> tuple[Numbers, Numbers, Numbers]:
    """Colours ``(N, 2, 3)``, gradients ``(N, 2)`` and mottles ``(N, 1, 4, 4)``."""
    kind = random.random(count)
    graded, mottled = (kind >= PLAIN) & (kind < PLAIN + GRADED), kind >= PLAIN + GRADED
    first = np.array([_colour(random) for _ in range(count)])
    near = (first + random.normal(0, 0.12, (count, 3))).clip(0, 1)
    colours = np.stack([first, np.where((graded | mottled)[:, None], near, first)], axis=1)
    angle = random.uniform(0, 2 * math.pi, count)
    gradient = np.stack([np.cos(angle), np.sin(angle)], axis=1) / 2.8 * graded[:, None]
    mottle = 0.4 * random.standard_normal((count, 1, 4, 4)) * mottled[:, None, None, None]
    return colours, gradient, mottle


def _colour(random: np.random.Generator) -> tuple[float, float, float]:
    if random.random() < 0.35:  # the pale grounds that people choose
        return colorsys.hsv_to_rgb(random.random(), random.uniform(0, 0.15), random.uniform(0.85, 1))
    if random.random() < 0.15:
        return colorsys.hsv_to_rgb(random.random(), random.uniform(0, 0.1), random.uniform(0.05, 0.7))
    return colorsys.hsv_to_rgb(random.random(), random.uniform(0.15, 0.75), random.uniform(0.4, 1))


def name_of(colour: tuple[float, ...] | list[float]) -> str:
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
