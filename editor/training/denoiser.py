"""Second stage: the UNet and the text encoder together, on latents of scenes and their words."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from livedrag.editor.generate import generate
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.loading import Parts
from livedrag.editor.training.autoencoder import STRIDE
from livedrag.editor.training.pictures import SIDE, Collection
from livedrag.editor.training.scenes import COLOURS, Scenes
from livedrag.editor.training.stage import CPU, Stage, tile

WORDS = 3000
"""Size of the tokenizer's vocabulary."""
TEXT_LENGTH = 24
TEXT_WIDTH = 128

DROPPED = 0.12
"""Share of prompts that are left empty, so that guidance has something to compare with."""
SNR_LIMIT = 5.0
"""Min-SNR weighting, arXiv 2303.09556, of one more than the signal-to-noise ratio: where there is nearly nothing but
noise, words decide what becomes of it, and that has to count."""

UNEVEN = 0.5
"""Share of a batch, its least noisy part, whose noise has something smooth added, local light and dark: dragging makes
such changes there, and a model that has only seen white noise takes them for the picture."""
MOST_UNEVEN = 0.5
"""Standard deviation of the smooth part at most, where white noise has one."""
KNOTS = (3, 9)
"""Knots along a side of the smooth part, at least and below."""

FIRST_LATENTS = 8192
NEW_LATENTS = 1 / 16
"""New scenes for each one that is trained on: encoding one takes as long as training on one."""
MOST_LATENTS = 131_072
TOGETHER = 16
"""Scenes that are encoded at once."""
AHEAD = 8
"""How many such groups each worker draws before they are asked for."""

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


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with version 2's prediction: a network this small cannot tell a picture from
    the noise around it by predicting noise, since the error of one is that of the other times up to fifteen."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def new_unet() -> UNet2DConditionModel:
    """Of Stable Diffusion's family, three levels: its penultimate up block ends at the latent's size."""
    return UNet2DConditionModel(
        sample_size=SIDE // STRIDE,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(48, 96, 256),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text model, small."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_tokenizer(pictures: Collection) -> CLIPTokenizer:
    """Byte pairs of the captions that are trained on."""
    captions = sorted({name for emoji in pictures.emojis for name in (emoji.caption, *emoji.aliases)})
    ground = [f"a thing on a {colour} background and an" for colour in COLOURS]
    return CLIPTokenizer(model_max_length=TEXT_LENGTH).train_new_from_iterator(captions + ground * 20, WORDS)


class Latents:
    """Scenes as the autoencoder sees them, one after the other, each drawn by its number; kept in a file.

    Args:
        pictures: to make scenes of.
        vae: the finished autoencoder.
        scale: what its latents are multiplied by.
        file: where they are kept, so that going on does not encode them again.
        workers: processes that draw scenes ahead; none draws them when they are asked for.
    """

    def __init__(
        self, pictures: Collection, vae: Any, scale: float, file: Path, *, seed: int, workers: int = 0
    ) -> None:
        self._scenes, self._workers = Scenes(pictures, seed, MOST_LATENTS), workers
        self._drawn: Iterator[tuple[Tensor, Sequence[str]]] | None = None
        self.vae, self.scale = vae, scale
        self._file, self._words = file, file.with_suffix(".txt")
        shape = (4, SIDE // STRIDE, SIDE // STRIDE)
        captions = self._words.read_text().splitlines() if self._words.is_file() else []
        kept = np.fromfile(file, np.float16) if file.is_file() else np.empty(0, np.float16)
        whole = min(len(captions), kept.size // math.prod(shape)) // TOGETHER * TOGETHER
        self.captions = captions[:whole]
        kept = kept[: whole * math.prod(shape)]
        self._kept = torch.empty(MOST_LATENTS, *shape, dtype=torch.float16, device=vae.device)
        self._kept[:whole] = torch.from_numpy(kept.reshape(-1, *shape))
        kept.tofile(file)
        self._words.write_text("".join(f"{caption}\n" for caption in self.captions))
        self._written = whole

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, indices: NDArray[np.int64]) -> Tensor:
        """Latents ``(N, 4, 32, 32)``."""
        chosen: Tensor = self._kept[send(torch.from_numpy(indices), self._kept.device)]
        return chosen.float()

    @torch.no_grad()
    def grow(self, count: int) -> None:
        """Draw and encode scenes, `TOGETHER` at a time, until there are so many or more."""
        while len(self) < min(count, MOST_LATENTS):
            pixels, captions = next(self._ahead())
            encoded = self.vae.encode(send(pixels, self._kept.device)).latent * self.scale
            self._kept[len(self) : len(self) + TOGETHER] = encoded
            self.captions += captions
        if len(self) - self._written >= self._seldom:
            self._write()

    def _ahead(self) -> Iterator[tuple[Tensor, Sequence[str]]]:
        """Scenes from the first that is not there yet."""
        if self._drawn is None:
            self._drawn = iter(
                DataLoader(
                    self._scenes,
                    TOGETHER,
                    sampler=range(len(self), MOST_LATENTS),
                    num_workers=self._workers,
                    prefetch_factor=AHEAD if self._workers else None,
                    pin_memory=self._kept.is_cuda,
                )
            )
        return self._drawn

    @property
    def _seldom(self) -> int:
        """How many may be lost by a crash: taking them from a device makes it wait."""
        return TOGETHER if self._kept.device == CPU else 256 * TOGETHER

    def _write(self) -> None:
        with self._file.open("ab") as file, self._words.open("a") as words:
            self._kept[self._written : len(self)].cpu().numpy().tofile(file)
            words.writelines(f"{caption}\n" for caption in self.captions[self._written :])
        self._written = len(self)


class DenoiserStage(Stage):
    """The velocity (arXiv 2202.00512) of noisy latents predicted from them and words.

    Args:
        latents: that are learned; they grow while it trains.
        tokenizer: of the words.
        device: to train on, where the latents are; in bfloat16 on CUDA devices that compute in it.
        batch: latents a step.
    """

    name = "denoiser"
    rate = 2e-3
    cooling = 0.7

    def __init__(
        self,
        latents: Latents,
        tokenizer: CLIPTokenizer,
        *,
        device: torch.device = CPU,
        batch: int = 16,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.latents, self._tokenizer, self._batch, self._seed = latents, tokenizer, batch, seed
        self._device = device
        self._half = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        self._known: dict[str, list[int]] = {}
        self._alphas = new_scheduler().alphas_cumprod.to(device)
        unet = new_unet().to(memory_format=torch.channels_last)
        self.modules = nn.ModuleDict({"unet": unet, "text_encoder": new_text_encoder(tokenizer)}).to(device)

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        """Min-SNR weighted squared error of the predicted velocity on one batch."""
        available = min(FIRST_LATENTS + int(NEW_LATENTS * self._batch * step), MOST_LATENTS)
        self.latents.grow(available)
        random = np.random.default_rng((self._seed, 3, step))
        indices = random.integers(0, available, self._batch)
        clean = self.latents[indices].contiguous(memory_format=torch.channels_last)
        captions = ["" if random.random() < DROPPED else self.latents.captions[index] for index in indices]
        noise = draw_noise(random, self._batch, self._device)
        spread = (np.arange(self._batch) + random.random(self._batch)) / self._batch  # rising, so that losses vary less
        timesteps = send(torch.from_numpy((spread * len(self._alphas)).astype(np.int64)), self._device)
        alpha = self._alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        words = torch.tensor([self._tokens(caption) for caption in captions])
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            text = self.modules["text_encoder"](send(words, self._device)).last_hidden_state
            predicted = self.modules["unet"](noisy, timesteps, text, return_dict=False)[0].float()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        errors = (predicted - velocity).square().flatten(1).mean(1)
        weights = (SNR_LIMIT * (1 - alpha.flatten())).clamp(max=1)  # one more than the ratio is 1 / (1 - alpha)
        return {"velocity": (errors * weights).mean()}

    def _tokens(self, caption: str) -> list[int]:
        if caption not in self._known:
            padded = self._tokenizer(caption, padding="max_length", max_length=TEXT_LENGTH, truncation=True)
            self._known[caption] = padded.input_ids
        return self._known[caption]

    def sheet(self, averaged: nn.ModuleDict) -> Image.Image:
        """What it makes of `PROMPTS`."""
        model = assemble(self.latents.vae, self.latents.scale, averaged, self._tokenizer)
        return draw_prompts(model, PROMPTS)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's on a device, whose queued work is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def draw_noise(random: np.random.Generator, count: int, device: torch.device = CPU) -> Tensor:
    """White noise ``(count, 4, 32, 32)``, the first of it with a smooth part added."""
    generator = torch.Generator(device).manual_seed(int(random.integers(2**63)))
    side, uneven = SIDE // STRIDE, round(UNEVEN * count)
    noise = torch.randn(count, 4, side, side, generator=generator, device=device)
    knots = torch.randn(uneven, 4, *random.integers(*KNOTS, 2).tolist(), generator=generator, device=device)
    amounts = MOST_UNEVEN * torch.rand(uneven, 1, 1, 1, generator=generator, device=device)
    noise[:uneven] += amounts * interpolate(knots, (side, side), mode="bicubic")
    return noise


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
