"""The tokenizer, text encoder, UNet and noise schedule of the built-in model."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from livedrag.editor.training.autoencoder import STRIDE
from livedrag.editor.training.correspondence import Likeness
from livedrag.editor.training.pictures import SIDE, Collection
from livedrag.editor.training.scenes import COLOURS

WORDS = 3000
"""Size of the tokenizer's vocabulary."""
TEXT_LENGTH = 24
TEXT_WIDTH = 128


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


def new_modules(tokenizer: CLIPTokenizer) -> nn.ModuleDict:
    """What is trained, with random weights."""
    parts = {"unet": new_unet(), "text_encoder": new_text_encoder(tokenizer), "likeness": Likeness()}
    return nn.ModuleDict(parts)


def tokens_of(tokenizer: CLIPTokenizer, captions: tuple[str, ...]) -> Tensor:
    """Captions as numbers ``(N, TEXT_LENGTH)``."""
    padded = tokenizer(list(captions), padding="max_length", max_length=TEXT_LENGTH, truncation=True)
    return torch.tensor(padded.input_ids)
