"""Rendering: the way down from the level of dragging to a clean latent, for the unedited latent and for edited ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from editor.attention import Seen, controlled, recording
from editor.ddim import Guidance, denoising_step
from editor.lora import Lora
from editor.model import Diffusion, Level

REFERENCE_BUDGET = 2 * 2**30
"""Bytes of the unedited picture's attention inputs kept by a session; the rest is computed again at each render."""


class Descent:
    """The unedited latent's way down, the same for every edit of a picture and kept, and edited latents' beside it.

    Args:
        model: of the session.
        lora: the picture's, fitted.
        prompt: text embedding, ``(1, L, D)``.
        levels: those inverted, noisiest first.
        inverted: the unedited latent at the first of them, ``(1, 4, H/8, W/8)``.
        guidance: that the picture was made with, if it was drawn by the model.
        control: whether edited latents attend to the unedited one.

    Attributes:
        unedited: the unedited latent below each level that it has come down, noisiest first.
    """

    def __init__(
        self,
        model: Diffusion,
        lora: Lora,
        prompt: Tensor,
        levels: Sequence[Level],
        inverted: Tensor,
        *,
        guidance: Guidance | None,
        control: bool,
    ) -> None:
        self._model, self._lora, self._prompt = model, lora, prompt
        self._levels, self._inverted = levels, inverted
        self._guidance, self._control = guidance, control
        self.unedited: list[Tensor] = []
        self._reference: dict[int, Seen] = {}  # what attention saw of the unedited latent, by the level's index

    @property
    def nbytes(self) -> int:
        """Bytes of what attention saw that are kept."""
        return sum(tensor.nbytes for seen in self._reference.values() for tensor in seen.values())

    def step_unedited(self) -> Tensor:
        """The unedited latent one level further down, ``(1, 4, H/8, W/8)``; the caller keeps it on `unedited`."""
        index = len(self.unedited)
        with self._lora.active(), recording(self._model.unet) as seen:
            below, _ = self._step(self._before(index), index)
        self._keep(index, seen)
        return below

    def step(self, latent: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """An edited latent below the level of this index (0: the noisiest), and the clean one predicted there.

        The unedited latent must have come down already. Both are ``(1, 4, H/8, W/8)``.
        """
        with self._lora.active():
            if not self._control:
                return self._step(latent, index)
            with controlled(self._model.unet, self._reference_at(index)):
                return self._step(latent, index)

    def _step(self, latent: Tensor, index: int) -> tuple[Tensor, Tensor]:
        return denoising_step(self._model, latent, self._prompt, self._levels[index], self._guidance)

    def _before(self, index: int) -> Tensor:
        return self.unedited[index - 1] if index else self._inverted

    def _reference_at(self, index: int) -> Seen:
        if index in self._reference:
            return self._reference[index]
        with recording(self._model.unet) as seen:
            self._step(self._before(index), index)
        self._keep(index, seen)
        return seen

    def _keep(self, index: int, seen: Seen) -> None:
        self._reference.pop(index, None)  # of a step whose numbers were not finite
        if self._control and self.nbytes + sum(tensor.nbytes for tensor in seen.values()) <= REFERENCE_BUDGET:
            self._reference[index] = seen
