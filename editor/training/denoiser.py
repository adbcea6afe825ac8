"""Second stage: the UNet and the text encoder together, on latents of scenes and their words."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTokenizer

from livedrag.editor.generate import generate
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.loading import Parts
from livedrag.editor.training.correspondence import (
    CORRESPONDENCE,
    FOUND_HIGH,
    FOUND_LOW,
    FeatureUNet,
    Likeness,
    match,
)
from livedrag.editor.training.networks import new_modules, new_scheduler, tokens_of
from livedrag.editor.training.noising import NoisyPairs, add_noise
from livedrag.editor.training.pairs import PairBatch, Pairs
from livedrag.editor.training.stage import Stage, tile

SNR_LIMIT = 5.0
"""Min-SNR weighting, arXiv 2303.09556, of one more than the signal-to-noise ratio: where there is nearly nothing but
noise, words decide what becomes of it, and that has to count."""

FURTHER_RATE, FURTHER_WARM_UP = 3e-4, 20
"""Of training finished weights further, by AdamW: in few steps it gets further than Muon, and each costs less."""

FIRST_PAIRS, NEW_PAIRS = 16, 1 / 4
"""Fresh pairs for each one in a batch: before the first step, and before every other. Encoding a scene takes a third of
the time of training on it."""
TEACHER_WEIGHT, TEACHER_ERROR = 3.0, 0.02
"""Weight of how far a prediction is from the teacher's, in shares of the teacher's own squared error, and the least
that this counts as. A share of r makes the network's error grow by about r of itself."""
MATCHING = 0.2
"""Weight of the correspondence of features."""
VELOCITY = "velocity"
PROMPTS = (
    "a teddy bear",
    "a red apple",
    "a cat face",
    "a green cactus",
    "a rocket on a blue background",
    "a yellow car",
    "a house with garden",
    "a pink heart",
    "a dog face on a white background",
    "a pizza",
    "a sunflower",
    "a penguin on a blue background",
    "a wrapped gift",
    "a smiling face",
    "a strawberry and a banana",
    "a tree",
    "a fish",
    "a guitar",
    "a crown",
    "a robot",
    "a cup with straw on a pink background",
    "a dragon",
    "an umbrella",
    "a blue bird",
)
"""What sample sheets show."""


class DenoiserStage(Stage):
    """The velocity (arXiv 2202.00512) of noisy latents predicted from them and words, with features that correspond.

    Args:
        pairs: that are learned; fresh ones are drawn while it trains.
        tokenizer: of the words.
        batch: latents a step, two of each pair.
        further: whether finished weights are trained further.
        rate: learning rate at its highest, other than the usual one.
        compiled: whether torch compiles the UNet.
        teacher: finished UNet and text encoder whose predictions are learned instead of the data's velocity (learning
            without forgetting, arXiv 1606.09282): they have no noise, so that batches may be small.
    """

    name = "denoiser"
    rate = 2e-3
    cooling = 0.7

    def __init__(
        self,
        pairs: Pairs,
        tokenizer: CLIPTokenizer,
        *,
        batch: int = 16,
        further: bool = False,
        rate: float | None = None,
        seed: int = 0,
        compiled: bool = False,
        teacher: nn.ModuleDict | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.pairs, self._tokenizer, self._count, self._seed = pairs, tokenizer, batch // 2, seed
        if further:
            self.rate, self.warm_up, self.orthogonal = FURTHER_RATE, FURTHER_WARM_UP, False
        if rate is not None:
            self.rate = rate
        self._device: torch.device = pairs.vae.device
        self._half = computes_in_bfloat16(self._device)
        self._alphas = new_scheduler().alphas_cumprod.to(self._device)
        self._nothing = tokens_of(tokenizer, ("",)).to(self._device)
        self.modules = new_modules(tokenizer).to(self._device)
        self._memory_format = torch.channels_last if self._device.type == "cuda" else torch.contiguous_format
        unet: Any = self.modules["unet"]
        unet.to(memory_format=self._memory_format)
        self.watched = frozenset({FOUND_LOW, FOUND_HIGH, *([] if teacher is None else [VELOCITY])})
        self._compiled = compiled
        self._teacher = teacher
        self._network: Callable[..., tuple[Tensor, Tensor]] | None = None

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        """Min-SNR weighted squared error of the predicted velocity, and the correspondence of features."""
        self.pairs.grow(int(self._count * (FIRST_PAIRS + NEW_PAIRS * step)))
        random = np.random.default_rng((self._seed, 3, step))
        pairs = self.pairs.draw(random, self._count)
        noisy = add_noise(pairs, random, self._alphas, self._nothing)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            text = self.modules["text_encoder"](noisy.words).last_hidden_state
            predicted, features = self._run(noisy.latents, noisy.timesteps.repeat(2), text.repeat(2, 1, 1))
        errors = squared_errors(predicted, noisy.velocity)
        weights = (SNR_LIMIT * (1 - noisy.alpha)).clamp(max=1)  # one more than the ratio is 1 / (1 - alpha)
        taught = {} if self._teacher is None else self._learn_from(self._teacher, noisy, predicted)
        return {
            VELOCITY: (errors * weights.repeat(2)).mean(),
            **taught,
            **self._match(features.float(), pairs, noisy.timesteps, random),
        }

    @torch.no_grad()
    def _ask(self, teacher: nn.ModuleDict, noisy: NoisyPairs) -> Tensor:
        """The teacher's predictions."""
        text = teacher["text_encoder"](noisy.words).last_hidden_state.repeat(2, 1, 1)
        predicted: Tensor = teacher["unet"](noisy.latents, noisy.timesteps.repeat(2), text, return_dict=False)[0]
        return predicted.float()

    def _learn_from(self, teacher: nn.ModuleDict, noisy: NoisyPairs, predicted: Tensor) -> dict[str, Tensor]:
        """The weighted distance from the teacher's predictions, in shares of the teacher's error."""
        right = self._ask(teacher, noisy)
        own = squared_errors(right, noisy.velocity).clamp(min=TEACHER_ERROR)
        return {"teacher": TEACHER_WEIGHT * (squared_errors(predicted, right) / own).mean()}

    def _match(
        self, features: Tensor, pairs: PairBatch, timesteps: Tensor, random: np.random.Generator
    ) -> dict[str, Tensor]:
        """The weighted loss of correspondence, and the shares of places that are found."""
        likeness = self.modules["likeness"]
        assert isinstance(likeness, Likeness)
        found = match(likeness, features, pairs, timesteps, random)
        return {**found, CORRESPONDENCE: MATCHING * found[CORRESPONDENCE]}

    def _run(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction and features; what runs is made here, since a moving average is a copy of the plain modules."""
        if self._network is None:
            network = FeatureUNet(self.modules["unet"])
            self._network = torch.compile(network) if self._compiled else network
        return self._network(noisy.contiguous(memory_format=self._memory_format), timesteps, text)

    def state_dict(self) -> dict[str, Any]:
        """The pairs in memory."""
        return self.pairs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the same pairs."""
        self.pairs.load_state_dict(state)

    def sheet(self, averaged: nn.ModuleDict) -> Image.Image:
        """What it makes of `PROMPTS`."""
        model = assemble(self.pairs.vae, self.pairs.scale, averaged, self._tokenizer)
        return draw_prompts(model, PROMPTS)


def squared_errors(predicted: Tensor, right: Tensor) -> Tensor:
    """Of each row, ``(B,)``."""
    return (predicted.float() - right).square().flatten(1).mean(1)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether matrices are multiplied in bfloat16 there by units of their own."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9 or newer tells
    return device.type == "cpu" and bool(capabilities.get("amx_bf16"))


def assemble(vae: Any, scale: float, modules: nn.ModuleDict, tokenizer: CLIPTokenizer) -> Diffusion:
    """The finished model out of copies of its parts."""
    vae, unet, text_encoder = (copy.deepcopy(part) for part in (vae, modules["unet"], modules["text_encoder"]))
    vae.register_to_config(scaling_factor=scale, _name_or_path="")  # not where it lay
    return Diffusion(
        Parts(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=new_scheduler()),
        name="livedrag's built-in model",
        kind="builtin",
        defaults={},
        device=next(unet.parameters()).device,
        dtype=torch.float32,
    )


def draw_prompts(model: Diffusion, prompts: Sequence[str], *, columns: int = 8) -> Image.Image:
    """A picture for each prompt, seed 0, on one sheet."""
    pictures = []
    for prompt in prompts:
        *_, last = generate(model, prompt)
        pictures.append(model.decode(last.latent))
    return tile(torch.cat(pictures), columns)
