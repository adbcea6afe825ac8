"""Whatever is uploaded is a picture or a named error."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

from livedrag.server.errors import ServiceError
from livedrag.server.images.uploads import encode_mask, encode_picture
from tests import icc

SIZE = (40, 32)


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def seeds() -> list[bytes]:
    """Sound files of every format and kind that is read, with metadata."""
    noise = Image.merge("RGB", [Image.effect_noise(SIZE, 90) for _ in "rgb"])
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    files = [
        saved(noise, format, exif=exif, icc_profile=icc.adobe_rgb())
        for format in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")
    ]
    files += [saved(noise, format) for format in ("BMP", "GIF")]
    files += [saved(noise.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")]
    files += [saved(noise.convert(mode), "TIFF") for mode in ("F", "I", "CMYK", "LAB", "YCbCr", "PA", "RGBX")]
    files += [saved(noise, "TIFF", compression=how) for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")]
    files.append(saved(noise, "JPEG", progressive=True))
    files.append(saved(noise, "MPO", save_all=True, append_images=[noise.resize((20, 16))]))
    files += [
        saved(noise, format, save_all=True, append_images=[noise.rotate(90)]) for format in ("GIF", "PNG", "WEBP")
    ]
    files.append(saved(noise.quantize(16), "PNG", transparency=bytes(range(16))))
    return files


def flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def drop(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.randint(1, 32)]


def repeat(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    data[start:start] = data[start : start + chance.randint(1, 64)]


def number(data: bytearray, chance: random.Random) -> None:
    value = chance.choice((0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1))
    start = chance.randrange(len(data))
    data[start : start + 4] = struct.pack(chance.choice(("<I", ">I")), value)


def head(data: bytearray, chance: random.Random) -> None:
    """Most of what can go wrong is decided in the first bytes."""
    data[chance.randrange(min(64, len(data)))] = chance.randrange(256)


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, cut, drop, repeat, number, head)


def mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        if changed:
            chance.choice(MUTATIONS)(changed, chance)
    return with_sums(bytes(changed)) if chance.random() < 0.8 else bytes(changed)


def with_sums(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, so that damage is found where it lies."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    mended, at = bytearray(data), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(data):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def attempt(data: bytes) -> None:
    """Upload a file as a picture and as a mask; anything but a refusal by name is a failure."""
    attempts: tuple[Callable[[], bytes], ...] = (
        lambda: encode_picture(io.BytesIO(data), "x", 10**6)[0],
        lambda: encode_mask(io.BytesIO(data), "x", SIZE, 10**6),
    )
    for encode in attempts:
        try:
            png = encode()
        except ServiceError as error:
            if error.status >= 500:
                raise
        else:
            assert Image.open(io.BytesIO(png)).format == "PNG"


def damage(count: int, seed: int) -> None:
    chance, files = random.Random(seed), seeds()
    for file in files:
        attempt(file)
    for index in range(count):
        data = mutated(files[index % len(files)], chance)
        try:
            attempt(data)
        except Exception as error:
            raise AssertionError(f"seed {seed}, file {index}: {data[:200]!r}") from error


def test_damaged_files_are_refused_by_name() -> None:
    damage(600, seed=1)
