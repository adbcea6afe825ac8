"""A room's timeline as an animated WebP, or as an MP4 if there is an ffmpeg. Blocking: call it in a thread."""

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

FRAME_RATE = 10
"""Frames per second."""
LAST_FRAMES = 10
"""How often the last frame is repeated, so that it stays for a second."""
CODEC = "libx264"
"""H.264, which every browser plays."""
PROBE_SECONDS = 60.0
ENCODE_SECONDS = 300.0
"""Time limits of an encoder."""


class AnimationError(ServiceError):
    """The encoder failed."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "encoder_failed", message)


@functools.cache
def find_encoder() -> str | None:
    """An ffmpeg that can encode H.264: on ``PATH``, or in the package imageio-ffmpeg (extra mp4)."""
    return next((found for found in _encoders() if _can_encode(found)), None)


def animate(pictures: Sequence[bytes]) -> bytes:
    """Encode pictures as an animated WebP, at the size of the last one."""
    first, *others = _frames(pictures)
    durations = [*[1000 // FRAME_RATE] * len(others), LAST_FRAMES * 1000 // FRAME_RATE]
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=durations, loop=0, quality=80, method=2)
    return buffer.getvalue()


def encode_mp4(pictures: Sequence[bytes], encoder: str) -> bytes:
    """Encode pictures as an MP4. H.264 needs even sides, so an odd row or column is cut off.

    Raises:
        AnimationError: the encoder fails, or takes too long.
    """
    frames = _frames(pictures)
    width, height = (max(2, side - side % 2) for side in Image.open(io.BytesIO(pictures[-1])).size)
    with tempfile.TemporaryDirectory(prefix="livedrag-mp4-") as folder:
        mp4, raw = Path(folder) / "trajectory.mp4", Path(folder) / "frames"
        with raw.open("wb") as file:
            for frame in frames:
                last = frame.crop((0, 0, width, height)).tobytes()
                file.write(last)
            for _ in range(LAST_FRAMES - 1):
                file.write(last)
        source = [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{width}x{height}",
            "-r",
            str(FRAME_RATE),
            "-i",
            str(raw),
        ]
        target = ["-c:v", CODEC, "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart", str(mp4)]
        _run([encoder, "-nostdin", "-v", "error", *source, *target], ENCODE_SECONDS)
        return mp4.read_bytes()


def _frames(pictures: Sequence[bytes]) -> Iterator[Image.Image]:
    """The pictures, all at the size of the last."""
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

        with contextlib.suppress(RuntimeError):  # on some systems it has no binary
            yield imageio_ffmpeg.get_ffmpeg_exe()


def _can_encode(encoder: str) -> bool:
    try:
        return CODEC in _run([encoder, "-hide_banner", "-encoders"], PROBE_SECONDS)
    except AnimationError as error:
        log.warning("%s cannot make MP4s: %s", encoder, error)
        return False


def _run(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=True, text=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or ""
        raise AnimationError(f"the encoder failed: {error} {str(output).strip()[-500:]}".strip()) from error
    return done.stdout
