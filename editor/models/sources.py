"""Where the parts of a model are, and how they differ between its architectures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from livedrag.editor.errors import ModelError
from livedrag.editor.models.files import DOWNLOAD_AGAIN, read_json
from livedrag.editor.settings import Setting

SUPPORTED_MODELS = (
    "supported are 'builtin' and Stable Diffusion 1.x, 2.x and XL and their fine-tunes, "
    "as a .safetensors checkpoint, as a diffusers folder with .safetensors weights, "
    "or as owner/name@<commit> on the Hugging Face Hub"
)
STABLE_DIFFUSION, STABLE_DIFFUSION_XL = "stable-diffusion", "stable-diffusion-xl"
TOKENIZERS = {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"}
"""By tokenizer, the text encoder that it is for."""
AUTOENCODERS = ("AutoencoderKL", "AutoencoderDC")
TRAIN_TIMESTEPS = 1000
NOISE_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
"""What a scheduler's configuration must have: libraries would fill the gaps with numbers of other models."""


@dataclass(frozen=True)
class ModelSource:
    """A model that can be opened.

    Args:
        name: shown to people.
        kind: ``builtin``, ``stable-diffusion`` or ``stable-diffusion-xl``.
        parts: by part such as ``unet``, the folder with its configuration, and its weights if they are not elsewhere.
        autoencoder: class name of its ``vae``.
        defaults: the settings that suit it, by name.
        tiny: folder of its own tiny autoencoder, if it has one.
        needs_wide_range: its attention overflows float16.
        checkpoint: file with the weights of all parts in the original layout, if they are not in the parts' folders.
        other_vae: folder or file of the ``vae`` that replaces the model's own.
        vae_name: what that is called.
        pad_tokens: of tokenizers whose own configuration does not say, by part.
        prediction_type: that replaces the scheduler's configuration; empty: what that says.
        zeros_for_no_prompt: without words the text embedding is zero, instead of that of an empty text.
    """

    name: str
    kind: str
    parts: Mapping[str, Path]
    autoencoder: str
    defaults: Mapping[str, Setting]
    tiny: Path | None = None
    needs_wide_range: bool = False
    checkpoint: Path | None = None
    other_vae: Path | None = None
    vae_name: str = ""
    pad_tokens: Mapping[str, str] = field(default_factory=dict)
    prediction_type: str = ""
    zeros_for_no_prompt: bool = False


def check_scheduler(path: Path) -> None:
    """Raise `ModelError` unless a scheduler's configuration has a noise schedule that can be used."""
    scheduler = read_json(path)
    name = scheduler.get("_class_name")
    lacking = [key for key in NOISE_SCHEDULE if key not in scheduler]
    if lacking:
        raise ModelError(f"{path} of a {class_of(name)} has no {lacking[0]!r}: {DOWNLOAD_AGAIN}; {SUPPORTED_MODELS}")
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(f"{path} predicts {prediction!r}: it must predict 'epsilon' or 'v_prediction'")
    if scheduler["num_train_timesteps"] != TRAIN_TIMESTEPS:
        raise ModelError(
            f"{path} has {scheduler['num_train_timesteps']!r} training timesteps: it must have {TRAIN_TIMESTEPS}"
        )


def class_of(name: object) -> str:
    """A class as its configuration names it, for people."""
    return " from ".join(reversed(name)) if isinstance(name, list) else str(name or "model without a class")
