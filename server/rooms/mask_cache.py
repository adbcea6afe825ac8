"""The mask of a room as a picture, rasterised once for each change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from livedrag.server.document.protocol import Document, MaskLayer
from livedrag.server.images.rasteriser import Rasteriser
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
        rasteriser: of the server.
        document: returns the current document of the room.
    """

    def __init__(self, store: Store, rasteriser: Rasteriser, document: Callable[[], Document]) -> None:
        self._store = store
        self._rasteriser = rasteriser
        self._document = document
        self._mask = RasterisedMask()
        self._lock = asyncio.Lock()

    async def current(self) -> RasterisedMask:
        """The mask of the document when this returns. Raises `OSError`, `ServiceError` or `ValueError`."""
        async with self._lock:  # once, however many callers wait
            while self._mask.layers is not self._document().mask:  # once more if it has changed meanwhile
                document = self._document()
                self._mask = await rasterise_mask(document, self._store, self._rasteriser)
            return self._mask


async def rasterise_mask(document: Document, store: Store, rasteriser: Rasteriser) -> RasterisedMask:
    """Rasterise the mask of a document."""
    if not document.mask:
        return RasterisedMask(document.mask)
    size = (document.picture.width, document.picture.height)
    mask = await rasteriser.rasterise(document.mask, size, store.picture_path)
    return RasterisedMask(document.mask, mask.png, mask.frozen)
