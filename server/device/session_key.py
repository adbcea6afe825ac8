"""SessionKey: what a session is made from and cannot change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from livedrag.editor import LIVE_SETTINGS, Diffusion
from livedrag.server.device.engine import DesiredState
from livedrag.server.device.model_info import editor_settings, service_setting
from livedrag.server.document.protocol import Setting


@dataclass(frozen=True)
class SessionKey:
    """Two sessions with the same key are interchangeable; ``picture`` is its SHA-256, ``settings`` are not live."""

    picture: str
    prompt: str
    seed: int
    settings: Mapping[str, Setting]


def session_key(picture: str, desired: DesiredState, model: Diffusion) -> SessionKey:
    """The key of the session that a room wants. Raises `SettingsError`."""
    settings = editor_settings(desired, model).as_dict()
    fixed = {name: value for name, value in settings.items() if name not in LIVE_SETTINGS}
    return SessionKey(picture, desired.prompt, service_setting(desired, "seed"), fixed)
