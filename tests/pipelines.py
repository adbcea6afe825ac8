"""Small Stable Diffusion pipelines with random weights, written to disk as their authors' would be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from livedrag.editor.models.references import BUILTIN

WIDTH = 32
NATIVE_SIDE = 128


def write_pipeline(folder: Path, *, version: int = 1, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Write a pipeline of Stable Diffusion's four-level layout, 128 x 128 native; returns its folder.

    Args:
        folder: created.
        version: 1 or 2; version 2 has linear projections and heads that grow with the width.
        prediction_type: ``epsilon`` or ``v_prediction``.
        seed: of the random weights.
    """
    words = json.loads((BUILTIN / "text_encoder" / "config.json").read_text())  # of the tokenizer that it shares
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layout: dict[str, Any] = {"attention_head_dim": 4}
        if version == 2:
            layout = {"attention_head_dim": [2, 4, 4, 4], "use_linear_projection": True}
        unet = UNet2DConditionModel(
            sample_size=NATIVE_SIDE // 8,
            block_out_channels=(16, 32, 32, 32),
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=WIDTH,
            **layout,
        )
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[8, 8, 8, 8],
            latent_channels=4,
            norm_num_groups=4,
            sample_size=NATIVE_SIDE,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=words["vocab_size"],
                hidden_size=WIDTH,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=words["max_position_embeddings"],
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    for name, part in (("unet", unet), ("vae", vae), ("text_encoder", text), ("scheduler", scheduler)):
        part.save_pretrained(folder / name)
    shutil.copytree(BUILTIN / "tokenizer", folder / "tokenizer")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
