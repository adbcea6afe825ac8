"""Previews: from a clean latent to a small picture, at several qualities.

* ``full``: the model's own decoder.
* ``tiny``: an ``AutoencoderTiny``, if the model has one or the user names one.
* ``latent``: a linear map from latent to colour, fitted once per model; an eighth of the size, at next to no cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from livedrag.editor.drag.content import SIDE, ContentSearch
from livedrag.editor.drag.decoding import decode_preview
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.steps import DragStep, RenderStep
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.side_stream import Fetched, SideStream, side_stream
from livedrag.editor.picture import compose
from livedrag.editor.points import Rasters, distance
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


@dataclass(frozen=True, eq=False)
class PendingPreview:
    """A preview whose pixels may still be on their way from the device.

    Args:
        picture: as uploaded.
        longest_side: of the preview, in pixels.
        edited, unedited: what the prediction shows, and what it would show without the edit, ``(1, 3, h, w)``.
        mask: ``(H, W)`` of the picture, True may change; None means everything may.
        rasters: of the picture.
        feather: how softly the mask ends, in pixels of the working picture.
        beside: whether the device goes on meanwhile.
    """

    picture: Image.Image
    longest_side: int
    edited: Fetched
    unedited: Fetched
    mask: NDArray[np.bool_] | None
    rasters: Rasters
    feather: float
    beside: bool

    def make(self) -> Image.Image:
        """The preview, RGB, once its pixels are there; may be called in any thread."""
        small = self.picture.copy()
        small.thumbnail((self.longest_side, self.longest_side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        small_mask = None if self.mask is None else np.asarray(Image.fromarray(self.mask).resize(small.size))
        edited, unedited = self.edited.wait(), self.unedited.wait()
        return compose(small, edited, unedited, small_mask, self.rasters, feather=self.feather)


class Previewer:
    """Makes the previews of one session, as good as possible without slowing down its iterations.

    Where the device has streams, predictions are decoded beside the iterations.

    Args:
        state: of the session.
        search: of the session.
        side: where predictions are decoded; by default that of the model.
    """

    def __init__(self, state: SessionState, search: ContentSearch, side: SideStream | None = None) -> None:
        self._state, self._search = state, search
        self._side_stream = side or side_stream(state.model)
        self._iteration_seconds = math.inf
        self._every = 1
        self._made = 0
        self._timed: list[tuple[Fetched, int]] = []  # what a decoder makes, and the side it is decoded for
        self._decoder_seconds: list[float] = []  # per pixel, of each preview made by a decoder
        self._unedited: dict[type, tuple[tuple[Quality, int, int], Fetched]] = {}
        self._decoded: tuple[Tensor, Quality, int, Fetched] | None = None  # of the latest prediction
        self._searched: tuple[Fetched, int] | None = None  # in which content has not been searched yet

    def forget(self) -> None:
        """Search no content in what earlier steps predicted."""
        self._searched = None

    def note_pace(self, iteration_seconds: float, every: int) -> None:
        """Note how long the last iteration took, and how many there are between two previews."""
        self._iteration_seconds, self._every = iteration_seconds, max(1, every)

    def make(self, step: DragStep | RenderStep, longest_side: int, quality: Quality | None) -> Image.Image | None:
        """A small picture of what a step predicts; that of an iteration becomes its moment's thumbnail.

        See `livedrag.editor.drag.session.DragSession.preview`.
        """
        pending = self.begin(step, longest_side, quality)
        if pending is None:
            return None
        preview = pending.make()
        if isinstance(step, DragStep):
            self._state.timeline.set_thumbnail(preview)
        return preview

    def begin(self, step: DragStep | RenderStep, longest_side: int, quality: Quality | None) -> PendingPreview | None:
        """A small picture of what a step predicts; None if the step has no prediction. No moment gets a thumbnail."""
        if step.predicted_x0 is None:
            return None
        state = self._state
        chosen, decoded_side = (quality, longest_side) if quality else self._affordable(longest_side)
        unedited = self._decode_unedited(step, chosen, decoded_side)
        edited = self._decode(step.predicted_x0, chosen, decoded_side)
        self._made += 1
        return PendingPreview(
            picture=state.picture,
            longest_side=longest_side,
            edited=edited,
            unedited=unedited,
            mask=state.edit.mask,
            rasters=state.rasters,
            feather=state.settings.feather,
            beside=self._side_stream.beside,
        )

    def content_shown(self, step: DragStep, quality: Quality | None) -> dict[str, float]:
        """By drag: from where a prediction shows its content to the target, in pixels of the picture.

        It is the step's own prediction, or where that is decoded beside the iterations, the latest one that has been.
        Empty if there is none, or its preview needs no decoder or there is no time for it.

        Args:
            step: the latest one.
            quality: of its preview.
        """
        if step.predicted_x0 is not None:
            chosen, side = (quality, SIDE) if quality else self._affordable(SIDE)
            if chosen != "latent":
                self._searched = self._decode(step.predicted_x0, chosen, side), side
        if self._searched is None or not self._searched[0].done:
            return {}
        (fetched, side), self._searched = self._searched, None
        handles = self._state.edit.handles
        found = self._search.find(handles, fetched.on_device()[0].float(), side)
        return {name: distance(place, handles[name].target) for name, place in found.items()}

    def _decode(self, x0: Tensor, quality: Quality, side: int) -> Fetched:
        """Decode a prediction, unless that has been done already, and note the time that it takes."""
        if self._decoded is None or self._decoded[0] is not x0 or self._decoded[1:3] != (quality, side):
            self._decoded = x0, quality, side, self._fetch(x0, quality, side)
            if quality != "latent":
                self._timed.append((self._decoded[3], side))
                self._note_times()
        return self._decoded[3]

    def _fetch(self, x0: Tensor, quality: Quality, side: int) -> Fetched:
        model = self._state.model
        reads = [x0, model.latent_colours] if quality == "latent" else [x0]
        return self._side_stream.fetch(lambda: decode_preview(model, x0, quality, side), reads)

    def _note_times(self) -> None:
        while self._timed and (seconds := self._timed[0][0].seconds) is not None:
            self._decoder_seconds.append(seconds / self._timed.pop(0)[1] ** 2)

    def _affordable(self, longest_side: int) -> tuple[Quality, int]:
        """Quality and decoded side of the next preview, by the decoder's time so far."""
        self._note_times()
        recent = 0.0  # the first one warms up
        if len(self._decoder_seconds) >= 2 and self._made % REMEASURE_EVERY:
            recent = min(self._decoder_seconds[-2:]) * longest_side**2
        return affordable(self._state.model, longest_side, recent, self._iteration_seconds, self._every)

    def _decode_unedited(self, step: DragStep | RenderStep, quality: Quality, longest_side: int) -> Fetched:
        """What a preview of this kind of step would be without the edit; computed once."""
        key = (quality, longest_side, self._state.descended)
        cached = self._unedited.get(type(step))
        if cached is None or cached[0] != key:
            fetched = self._fetch(self._unedited_clean(step), quality, longest_side)
            cached = self._unedited[type(step)] = key, fetched
        return cached[1]

    def _unedited_clean(self, step: DragStep | RenderStep) -> Tensor:
        if isinstance(step, DragStep):
            return self._state.reference.x0()
        assert self._state.denoising is not None
        return self._state.denoising.unedited[-1]
