"""Clean latent to small picture, at several qualities.

* ``full``: the model's own decoder.
* ``tiny``: an `AutoencoderTiny`, where the model has one or the user names one.
* ``latent``: a linear map from latent to colour, fitted once per model; an eighth of the size, at next to no cost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.picture import compose

Quality = Literal["latent", "tiny", "full"]

DECODER_SHARE = 0.2
"""A decoder that takes more than this share of the time between two previews gives way to ``latent``."""

UNNOTICED_SHARE = 0.05
"""A decoder that takes more than this share makes smaller previews."""

UNNOTICED_SECONDS = 0.1
"""Unless it is done within this time anyway: people do not notice."""

LEAST_SIDE = 128
"""No decoded preview is made smaller than this for the sake of speed, in pixels."""

MEASURE_AGAIN = 16
"""Every how many previews the decoder is tried again where it had been too slow."""


def decode_preview(model: Diffusion, latent: Tensor, quality: Quality, longest_side: int) -> Tensor:
    """Clean latent to the pixels of a preview.

    A latent of at least twice the wanted size is averaged down first, which costs a fraction and shows the same.

    Args:
        model: whose latent it is.
        latent: ``(1, 4, H/8, W/8)``.
        quality: see the top of this file.
        longest_side: that the picture should have at least, in pixels.

    Returns:
        ``(1, 3, h, w)``, about [-1, 1]; ``latent`` gives one pixel for each of the latent.

    Raises:
        SettingsError: ``tiny`` where there is no tiny autoencoder.
    """
    if quality == "latent":
        weights, constant = model.latent_colours[:-1], model.latent_colours[-1]
        return torch.einsum("bchw,cd->bdhw", latent, weights) + constant[:, None, None]
    factor = max(1, max(latent.shape[-2:]) * model.latent_stride // longest_side)
    small = nn.functional.avg_pool2d(latent, factor, ceil_mode=True) if factor > 1 else latent
    return model.decode(small) if quality == "full" else model.decode_tiny(small)


def affordable(
    model: Diffusion, longest_side: int, decode_seconds: float, iteration_seconds: float, every: int
) -> tuple[Quality, int]:
    """The quality to show by default, and the longest side to decode at.

    A decoder at the wanted side where nobody notices what it takes, else at half of it; no decoder where even that
    takes over `DECODER_SHARE` of the time between two previews.

    Args:
        model: that is to decode.
        longest_side: that is wanted, in pixels.
        decode_seconds: what decoding at that side takes.
        iteration_seconds: what an iteration takes.
        every: iterations between two previews.
    """
    decoder: Quality = "full" if model.tiny is None else "tiny"
    between = iteration_seconds * every
    if decode_seconds > max(UNNOTICED_SHARE * between, UNNOTICED_SECONDS) and longest_side >= 2 * LEAST_SIDE:
        longest_side, decode_seconds = longest_side // 2, decode_seconds / 4
    return ("latent" if decode_seconds > DECODER_SHARE * between else decoder), longest_side


class Previewer:
    """Makes the previews of one session, as good as they may be without holding its iterations up.

    Args:
        model: that decodes.
        picture: that is edited, RGB.

    Attributes:
        iteration_seconds: of the last iteration; with the decoder's, what is worth showing.
        every: iterations between two previews.
    """

    def __init__(self, model: Diffusion, picture: Image.Image) -> None:
        self._model, self._picture = model, picture
        self.iteration_seconds = math.inf
        self.every = 1
        self._made = 0
        self._decoder_seconds: list[float] = []  # a pixel, of each preview that a decoder made
        self._unedited: dict[str, tuple[tuple[Quality, int], Tensor]] = {}

    def make(
        self,
        stage: str,
        clean: Tensor,
        unedited: Callable[[], Tensor],
        mask: NDArray[np.bool_] | None,
        longest_side: int,
        quality: Quality | None = None,
    ) -> Image.Image:
        """A small RGB picture of a clean latent.

        Args:
            stage: name of that in which the latent was predicted.
            clean: ``(1, 4, H/8, W/8)``.
            unedited: gives what it would be without the edit, same shape; asked once a stage.
            mask: ``(H, W)`` of the picture's size, True may change; None: everything may.
            longest_side: of the preview, in pixels.
            quality: see the top of this file; by default as good as is affordable.
        """
        chosen, decoded_side = (quality, longest_side) if quality else self._affordable(longest_side)
        without = self._decoded_unedited(stage, unedited, chosen, decoded_side)
        small = self._picture.copy()
        small.thumbnail((longest_side, longest_side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        small_mask = None if mask is None else np.asarray(Image.fromarray(mask).resize(small.size))
        began = time.perf_counter()
        preview = compose(small, decode_preview(self._model, clean, chosen, decoded_side), without, small_mask)
        if chosen != "latent":
            self._decoder_seconds.append((time.perf_counter() - began) / decoded_side**2)
        return preview

    def _affordable(self, longest_side: int) -> tuple[Quality, int]:
        """The quality of the next preview and the side to decode it at, by what decoding has taken so far."""
        self._made += 1
        recent = 0.0  # the first one warms up
        if len(self._decoder_seconds) >= 2 and self._made % MEASURE_AGAIN:
            recent = min(self._decoder_seconds[-2:]) * longest_side**2
        return affordable(self._model, longest_side, recent, self.iteration_seconds, max(1, self.every))

    def _decoded_unedited(
        self, stage: str, unedited: Callable[[], Tensor], quality: Quality, longest_side: int
    ) -> Tensor:
        """What a preview of the stage would be without the edit."""
        wanted = (quality, longest_side)
        kept = self._unedited.get(stage)
        if kept is None or kept[0] != wanted:
            kept = self._unedited[stage] = wanted, decode_preview(self._model, unedited(), quality, longest_side)
        return kept[1]
