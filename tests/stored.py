"""Pictures as the service stores them: files that commands to the engine name by digest."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from livedrag.server.device.messages import PictureRef

_FOLDER = tempfile.TemporaryDirectory(prefix="livedrag-pictures-")


def stored(png: bytes) -> PictureRef:
    """Write a picture to a file that lasts as long as this process."""
    sha256 = hashlib.sha256(png).hexdigest()
    path = Path(_FOLDER.name) / f"{sha256}.png"
    path.write_bytes(png)
    return PictureRef(sha256=sha256, path=str(path))


def contents(picture: PictureRef) -> bytes:
    """The PNG that a command names."""
    return Path(picture.path).read_bytes()
