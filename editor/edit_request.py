"""What an edit is asked to do, checked as far as that is possible without a model: torch takes seconds to import."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from livedrag.edit_metadata import EditMetadata, EditRun, EditState, MetadataError, PlacedDrag, SourcePicture
from livedrag.editor.errors import MaskError, PictureError, PointError, SettingsError
from livedrag.editor.points import Drag, Point, Rasters, Size
from livedrag.editor.settings import DragSettings, Setting, check_prompt, check_seed, parse_setting
from livedrag.picture_metadata import check_masks, encode_mask, hash_file, hash_pixels, read_metadata
from livedrag.pictures import PictureFileError, read_mask, read_picture

EXAMPLE = "for example --drag 62,150:40,110 (from x 62, y 150 to x 40, y 110, in pixels of the picture)"
MAX_CANDIDATES = 1000
"""Files next to a result that may be the picture it was made from."""
MAX_CANDIDATE_BYTES = 2**28


@dataclass(frozen=True)
class EditRequest:
    """An edit.

    Args:
        picture: that is edited, RGB.
        plan: what is done with it; of a new edit, without what only the model knows.
        repeats: whether it makes an edit again.
    """

    picture: Image.Image
    plan: EditMetadata
    repeats: bool = False


def new_request(
    picture: Path,
    *,
    drags: Sequence[Drag],
    mask: Path | None = None,
    prompt: str = "",
    preset: str | None = None,
    settings: Mapping[str, Setting],
    seed: int = 0,
    preview_every: int = 0,
) -> EditRequest:
    """A new edit of a picture. Raises `EditorError`."""
    DragSettings.resolve(preset, {}, settings)
    check_prompt(prompt)
    check_seed(seed)
    opened, source = read_source(picture)
    for drag in drags:
        Rasters(Size(*opened.size), Size(*opened.size)).check_drag(drag)
    placed = {
        str(index): PlacedDrag((drag.handle.x, drag.handle.y), (drag.target.x, drag.target.y))
        for index, drag in enumerate(drags)
    }
    png = None if mask is None else encode_mask(read_mask_file(mask, opened.size))
    plan = EditMetadata(
        software="",
        picture=source,
        weights=(),
        preset=preset or "",
        settings=dict(settings),
        seed=seed,
        prompt=prompt,
        runs=(EditRun((EditState(0, placed, png, {}, dict(settings)),)),),
        preview_every=preview_every,
    )
    return EditRequest(opened, plan)


def repeated_request(result: Path, picture: Path | None) -> EditRequest:
    """The edit that a result says it was made by, of this picture or of one next to the result.

    Raises:
        PictureError: there is no such result, it does not say how it was made, or the picture is another one.
    """
    try:
        with result.open("rb") as file:
            plan = read_metadata(file)
    except MetadataError as error:
        raise PictureError(f"{str(result)!r} can't be repeated: {error}") from None
    except OSError as error:
        raise PictureError(reason(result, error)) from None
    if plan is None:
        raise PictureError(
            f"{str(result)!r} does not say how it was made: use a PNG or WebP result of livedrag, with its metadata"
        )
    opened, source = read_source(picture or _find_source(result, plan.picture))
    if source.sha256 != plan.picture.sha256:
        raise PictureError(
            f"{str(result)!r} was made from another picture than {str(picture)!r}: name the one of "
            f"{plan.picture.width} x {plan.picture.height} pixels that it was made from"
        )
    _check_plan(plan, result)
    return EditRequest(opened, plan, repeats=True)


def _check_plan(plan: EditMetadata, result: Path) -> None:
    try:
        DragSettings.resolve(plan.preset or None, {}, plan.settings)
        for state in plan.states:
            DragSettings.resolve(plan.preset or None, {}, state.settings)
        check_masks(plan)
    except (SettingsError, MetadataError) as error:
        raise PictureError(f"{str(result)!r} can't be repeated: {error}") from None
    if not plan.last.drags:
        raise PictureError(f"{str(result)!r} can't be repeated: its metadata have no drags")


def _find_source(result: Path, wanted: SourcePicture) -> Path:
    """The file in the result's folder that it was made from, by its content."""
    candidates = sorted(path for path in result.resolve().parent.iterdir() if path.is_file())
    for path in candidates[:MAX_CANDIDATES]:
        try:
            if path.stat().st_size <= MAX_CANDIDATE_BYTES and hash_file(path) == wanted.file_sha256:
                return path
        except OSError:
            continue
    raise PictureError(
        f"{str(result)!r} was made from a picture of {wanted.width} x {wanted.height} pixels that is not next to it: "
        "add the path of that picture"
    )


def read_source(path: Path) -> tuple[Image.Image, SourcePicture]:
    """The picture in a file, and what a result says about it. Raises `PictureError`."""
    try:
        with path.open("rb") as file:
            picture = read_picture(file, str(path))
        digest = hash_file(path)
    except (PictureFileError, OSError) as error:
        raise PictureError(reason(path, error)) from None
    return picture, SourcePicture(hash_pixels(picture), digest, *picture.size)


def read_mask_file(path: Path, size: tuple[int, int]) -> Image.Image:
    """The mask in a file, mode L, white may change, for a picture of ``size`` (width, height). Raises `MaskError`."""
    try:
        with path.open("rb") as file:
            return read_mask(file, str(path), size)
    except (PictureFileError, OSError) as error:
        raise MaskError(reason(path, error)) from None


def parse_drag(text: str) -> Drag:
    """``X0,Y0:X1,Y1``. Raises `PointError`."""
    try:
        (x0, y0), (x1, y1) = (tuple(float(number) for number in end.split(",")) for end in text.split(":"))
    except ValueError:
        raise PointError(f"--drag {text!r} is not X0,Y0:X1,Y1: write {EXAMPLE}") from None
    return Drag(Point(x0, y0), Point(x1, y1))


def parse_settings(texts: Sequence[str]) -> dict[str, Setting]:
    """Several ``NAME=VALUE``. Raises `SettingsError`."""
    return dict(parse_setting(text) for text in texts)


def reason(path: Path, error: Exception) -> str:
    """Why a file can't be used, in one line."""
    if isinstance(error, FileNotFoundError):
        return f"there is no file {str(path)!r}"
    return f"{str(path)!r} can't be read ({error.strerror})" if isinstance(error, OSError) else str(error)


def check_output(path: Path, *endings: str) -> None:
    """Raise `PictureError` unless a file with one of these endings can be written there."""
    if path.suffix.lower() not in endings:
        raise PictureError(f"the output {str(path)!r} must end in {' or '.join(endings)}")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise PictureError(f"the folder of {str(path)!r} does not exist: create it first")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise PictureError(f"{str(path)!r} can't be written: choose another output file")


def make_frames_folder(path: Path) -> None:
    """Raise `PictureError` unless there can be a folder."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PictureError(f"frames can't be saved in {str(path)!r} ({error}): choose another folder") from None
