"""Reading pictures and masks, for uploads and the command line alike."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image, ImageCms

from livedrag.limits import MAX_PIXELS
from livedrag.pictures import OTHER_FORMATS, PictureFileError, read_mask, read_picture
from tests import icc

RED, SIZE = (200, 30, 40), (48, 32)


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def plain(color: Any = RED, mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.new(mode, size, color)


def read(data: bytes, name: str = "x.png", max_pixels: int = MAX_PIXELS) -> Image.Image:
    return read_picture(io.BytesIO(data), name, max_pixels)


def error_of(data: bytes, name: str = "x.png", max_pixels: int = MAX_PIXELS) -> PictureFileError:
    with pytest.raises(PictureFileError) as caught:
        read(data, name, max_pixels)
    assert repr(name) in str(caught.value)
    return caught.value


def near(found: Any, expected: tuple[int, ...], within: int = 2) -> bool:
    return all(abs(a - b) <= within for a, b in zip(found, expected, strict=True))


# Formats -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF"])
def test_every_format_is_read(format: str) -> None:
    picture = read(saved(plain(), format))
    assert (picture.mode, picture.size, picture.info) == ("RGB", SIZE, {})
    assert near(picture.getpixel((20, 20)), RED, 5)


def test_a_camera_jpeg_with_an_embedded_preview_is_its_first_picture() -> None:
    small = plain("blue", size=(24, 16))
    camera = saved(plain(), "MPO", save_all=True, append_images=[small])
    picture = read(camera, "camera.jpg")
    assert picture.size == SIZE
    assert near(picture.getpixel((20, 20)), RED, 5)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_an_animation_is_refused(format: str) -> None:
    data = saved(plain(), format, save_all=True, append_images=[plain("blue"), plain("white")])
    error = error_of(data)
    assert (error.reason, "3 frames: use a picture with a single frame" in str(error)) == ("several_frames", True)


OTHERS = {
    "a HEIC picture": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "a camera RAW file": b"FUJIFILMCCD-RAW 0201",
    "a Photoshop document": b"8BPS\0\1\0\0\0\0\0\0\0\3",
    "a GIMP document": b"gimp xcf v011\0",
    "a PDF document": b"%PDF-1.7\n",
    "a PostScript document": b"%!PS-Adobe-3.0 EPSF-3.0",
    "an SVG drawing": b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "a JPEG XL picture": b"\xff\x0a\xfa\x1f\x01",
    "a JPEG 2000 picture": b"\0\0\0\x0cjP  \r\n\x87\n",
    "an OpenEXR picture": b"v/1\x01\x02\0\0\0",
    "a Radiance picture": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
    "a DDS texture": b"DDS |\0\0\0",
    "a PNM picture": b"P6\n64 48\n255\n",
    "a QOI picture": b"qoif\0\0\0\x40",
    "a Windows metafile": b"\xd7\xcd\xc6\x9a\0\0",
    "an icon": b"\0\0\1\0\1\0\x10\x10",
    "a video": b"\0\0\0\x18ftypisom\0\0\2\0",
    "a zip file or an office document": b"PK\x03\x04\x14\0",
    "a web page": b"<!DOCTYPE html>\n<title>404</title>",
}


@pytest.mark.parametrize(("what", "data"), OTHERS.items())
def test_other_formats_are_named(what: str, data: bytes) -> None:
    error = error_of(data, "x.bin")
    assert error.reason == "unsupported_format"
    assert str(error) == f"'x.bin' is {what}, which cannot be read: save it as JPEG or PNG"


def test_a_camera_s_file_that_is_cut_is_named_too() -> None:
    assert "is a camera RAW file" in str(error_of(b"II*\0\x10\0\0\0CR\2\0"))


def test_every_other_format_is_tried() -> None:
    assert {what for _, what in OTHER_FORMATS} == set(OTHERS)


@pytest.mark.parametrize(
    "tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}], ids=["DNG", "a preview, the RAW picture in a sub-IFD"]
)
def test_a_tiff_of_a_camera_is_a_raw_file(tags: dict[int, Any]) -> None:
    assert "is a camera RAW file" in str(error_of(saved(plain(), "TIFF", tiffinfo=tags), "x.dng"))


def test_no_other_format_of_pillow_is_reachable() -> None:
    Image.init()
    tried = 0
    for format in sorted(Image.SAVE.keys() - {"PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "TIFF", "GIF"}):
        try:
            data = saved(plain(), format)
        except (OSError, ValueError, KeyError, TypeError, DeprecationWarning):  # it cannot write such a picture
            continue
        assert error_of(data).reason in ("not_a_picture", "unsupported_format"), format
        tried += 1
    assert tried > 5


# Sizes ---------------------------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 4) + b"IDAT" + bytes(8)


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    error = error_of(png_header(12000, 9000))
    assert error.reason == "too_many_pixels"
    assert "12000 x 9000 pixels, which is 108.0 megapixels: at most 25 megapixels are allowed" in str(error)
    error = error_of(png_header(20000, 20000), "x.png")  # Pillow itself refuses this one
    assert error.reason == "too_many_pixels"
    assert str(error) == "'x.png' has 400.0 megapixels: at most 25 megapixels are allowed"
    assert "at most 0.001 megapixels" in str(error_of(saved(plain(), "PNG"), max_pixels=1000))


def test_pictures_too_small_or_too_narrow_to_edit_are_refused() -> None:
    assert error_of(saved(plain(size=(15, 40)), "PNG")).reason == "too_small"
    assert error_of(saved(plain(size=(16, 129)), "PNG")).reason == "too_narrow"
    assert read(saved(plain(size=(16, 128)), "PNG")).size == (16, 128)


# Colours -------------------------------------------------------------------------------------------------------------

ADOBE, SHOWN = (189, 44, 44), (220, 40, 40)


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("JPEG", {"quality": 100}), ("WEBP", {"lossless": True})])
def test_colours_are_converted_to_srgb(format: str, options: dict[str, Any]) -> None:
    picture = read(saved(plain(ADOBE), format, icc_profile=icc.adobe_rgb(), **options))
    assert near(picture.getpixel((5, 5)), SHOWN)
    assert picture.info == {}


@pytest.mark.parametrize("mode", ["RGBA", "P", "PA"])
def test_colours_with_transparency_are_converted_too(mode: str) -> None:
    picture = plain((*ADOBE, 255), "RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 10, 10))
    if mode == "PA":
        picture = plain(ADOBE).quantize(8).convert("PA")
    elif mode == "P":
        picture = picture.quantize(8)
    format = "TIFF" if mode == "PA" else "PNG"
    converted = read(saved(picture, format, icc_profile=icc.adobe_rgb()))
    assert near(converted.getpixel((40, 20)), SHOWN, 4)
    if mode != "PA":
        assert converted.getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_profiles_count(mode: str) -> None:
    value = {"L": 55, "LA": (55, 255), "I;16": 55 * 257}[mode]
    picture = read(saved(plain(value, mode), "PNG", icc_profile=icc.linear_grey()))
    assert near(picture.getpixel((5, 5)), (128, 128, 128))


def test_cmyk_profiles_count() -> None:
    profile = icc.black_and_white_cmyk()
    for ink, expected in (((255, 255, 255, 0), (255, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))):
        picture = read(saved(plain(ink, "CMYK"), "TIFF", icc_profile=profile))
        assert near(picture.getpixel((5, 5)), expected, 3)
    naive = read(saved(plain((255, 255, 255, 0), "CMYK"), "TIFF"))
    assert naive.getpixel((5, 5)) == (0, 0, 0)


def test_an_srgb_profile_changes_no_pixel() -> None:
    noise = Image.merge("RGB", [Image.effect_noise((64, 64), 90) for _ in "rgb"])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read(saved(noise, "PNG", icc_profile=profile)).tobytes() == noise.tobytes()


@pytest.mark.parametrize(
    "profile",
    [b"junk", icc.adobe_rgb()[:200], bytes(3000), icc.linear_grey(), icc.black_and_white_cmyk()],
    ids=["junk", "cut", "zeros", "a grey one", "a CMYK one"],
)
def test_a_profile_that_does_not_fit_is_ignored(profile: bytes) -> None:
    assert read(saved(plain(), "PNG", icc_profile=profile)).getpixel((5, 5)) == RED


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, 255),
        ("L", 90, 90),
        ("LA", (0, 0), 255),
        ("LA", (0, 255), 0),
        ("RGBA", (0, 0, 0, 0), 255),
        ("RGBA", (0, 0, 0, 255), 0),
        ("I;16", 65535, 255),
        ("I;16", 128 * 256, 128),
        ("I;16", 0, 0),
    ],
)
def test_every_kind_of_pixels_becomes_rgb(mode: str, color: Any, expected: int) -> None:
    assert read(saved(plain(color, mode), "PNG")).getpixel((5, 5)) == (expected,) * 3


@pytest.mark.parametrize(("mode", "what"), [("F", "floating-point"), ("I", "32-bit integer")])
def test_pixels_without_a_range_are_refused(mode: str, what: str) -> None:
    error = error_of(saved(plain(1, mode), "TIFF"))
    assert error.reason == "unsupported_pixels"
    assert f"has {what} pixels (mode {mode}), whose range is not known: save it with 8 or 16 bits" in str(error)


# Metadata ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_orientation_is_applied(format: str, orientation: int) -> None:
    picture = plain("white")
    picture.paste("black", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    read_back = read(saved(picture, format, exif=exif))
    width, height = read_back.size
    assert (width, height) == (SIZE if orientation in (1, 3) else SIZE[::-1])
    corner = {1: (4, 4), 3: (width - 4, height - 4), 6: (width - 4, 4), 8: (4, height - 4)}[orientation]
    assert near(read_back.getpixel(corner), (0, 0, 0), 40)
    assert not read_back.getexif()


JUNK = [b"", b"junk", b"Exif\0\0junk", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + bytes(range(256))]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_metadata_is_ignored(junk: bytes) -> None:
    png = saved(plain(), "PNG")
    chunk = b"eXIf" + junk
    ihdr_end = 8 + 25
    data = png[:ihdr_end] + struct.pack(">I", len(junk)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[ihdr_end:]
    assert read(data).getpixel((5, 5)) == RED
    mask = saved(plain(255, "L"), "PNG")
    data = (
        mask[:ihdr_end] + struct.pack(">I", len(junk)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + mask[ihdr_end:]
    )
    assert read_mask(io.BytesIO(data), "mask", SIZE).getextrema() == (255, 255)


@pytest.mark.parametrize(
    ("kind", "count", "value"),
    [(2, 4, b"six\0"), (3, 2, b"\6\0\6\0"), (3, 1, b"\x09\0\0\0"), (3, 1, bytes(4)), (99, 1, b"six\0")],
)
def test_an_orientation_that_is_none_is_ignored(kind: int, count: int, value: bytes) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHI", 1, 0x0112, kind, count) + value + bytes(4)
    assert read(saved(plain(), "JPEG", exif=exif)).size == SIZE


# Damage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF"])
def test_a_cut_file_is_refused(format: str) -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    data = saved(noise, format)
    assert error_of(data[: len(data) // 2]).reason in ("truncated", "not_a_picture")


def test_an_empty_file_and_text_are_refused() -> None:
    assert "'x.png' is empty: use a PNG, JPEG, WebP, AVIF, BMP, TIFF or GIF file" in str(error_of(b""))
    assert "'x.png' is not a picture, it begins with b'just som': use a PNG" in str(error_of(b"just some text"))


# Masks ---------------------------------------------------------------------------------------------------------------


def painted(mode: str) -> Image.Image:
    """A mask whose left part may change, in one of the ways that people save masks in."""
    box = (0, 0, 12, SIZE[1])
    layer = Image.new("RGBA", SIZE, (255, 255, 255, 0))
    layer.paste((255, 255, 255, 255), box)
    opaque = Image.new("L", SIZE, 0)
    opaque.paste(255, box)
    match mode:
        case "RGBA":
            return layer
        case "LA":
            return layer.convert("LA")
        case "P with transparency":
            mask = Image.new("P", SIZE, 0)
            mask.putpalette([255, 255, 255, 255, 255, 255])
            mask.paste(1, box)
            mask.info["transparency"] = 0
            return mask
        case "PA":
            return opaque.convert("P").convert("PA")
        case "I;16":
            mask = Image.new("I;16", SIZE, 1180)  # a ground of 1.8 % grey
            mask.paste(65535, box)
            return mask
        case _:
            return opaque.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "P with transparency", "PA", "RGB", "RGBA", "CMYK", "I;16"])
def test_white_and_opaque_may_change(mode: str) -> None:
    format = "TIFF" if mode in ("PA", "CMYK") else "PNG"
    mask = read_mask(io.BytesIO(saved(painted(mode), format)), "mask", SIZE)
    assert (mask.mode, mask.size) == ("L", SIZE)
    assert mask.histogram()[255] == 12 * SIZE[1], "what is transparent or black must stay"
    assert mask.histogram()[0] == (SIZE[0] - 12) * SIZE[1]


@pytest.mark.parametrize(
    ("color", "mode", "may_change"),
    [(127, "L", False), (128, "L", True), (32767, "I;16", False), (32768, "I;16", True), ((255, 127), "LA", False)],
)
def test_the_threshold_is_half_of_the_range(color: Any, mode: str, may_change: bool) -> None:
    mask = plain(color, mode)
    mask.paste((255, 255) if mode == "LA" else 65535 if mode == "I;16" else 255, (0, 0, 1, 1))
    read_back = read_mask(io.BytesIO(saved(mask, "PNG")), "mask", SIZE)
    assert read_back.getpixel((9, 9)) == (255 if may_change else 0)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_a_mask_without_a_range_is_refused(mode: str) -> None:
    with pytest.raises(PictureFileError, match="whose range is not known: save it with 8 or 16 bits"):
        read_mask(io.BytesIO(saved(plain(1, mode), "TIFF")), "mask", SIZE)


def test_a_mask_is_turned_like_a_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = read_mask(io.BytesIO(saved(painted("L"), "PNG", exif=exif)), "mask", SIZE[::-1])
    assert mask.getpixel((16, 4)) == 255
    assert mask.getpixel((16, 40)) == 0


def test_a_mask_of_another_size_or_without_white_is_refused() -> None:
    with pytest.raises(PictureFileError, match="the mask has 48 x 32 pixels, the picture 32 x 48"):
        read_mask(io.BytesIO(saved(plain(255, "L"), "PNG")), "mask", (32, 48))
    with pytest.raises(PictureFileError, match=r"no white \(its brightest grey is 127 of 255\)"):
        read_mask(io.BytesIO(saved(plain(127, "L"), "PNG")), "mask", SIZE)
