"""Previews: from a clean latent to a small picture, at several qualities.

* ``full``: the model's own decoder.
* ``tiny``: an ``AutoencoderTiny``, if the model has one or the user names one.
* ``latent``: a linear map from latent to colour, fitted once per model; an eighth of the size, at next to no cost.
"""

from __future__ import annotations

import math
import time

import numpy as np
from PIL import Image
from torch import Tensor

from livedrag.editor.drag.content import SIDE, ContentSearch
from livedrag.editor.drag.decoding import decode_preview
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.steps import DragStep, RenderStep
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.picture import compose
from livedrag.editor.points import distance
from livedrag.editor.settings import Quality

MAX_DECODER_SHARE = 0.2
"""A decoder that takes more than this share of the time between two previews is replaced by ``latent``."""

FULL_SIZE_SHARE = 0.05
"""A decoder that takes more than this share makes smaller previews."""

FULL_SIZE_SECONDS = 0.1
"""Unless it takes no longer than this, which is not noticed."""

MIN_SIDE = 128
"""No decoded preview is made smaller than this to save time, in pixels."""

REMEASURE_EVERY = 16
"""Previews after which a decoder that was too slow is tried again."""


def affordable(
    model: Diffusion, longest_side: int, decode_seconds: float, iteration_seconds: float, every: int
) -> tuple[Quality, int]:
    """The default quality of a preview, and the longest side to decode at, in pixels.

    A decoder at the requested side if its time is not noticed, else at half of it; no decoder if even that takes over
    `MAX_DECODER_SHARE` of the time between two previews.

    Args:
        model: whose decoder it is.
        longest_side: that is requested, in pixels.
        decode_seconds: time of decoding at that side.
        iteration_seconds: time of an iteration.
        every: iterations between two previews.
    """
    decoder: Quality = "full" if model.tiny is None else "tiny"
    between = iteration_seconds * every
    if decode_seconds > max(FULL_SIZE_SHARE * between, FULL_SIZE_SECONDS) and longest_side >= 2 * MIN_SIDE:
        longest_side, decode_seconds = longest_side // 2, decode_seconds / 4
    return ("latent" if decode_seconds > MAX_DECODER_SHARE * between else decoder), longest_side


class Previewer:
    """Makes the previews of one session, as good as possible without slowing down its iterations.

    Args:
        state: of the session.
        search: of the session.
    """

    def __init__(self, state: SessionState, search: ContentSearch) -> None:
        self._state, self._search = state, search
        self._iteration_seconds = math.inf
        self._every = 1
        self._made = 0
        self._decoder_seconds: list[float] = []  # per pixel, of each preview made by a decoder
        self._unedited: dict[type, tuple[tuple[Quality, int, int], Tensor]] = {}
        self._decoded: tuple[Tensor, Quality, int, Tensor] | None = None  # of the latest prediction

    def note_pace(self, iteration_seconds: float, every: int) -> None:
        """Note how long the last iteration took, and how many there are between two previews."""
        self._iteration_seconds, self._every = iteration_seconds, max(1, every)

    def make(self, step: DragStep | RenderStep, longest_side: int, quality: Quality | None) -> Image.Image | None:
        """A small RGB picture of what a step predicts; see `livedrag.editor.drag.session.DragSession.preview`."""
        if step.predicted_x0 is None:
            return None
        state = self._state
        chosen, decoded_side = (quality, longest_side) if quality else self._affordable(longest_side)
        unedited = self._decode_unedited(step, chosen, decoded_side)
        small = state.picture.copy()
        small.thumbnail((longest_side, longest_side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        mask = state.edit.mask
        small_mask = None if mask is None else np.asarray(Image.fromarray(mask).resize(small.size))
        edited = self._decode(step.predicted_x0, chosen, decoded_side)
        preview = compose(small, edited, unedited, small_mask, state.rasters, feather=state.settings.feather)
        self._made += 1
        if isinstance(step, DragStep):
            state.timeline.set_thumbnail(preview)
        return preview

    def content_shown(self, step: DragStep, quality: Quality | None) -> dict[str, float]:
        """By drag: from where a preview of this quality shows its content to the target, in pixels of the picture.

        Empty if the step has no prediction, or the preview needs no decoder or there is no time for it.
        """
        chosen, side = (quality, SIDE) if quality else self._affordable(SIDE)
        if step.predicted_x0 is None or chosen == "latent":
            return {}
        handles = self._state.edit.handles
        found = self._search.find(handles, self._decode(step.predicted_x0, chosen, side)[0].float(), side)
        return {name: distance(place, handles[name].target) for name, place in found.items()}

    def _decode(self, x0: Tensor, quality: Quality, side: int) -> Tensor:
        """Decode a prediction, unless that has been done already, and note the time that it takes."""
        if self._decoded is None or self._decoded[0] is not x0 or self._decoded[1:3] != (quality, side):
            began = time.perf_counter()
            self._decoded = x0, quality, side, decode_preview(self._state.model, x0, quality, side)
            if quality != "latent":
                self._decoder_seconds.append((time.perf_counter() - began) / side**2)
        return self._decoded[3]

    def _affordable(self, longest_side: int) -> tuple[Quality, int]:
        """Quality and decoded side of the next preview, by the decoder's time so far."""
        recent = 0.0  # the first one warms up
        if len(self._decoder_seconds) >= 2 and self._made % REMEASURE_EVERY:
            recent = min(self._decoder_seconds[-2:]) * longest_side**2
        return affordable(self._state.model, longest_side, recent, self._iteration_seconds, self._every)

    def _decode_unedited(self, step: DragStep | RenderStep, quality: Quality, longest_side: int) -> Tensor:
        """What a preview of this kind of step would be without the edit; computed once."""
        key = (quality, longest_side, self._state.descended)
        cached = self._unedited.get(type(step))
        if cached is None or cached[0] != key:
            clean = self._unedited_clean(step)
            cached = self._unedited[type(step)] = key, decode_preview(self._state.model, clean, quality, longest_side)
        return cached[1]

    def _unedited_clean(self, step: DragStep | RenderStep) -> Tensor:
        if isinstance(step, DragStep):
            return self._state.reference.x0()
        assert self._state.denoising is not None
        return self._state.denoising.unedited[-1]
