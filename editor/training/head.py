"""A head for a finished model: features that correspond, while the UNet stays as it is."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.feature_head import FeatureHead, read_blocks, read_channels
from livedrag.editor.training.correspondence import FOUND_HIGH, FOUND_LOW, HIGH, Likeness, match
from livedrag.editor.training.networks import tokens_of
from livedrag.editor.training.noising import NoisyPairs, add_noise
from livedrag.editor.training.pairs import Pairs
from livedrag.editor.training.stage import Stage

FIRST_PAIRS, NEW_PAIRS = 16, 1 / 8
"""Fresh pairs for each one in a batch: before the first step, and before every other."""


class _Read(Exception):
    """Ends a UNet pass where the features are."""


class HeadStage(Stage):
    """Features that correspond, read from a UNet that does not change.

    Args:
        pairs: that are learned from; fresh ones are drawn while it trains.
        model: finished, on the device of the pairs; its own head, if it has one, is trained further.
        batch: latents a step, two of each pair.
        rate: learning rate at its highest, other than the usual one.
    """

    name = "head"
    rate = 1e-3
    orthogonal = False
    warm_up = 50
    cooling = 0.7

    def __init__(
        self, pairs: Pairs, model: Diffusion, *, batch: int = 16, rate: float | None = None, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self.pairs, self._model, self._count, self._seed = pairs, model, batch // 2, seed
        if rate is not None:
            self.rate = rate
        head = FeatureHead(read_channels(model.unet))
        if model.feature_head is not None:
            head.load_state_dict(model.feature_head.state_dict())
        self.modules = nn.ModuleDict({"head": head, "likeness": Likeness()}).to(model.device)
        self.watched = frozenset({FOUND_LOW, FOUND_HIGH})
        self._alphas = torch.tensor(model.alphas_cumprod[:HIGH], device=model.device)
        self._nothing = tokens_of(model.tokenizer, ("",)).to(model.device)
        self._read: list[Tensor] = []
        *others, last = read_blocks(model.unet)
        for block in others:
            block.register_forward_hook(self._keep)
        last.register_forward_hook(self._end)

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        """The correspondence of features."""
        self.pairs.grow(int(self._count * (FIRST_PAIRS + NEW_PAIRS * step)))
        random = np.random.default_rng((self._seed, 5, step))
        pairs = self.pairs.draw(random, self._count)
        noisy = add_noise(pairs, random, self._alphas, self._nothing)
        features = self.modules["head"](self._blocks_of(noisy), noisy.timesteps.repeat(2))
        likeness = self.modules["likeness"]
        assert isinstance(likeness, Likeness)
        return match(likeness, features, pairs, noisy.timesteps, random)

    @torch.no_grad()
    def _blocks_of(self, noisy: NoisyPairs) -> list[Tensor]:
        """What the head is given."""
        text = self._model.text_encoder(noisy.words).last_hidden_state.repeat(2, 1, 1)
        self._read = []
        with contextlib.suppress(_Read):
            self._model.run_unet(noisy.latents, noisy.timesteps.repeat(2), text)
        return self._read

    def _keep(self, _block: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._read.append(output)

    def _end(self, _block: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._read.append(output)
        raise _Read

    def state_dict(self) -> dict[str, Any]:
        """The pairs in memory."""
        return self.pairs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the same pairs."""
        self.pairs.load_state_dict(state)
