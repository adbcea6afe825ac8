"""Pictures of kinds that the built-in model was not trained on, for the evaluation.

``python -m tests.other_kinds FOLDER`` writes ten pictures drawn by this code and the photographs that come with
scikit-image; then ``python -m livedrag.editor.training evaluate REPORT --others FOLDER`` drags on them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE, FINER = 256, 4
INK = (32, 28, 36)
Colour = tuple[int, int, int]
PHOTOGRAPHS: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "an astronaut": skimage.data.astronaut,
    "a cameraman": skimage.data.camera,
    "a cat": skimage.data.chelsea,
    "a cup of coffee": skimage.data.coffee,
    "coins": skimage.data.coins,
    "a rocket": skimage.data.rocket,
}
"""By caption; all are in the package itself, nothing is downloaded."""


class Pen:
    """Draws in pixels of the finished picture, smoothly."""

    def __init__(self, ground: tuple[int, int, int]) -> None:
        self.picture = Image.new("RGB", (SIDE * FINER, SIDE * FINER), ground)
        self._draw = ImageDraw.Draw(self.picture)

    def disc(self, x: float, y: float, rx: float, ry: float, fill: Colour, line: float = 0) -> None:
        """An ellipse, with an outline of so many pixels."""
        for grow, colour in ((line / 2, INK), (-line / 2, fill)):
            if line or colour is fill:
                box = [x - rx - grow, y - ry - grow, x + rx + grow, y + ry + grow]
                self._draw.ellipse([value * FINER for value in box], fill=colour)

    def shape(self, points: list[tuple[float, float]], fill: Colour, line: float = 0) -> None:
        """A polygon, with an outline of so many pixels."""
        scaled = [(x * FINER, y * FINER) for x, y in points]
        self._draw.polygon(scaled, fill=fill)
        if line:
            self._draw.line([*scaled, scaled[0], scaled[1]], fill=INK, width=round(line * FINER), joint="curve")

    def stroke(self, points: list[tuple[float, float]], line: float, colour: Colour = INK) -> None:
        """A line of so many pixels through points."""
        self._draw.line(
            [(x * FINER, y * FINER) for x, y in points], fill=colour, width=round(line * FINER), joint="curve"
        )

    def finished(self) -> Image.Image:
        """The picture, 256 x 256."""
        return self.picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def circle(x: float, y: float, radius: float, first: float = 0, last: float = 360) -> list[tuple[float, float]]:
    """Points on an arc, in degrees clockwise from the right."""
    angles = np.radians(np.linspace(first, last, 60))
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def cartoon_cat() -> Image.Image:
    """Flat colours with thick outlines."""
    pen = Pen((170, 214, 240))
    pen.shape([(70, 90), (80, 34), (118, 70)], (240, 160, 70), 5)
    pen.shape([(186, 90), (176, 34), (138, 70)], (240, 160, 70), 5)
    pen.disc(128, 130, 72, 64, (246, 170, 80), 5)
    for x in (100, 156):
        pen.disc(x, 116, 13, 17, (255, 255, 255), 4)
        pen.disc(x + 3, 120, 6, 9, INK)
    pen.shape([(120, 146), (136, 146), (128, 156)], (230, 90, 110), 3)
    pen.stroke(circle(118, 158, 11, 0, 150), 4)
    pen.stroke(circle(138, 158, 11, 30, 180), 4)
    for y in (140, 152):
        pen.stroke([(40, y - 4), (84, y)], 3)
        pen.stroke([(216, y - 4), (172, y)], 3)
    return pen.finished()


def cartoon_house() -> Image.Image:
    """Flat colours with thick outlines."""
    pen = Pen((250, 236, 200))
    pen.shape([(0, 200), (256, 190), (256, 256), (0, 256)], (130, 190, 96), 4)
    pen.shape([(70, 120), (186, 120), (186, 212), (70, 212)], (226, 120, 96), 5)
    pen.shape([(56, 124), (128, 56), (200, 124)], (120, 70, 80), 5)
    pen.shape([(160, 64), (178, 64), (178, 98), (160, 84)], (160, 100, 90), 4)
    pen.shape([(114, 160), (144, 160), (144, 212), (114, 212)], (96, 66, 50), 4)
    for x in (82, 154):
        pen.shape([(x, 136), (x + 24, 136), (x + 24, 162), (x, 162)], (180, 226, 250), 4)
        pen.stroke([(x + 12, 136), (x + 12, 162)], 3)
    return pen.finished()


def cartoon_fish() -> Image.Image:
    """Flat colours with thick outlines."""
    pen = Pen((60, 120, 190))
    pen.shape([(176, 128), (226, 84), (218, 128), (226, 172)], (250, 190, 60), 5)
    pen.shape([(100, 84), (140, 48), (150, 88)], (250, 150, 50), 5)
    pen.disc(118, 128, 74, 48, (250, 200, 70), 5)
    pen.disc(78, 116, 14, 14, (255, 255, 255), 4)
    pen.disc(75, 116, 6, 6, INK)
    for x in (120, 142, 164):
        pen.stroke(circle(x - 14, 128, 22, -50, 50), 4)
    pen.stroke(circle(56, 140, 12, 0, 80), 4)
    for x, y in ((36, 70), (28, 46), (44, 26)):
        pen.disc(x, y, 8, 8, (170, 210, 240), 3)
    return pen.finished()


def cartoon_tree() -> Image.Image:
    """Flat colours with thick outlines."""
    pen = Pen((214, 236, 250))
    pen.shape([(112, 150), (146, 150), (154, 240), (104, 240)], (132, 92, 60), 5)
    for x, y, radius in ((88, 120, 40), (170, 122, 42), (128, 80, 52), (128, 136, 44)):
        pen.disc(x, y, radius, radius * 0.9, (92, 170, 84), 5)
    for x, y in ((92, 100), (160, 108), (122, 66), (138, 140)):
        pen.disc(x, y, 9, 9, (222, 60, 56), 3)
    return pen.finished()


def gradient_ball() -> Image.Image:
    """Smooth shading without an outline."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    ground = np.stack([150 + 60 * y / SIDE, 160 + 40 * x / SIDE, 210 - 40 * y / SIDE], -1)
    away = np.hypot(x - 128, y - 128) / 70
    light = np.clip(1.1 - np.hypot(x - 104, y - 100) / 120, 0, 1)[..., None]
    ball = light * np.array([255, 140, 110]) + (1 - light) * np.array([70, 10, 60])
    share = np.clip((1 - away) * 35, 0, 1)[..., None]
    return Image.fromarray((share * ball + (1 - share) * ground).clip(0, 255).astype(np.uint8))


def gradient_hills() -> Image.Image:
    """Layers of mist."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    picture = np.stack([250 - 60 * y / SIDE, 200 - 30 * y / SIDE, 170 + 40 * y / SIDE], -1)
    for layer in range(4):
        edge = 110 + 34 * layer + 22 * np.sin(x / (30 + 9 * layer) + 2.1 * layer)
        share = np.clip(y - edge, 0, 1)[..., None]
        colour = np.array([150, 120, 160]) * (1 - layer / 5) + 18 * ((y - edge) / SIDE)[..., None]
        picture = share * colour + (1 - share) * picture
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def gradient_petals() -> Image.Image:
    """Soft colours in rings."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    angle, radius = np.arctan2(y - 128, x - 128), np.hypot(x - 128, y - 128)
    edge = 60 + 26 * np.cos(6 * angle)
    share = np.clip((edge - radius) / 2, 0, 1)[..., None]
    flower = np.stack([255 - radius, 90 + 90 * np.cos(3 * angle) ** 2, 200 - radius / 2], -1)
    ground = np.stack([40 + x / 4, 60 + y / 5, 70 + x / 6], -1)
    middle = np.clip((18 - radius) / 2, 0, 1)[..., None]
    picture = middle * np.array([250, 220, 80]) + (1 - middle) * (share * flower + (1 - share) * ground)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def lines_face() -> Image.Image:
    """Black lines on white."""
    pen = Pen((255, 255, 255))
    pen.stroke(circle(128, 128, 80), 3)
    for x in (100, 156):
        pen.stroke(circle(x, 112, 14), 3)
        pen.disc(x + 3, 114, 5, 5, INK)
        pen.stroke(circle(x, 100, 22, 210, 330), 3)
    pen.stroke([(128, 118), (120, 146), (132, 148)], 3)
    pen.stroke(circle(128, 140, 38, 30, 150), 3)
    for turn in range(-60, 70, 15):
        pen.stroke(circle(128 + turn, 52 + abs(turn) / 6, 22, 200, 300), 2)
    return pen.finished()


def lines_bicycle() -> Image.Image:
    """Black lines on white."""
    pen = Pen((255, 255, 255))
    for x in (72, 184):
        pen.stroke(circle(x, 160, 44), 3)
        for spoke in range(0, 180, 30):
            across = circle(x, 160, 44, spoke, spoke + 180)
            pen.stroke([across[0], across[-1]], 1)
    pen.stroke([(72, 160), (104, 96), (164, 96), (120, 160), (72, 160)], 4)
    pen.stroke([(120, 160), (98, 84)], 4)
    pen.stroke([(86, 82), (112, 82)], 6)
    pen.stroke([(184, 160), (160, 76), (180, 68)], 4)
    return pen.finished()


def lines_map() -> Image.Image:
    """Thin coloured lines on paper."""
    pen = Pen((246, 240, 224))
    for level in range(5, 13):
        wave = [
            (
                128 + level * 9 * (1 + 0.2 * math.sin(3 * angle + level / 3)) * math.cos(angle),
                128 + level * 7 * math.sin(angle),
            )
            for angle in np.radians(np.linspace(0, 360, 90))
        ]
        pen.stroke(wave, 2, (150 - 6 * level, 110, 60 + 6 * level))
    pen.stroke([(20, 60), (90, 100), (120, 140), (200, 150), (240, 220)], 4, (60, 110, 200))
    pen.shape([(120, 108), (128, 88), (136, 108)], (200, 50, 50), 2)
    return pen.finished()


DRAWN: dict[str, Callable[[], Image.Image]] = {
    "a cartoon cat": cartoon_cat,
    "a cartoon house": cartoon_house,
    "a cartoon fish": cartoon_fish,
    "a cartoon tree": cartoon_tree,
    "a shaded ball": gradient_ball,
    "misty hills": gradient_hills,
    "a soft flower": gradient_petals,
    "a line drawing of a face": lines_face,
    "a line drawing of a bicycle": lines_bicycle,
    "a map": lines_map,
}
"""By caption."""


def photograph(caption: str) -> Image.Image:
    """One of `PHOTOGRAPHS`, RGB."""
    return Image.fromarray(PHOTOGRAPHS[caption]()).convert("RGB")


def main(folder: Path) -> None:
    """Write all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for caption, draw in DRAWN.items():
        draw().save(folder / f"{caption}.png")
    for caption in PHOTOGRAPHS:
        photograph(caption).save(folder / f"{caption}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
