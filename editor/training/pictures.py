"""What the built-in model learns from: the pictures of one npm package, their captions, and which are held out."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
"""MIT; Microsoft's Fluent emoji, 3,391 pictures of 256 x 256 pixels with alpha, named by their code points."""
SIDE = 256
HELD_OUT = 20
"""One concept in this many is never trained on."""

TONES = frozenset(range(0x1F3FB, 0x1F400))
JOINER = 0x200D
REGIONAL = range(0x1F1E6, 0x1F200)
KEYCAP = 0x20E3

SIGNS = tuple(
    range(first, last + 1)
    for first, last in (
        (0x2194, 0x2199),  # arrows
        (0x23E9, 0x23EF),  # keys of players
        (0x2648, 0x2653),  # the zodiac
        (0x26AA, 0x26AB),
        (0x2705, 0x2705),
        (0x274C, 0x2757),  # marks
        (0x2795, 0x27BF),
        (0x2B1B, 0x2B1C),
        (0x1F170, 0x1F2FF),  # letters in boxes
        (0x1F500, 0x1F506),
        (0x1F517, 0x1F524),
        (0x1F530, 0x1F53D),
        (0x1F550, 0x1F567),  # clocks
        (0x1F6AB, 0x1F6B1),
        (0x1F6B3, 0x1F6BC),
        (0x1F6C2, 0x1F6C5),
        (0x1F7E0, 0x1F7F0),  # discs and squares
    )
)

SIGN_WEIGHT = 0.1
JOINED_WEIGHT = 0.3


class TrainingError(Exception):
    """Training cannot go on; the text says why and what would work."""


@dataclass(frozen=True)
class Emoji:
    """One picture.

    Args:
        code: its code points, as the package names the file.
        caption: in English, without the skin tone.
        weight: how often it is drawn, relative to the others; the pictures of one concept share one concept's.
        held_out: whether its concept is kept from all training.
        aliases: what else people call it.
    """

    code: str
    caption: str
    weight: float
    held_out: bool
    aliases: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Where data and checkpoints are kept: ``$XDG_CACHE_HOME/livedrag/training`` or the usual place for it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "livedrag" / "training"


def fetch(cache: Path) -> Path:
    """The package's archive, fetched by npm from whatever registry it is set to, the first time.

    Raises:
        TrainingError: there is no npm, or it cannot fetch.
    """
    archive = cache / "fluent-emoji-3d.tgz"
    if archive.is_file():
        return archive
    beside = Path(sys.executable).with_name("npm")
    npm = str(beside) if beside.is_file() else shutil.which("npm")
    if npm is None:
        raise TrainingError("there is no npm to fetch the pictures with: `pip install livedrag[train]` brings one")
    cache.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", str(cache)]
    packed = subprocess.run(command, capture_output=True, text=True, check=False)
    if packed.returncode:
        raise TrainingError(f"npm cannot fetch {PACKAGE}: {packed.stderr.strip() or packed.stdout.strip()}")
    (cache / packed.stdout.split()[-1]).replace(archive)
    return archive


def catalogue(codes: Iterable[str]) -> list[Emoji]:
    """Captions, weights and the held-out split of pictures by their code points; those without a name are left out.

    Three quarters of the pictures are the same people in other skin tones, other genders and flags: a concept counts
    once, however many tones it comes in; flags, signs and joined people count less.
    """
    named = {code: names for code in codes if (names := names_of(code))}
    tones = Counter(names[0] for names in named.values())
    return [
        Emoji(code, names[0], _interest(code) / tones[names[0]], held_out(names[0]), names[1:])
        for code, names in sorted(named.items())
    ]


def names_of(code: str) -> tuple[str, ...]:
    """English words for code points such as ``1f9f8`` or ``1f44b-1f3fd``, without the skin tone, none if unknown.

    The caption comes first, then what else people call it, such as "car" for an automobile.
    """
    import emoji

    points = _points(code)
    plain = [point for point in points if point not in TONES]
    for candidate in (plain, [*plain, 0xFE0F], [point for point in plain if point != 0xFE0F]):
        known = emoji.EMOJI_DATA.get("".join(map(chr, candidate)))
        if known is not None:
            aliases = (_words(alias).rstrip("0123456789 ") for alias in known.get("alias", ()))  # "dog2"
            return tuple(dict.fromkeys([_words(known["en"]), *(alias for alias in aliases if len(alias) > 1)]))
    return ()


def _words(name: str) -> str:
    return name.strip(":").replace("_", " ").replace("’", "'").lower()


def held_out(caption: str) -> bool:
    """Whether a concept is kept from training: by hash, so that it stays so whatever else changes."""
    return int.from_bytes(hashlib.sha256(caption.encode()).digest()[:8]) % HELD_OUT == 0


def _points(code: str) -> list[int]:
    return [int(point, 16) for point in re.split("[-_]", code)]


def _interest(code: str) -> float:
    points = _points(code)
    if points[0] in REGIONAL or KEYCAP in points or any(points[0] in signs for signs in SIGNS):
        return SIGN_WEIGHT
    return JOINED_WEIGHT if JOINER in points else 1.0


class Collection:
    """Pictures in memory.

    Attributes:
        emojis: in the order of the pictures.
    """

    def __init__(self, emojis: Sequence[Emoji], pictures: NDArray[np.uint8]) -> None:
        self.emojis = list(emojis)
        self._pictures = pictures
        weights = np.array([emoji.weight for emoji in emojis])
        self._cumulative = np.cumsum(weights / weights.sum())

    def __len__(self) -> int:
        return len(self.emojis)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """One picture with its colours times its alpha, ``(4, 256, 256)`` in [0, 1]."""
        picture: NDArray[np.float32] = self._pictures[index].astype(np.float32) / 255
        picture[:3] *= picture[3:]
        return picture

    @property
    def atlas(self) -> torch.Tensor:
        """All pictures, colours not yet times alpha, ``(P, 4, 256, 256)`` uint8; shares their memory."""
        return torch.from_numpy(self._pictures)

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Indices of pictures drawn by weight."""
        return np.searchsorted(self._cumulative, random.random(shape), side="right").clip(max=len(self) - 1)


def collect(cache: Path, *, held_out: bool) -> Collection:
    """All pictures to train on, or all that are held out; opened once, then kept beside the archive as an array."""
    with tarfile.open(fetch(cache)) as archive:
        members = {Path(name).stem: name for name in archive.getnames() if name.endswith(".webp")}
        chosen = [emoji for emoji in catalogue(members) if emoji.held_out == held_out]
        names = [members[emoji.code] for emoji in chosen]
        digest = hashlib.sha256("\n".join([PACKAGE, *names]).encode()).hexdigest()[:12]
        opened = cache / f"pictures-{digest}.npy"
        if not opened.is_file():
            packed = [file.read() for name in names if (file := archive.extractfile(name)) is not None]
            with ThreadPoolExecutor() as threads:
                pictures = np.stack(list(threads.map(_open, packed)))
            beside = opened.with_suffix(".new.npy")
            np.save(beside, pictures)
            beside.replace(opened)
    return Collection(chosen, np.load(opened, mmap_mode="c"))


def _open(packed: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(packed)) as picture:
        return np.asarray(picture.convert("RGBA").resize((SIDE, SIDE))).transpose(2, 0, 1)
