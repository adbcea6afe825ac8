"""The settings of a room: those of the editor, which `DragSettings` describes, and the service's own beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from livedrag.editor import LIVE_SETTINGS, PRESETS, Diffusion, DragSettings, SettingsError
from livedrag.editor.cost import Memory, check_cost, measure_shape
from livedrag.editor.points import Size
from livedrag.editor.settings import unsuitable_presets
from livedrag.server.device.messages import DesiredState
from livedrag.server.document.protocol import MAX_SEED, ModelChoice, ModelInfo, Setting


@dataclass(frozen=True)
class ServiceSetting:
    """A setting of the service: its default, its range if it is a number, and whether it may change during a run."""

    default: Setting
    range: tuple[float, float] | None = None
    live: bool = False


SERVICE_SETTINGS: Mapping[str, ServiceSetting] = {
    "preset": ServiceSetting(""),  # empty: the model's own defaults
    "seed": ServiceSetting(0, (0, MAX_SEED)),
    "preview_every": ServiceSetting(4, (1, 10_000)),
    "preview_side": ServiceSetting(256, (32, 1024), live=True),
}
"""What the editor's `DragSettings` do not have."""
NO_CAPS: Mapping[str, int] = {}


@dataclass(frozen=True)
class SessionKey:
    """What a session is made from and cannot change: two sessions with the same key are interchangeable.

    ``picture`` is its SHA-256; ``settings`` are those that are not live; ``model`` is what the room has chosen.
    """

    picture: str
    prompt: str
    seed: int
    settings: Mapping[str, Setting]
    model: ModelChoice


class ModelSettings:
    """Reads the settings of rooms that use a model, whether it is loaded or not.

    Args:
        name, kind, defaults: of the model, see `Diffusion`.
        caps: largest values of settings, by name, below the editor's own.
    """

    def __init__(
        self, name: str, kind: str, defaults: Mapping[str, Setting], caps: Mapping[str, int] = NO_CAPS
    ) -> None:
        self.name, self.kind = name, kind
        self._own, self._caps = dict(defaults), dict(caps)
        self._defaults = capped(DragSettings.resolve(None, defaults).as_dict(), caps)

    @property
    def info(self) -> ModelInfo:
        """What the service and the page know of the model."""
        return describe(self.name, self.kind, self._defaults, self._caps)

    def editor(self, desired: DesiredState) -> DragSettings:
        """The editor's part. Raises `SettingsError`."""
        settings = self._resolve(desired.settings)
        for name, cap in self._caps.items():
            if (value := getattr(settings, name)) > cap:
                raise SettingsError(f"{name} is {value}: this server allows at most {cap}")
        return settings

    def differing(self, settings: Mapping[str, Setting]) -> dict[str, Setting]:
        """The editor's part of a room's settings that differs from the preset's or, without one, the model's own."""
        base = DragSettings.resolve(str(settings.get("preset", "")) or None, self._own).as_dict()
        return {name: value for name, value in self._resolve(settings).as_dict().items() if value != base[name]}

    def _resolve(self, settings: Mapping[str, Setting]) -> DragSettings:
        overrides = {name: value for name, value in settings.items() if name not in SERVICE_SETTINGS}
        return DragSettings.resolve(str(settings.get("preset", "")) or None, self._defaults, overrides)

    def key(self, picture: str, desired: DesiredState) -> SessionKey:
        """The key of the session that a room wants, with a picture's SHA-256. Raises `SettingsError`."""
        settings = self.editor(desired).as_dict()
        fixed = {name: value for name, value in settings.items() if name not in LIVE_SETTINGS}
        return SessionKey(picture, desired.prompt, service_setting(desired, "seed"), fixed, desired.model)


class RoomSettings(ModelSettings):
    """Those of a model that is loaded, which also says what they cost.

    Args:
        memory: gives that of the device now; None: not limited.
    """

    def __init__(
        self,
        model: Diffusion,
        caps: Mapping[str, int] = NO_CAPS,
        memory: Callable[[], Memory | None] = lambda: None,
    ) -> None:
        super().__init__(model.name, model.kind, model.defaults, caps)
        self._model, self._memory = model, memory
        self._shape = measure_shape(model)

    def ignored_prompt(self, desired: DesiredState) -> str:
        """The end of the prompt that is too long for the model; empty if all of it is read."""
        return self._model.prompts.ignored_part(desired.prompt)

    def check(self, desired: DesiredState, width: int, height: int) -> None:
        """Raise `SettingsError` if the settings are impossible, or cost more than the device has."""
        settings = self.editor(desired)
        memory = self._memory() or UNLIMITED
        check_cost(settings, self._shape, Size(width, height), len(desired.drags), memory)


UNLIMITED = Memory(sessions=2**62, total=2**62)


def capped(settings: Mapping[str, Setting], caps: Mapping[str, int]) -> dict[str, Setting]:
    """Settings, those above their cap lowered to it."""
    return {name: min(value, caps[name]) if name in caps else value for name, value in settings.items()}


def describe(name: str, kind: str, defaults: Mapping[str, Setting], caps: Mapping[str, int] = NO_CAPS) -> ModelInfo:
    """All settings with their defaults, their ranges, and which of them may change during a run."""
    values = DragSettings.resolve(None, defaults).as_dict()
    editor = {entry.name: entry.metadata for entry in dataclasses.fields(DragSettings)}
    ranges = {name: (float(about["low"]), float(about["high"])) for name, about in editor.items() if "low" in about}
    own = SERVICE_SETTINGS
    return ModelInfo(
        name=name,
        kind=kind,
        settings={**values, **{name: setting.default for name, setting in own.items()}},
        presets=list(PRESETS),
        live=tuple(sorted(LIVE_SETTINGS | {name for name in own if own[name].live})),
        ranges={
            **{name: (low, min(high, caps.get(name, high))) for name, (low, high) in ranges.items()},
            **{name: setting.range for name, setting in own.items() if setting.range is not None},
        },
        words={name: about["words"] for name, about in editor.items() if "words" in about},
        choices={name: about["choices"] for name, about in editor.items() if "choices" in about},
        unsuitable=unsuitable_presets(kind),
    )


def service_setting(desired: DesiredState, name: str) -> int:
    """One of the service's settings that are whole numbers."""
    return int(desired.settings.get(name, SERVICE_SETTINGS[name].default))
