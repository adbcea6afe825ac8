"""README's table of what fits into a GPU's memory, calculated: ``python -m tests.memory_table`` prints it.

The networks have sizes alone (torch's device ``meta``), so that no weights are needed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from livedrag.editor import Diffusion, DragSettings, SettingsError
from livedrag.editor.cost import ModelShape, check_cost, estimate, gigabytes, measure_shape, peak_bytes, weight_bytes
from livedrag.editor.models.checkpoints import CONFIGURATIONS
from livedrag.editor.models.loading import Parts
from livedrag.editor.models.low_memory import LowMemory
from livedrag.editor.models.pass_memory import measure_pass
from livedrag.editor.models.references import BUILTIN, find_model
from livedrag.editor.points import Size
from livedrag.editor.settings import OFFICIAL
from livedrag.server.device.worker.memory import split

CARDS = (6, 8, 12, 24)
"""Memory of GPUs in GiB."""
CUDA = 0.6 * 2**30
"""Bytes that CUDA and its libraries take for themselves in a process: about."""
CASES = {
    "built-in, 256 x 256": (BUILTIN, 256),
    "Stable Diffusion 1.x, 512 x 512": (CONFIGURATIONS / "1.x", 512),
    "Stable Diffusion 1.x, 768 x 768": (CONFIGURATIONS / "1.x", 768),
    "Stable Diffusion 2.x, 512 x 512": (CONFIGURATIONS / "2.x", 512),
    "Stable Diffusion 2.x, 768 x 768": (CONFIGURATIONS / "2.x", 768),
    "Stable Diffusion XL, 1024 x 1024": (CONFIGURATIONS / "xl", 1024),
}
"""The model's folder of configurations, and the side of the pictures it is for."""


class _FlashAttention(TorchFunctionMode):
    """Attention that does not store its weights, as on a GPU; without a device, torch would choose another one."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        given = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return flash(given["query"], given["key"], given["value"])[0]


def without_weights(folder: Path) -> Diffusion:
    """A model of these configurations in float16, on the device ``meta``, that saves memory where it has to."""

    def config(part: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / part / "config.json").read_text())
        return found

    is_xl = (folder / "text_encoder_2").is_dir()
    vae = config("vae")
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    with torch.device("meta"):
        parts = Parts(
            unet=UNet2DConditionModel.from_config(config("unet")).half(),
            vae=getattr(diffusers, vae["_class_name"]).from_config(vae),
            text_encoder=CLIPTextModel(transformers.CLIPTextConfig(**config("text_encoder"))).half(),
            text_encoder_2=CLIPTextModelWithProjection(transformers.CLIPTextConfig(**config("text_encoder_2"))).half()
            if is_xl
            else None,
            tokenizer=CLIPTokenizer.from_pretrained(BUILTIN / "tokenizer"),
            scheduler=scheduler,
        )
    if not is_xl:  # whose autoencoder stays in float32
        for weight in parts.vae.parameters():
            weight.data = weight.data.half()
    defaults = find_model("builtin").defaults if folder == BUILTIN else OFFICIAL
    device = torch.device("meta")
    model = Diffusion(parts, name=folder.name, kind="", defaults=defaults, device=device, dtype=torch.float16)
    words = torch.zeros(1, 77 + is_xl, model.unet.config.cross_attention_dim, dtype=torch.float16, device="meta")
    with _FlashAttention():
        model.pass_memory = measure_pass(model, words)
    model.low_memory = LowMemory(lambda: 0)
    return model


def cells(folder: Path, side: int) -> Iterator[str]:
    """What a model needs for a square picture, usually and at least, and whether it fits on each card."""
    model = without_weights(folder)
    saving = replace(measure_shape(model), native_side=side)
    usual = replace(saving, saves_memory=False)
    settings = DragSettings.resolve(None, model.defaults)
    weights = weight_bytes(model)
    yield gigabytes(weights)
    for shape in (usual, saving):
        yield gigabytes(peak_bytes(estimate(settings, shape, Size(side, side))))
    for card in CARDS:
        free = round(card * 2**30 - CUDA - weights)
        if fits(settings, usual, side, free):
            yield "yes"
        else:
            yield "saving memory" if fits(settings, saving, side, free) else "no"


def fits(settings: DragSettings, shape: ModelShape, side: int, free: int) -> bool:
    """Whether a server with so many bytes free beside the model would let a room run."""
    try:
        check_cost(settings, shape, Size(side, side), 1, split(max(0, free)))
    except SettingsError:
        return False
    return True


def table() -> list[str]:
    """The lines of the table in Markdown."""
    columns = ["", "weights", "beside them, usually", "at least", *(f"{card} GB" for card in CARDS)]
    rows = [[name, *cells(*case)] for name, case in CASES.items()]
    return [
        f"| {' | '.join(row)} |".replace("|  |", "| |")
        for row in (columns, ["--", *["--:"] * (len(columns) - 1)], *rows)
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join(table()) + "\n")
