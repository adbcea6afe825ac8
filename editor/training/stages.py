"""What each stage of ``python -m livedrag.editor.training`` does."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

from livedrag.editor.models.devices import pick_device
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.references import DEFAULTS_FILE, find_model
from livedrag.editor.settings import Setting, parse_setting
from livedrag.editor.training import report
from livedrag.editor.training.autoencoder import AutoencoderStage, latent_scale
from livedrag.editor.training.denoiser import DenoiserStage, assemble, computes_in_bfloat16
from livedrag.editor.training.networks import new_modules, new_scheduler, new_tokenizer, tokens_of
from livedrag.editor.training.pairs import Pairs
from livedrag.editor.training.pictures import Collection, TrainingError, cache_folder, collect
from livedrag.editor.training.shards import load_shards
from livedrag.editor.training.stage import Training, load_averaged

FIRST_TEMPLATE: Mapping[str, Setting] = {
    "supervision": "points",
    "supervision_template": "first",
    "supervision_step": 4.0,
    "supervision_radius": 4,
    "tracking_radius": 12,
    "steps_per_tracking": 3,
    "latent_lr": 0.02,
}
"""GoodDrag's supervision, at one noise level."""
REGION: Mapping[str, Setting] = {"supervision": "region", "background": "keep"}
"""DragFlow's."""
CANDIDATES: Sequence[Mapping[str, Setting]] = (
    *({"warp_share": share} for share in (0.5, 1.0)),
    FIRST_TEMPLATE,
    *({**REGION, "warp_share": share} for share in (0.0, 0.5, 1.0)),
    *({"inversion_strength": strength} for strength in (0.2, 0.3, 0.5)),
    *({**REGION, "inversion_strength": strength} for strength in (0.3, 0.5)),
    *({"lora_steps": steps} for steps in (20, 40, 80)),
    *({"max_iterations": iterations} for iterations in (30, 50, 80)),
    *({"latent_lr": rate} for rate in (0.005, 0.01, 0.02)),
    *({"background": background} for background in ("loss", "keep")),
    {"alternation": 3},
    {"arrival_check": "content"},
)
"""Changes of the defaults that are searched, in this order."""


PAIRS_ON_CPU = {"capacity": 4096, "together": 8}
PAIRS_ON_GPU = {"capacity": 16_384, "together": 128}


def run(options: argparse.Namespace) -> None:
    """Run the stage that the command line names."""
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = options.folder or cache_folder()
    STAGES[options.stage](options, folder)


def train_autoencoder(options: argparse.Namespace, folder: Path) -> None:
    """Train the autoencoder; when that is complete, keep it with the scale of its latents."""
    pictures, shown = collect(folder, held_out=False), collect(folder, held_out=True)
    sizes = {"batch": options.batch} if options.batch else {}
    device = pick_device(options.device)
    training = Training(AutoencoderStage(pictures, shown, device=device, seed=options.seed, **sizes), folder)
    if training.run(options.steps, minutes=options.minutes):
        vae: Any = training.averaged["vae"]
        vae.register_to_config(scaling_factor=latent_scale(vae, pictures, seed=options.seed))
        vae.save_pretrained(folder / "vae")


def train_denoiser(options: argparse.Namespace, folder: Path) -> None:
    """Train the tokenizer once, then UNet and text encoder on the finished autoencoder's latents."""
    device = pick_device(options.device)
    denoiser = _denoiser(
        folder,
        device,
        seed=options.seed,
        batch=options.batch,
        start=options.start,
        from_scratch=options.from_scratch,
        rate=options.rate,
        compiled=options.compile,
        teacher=options.teacher,
        shards=options.shards,
    )
    denoiser.training.run(options.steps, minutes=options.minutes, save_every=60 * options.save_every)


def export(options: argparse.Namespace, folder: Path) -> None:
    """Write the model as a diffusers folder of the usual shape."""
    vae = _autoencoder(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    modules = new_modules(tokenizer)
    weights = load_shards(options.shards) if options.shards else load_averaged(folder, DenoiserStage.name)
    modules.load_state_dict(weights)
    write(assemble(vae, vae.config.scaling_factor, modules, tokenizer), options.output)


def evaluate(options: argparse.Namespace, folder: Path) -> None:
    """Judge a model and write the report."""
    model, pictures = Diffusion.load(options.model), collect(folder, held_out=True)
    trained_on = collect(folder, held_out=False)
    overrides = dict(map(parse_setting, options.set))
    others = {} if options.others is None else report.read_pictures(options.others)
    figures = report.evaluate(
        model,
        pictures,
        options.output,
        progress=folder / "evaluation",
        overrides=overrides,
        limit=options.limit,
        trained_on=trained_on,
        others=others,
    )
    sys.stdout.write(report.table(figures))


def features(options: argparse.Namespace, folder: Path) -> None:
    """How often a model's features find places again, and how well it predicts clean latents."""
    model = Diffusion.load(options.model)
    pictures, trained_on = (collect(folder, held_out=held_out) for held_out in (True, False))
    figures = report.measure_features(model, pictures, None if options.quick else trained_on)
    sys.stdout.write(report.features_table(figures))


def search(options: argparse.Namespace, folder: Path) -> None:
    """Find the settings that suit a model, and say them."""
    model, pictures = Diffusion.load(options.model), collect(folder, held_out=True)
    best = report.search(model, report.trials_for(pictures, search=True), CANDIDATES)
    sys.stdout.write(json.dumps(best, indent=2) + "\n")
    if options.write:
        place = find_model(options.model).parts["unet"].parent / DEFAULTS_FILE
        place.write_text(json.dumps(best, indent=2) + "\n")


STAGES: Mapping[str, Callable[[argparse.Namespace, Path], None]] = {
    "autoencoder": train_autoencoder,
    "denoiser": train_denoiser,
    "export": export,
    "search": search,
    "features": features,
    "evaluate": evaluate,
}


def write(model: Diffusion, output: Path) -> None:
    """Write all parts of a model in half precision."""
    model.unet.half().save_pretrained(output / "unet")
    model.vae.half().save_pretrained(output / "vae")
    model.text_encoder.half().save_pretrained(output / "text_encoder")
    model.tokenizer.save_pretrained(output / "tokenizer")
    new_scheduler().save_pretrained(output / "scheduler")
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderDC"],
    }
    (output / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


@dataclass(frozen=True)
class _Denoiser:
    stage: DenoiserStage
    training: Training
    pairs: Pairs
    tokenizer: CLIPTokenizer


def _denoiser(
    folder: Path,
    device: torch.device,
    *,
    seed: int,
    batch: int | None = None,
    start: str | None = None,
    from_scratch: bool = False,
    rate: float | None = None,
    compiled: bool = False,
    teacher: str | None = None,
    shards: Path | None = None,
) -> _Denoiser:
    fresh = not (folder / DenoiserStage.name).with_suffix(".pt").is_file()
    finished = Diffusion.load(start, device="cpu", dtype=torch.float32) if start is not None and fresh else None
    if finished:
        _prepare(folder, finished)
    vae = _autoencoder(folder).to(device)
    if device.type == "cuda":
        vae.to(memory_format=torch.channels_last)
    pictures = collect(folder, held_out=False)
    if not (folder / "tokenizer").is_dir():
        new_tokenizer(pictures).save_pretrained(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    pairs = _pairs(pictures, vae, vae.config.scaling_factor, tokenizer, device, seed=seed)
    sizes = {"batch": batch} if batch else {}
    further = start is not None and not from_scratch
    stage = DenoiserStage(
        pairs,
        tokenizer,
        further=further,
        rate=rate,
        compiled=compiled,
        teacher=None if teacher is None else _teacher(teacher, device),
        seed=seed,
        **sizes,
    )
    denoiser = _Denoiser(stage, Training(stage, folder, shards=shards), pairs, tokenizer)
    if finished and further:
        for modules in (stage.modules, denoiser.training.averaged):
            modules["unet"].load_state_dict(finished.unet.state_dict())
            modules["text_encoder"].load_state_dict(finished.text_encoder.state_dict())
    return denoiser


def _pairs(
    pictures: Collection, vae: Any, scale: float, tokenizer: CLIPTokenizer, device: torch.device, *, seed: int
) -> Pairs:
    """Pairs to train on, on the device of the autoencoder."""
    return Pairs(
        pictures,
        vae,
        scale,
        partial(tokens_of, tokenizer),
        **PAIRS_ON_CPU if device.type == "cpu" else PAIRS_ON_GPU,
        half=computes_in_bfloat16(device),
        seed=seed,
    )


def _teacher(reference: str, device: torch.device) -> nn.ModuleDict:
    """UNet and text encoder of a finished model, as it is."""
    model = Diffusion.load(reference, device="cpu", dtype=torch.float32)
    modules = nn.ModuleDict({"unet": model.unet, "text_encoder": model.text_encoder})
    return modules.to(device).eval().requires_grad_(False)


def _autoencoder(folder: Path) -> Any:
    """The finished autoencoder."""
    if not (folder / "vae").is_dir():
        raise TrainingError(f"there is no finished autoencoder in {folder}: train that to its last step first")
    return AutoencoderDC.from_pretrained(folder / "vae").eval().requires_grad_(False)


def _prepare(folder: Path, finished: Diffusion) -> None:
    """Lay a finished model's autoencoder and tokenizer where training looks for them."""
    if not _lies_in(folder / "vae", finished.vae):
        finished.vae.save_pretrained(folder / "vae")
    finished.tokenizer.save_pretrained(folder / "tokenizer")


def _lies_in(folder: Path, vae: Any) -> bool:
    """Whether this very autoencoder is kept there, so that latents which lie beside it are its own."""
    file = folder / "diffusion_pytorch_model.safetensors"
    if not file.is_file():
        return False
    kept, weights = load_file(file), vae.state_dict()
    same_weights = kept.keys() == weights.keys() and all(torch.equal(kept[name], weights[name]) for name in kept)
    return same_weights and bool(vae.config.scaling_factor == vae.load_config(folder)["scaling_factor"])
