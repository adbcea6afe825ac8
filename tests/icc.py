"""Small ICC profiles, made by hand: colour spaces that differ from sRGB in a known way."""

from __future__ import annotations

import struct
from collections.abc import Sequence

D50 = (0.9642, 1.0, 0.8249)
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""The primaries of Adobe RGB (1998), adapted to D50."""


def adobe_rgb() -> bytes:
    """Adobe RGB (1998): (189, 44, 44) in it is (220, 40, 40) in sRGB."""
    curve = _curve(563 / 256)
    tags = {b"wtpt": _xyz(D50), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {name: _xyz(primary) for name, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), ADOBE_RGB, strict=True)}
    return _profile(b"RGB ", b"XYZ ", tags)


def linear_grey() -> bytes:
    """Grey whose values are proportional to light: 55 in it is 128 in sRGB."""
    return _profile(b"GRAY", b"XYZ ", {b"wtpt": _xyz(D50), b"kTRC": _curve(1.0)})


def black_and_white_cmyk() -> bytes:
    """CMYK where black ink alone counts: all others leave the paper white."""
    lab = [(100, 128, 128) if not node & 1 else (0, 128, 128) for node in range(16)]  # the last channel varies fastest
    clut = bytes(value for lightness, a, b in lab for value in (round(lightness * 2.55), a, b))
    identity = struct.pack(">9i", *(65536 if index % 4 == 0 else 0 for index in range(9)))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + bytes(range(256)) * 4 + clut + bytes(range(256)) * 3
    return _profile(b"CMYK", b"Lab ", {b"wtpt": _xyz(D50), b"A2B0": table}, kind=b"prtr")


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        padded = tag + bytes(-len(tag) % 4)
        table += name + struct.pack(">II", offset + len(body), len(tag))
        body += padded
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"test", 0x02400000, kind, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + table + body
