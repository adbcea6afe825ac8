"""Open a model's parts from a diffusers folder, one by one, from safetensors alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from livedrag.editor.errors import ModelError
from livedrag.editor.models.references import SUPPORTED_MODELS, ModelSource

Autoencoder: TypeAlias = "AutoencoderDC | AutoencoderKL"
_AUTOENCODERS: dict[str, Any] = {"AutoencoderDC": AutoencoderDC, "AutoencoderKL": AutoencoderKL}


@dataclass(frozen=True)
class Parts:
    """The parts of a latent diffusion model; ``tiny`` is an autoencoder for quick previews."""

    unet: UNet2DConditionModel
    vae: Autoencoder
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    tiny: AutoencoderTiny | None = None


def load_parts(source: ModelSource, reference: str, dtype: torch.dtype, tiny: Path | None) -> Parts:
    """Open all parts of a model, on the CPU.

    Args:
        source: where they are.
        reference: what the user called the model, for errors.
        dtype: of the weights.
        tiny: folder of an `AutoencoderTiny`, if any.

    Raises:
        ModelError: a part can't be opened.
    """
    weights = {"dtype": dtype, "use_safetensors": True}
    folder = source.folder
    try:
        with _no_progress_bars():
            return Parts(
                unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **weights),
                vae=_AUTOENCODERS[source.autoencoder].from_pretrained(folder, subfolder="vae", **weights),
                text_encoder=CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", **weights),
                tokenizer=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
                scheduler=DDIMScheduler.from_config(DDIMScheduler.load_config(folder, subfolder="scheduler")),
                tiny=None if tiny is None else AutoencoderTiny.from_pretrained(tiny, **weights),
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"the model {reference!r} can't be opened: {error}; {SUPPORTED_MODELS}") from error


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Transformers draws bars even if standard error is a pipe; callers show progress themselves."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()
