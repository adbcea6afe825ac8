"""The layouts of DragBench (DragDiffusion), of its parts as RegionDrag has them, and of Drag100 (GoodDrag)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from livedrag.editor.dragbench.pickled import read_pickle
from livedrag.editor.edit_request import read_mask_file, read_source
from livedrag.editor.errors import PictureError, PointError
from livedrag.editor.points import Drag, Point, Rasters, Size

DRAGBENCH, DRAG100 = "dragbench", "drag100"
PICTURES = {DRAGBENCH: ("original_image.png",), DRAG100: ("original.jpg", "original.png", "original_image.png")}
RESULTS = {DRAGBENCH: "dragged_image.png", DRAG100: "output_image.png"}
"""Name of a result, as the authors' own programs write it."""
MAX_DEPTH = 3
MAX_POINTS = 1000


@dataclass(frozen=True)
class Place:
    """Where a sample is: its folder, its name with the category's before it, and its layout."""

    folder: Path
    name: str
    layout: str


@dataclass(frozen=True)
class Sample:
    """A picture and the edit to make.

    Args:
        picture: RGB.
        drags: in pixels of it.
        mask: ``(H, W)``, True may change; None: everything may.
        prompt: what it shows.
    """

    picture: Image.Image
    drags: tuple[Drag, ...]
    mask: NDArray[np.bool_] | None
    prompt: str


def find_samples(dataset: Path) -> list[Place]:
    """All samples below a folder, by name. Raises `PictureError` if there are none."""
    if not dataset.is_dir():
        raise PictureError(f"there is no folder {str(dataset)!r}: name that of DragBench or of Drag100")
    found = [place for folder in _folders(dataset, MAX_DEPTH) if (place := _place(folder, dataset)) is not None]
    if not found:
        raise PictureError(
            f"{str(dataset)!r} has no samples: those of DragBench have a meta_data.pkl, those of Drag100 a points.json"
        )
    return sorted(found, key=lambda place: place.name)


def _folders(folder: Path, depth: int) -> list[Path]:
    below = sorted(path for path in folder.iterdir() if path.is_dir()) if depth else []
    return [folder, *(each for path in below for each in _folders(path, depth - 1))]


def _place(folder: Path, dataset: Path) -> Place | None:
    for file, layout in (("meta_data.pkl", DRAGBENCH), ("points.json", DRAG100)):
        if (folder / file).is_file():
            return Place(folder, folder.relative_to(dataset).as_posix() if folder != dataset else folder.name, layout)
    return None


def read_sample(place: Place) -> Sample:
    """Read a sample. Raises `EditorError` if a file is missing, damaged or does not fit the others."""
    path = next((place.folder / name for name in PICTURES[place.layout] if (place.folder / name).is_file()), None)
    if path is None:
        raise PictureError(f"{place.folder} has no {PICTURES[place.layout][0]}")
    picture, _ = read_source(path)
    size = Size(*picture.size)
    if place.layout == DRAGBENCH:
        written = read_pickle(place.folder / "meta_data.pkl")
        if not isinstance(written, dict) or not {"points", "mask"} <= written.keys():
            raise PictureError(f"{place.folder / 'meta_data.pkl'} must have 'points' and 'mask'")
        mask = _mask(written["mask"], size, place.folder / "meta_data.pkl")
        points, prompt = written["points"], written.get("prompt", "")
    else:
        points, prompt = _read_points(place.folder / "points.json"), ""
        mask = _read_mask(place.folder / "mask.png", size)
    return Sample(picture, _drags(points, size, place.folder), mask, prompt if isinstance(prompt, str) else "")


def _mask(value: Any, size: Size, path: Path) -> NDArray[np.bool_] | None:
    mask = np.asarray(value)
    mask = mask[..., 0] if mask.ndim == 3 else mask
    if mask.shape != (size.height, size.width):
        raise PictureError(f"the mask in {path} has the shape {mask.shape}, the picture {size} pixels")
    return mask > 0 if (mask > 0).any() else None


def _read_mask(path: Path, size: Size) -> NDArray[np.bool_] | None:
    if not path.is_file():
        return None
    return np.asarray(read_mask_file(path, (size.width, size.height))) > 0


def _read_points(path: Path) -> Any:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PictureError(f"{path} can't be read: {error}") from None
    if not isinstance(written, dict) or "points" not in written:
        raise PictureError(f"{path} must be an object with 'points'")
    return written["points"]


def _drags(points: Any, size: Size, folder: Path) -> tuple[Drag, ...]:
    """Handle, target, handle, target, ...: ``[x, y]`` each."""
    try:
        numbers = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise PointError(f"the points of {folder} are not pairs of numbers: {str(points)[:100]}") from None
    if not 2 <= len(numbers) <= MAX_POINTS or len(numbers) % 2:
        raise PointError(f"{folder} has {len(numbers)} points: they must be pairs of handle and target")
    drags = tuple(Drag(Point(*handle), Point(*target)) for handle, target in numbers.reshape(-1, 2, 2).tolist())
    for drag in drags:
        Rasters(size, size).check_drag(drag)
    return drags
