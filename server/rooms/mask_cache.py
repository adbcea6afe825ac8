"""The mask of a room as a picture, rasterised once for each change."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from livedrag.server.document.protocol import Document, MaskLayer
from livedrag.server.images.mask import lets_nothing_change, rasterise, to_png
from livedrag.server.storage import Store


@dataclass(frozen=True)
class RasterisedMask:
    """A rasterised mask.

    Attributes:
        layers: what it was rasterised from.
        png: white is editable; None if everything is.
        frozen: whether nothing is editable.
    """

    layers: tuple[MaskLayer, ...] = ()
    png: bytes | None = None
    frozen: bool = False


class MaskCache:
    """The rasterised mask of one room.

    Args:
        document: returns the current document of the room.
    """

    def __init__(self, store: Store, document: Callable[[], Document]) -> None:
        self._store = store
        self._document = document
        self._mask = RasterisedMask()
        self._lock = asyncio.Lock()

    async def current(self) -> RasterisedMask:
        """The mask of the document when this returns. Raises `OSError`, `StoreError` or `ValueError`."""
        async with self._lock:  # once, however many callers wait
            while self._mask.layers is not self._document().mask:  # once more if it has changed meanwhile
                document = self._document()
                self._mask = await asyncio.to_thread(rasterise_mask, document, self._store)
            return self._mask


def rasterise_mask(document: Document, store: Store) -> RasterisedMask:
    """Rasterise the mask of a document (blocking)."""
    if not document.mask:
        return RasterisedMask(document.mask)

    def loaded(sha256: str) -> Image.Image:
        return Image.open(io.BytesIO(store.get_picture(sha256)))

    mask = rasterise(document.mask, (document.picture.width, document.picture.height), loaded)
    return RasterisedMask(document.mask, to_png(mask), frozen=lets_nothing_change(mask))
