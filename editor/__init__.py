"""The editor: DragDiffusion on one picture, without the service.

Importing it imports torch; nothing is loaded before `Diffusion.load`.
"""

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
