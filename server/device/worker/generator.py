"""PictureGenerator: pictures from prompts, and whether a room's picture is one that the model still generates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from livedrag.editor import Diffusion
from livedrag.editor.drag.decoding import decode_preview
from livedrag.editor.generate import GenerationStep, generate
from livedrag.editor.picture import to_picture
from livedrag.editor.settings import Quality
from livedrag.server.device.messages import DesiredState
from livedrag.server.device.worker.room_settings import RoomSettings
from livedrag.server.document.protocol import Generation

MAX_DIFFERENCE = 2.0
"""Mean difference, of 255, up to which a picture that was generated again is the stored one.

Another processor, or another number of threads, rounds differently; other weights generate another picture.
"""


class PictureGenerator:
    """Generates pictures with the device's model.

    Args:
        quality: of previews; by default that of the tiny decoder, or of the full one where the model has no tiny one.
    """

    def __init__(self, model: Diffusion, settings: RoomSettings, quality: Quality | None) -> None:
        self._model, self._settings = model, settings
        self._quality: Quality = quality or ("full" if model.tiny is None else "tiny")

    def steps(self, generation: Generation) -> Iterator[GenerationStep]:
        """The steps of generating a picture."""
        return generate(
            self._model,
            generation.prompt,
            seed=generation.seed,
            guidance=generation.guidance,
            ddim_steps=generation.ddim_steps,
        )

    def picture(self, step: GenerationStep) -> Image.Image:
        """The generated picture, after the last step."""
        return to_picture(self._model.decode(step.latent))

    def preview(self, step: GenerationStep, side: int) -> Image.Image:
        """What a step predicts; decoded previews have at least ``side`` pixels a side."""
        return to_picture(decode_preview(self._model, step.predicted_x0, self._quality, side))

    def matches(self, desired: DesiredState) -> bool:
        """Whether this room's session could start from the latents of generating its picture. Raises `EditorError`."""
        generation = desired.generation
        return (
            generation is not None
            and (generation.model, generation.prompt) == (self._model.name, desired.prompt)
            and generation.ddim_steps == self._settings.editor(desired).ddim_steps
        )


def look_alike(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures differ by rounding only."""
    if one.size != other.size:
        return False
    difference = np.asarray(one.convert("RGB"), np.int16) - np.asarray(other.convert("RGB"), np.int16)
    return float(np.abs(difference).mean()) <= MAX_DIFFERENCE
