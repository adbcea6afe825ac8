"""ModelLoader: opens models in threads of their own, while the device goes on with what it has."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from livedrag.editor import Diffusion, EditorError, ModelError
from livedrag.editor.model_options import WantedModel
from livedrag.server.device.worker.model_catalog import ModelCatalog, Opener
from livedrag.server.document.protocol import ModelChoice

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Loading:
    """A model that is being loaded: ``step`` of ``steps`` parts are there, ``needed`` are the bytes of its weights."""

    choice: ModelChoice
    began: float = field(default_factory=time.monotonic)
    step: int = 0
    steps: int = 1
    started: bool = False
    needed: int | None = None

    def note(self, step: int, steps: int) -> None:
        """So many of the parts are there."""
        self.step, self.steps = step, steps


@dataclass(frozen=True)
class Opened:
    """What a thread has loaded, or why it could not."""

    choice: ModelChoice
    base: Diffusion | None = None
    model: Diffusion | None = None
    problem: str = ""


class ModelLoader:
    """Opens the models of a catalog.

    Args:
        catalog: of all that rooms may choose; None: none.
        open: opens one.
        wake: called from another thread when a model is there.
    """

    def __init__(self, catalog: ModelCatalog | None, open: Opener | None, wake: Callable[[], None]) -> None:
        self._catalog, self._open, self._wake = catalog, open, wake
        self._done: queue.SimpleQueue[Opened] = queue.SimpleQueue()

    def wanted(self, choice: ModelChoice) -> WantedModel:
        """What has to be opened for a choice. Raises `ModelError`."""
        if self._catalog is None or self._open is None:
            raise unknown_model(choice)
        return self._catalog.wanted(choice)

    def start(self, loading: Loading, base: Diffusion | None) -> None:
        """Load a model in a thread; ``base`` is the same without LoRAs, if that is loaded already."""
        loading.started = True
        name = f"model {loading.choice.name}"
        threading.Thread(target=self._load, args=(loading, base), name=name, daemon=True).start()

    def fail(self, choice: ModelChoice, problem: str) -> None:
        """A model can't be loaded."""
        self._finish(Opened(choice, problem=problem))

    def take(self) -> Iterator[Opened]:
        """What has been loaded, or has failed, since the last call."""
        while not self._done.empty():
            yield self._done.get()

    def _load(self, loading: Loading, base: Diffusion | None) -> None:
        choice = loading.choice
        try:
            wanted = self.wanted(choice)
            assert self._open is not None
            if base is None:
                base = self._open(wanted.without_loras(), loading.note)
            found = base.with_loras(wanted.loras) if wanted.loras else base
            opened = Opened(choice, base, found)
            log.info("the model %s is loaded after %.1f s", found.name, time.monotonic() - loading.began)
        except EditorError as error:
            opened = Opened(choice, problem=str(error))
        except Exception as error:
            log.exception("a model could not be loaded")
            opened = Opened(choice, problem=f"{named(choice)} can't be loaded: {type(error).__name__}: {error}")
        self._finish(opened)

    def _finish(self, opened: Opened) -> None:
        self._done.put(opened)
        self._wake()


def named(choice: ModelChoice) -> str:
    """A model, in a message."""
    return f"the model {choice.name!r}" if choice.name else "the server's model"


def unknown_model(choice: ModelChoice) -> ModelError:
    """A room has chosen a model that this server does not have."""
    return ModelError(f"there is no model {choice.name!r} on this server: choose another one")
