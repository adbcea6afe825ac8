"""The editor: DragDiffusion on one picture, without the service.

Importing it is cheap: torch is imported when one of its names is first used, and a model is loaded by `Diffusion.load`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from livedrag.editor.drag.session import DragSession
    from livedrag.editor.drag.steps import DragStep, InversionStep, RenderStep
    from livedrag.editor.errors import (
        EditorError,
        MaskError,
        ModelError,
        NumericalError,
        PictureError,
        PointError,
        SettingsError,
    )
    from livedrag.editor.fitting.fit_step import FitPass, FitStep
    from livedrag.editor.fitting.fitted_lora import FittedLora, read_fitted_lora
    from livedrag.editor.models.diffusion import Diffusion
    from livedrag.editor.points import Drag, Point
    from livedrag.editor.settings import LIVE_SETTINGS, PRESETS, DragSettings

__all__ = [
    "LIVE_SETTINGS",
    "PRESETS",
    "Diffusion",
    "Drag",
    "DragSession",
    "DragSettings",
    "DragStep",
    "EditorError",
    "FitPass",
    "FitStep",
    "FittedLora",
    "InversionStep",
    "MaskError",
    "ModelError",
    "NumericalError",
    "PictureError",
    "Point",
    "PointError",
    "RenderStep",
    "SettingsError",
    "read_fitted_lora",
]

_MODULES = {
    "drag.session": ("DragSession",),
    "drag.steps": ("DragStep", "InversionStep", "RenderStep"),
    "errors": (
        "EditorError",
        "MaskError",
        "ModelError",
        "NumericalError",
        "PictureError",
        "PointError",
        "SettingsError",
    ),
    "fitting.fitted_lora": ("FittedLora", "read_fitted_lora"),
    "fitting.fit_step": ("FitPass", "FitStep"),
    "models.diffusion": ("Diffusion",),
    "points": ("Drag", "Point"),
    "settings": ("LIVE_SETTINGS", "PRESETS", "DragSettings"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next use does not come here
    return value
