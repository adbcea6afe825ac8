"""The models that are measured: the built-in one, Stable Diffusion 1.5's exact shape, and a tiny one."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from livedrag.editor import Diffusion, DragSettings
from livedrag.editor.fitting.lora import Lora
from livedrag.editor.models.loading import Parts
from livedrag.editor.models.references import BUILTIN as BUILTIN_FOLDER
from tests.pipelines import write_pipeline

TEXT_LENGTH = 77


@dataclass(frozen=True)
class Bench:
    """How much is measured on which model.

    Args:
        name: ``builtin``, ``full`` or ``tiny``.
        rounds: how often the cases take turns.
        visit: iterations of the reference and of the bare pass at a turn.
        ours: iterations of the product at a turn; the first of four comes with a preview.
        warm_up: whether a round goes before those that count.
        ddim_steps: of the schedule that is rendered.
        lora_batch: rows a step of fitting; 0 for the model's own default.
    """

    name: str
    rounds: int
    visit: int
    ours: int
    warm_up: bool
    ddim_steps: int
    lora_batch: int


BENCHES = {
    "builtin": Bench("builtin", rounds=8, visit=2, ours=4, warm_up=True, ddim_steps=10, lora_batch=0),
    # An iteration of the reference takes half a minute here, and four rows of fitting more than 12 GiB.
    "full": Bench("full", rounds=3, visit=1, ours=2, warm_up=True, ddim_steps=2, lora_batch=1),
    "tiny": Bench("tiny", rounds=1, visit=2, ours=4, warm_up=False, ddim_steps=4, lora_batch=1),
}


def build(bench: Bench) -> Diffusion:
    """The model to measure, on the best device there is."""
    if bench.name == "builtin":
        return Diffusion.load("builtin")
    if bench.name == "tiny":
        with tempfile.TemporaryDirectory() as folder:
            return Diffusion.load(str(write_pipeline(Path(folder) / "model")))
    return stable_diffusion()


def stable_diffusion() -> Diffusion:
    """A model of Stable Diffusion 1.5's exact shape with random weights, 512 x 512.

    The text encoder is a stand-in of one layer: a prompt is embedded once, outside of everything that is measured.
    """
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32
    if device.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    torch.manual_seed(0)
    with device:  # drawing a billion weights takes a CPU a quarter of a minute
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            attention_head_dim=8,
            cross_attention_dim=768,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
    text = CLIPTextConfig(
        vocab_size=1800,
        hidden_size=768,
        intermediate_size=768,
        num_hidden_layers=1,
        num_attention_heads=12,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return Diffusion(
        Parts(
            unet=unet.type(dtype),  # `to` with a type makes diffusers warn of nothing
            vae=vae.type(dtype),
            text_encoder=CLIPTextModel(text).to(dtype),
            tokenizer=CLIPTokenizer.from_pretrained(BUILTIN_FOLDER / "tokenizer", model_max_length=TEXT_LENGTH),
            scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1),
        ),
        name="Stable Diffusion 1.5's shape, random weights",
        kind="stable-diffusion",
        defaults={},
        device=device,
        dtype=dtype,
    )


def new_lora(model: Diffusion) -> Lora:
    """A LoRA like those of the product's sessions, not fitted: what it costs in a pass does not depend on that."""
    settings = settings_for(model)
    return Lora(
        model,
        rank=settings.lora_rank,
        targets=tuple(settings.lora_targets.split()),
        learning_rate=settings.lora_lr,
        generator=torch.Generator().manual_seed(0),
    )


def settings_for(model: Diffusion, **overrides: Any) -> DragSettings:
    """The model's defaults, but for what is given; nothing is warped, since that is no pass of the loop."""
    return DragSettings.resolve(None, model.defaults, {"warp_share": 0.0, **overrides})


def picture_for(model: Diffusion) -> Image.Image:
    """Smooth noise at the model's own size."""
    side = model.native_side
    colours = np.random.default_rng(0).integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((side, side), Image.Resampling.BICUBIC)


def take_all_cores() -> None:
    """As many threads as there are cores, as the product's worker takes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores)
