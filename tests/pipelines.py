"""Small Stable Diffusion pipelines with random weights, written to disk as their authors' would be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from livedrag.editor.models.references import BUILTIN

WIDTH = 32
XL_WIDTH = 48
"""Of Stable Diffusion XL's second text encoder."""
NATIVE_SIDE = 128


def write_pipeline(folder: Path, *, version: int | str = 1, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Write a pipeline of Stable Diffusion's layout, 128 x 128 native; returns its folder.

    Args:
        folder: created.
        version: 1, 2 or ``xl``. Version 2 has linear projections and heads that grow with the width; XL has three
            levels, blocks of several transformers, two text encoders, and takes the picture's size.
        prediction_type: ``epsilon`` or ``v_prediction``.
        seed: of the random weights.
    """
    words = json.loads((BUILTIN / "text_encoder" / "config.json").read_text())  # of the tokenizer that it shares
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=NATIVE_SIDE // 8,
            layers_per_block=1,
            norm_num_groups=8,
            **_layout(version),
        )
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[8, 8, 8, 8],
            latent_channels=4,
            norm_num_groups=4,
            sample_size=NATIVE_SIDE,
        )

        def config(width: int, **more: Any) -> CLIPTextConfig:
            return CLIPTextConfig(
                vocab_size=words["vocab_size"],
                hidden_size=width,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=words["max_position_embeddings"],
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
                hidden_act="quick_gelu" if version == 1 else "gelu",
                **more,
            )

        if version == "xl":
            texts: dict[str, Any] = {
                "text_encoder": CLIPTextModel(config(WIDTH)),
                "text_encoder_2": CLIPTextModelWithProjection(config(XL_WIDTH, projection_dim=XL_WIDTH)),
            }
        else:
            texts = {"text_encoder": CLIPTextModel(config(WIDTH))}
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    for name, part in {"unet": unet, "vae": vae, **texts, "scheduler": scheduler}.items():
        part.save_pretrained(folder / name)
    shutil.copytree(BUILTIN / "tokenizer", folder / "tokenizer")
    second = {}
    if version == "xl":
        shutil.copytree(BUILTIN / "tokenizer", folder / "tokenizer_2")
        second = {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "force_zeros_for_empty_prompt": True,
        }
    index = {
        "_class_name": "StableDiffusionXLPipeline" if version == "xl" else "StableDiffusionPipeline",
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        **second,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _layout(version: int | str) -> dict[str, Any]:
    """The UNet's blocks."""
    if version == "xl":
        return {
            "block_out_channels": (16, 32, 32),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 1, 2),
            "attention_head_dim": (2, 4, 4),
            "use_linear_projection": True,
            "cross_attention_dim": WIDTH + XL_WIDTH,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": XL_WIDTH + 6 * 8,
        }
    layout: dict[str, Any] = {"block_out_channels": (16, 32, 32, 32), "cross_attention_dim": WIDTH}
    if version == 2:
        return {**layout, "attention_head_dim": [2, 4, 4, 4], "use_linear_projection": True}
    return {**layout, "attention_head_dim": 4}
