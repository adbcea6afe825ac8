"""Film: how the content came to where it is, as an animated WebP, or as an MP4 where there is an ffmpeg. Blocking."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from livedrag.server.errors import ServiceError

log = logging.getLogger(__name__)

RATE = 10
"""Frames a second."""
STAYS = 10
"""Frames for which the last one stays."""
CODEC = "libx264"
"""What every browser plays."""
LOOK_SECONDS = 60.0
ENCODE_SECONDS = 300.0
"""How long an encoder has to say what it can do, and to make a film."""


class AnimationError(ServiceError):
    """The encoder failed."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "encoder_failed", message)


@functools.cache
def find_encoder() -> str | None:
    """An ffmpeg that makes MP4s for browsers: that of ``PATH``, or of the package imageio-ffmpeg (extra mp4)."""
    return next((found for found in _encoders() if _can_encode(found)), None)


def animate(pictures: Sequence[bytes]) -> bytes:
    """Pictures one after the other, as an animated WebP that stays at its end for a while."""
    first, *others = _frames(pictures)
    durations = [*[1000 // RATE] * len(others), STAYS * 1000 // RATE]
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=durations, loop=0, quality=80, method=2)
    return buffer.getvalue()


def encode_mp4(pictures: Sequence[bytes], encoder: str) -> bytes:
    """The same as an MP4, with H.264, whose sides are even: at most a row and a column of pixels are left out.

    Raises:
        FilmError: the encoder refuses, or takes too long.
    """
    frames = _frames(pictures)
    width, height = (max(2, side - side % 2) for side in Image.open(io.BytesIO(pictures[-1])).size)
    with tempfile.TemporaryDirectory(prefix="livedrag-film-") as folder:
        film, raw = Path(folder) / "film.mp4", Path(folder) / "frames"
        with raw.open("wb") as file:
            for frame in frames:
                last = frame.crop((0, 0, width, height)).tobytes()
                file.write(last)
            for _ in range(STAYS - 1):
                file.write(last)
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE), "-i", str(raw)]
        target = ["-c:v", CODEC, "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart", str(film)]
        _run([encoder, "-nostdin", "-v", "error", *source, *target], ENCODE_SECONDS)
        return film.read_bytes()


def _frames(pictures: Sequence[bytes]) -> Iterator[Image.Image]:
    """The pictures, all as large as the last."""
    size = Image.open(io.BytesIO(pictures[-1])).size
    for picture in pictures:
        frame = Image.open(io.BytesIO(picture)).convert("RGB")
        yield frame if frame.size == size else frame.resize(size)


def _encoders() -> Iterator[str]:
    on_path = shutil.which("ffmpeg")
    if on_path is not None:
        yield on_path
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        with contextlib.suppress(RuntimeError):  # it comes without a binary on some systems
            yield imageio_ffmpeg.get_ffmpeg_exe()


def _can_encode(encoder: str) -> bool:
    try:
        return CODEC in _run([encoder, "-hide_banner", "-encoders"], LOOK_SECONDS)
    except AnimationError as error:
        log.warning("%s makes no films: %s", encoder, error)
        return False


def _run(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=True, text=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or ""
        raise AnimationError(f"{error} {str(said).strip()[-500:]}".strip()) from error
    return done.stdout
