"""The editor: DragDiffusion on one picture, without a service. Knows torch and diffusers; knows no web, no rooms.

Opening it costs nothing; torch and the model come when a name is used.
"""

from livedrag.editor.drag.session import DragSession, DragStep, InversionStep, RenderStep
from livedrag.editor.errors import (
    EditorError,
    MaskError,
    ModelError,
    NumericalError,
    PictureError,
    PointError,
    SettingsError,
)
from livedrag.editor.fitting.lora import FitStep
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
    "FitStep",
    "InversionStep",
    "MaskError",
    "ModelError",
    "NumericalError",
    "PictureError",
    "Point",
    "PointError",
    "RenderStep",
    "SettingsError",
]
