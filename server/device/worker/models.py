"""Models: those that a device has loaded. Others are loaded in the background; the least recently used leave first."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec import Struct

from livedrag.editor import Diffusion, EditorError, ModelError
from livedrag.editor.cost import Memory, gigabytes, needed_weights, weight_bytes
from livedrag.editor.settings import Quality
from livedrag.server.device.model_names import base_name, base_of
from livedrag.server.device.worker.generator import PictureGenerator
from livedrag.server.device.worker.memory import free_memory
from livedrag.server.device.worker.model_catalog import ModelCatalog, Opener
from livedrag.server.device.worker.model_loader import Loading, ModelLoader, named, unknown_model
from livedrag.server.device.worker.room_settings import NO_CAPS, ModelSettings, RoomSettings
from livedrag.server.document.protocol import ModelChoice, ModelInfo

log = logging.getLogger(__name__)

OWN = ModelChoice()
"""The choice of rooms that have chosen nothing."""


class Budget(Struct, frozen=True, kw_only=True):
    """Bytes that the weights of models may take: of several ``together``, or of one ``alone``."""

    together: int
    alone: int


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model on the device, with its LoRAs."""

    diffusion: Diffusion
    settings: RoomSettings
    generator: PictureGenerator


class Models:
    """The models of one device.

    Attributes:
        loading: what is wanted and not loaded yet, by choice.

    Args:
        default: loaded already.
        catalog: of all that rooms may choose; None: only the default.
        open: opens one.
        caps: largest values of settings, by name.
        memory: of the device beside the default model; None: no limit.
        quality: of previews.
        wake: called from another thread when a model is there.
    """

    def __init__(
        self,
        default: Diffusion,
        *,
        catalog: ModelCatalog | None = None,
        open: Opener | None = None,
        caps: Mapping[str, int] = NO_CAPS,
        memory: Memory | None = None,
        quality: Quality | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._catalog, self._caps, self._quality = catalog, caps, quality
        self._loader = ModelLoader(catalog, open, wake)
        self._memory, self._device = memory, default.device
        self._default_bytes = weight_bytes(default)
        self._bases: dict[ModelChoice, Diffusion] = {OWN: default}  # without the LoRAs of rooms
        self._loaded: dict[ModelChoice, LoadedModel] = {}  # the least recently used first
        self._own_settings: ModelSettings = self._add(OWN, default).settings
        self.loading: dict[ModelChoice, Loading] = {}
        self._leaving: frozenset[ModelChoice] = frozenset()  # bases that no new work gets: another model waits for them

    # What is known of all models -------------------------------------------------------------------------------------

    def settings(self, choice: ModelChoice) -> ModelSettings:
        """Reads the settings of rooms with this model, which need not be loaded. Raises `ModelError`."""
        if not choice.name:
            return self._own_settings
        if self._catalog is None:
            raise unknown_model(choice)
        return self._catalog.settings_of(choice.name)

    # What is loaded --------------------------------------------------------------------------------------------------

    def has(self, choice: ModelChoice) -> bool:
        """Whether new work can begin with it: it is loaded, and no other model waits for its memory."""
        return choice in self._loaded and base_of(choice) not in self._leaving

    def loaded(self, choice: ModelChoice) -> LoadedModel:
        """A model that is loaded, which is then the most recently used one. Raises `ModelError`."""
        found = self._loaded.pop(choice, None)
        if found is None:
            raise ModelError(f"{named(choice)} is not loaded: press Drag again")
        self._loaded[choice] = found
        return found

    def drop_graphs(self) -> None:
        """Give back the memory of all CUDA graphs; they are recorded again when there is memory to spare."""
        for base in self._bases.values():
            _drop_graphs(base)

    @property
    def cold_runs(self) -> int:
        """Passes so far that ran before there was a graph of their kind, or recorded it."""
        return sum(base.graphs.cold_runs for base in self._bases.values() if base.graphs is not None)

    def take_problems(self) -> frozenset[str]:
        """Why what was made since the last call can't be repeated exactly."""
        problems = frozenset(problem for base in self._bases.values() for problem in base.low_memory.problems)
        for base in self._bases.values():
            base.low_memory.forget_problems()
        return problems

    @property
    def names(self) -> frozenset[str]:
        """Of the models whose weights are here, for the placement of rooms."""
        return frozenset(map(base_name, self._bases))

    @property
    def info(self) -> ModelInfo:
        """Of the model of rooms that have chosen none."""
        return self._own_settings.info

    @property
    def held_bytes(self) -> int:
        """Of all weights."""
        return sum(map(weight_bytes, self._bases.values()))

    @property
    def memory(self) -> Memory | None:
        """What there is for sessions beside the models that are loaded now; None: no limit."""
        if self._memory is None:
            return None
        total = max(0, self._memory.total - (self.held_bytes - self._default_bytes))
        return Memory(sessions=min(self._memory.sessions, total), total=total)

    @property
    def budget(self) -> Budget | None:
        """Bytes for weights; None: no limit."""
        if self._memory is None:
            return None
        spare = (self._memory.total - self._memory.sessions) // 2
        return Budget(together=self._default_bytes + spare, alone=self._default_bytes + self._memory.total)

    # Loading ---------------------------------------------------------------------------------------------------------

    def request(self, choice: ModelChoice) -> None:
        """Load a model in the background, as soon as `start` finds memory for it."""
        if not self.has(choice):
            self.loading.setdefault(choice, Loading(choice))

    def start(self, in_use: frozenset[ModelChoice], leave: Callable[[ModelChoice], None]) -> None:
        """Start to load the next model, one at a time, in the order in which they were requested.

        If all models are in use, the least recently used ones get no new work until there is memory, so that a steady
        load of runs keeps none waiting for ever. What is requested after it waits for its turn, unless it needs none.

        Args:
            in_use: what rooms that run have chosen: these models stay.
            leave: takes the idle sessions of a model off the device, before it leaves.
        """
        if any(loading.started for loading in self.loading.values()):
            return
        leaving: frozenset[ModelChoice] = frozenset()
        for loading in list(self.loading.values()):
            try:
                wanted, base = self._loader.wanted(loading.choice), base_of(loading.choice)
                if base in leaving or (leaving and base not in self._bases):
                    continue
                if base not in self._bases:
                    if loading.needed is None:
                        loading.needed = needed_weights(wanted.source(), self._device)
                    if not self._make_place(loading.needed, in_use, leave):
                        leaving = self._leaving = self._in_the_way(loading.needed)
                        continue  # until rooms have ended their runs
            except EditorError as error:
                self._loader.fail(loading.choice, str(error))
                continue
            self._leaving = leaving
            self._loader.start(loading, self._bases.get(base))
            return
        self._leaving = leaving

    def take(self) -> list[tuple[ModelChoice, str]]:
        """The models that are there since the last call, each with why it could not be loaded, or nothing."""
        taken: list[tuple[ModelChoice, str]] = []
        for opened in self._loader.take():
            choice, problem = opened.choice, opened.problem
            self.loading.pop(choice, None)
            if opened.base is not None and opened.model is not None:
                self._bases.setdefault(base_of(choice), opened.base)
                try:
                    if choice not in self._loaded:
                        self._add(choice, opened.model)
                except RuntimeError as error:  # its first pass does not fit into the memory
                    self._remove(base_of(choice))
                    problem = f"{named(choice)} can't be used on this device: {str(error).splitlines()[0]}"
            taken.append((choice, problem))
        return taken

    def _add(self, choice: ModelChoice, diffusion: Diffusion) -> LoadedModel:
        settings = RoomSettings(diffusion, self._caps, lambda: self.memory)
        loaded = LoadedModel(diffusion, settings, PictureGenerator(diffusion, settings, self._quality))
        self._loaded[choice] = loaded
        threading.Thread(target=hash_weights, args=(diffusion,), name="hashing", daemon=True).start()
        return loaded

    def _make_place(self, needed: int, in_use: frozenset[ModelChoice], leave: Callable[[ModelChoice], None]) -> bool:
        """Whether there is memory for another model; those that no room runs with leave for it.

        Raises:
            ModelError: there is not enough for it alone.
        """
        budget = self.budget
        if budget is None:
            return True
        if needed > budget.alone:
            raise ModelError(
                f"the model needs about {gigabytes(needed)}, {gigabytes(budget.alone)} are free: choose a smaller one"
            )
        used = {base_of(choice) for choice in in_use}
        while self._bases and self.held_bytes + needed > budget.together:
            last = next((base for base in self._least_recent() if base not in used), None)
            if last is None:
                return False
            for choice in [choice for choice in self._loaded if base_of(choice) == last]:
                leave(choice)
            self._remove(last)
        return True

    def _least_recent(self) -> list[ModelChoice]:
        """The bases, the least recently used first."""
        used_at = {base_of(choice): at for at, choice in enumerate(self._loaded)}
        return sorted(self._bases, key=lambda base: used_at.get(base, -1))

    def _in_the_way(self, needed: int) -> frozenset[ModelChoice]:
        """The bases that have to leave for a model; those that have begun to are among them."""
        budget, held = self.budget, self.held_bytes
        chosen: list[ModelChoice] = []
        for base in sorted(self._least_recent(), key=lambda base: base not in self._leaving):
            if budget is not None and held + needed > budget.together:
                chosen.append(base)
                held -= weight_bytes(self._bases[base])
        return frozenset(chosen)

    def _remove(self, base: ModelChoice) -> None:
        log.info("the model %s leaves the device", base.name or "of the server")
        model = self._bases.pop(base, None)
        if model is not None:
            _drop_graphs(model)  # they refer to the model, which refers to them
        for choice in [choice for choice in self._loaded if base_of(choice) == base]:
            del self._loaded[choice]
        free_memory()


def _drop_graphs(model: Diffusion) -> None:
    if model.graphs is not None:
        model.graphs.clear()


def hash_weights(model: Diffusion) -> None:
    """Hash the files of a model before the first result says which ones made it: that takes seconds."""
    for origin in model.origins:
        _ = origin.sha256
