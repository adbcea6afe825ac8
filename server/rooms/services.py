"""What the rooms of a server share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from livedrag.server.access.rate_limits import RateLimits
from livedrag.server.device.engine import Engine
from livedrag.server.device.model_names import infos_of
from livedrag.server.document.protocol import Document, ModelInfo, RoomLimits
from livedrag.server.images.rasteriser import Rasteriser
from livedrag.server.metrics import Metrics
from livedrag.server.rooms.background import BackgroundTasks
from livedrag.server.rooms.clock import Clock
from livedrag.server.settings import Settings
from livedrag.server.storage import Store


@dataclass(frozen=True)
class Services:
    """What the rooms of a server share. ``capabilities`` are the optional features of this server."""

    settings: Settings
    store: Store
    engine: Engine
    model: ModelInfo
    rate_limits: RateLimits
    room_limits: RoomLimits
    metrics: Metrics
    clock: Clock
    tasks: BackgroundTasks
    rasteriser: Rasteriser
    capabilities: tuple[str, ...] = ()

    @property
    def models(self) -> Mapping[str, ModelInfo]:
        """Those that rooms may choose, by name."""
        return infos_of(self.engine.catalog)

    def model_of(self, document: Document) -> ModelInfo:
        """The model of a room, or the server's own if that is gone."""
        return self.models.get(document.model.name, self.model)
