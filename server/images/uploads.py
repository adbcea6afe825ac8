"""Uploaded files: checked before they are decoded, and made into plain pictures. Blocking; call it in a thread."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from livedrag.server.errors import ServiceError
from livedrag.server.images.mask import THRESHOLD, lets_nothing_change, threshold, to_png

FORMATS = ("PNG", "JPEG", "WEBP")
LEAST_SIDE = 16
"""Of a picture that is to be edited, in pixels."""
MOST_ASPECT = 8
"""Length of such a picture by its width, at most."""


def read_picture(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Decode a picture that is to be edited.

    Returns:
        It in RGB, turned as its EXIF orientation says, without any metadata; what is transparent has become white.

    Raises:
        ServiceError: no picture, a truncated one, too many pixels, several frames; too small or too narrow to edit.
    """
    picture = ImageOps.exif_transpose(_decoded(data, name, max_pixels))
    short, long = sorted(picture.size)
    if short < LEAST_SIDE:
        text = f"{name!r} has {_size(picture.size)} pixels: at least {LEAST_SIDE} on each side work"
        raise ServiceError(422, "too_small", text)
    if long > MOST_ASPECT * short:
        text = (
            f"{name!r} has {_size(picture.size)} pixels, too long and narrow to edit: at most {MOST_ASPECT} to 1 works"
        )
        raise ServiceError(422, "too_narrow", text)
    if picture.mode.startswith("I"):  # 16 bits a pixel
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    plain = Image.new("RGB", picture.size)
    plain.paste(picture.convert("RGB"))
    return plain


def read_mask(data: bytes, name: str, size: tuple[int, int], max_pixels: int) -> bytes:
    """Decode a mask; returns it as a black and white PNG, white may change.

    Raises:
        ServiceError: no picture, as for `read_picture`; another size than the picture's; no white.
    """
    mask = ImageOps.exif_transpose(_decoded(data, name, max_pixels))
    if mask.size != size:
        raise ServiceError(
            422,
            "mask_size",
            f"the mask has {_size(mask.size)} pixels, the picture {_size(size)}: they must be of the same size",
        )
    drawn = threshold(mask)
    if lets_nothing_change(drawn):
        brightest = mask.convert("L").getextrema()[1]
        raise ServiceError(
            422,
            "mask_empty",
            f"the mask has no white (its brightest grey is {brightest} of 255), so nothing may change: "
            f"make white, or at least {THRESHOLD}, what may, or leave the mask out",
        )
    return to_png(drawn)


def _decoded(data: bytes, name: str, max_pixels: int) -> Image.Image:
    works = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]} work"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours, and lower
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        begins = f"{data[:8]!r}" if data else "nothing: it is empty"
        raise ServiceError(422, "not_a_picture", f"{name!r} is no picture, it begins with {begins}; {works}") from error
    except Image.DecompressionBombError as error:
        text = f"{name!r} has far too many pixels ({error}): at most {max_pixels / 1e6:g} megapixels work"
        raise ServiceError(413, "too_many_pixels", text) from None
    width, height = picture.size
    if width * height > max_pixels:
        text = (
            f"{name!r} has {_size(picture.size)} pixels, which is {width * height / 1e6:.1f} megapixels: "
            f"at most {max_pixels / 1e6:g} megapixels work"
        )
        raise ServiceError(413, "too_many_pixels", text)
    if getattr(picture, "n_frames", 1) > 1:
        text = f"{name!r} has {getattr(picture, 'n_frames', 1)} frames: pictures of a single frame work"
        raise ServiceError(422, "several_frames", text)
    try:
        picture.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise ServiceError(
            422, "truncated", f"{name!r} breaks off or is damaged ({error}): send it again, whole"
        ) from error
    return picture


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
