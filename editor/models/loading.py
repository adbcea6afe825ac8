"""Open a model's parts, one by one, from safetensors alone; refuse what does not fit."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from livedrag.editor.errors import ModelError
from livedrag.editor.models.files import DOWNLOAD_AGAIN, check_tokenizer, find_weights, read_json
from livedrag.editor.models.single_file import SingleFile
from livedrag.editor.models.sources import STABLE_DIFFUSION_XL, TOKENIZERS, ModelSource

Autoencoder: TypeAlias = "AutoencoderDC | AutoencoderKL"
_AUTOENCODERS: dict[str, Any] = {"AutoencoderDC": AutoencoderDC, "AutoencoderKL": AutoencoderKL}
_UNUSED_TENSORS = ("position_ids",)
"""Endings of tensors in older files that no library reads any more."""


@dataclass(frozen=True)
class Parts:
    """The parts of a latent diffusion model.

    Args:
        unet, vae, text_encoder, tokenizer, scheduler: as diffusers' pipelines name them.
        text_encoder_2, tokenizer_2: of Stable Diffusion XL.
        tiny: an autoencoder for quick previews.
    """

    unet: UNet2DConditionModel
    vae: Autoencoder
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    text_encoder_2: CLIPTextModelWithProjection | None = None
    tokenizer_2: CLIPTokenizer | None = None
    tiny: AutoencoderTiny | None = None


@dataclass
class Opening:
    """How the networks of a model are opened.

    Args:
        dtype: of the weights.
        on_network: called with the number of networks that are open, and of all.
    """

    dtype: torch.dtype
    on_network: Callable[[int, int], None] = lambda opened, every: None
    networks: int = 1
    opened: int = 0

    def open(self, load: Callable[[torch.dtype], Any], dtype: torch.dtype | None = None) -> Any:
        """A network that ``load`` opens in the dtype that it is given; ``dtype``: that it should have."""
        network = load(dtype or self.dtype)
        self.opened += 1
        self.on_network(self.opened, self.networks)
        return network


def load_parts(source: ModelSource, opening: Opening, tiny: Path | None) -> Parts:
    """Open all parts of a model, on the CPU.

    Args:
        source: where they are.
        opening: how.
        tiny: folder of an ``AutoencoderTiny``, if any.

    Raises:
        ModelError: a file is missing, damaged or of another model; the message names it.
    """
    opening.networks = 2 + sum(part in source.parts for part in _TEXT_ENCODERS)
    with _quiet_libraries():
        unet, vae, encoders = (
            _from_folders(source, opening) if source.checkpoint is None else _from_checkpoint(source, opening)
        )
        parts = Parts(
            unet=unet,
            vae=vae,
            text_encoder=encoders["text_encoder"],
            text_encoder_2=encoders.get("text_encoder_2"),
            tokenizer=_load_tokenizer(source, "tokenizer"),
            tokenizer_2=_load_tokenizer(source, "tokenizer_2") if "tokenizer_2" in source.parts else None,
            scheduler=_load_scheduler(source),
            tiny=None if tiny is None else opening.open(partial(_load_network, AutoencoderTiny, tiny)),
        )
    _check_sizes(parts, source)
    return parts


_Networks: TypeAlias = "tuple[UNet2DConditionModel, Autoencoder, dict[str, Any]]"
_TEXT_ENCODERS: dict[str, Any] = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


def _from_folders(source: ModelSource, opening: Opening) -> _Networks:
    folders = source.parts
    return (
        opening.open(partial(_load_network, UNet2DConditionModel, folders["unet"])),
        _load_vae(source, opening),
        {
            part: opening.open(partial(_load_network, network, folders[part], stem="model"))
            for part, network in _TEXT_ENCODERS.items()
            if part in folders
        },
    )


def _from_checkpoint(source: ModelSource, opening: Opening) -> _Networks:
    assert source.checkpoint is not None
    file, folders = SingleFile(source.checkpoint), source.parts
    with _library_errors(source.checkpoint):
        unet = opening.open(partial(file.unet, folders["unet"]))
        encoders = {
            part: opening.open(partial(file.text_encoder, network, part, folders[part]))
            for part, network in _TEXT_ENCODERS.items()
            if part in folders
        }
    return unet, _load_vae(source, opening, file), encoders


def _load_vae(source: ModelSource, opening: Opening, file: SingleFile | None = None) -> Autoencoder:
    """The one that replaces the model's own, else the checkpoint's, else the folder's."""
    folder, other, dtype = source.parts["vae"], source.other_vae, opening.dtype
    # Stable Diffusion XL's own autoencoder overflows float16; a fixed one's configuration says that it doesn't.
    if source.kind == STABLE_DIFFUSION_XL and read_json(folder / "config.json").get("force_upcast", True):
        dtype = torch.float32 if dtype == torch.float16 else dtype
    if other is not None:
        file = SingleFile(other) if other.is_file() else None
    if file is None:
        return opening.open(partial(_load_network, _AUTOENCODERS[source.autoencoder], folder), dtype)
    with _library_errors(other or source.checkpoint or folder):
        return opening.open(partial(file.vae, folder), dtype)


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


def _load_tokenizer(source: ModelSource, part: str) -> CLIPTokenizer:
    folder, pad = source.parts[part], source.pad_tokens.get(part)
    check_tokenizer(folder)
    with _library_errors(folder):
        return CLIPTokenizer.from_pretrained(folder, **({} if pad is None else {"pad_token": pad}))


def _load_scheduler(source: ModelSource) -> DDIMScheduler:
    folder = source.parts["scheduler"]
    changes = {"prediction_type": source.prediction_type} if source.prediction_type else {}
    with _library_errors(folder / "scheduler_config.json"):
        return DDIMScheduler.from_config(DDIMScheduler.load_config(folder), **changes)


def _check_sizes(parts: Parts, source: ModelSource) -> None:
    """Raise `ModelError` unless the parts fit each other."""
    encoders = {"text_encoder": parts.text_encoder, "text_encoder_2": parts.text_encoder_2}
    tokenizers = {"tokenizer": parts.tokenizer, "tokenizer_2": parts.tokenizer_2}
    found: list[tuple[str, str, str, str]] = []
    for name, tokenizer in tokenizers.items():
        if tokenizer is not None and (encoder := encoders[TOKENIZERS[name]]) is not None:
            needs = f"{encoder.config.vocab_size} tokens"
            found.append((name, f"{len(tokenizer)} tokens", TOKENIZERS[name].replace("_", " "), needs))
    width = sum(encoder.config.hidden_size for encoder in encoders.values() if encoder is not None)
    expected = parts.unet.config.cross_attention_dim
    found.append(("text_encoder", f"embeddings of {width} numbers", "unet", f"embeddings of {expected} numbers"))
    channels, expected = parts.vae.config.latent_channels, parts.unet.config.in_channels
    found.append(("vae", f"latents of {channels} channels", "unet", f"latents of {expected} channels"))
    for part, has, other, needs in found:
        if has != needs:
            place = source.other_vae if part == "vae" and source.other_vae else source.parts[part]
            raise ModelError(
                f"{place} has {has}, but the {other} takes {needs}: one of them is of another model; {DOWNLOAD_AGAIN}"
            )
    has_size = parts.unet.config.addition_embed_type == "text_time"
    if parts.unet.config.addition_embed_type is not None and not (has_size and source.kind == STABLE_DIFFUSION_XL):
        raise ModelError(
            f"{source.parts['unet'] / 'config.json'} takes {parts.unet.config.addition_embed_type!r} besides the "
            f"prompt, which this kind of model does not have: it is of another model; {DOWNLOAD_AGAIN}"
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
