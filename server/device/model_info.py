"""The settings of a room: those of the editor, which `DragSettings` describes, and the service's own beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from livedrag.editor import PRESETS, Diffusion, DragSettings
from livedrag.server.device.engine import DesiredState
from livedrag.server.document.protocol import MAX_SEED, ModelInfo, Setting


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


def model_info(model: Diffusion) -> ModelInfo:
    """What the service and the page know of a model."""
    return describe(model.name, model.kind, model.defaults)


def describe(name: str, kind: str, defaults: Mapping[str, Setting]) -> ModelInfo:
    """All settings with their defaults, their ranges, and which of them may change during a run."""
    editor = {entry.name: entry.metadata for entry in dataclasses.fields(DragSettings)}
    values = DragSettings.resolve(None, defaults, {}).as_dict()
    own = SERVICE_SETTINGS
    live = {name for name, about in editor.items() if about["live"]} | {name for name in own if own[name].live}
    return ModelInfo(
        name=name,
        kind=kind,
        settings={**values, **{name: setting.default for name, setting in own.items()}},
        presets=list(PRESETS),
        live=tuple(sorted(live)),
        ranges={
            **{name: (float(about["low"]), float(about["high"])) for name, about in editor.items() if "low" in about},
            **{name: setting.range for name, setting in own.items() if setting.range is not None},
        },
        words={name: about["words"] for name, about in editor.items() if "words" in about},
        choices={name: about["choices"] for name, about in editor.items() if "choices" in about},
    )


def editor_settings(desired: DesiredState, model: Diffusion) -> DragSettings:
    """The editor's part of a room's settings. Raises `SettingsError`."""
    overrides = {name: value for name, value in desired.settings.items() if name not in SERVICE_SETTINGS}
    return DragSettings.resolve(str(desired.settings.get("preset", "")) or None, model.defaults, overrides)


def service_setting(desired: DesiredState, name: str) -> int:
    """One of the service's settings that are whole numbers."""
    return int(desired.settings.get(name, SERVICE_SETTINGS[name].default))
