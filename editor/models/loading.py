"""Open a model's parts from a diffusers folder, one by one, from safetensors alone; refuse what does not fit."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from livedrag.editor.errors import ModelError
from livedrag.editor.models.files import DOWNLOAD_AGAIN, check_tokenizer, find_weights
from livedrag.editor.models.references import ModelSource

Autoencoder: TypeAlias = "AutoencoderDC | AutoencoderKL"
_AUTOENCODERS: dict[str, Any] = {"AutoencoderDC": AutoencoderDC, "AutoencoderKL": AutoencoderKL}
_UNUSED_TENSORS = ("position_ids",)
"""Endings of tensors in older files that no library reads any more."""


@dataclass(frozen=True)
class Parts:
    """The parts of a latent diffusion model; ``tiny`` is an autoencoder for quick previews."""

    unet: UNet2DConditionModel
    vae: Autoencoder
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    tiny: AutoencoderTiny | None = None


def load_parts(source: ModelSource, dtype: torch.dtype, tiny: Path | None) -> Parts:
    """Open all parts of a model, on the CPU.

    Args:
        source: where they are.
        dtype: of the weights.
        tiny: folder of an ``AutoencoderTiny``, if any.

    Raises:
        ModelError: a file is missing, damaged or of another model; the message names it.
    """
    folder = source.folder
    with _quiet_libraries():
        parts = Parts(
            unet=_load_network(UNet2DConditionModel, folder / "unet", dtype),
            vae=_load_network(_AUTOENCODERS[source.autoencoder], folder / "vae", dtype),
            text_encoder=_load_network(CLIPTextModel, folder / "text_encoder", dtype, stem="model"),
            tokenizer=_load_tokenizer(folder / "tokenizer"),
            scheduler=_load_scheduler(folder / "scheduler"),
            tiny=None if tiny is None else _load_network(AutoencoderTiny, tiny, dtype),
        )
    _check_sizes(parts, folder)
    return parts


def _load_network(network: Any, folder: Path, dtype: torch.dtype, *, stem: str = "diffusion_pytorch_model") -> Any:
    """A network with all its weights, and no others."""
    weights = find_weights(folder, stem)
    with _library_errors(folder / "config.json" if len(weights.files) > 1 else weights.files[0]):
        loaded, report = network.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, variant=weights.variant, output_loading_info=True
        )
    _check_report(report, weights.files[0])
    return loaded


def _check_report(report: Mapping[str, Any], path: Path) -> None:
    """Libraries fill tensors that are missing with random numbers, and drop those that they don't know."""
    missing = sorted(map(str, report["missing_keys"]))
    unknown = sorted(str(name) for name in report["unexpected_keys"] if not str(name).endswith(_UNUSED_TENSORS))
    mismatched = sorted(
        str(entry[0]) if isinstance(entry, tuple) else str(entry) for entry in report["mismatched_keys"]
    )
    for names, problem in (
        (missing, "lacks {count}"),
        (mismatched, "has another shape than config.json says for {count}"),
        (unknown, "has {count} that config.json does not describe"),
    ):
        if names:
            count = f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({names[0]!r}{', ...' if names[1:] else ''})"
            raise ModelError(
                f"{path} {problem.format(count=count)}: it is of another model, or damaged; {DOWNLOAD_AGAIN}"
            )


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    check_tokenizer(folder)
    with _library_errors(folder):
        return CLIPTokenizer.from_pretrained(folder)


def _load_scheduler(folder: Path) -> DDIMScheduler:
    with _library_errors(folder / "scheduler_config.json"):
        return DDIMScheduler.from_config(DDIMScheduler.load_config(folder))


def _check_sizes(parts: Parts, folder: Path) -> None:
    """Raise `ModelError` unless the parts fit each other."""
    words, known = len(parts.tokenizer), parts.text_encoder.config.vocab_size
    width, expected_width = parts.text_encoder.config.hidden_size, parts.unet.config.cross_attention_dim
    channels, expected_channels = parts.vae.config.latent_channels, parts.unet.config.in_channels
    for part, has, other, needs in (
        ("tokenizer", f"{words} tokens", "text encoder", f"{known} tokens"),
        ("text_encoder", f"embeddings of {width} numbers", "unet", f"embeddings of {expected_width} numbers"),
        ("vae", f"latents of {channels} channels", "unet", f"latents of {expected_channels} channels"),
    ):
        if has != needs:
            raise ModelError(
                f"{folder / part} has {has}, but the {other} takes {needs}: "
                f"one of them is of another model; {DOWNLOAD_AGAIN}"
            )


@contextlib.contextmanager
def _library_errors(path: Path) -> Iterator[None]:
    """Whatever a library raises because of a model's files becomes a `ModelError` of one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # they raise all kinds, from KeyError to their own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{path} can't be opened ({lines[0].strip()}): {DOWNLOAD_AGAIN}") from error


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """No progress bars, which transformers draws even on a pipe, and no warnings of what `_check_report` refuses."""
    enabled = transformers_logging.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if enabled:
            transformers_logging.enable_progress_bar()
