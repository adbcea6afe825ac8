"""PictureFiles: a worker's access to uploaded pictures, which commands name by digest."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from PIL import Image

from livedrag.editor import PictureError
from livedrag.server.device.messages import PictureRef


class PictureFiles:
    """Reads uploaded pictures from the service's own files.

    A session has its picture in memory and asks only when it is opened, so nothing is cached here. A worker on another
    machine gets another class with this method, which fetches the picture by its digest.
    """

    def read(self, picture: PictureRef) -> Image.Image:
        """The picture, RGB. Raises `PictureError` where the file is missing or damaged."""
        try:
            data = Path(picture.path).read_bytes()
        except OSError as error:
            raise PictureError(f"the uploaded picture cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != picture.sha256:
            raise PictureError(f"the uploaded picture {picture.path} is damaged: its {len(data)} bytes have changed")
        return Image.open(io.BytesIO(data)).convert("RGB")
