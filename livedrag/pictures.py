"""Reading pictures and masks from files: one implementation for uploads and the command line.

It lies above both packages because neither may import the other: ``editor`` never imports ``server``, and the process
that serves pages never imports ``editor``. It needs Pillow alone, neither torch nor numpy.

Pixels are converted strip by strip, so that reading takes the memory of the decoded picture and its result, no more.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable
from typing import IO, Literal

from PIL import Image, ImageChops, ImageCms

from livedrag.limits import MASK_THRESHOLD, MAX_ASPECT, MAX_PIXELS, MIN_SIDE

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
"""Pillow's names of what is opened. What it opens as JPEG may be an MPO: a JPEG followed by further pictures."""
READABLE = "PNG, JPEG, WebP, AVIF, BMP, TIFF or GIF"
OTHER_FORMATS: tuple[tuple[str, str], ...] = (
    (r"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", "a HEIC picture"),
    (r"....ftypcrx ", "a camera RAW file"),
    (r"II\*\0....CR|IIU\0|IIR[OS]|MMOR|FUJIFILMCCD-RAW|FOVb|\0MRM", "a camera RAW file"),
    (r"8BP[SB]", "a Photoshop document"),
    (r"gimp xcf", "a GIMP document"),
    (r"\s*%PDF-", "a PDF document"),
    (r"%!PS|\xc5\xd0\xd3\xc6", "a PostScript document"),
    (r"(\xef\xbb\xbf)?\s*(<\?xml.{0,2000}?)?(<!--.{0,2000}?-->\s*|<!DOCTYPE svg.{0,500}?>\s*)*<svg", "an SVG drawing"),
    (r"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (r"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (r"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (r"#\?RADIANCE", "a Radiance picture"),
    (r"DDS ", "a DDS texture"),
    (r"P[1-7]\s", "a PNM picture"),
    (r"qoif", "a QOI picture"),
    (r"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile"),
    (r"\0\0[\x01\x02]\0", "an icon"),
    (r"....ftyp(?!avi[fs])|\x1a\x45\xdf\xa3|RIFF....AVI ", "a video"),
    (r"PK\x03\x04", "a zip file or an office document"),
    (r"\s*<(!doctype html|html)", "a web page"),
)
"""Beginnings of files of other formats, and what those files are."""

RAW_TAGS = (50706,)
"""TIFF tags that only camera RAW files have: DNGVersion."""
SUB_IFDS, NEW_SUBFILE_TYPE = 330, 254
ORIENTATION = 0x0112
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UNBOUNDED = {"I": "32-bit integer", "F": "floating-point"}
"""Modes whose values have no agreed range, so that neither black nor white is known."""
STRIP = 256
"""Rows converted at once."""

Reason = Literal[
    "not_a_picture",
    "unsupported_format",
    "unsupported_pixels",
    "too_many_pixels",
    "several_frames",
    "truncated",
    "too_small",
    "too_narrow",
    "mask_size",
    "mask_empty",
]


class PictureFileError(Exception):
    """A file that cannot be used; ``reason`` is for programs."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def read_picture(file: IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture to edit.

    Returns:
        An 8-bit sRGB picture in mode ``RGB``, upright, without metadata; what was transparent lies on white.

    Raises:
        PictureFileError: the file is not a picture, is damaged, or has a size or kind of pixels that is not supported.
    """
    picture = _load(file, name, max_pixels)
    short, long = sorted(picture.size)
    if short < MIN_SIDE:
        text = f"{name!r} has {_size(picture.size)} pixels: each side must have at least {MIN_SIDE}"
        raise PictureFileError("too_small", text)
    if long > MAX_ASPECT * short:
        text = f"{name!r} has {_size(picture.size)} pixels, too long and narrow to edit: at most {MAX_ASPECT} to 1"
        raise PictureFileError("too_narrow", text)
    orientation = _orientation(picture)
    try:
        to_srgb = _to_srgb(picture)
        plain = to_srgb is None and picture.mode == "RGB" and not picture.has_transparency_data
        picture = _without_metadata(picture) if plain else _converted(picture, to_srgb)
    except Exception as error:
        raise _damaged(name, error) from error
    return _turned(picture, orientation)


def read_mask(
    file: IO[bytes], name: str, size: tuple[int, int], max_pixels: int = MAX_PIXELS, *, fit: bool = False
) -> Image.Image:
    """Read a mask for a picture of ``size``. White may change; black and transparent pixels stay as they are.

    Args:
        fit: scale a mask of another size to that of the picture.

    Returns:
        A picture in mode ``L``: 255 where the grey, laid on black, is at least half of the range, else 0.

    Raises:
        PictureFileError: as for `read_picture`; another size than the picture's without ``fit``; no white.
    """
    mask = _load(file, name, max_pixels)
    orientation = _orientation(mask)
    turned_size = mask.size[::-1] if orientation >= 5 else mask.size
    if turned_size != size and not fit:
        text = f"the mask has {_size(turned_size)} pixels, the picture {_size(size)}: they must have the same size"
        raise PictureFileError("mask_size", text)
    try:
        grey = _by_strips(mask, "L", lambda strip: _flattened(_eight_bit(strip), "black").convert("L"))
    except Exception as error:
        raise _damaged(name, error) from error
    brightest = _brightest(grey)
    if brightest < MASK_THRESHOLD:
        raise PictureFileError(
            "mask_empty",
            f"the mask has no white (its brightest grey is {brightest} of 255), so nothing may change: "
            f"paint what may change white and opaque, or leave the mask out",
        )
    turned = _turned(grey, orientation)
    return threshold(turned if turned.size == size else turned.resize(size, Image.Resampling.BILINEAR))


def threshold(grey: Image.Image) -> Image.Image:
    """A mask in mode ``L`` with 0 and 255 alone."""
    return grey.convert("L").point(lambda value: 255 if value >= MASK_THRESHOLD else 0)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any picture as 8-bit sRGB in mode ``RGB``: its colour profile is applied, what is transparent lies on white."""
    return _converted(picture, _to_srgb(picture))


# Opening -------------------------------------------------------------------------------------------------------------


def _load(file: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    """Decode the first picture of a file, as it is stored; its size is checked before it is decoded."""
    start = file.read(4096)
    file.seek(0)
    if not start:
        raise PictureFileError("not_a_picture", f"{name!r} is empty: use a {READABLE} file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of oddities in files; that a picture is too large is an error below
        picture = _open(file, name, start, max_pixels)
        if picture.width * picture.height > max_pixels:
            megapixels = picture.width * picture.height / 1e6
            text = f"{name!r} has {_size(picture.size)} pixels, which is {megapixels:.1f} megapixels"
            raise _too_many_pixels(text, max_pixels)
        try:
            frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            raw = start[8:10] == b"CR" or _is_raw(picture)
            if frames == 1 and not raw:
                picture.load()
        except Exception as error:  # decoders raise all kinds of errors for damaged files
            raise _damaged(name, error) from error
    if raw:
        raise _unsupported(name, "a camera RAW file")
    if frames > 1:
        raise PictureFileError("several_frames", f"{name!r} has {frames} frames: use a picture with a single frame")
    if picture.mode in UNBOUNDED:
        text = f"{name!r} has {UNBOUNDED[picture.mode]} pixels (mode {picture.mode}), whose range is not known"
        raise PictureFileError("unsupported_pixels", f"{text}: save it with 8 or 16 bits per channel")
    return picture


def _open(file: IO[bytes], name: str, start: bytes, max_pixels: int) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))  # Pillow refuses it before it says its size
        megapixels = f"{int(pixels[0]) / 1e6:.1f} megapixels" if pixels else "far too many pixels"
        raise _too_many_pixels(f"{name!r} has {megapixels}", max_pixels) from None
    except Exception as error:
        for pattern, what in OTHER_FORMATS:
            if re.match(pattern.encode("latin-1"), start, re.DOTALL | re.IGNORECASE):
                raise _unsupported(name, what) from None
        text = f"{name!r} is not a picture, it begins with {start[:8]!r}: use a {READABLE} file"
        raise PictureFileError("not_a_picture", text) from error


def _is_raw(picture: Image.Image) -> bool:
    """Whether a TIFF is a camera's RAW file, whose first picture may be only a preview."""
    tags = getattr(picture, "tag_v2", {})
    preview = bool(tags.get(NEW_SUBFILE_TYPE, 0)) and SUB_IFDS in tags
    return preview or any(tag in tags for tag in RAW_TAGS)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where the metadata cannot be read."""
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
        return orientation if orientation in TRANSPOSE else 1
    except Exception:  # metadata is not worth refusing a good picture
        return 1


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else picture


def _damaged(name: str, error: Exception) -> PictureFileError:
    return PictureFileError("truncated", f"{name!r} is damaged or incomplete ({error}): try another copy of it")


def _unsupported(name: str, what: str) -> PictureFileError:
    return PictureFileError("unsupported_format", f"{name!r} is {what}, which cannot be read: save it as JPEG or PNG")


def _too_many_pixels(text: str, max_pixels: int) -> PictureFileError:
    return PictureFileError("too_many_pixels", f"{text}: at most {max_pixels / 1e6:g} megapixels are allowed")


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


# Pixels --------------------------------------------------------------------------------------------------------------


def _by_strips(picture: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a picture's pixels to another mode, some rows at a time."""
    converted = Image.new(mode, picture.size)
    for top in range(0, picture.height, STRIP):
        box = (0, top, picture.width, min(picture.height, top + STRIP))
        converted.paste(convert(picture.crop(box)), box)
    return converted


def _eight_bit(strip: Image.Image) -> Image.Image:
    """16-bit greys as 8-bit ones; every other mode has 8 bits or fewer."""
    if not strip.mode.startswith("I"):
        return strip
    return strip.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _converted(picture: Image.Image, to_srgb: Callable[[Image.Image], Image.Image] | None) -> Image.Image:
    """A picture in mode ``RGB``, by the conversion of its colour profile; what is transparent lies on white."""
    return _by_strips(picture, "RGB", lambda strip: _flattened(_eight_bit(strip), "white", to_srgb))


def _without_metadata(picture: Image.Image) -> Image.Image:
    """The same pixels as a picture of its own. A copy, which Pillow's public functions make, needs twice the memory."""
    return Image.Image()._new(picture.im)


def _flattened(
    strip: Image.Image, ground: str, to_srgb: Callable[[Image.Image], Image.Image] | None = None
) -> Image.Image:
    """An 8-bit strip in mode ``RGB``; what is transparent shows the ground."""
    layer = strip.convert("RGBA") if strip.has_transparency_data else strip
    rgb = to_srgb(layer) if to_srgb is not None else layer.convert("RGB")
    if layer is strip:
        return rgb
    flat = Image.new("RGB", strip.size, ground)
    flat.paste(rgb, mask=layer.getchannel("A"))
    return flat


def _to_srgb(picture: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """The conversion that the picture's colour profile asks for; None without a sound one, or where it does nothing."""
    data = picture.info.get("icc_profile")
    if not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode = _mode_of(profile.profile.xcolor_space.strip(), picture.mode)
        if mode is None:
            return None
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode == "RGB" and _is_identity(transform):
            return None
    except Exception:  # a broken profile is not worth refusing a good picture
        return None

    def convert(strip: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(strip.convert(mode), transform)
        assert converted is not None
        return converted

    return convert


def _mode_of(space: str, mode: str) -> str | None:
    """The mode in which a profile of a colour space applies to a picture's pixels; None where it does not."""
    grey = mode in ("1", "L", "LA", "La") or mode.startswith("I")
    fits = {"GRAY": ("L", grey), "CMYK": ("CMYK", mode == "CMYK"), "RGB": ("RGB", not grey and mode != "CMYK")}
    converted, applies = fits.get(space, (None, False))
    return converted if applies else None


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform from RGB changes no colour by more than its rounding: the profile is sRGB's."""
    levels = range(0, 256, 51)
    colours = bytes(itertools.chain.from_iterable(itertools.product(levels, repeat=3)))
    cube = Image.frombytes("RGB", (len(colours) // 3, 1), colours)
    converted = ImageCms.applyTransform(cube, transform)
    assert converted is not None
    return all(_brightest(band) <= 1 for band in ImageChops.difference(cube, converted).split())


def _brightest(band: Image.Image) -> int:
    """The largest value of a picture in mode ``L``."""
    return max(value for value, count in enumerate(band.histogram()) if count)
