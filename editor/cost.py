"""What a session costs: the memory that it and its steps need, estimated from settings, model and picture beforehand.

The estimate is for the device, beside the model's own weights. Its constants were measured on a CPU with the built-in
model; other devices and models differ, so a budget should leave some room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from livedrag.editor.drag.attention import controlled_layers
from livedrag.editor.drag.denoising import REFERENCE_BUDGET
from livedrag.editor.drag.state import TIMELINE_BUDGET
from livedrag.editor.errors import ModelError, SettingsError
from livedrag.editor.fitting.fit_step import ROWS_PER_PASS
from livedrag.editor.models.devices import best_dtype, free_bytes
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.headers import read_header
from livedrag.editor.models.low_memory import USABLE
from livedrag.editor.models.origins import origins_of
from livedrag.editor.models.pass_memory import PEAK, AutoencoderMemory, PassMemory, place_of
from livedrag.editor.models.sources import ModelSource
from livedrag.editor.points import Size, working_size
from livedrag.editor.settings import PROJECTIONS, DragSettings, Setting

FLOAT = 4
"""Bytes of a number of a latent or a LoRA."""
SUPERVISION_TENSORS = 10
"""Tensors of the size of all sampled patches that motion supervision holds at its peak: measured 9.7."""
TRACKING_TENSORS = 2.5
"""Likewise of the size of all windows, in point tracking."""
LATENTS = 8
"""Of each session: clean, inverted, dragged, its gradient, its two moments, unedited noise, rendered."""
MAX_CELLS = 100_000
"""Cells of features that an iteration may sample: about a third of a second on two cores with the built-in model."""


@dataclass(frozen=True)
class ModelShape:
    """What the costs of a model's sessions depend on.

    Args:
        native_side, stride, latent_stride: of the model, in pixels.
        feature_channels: of the features that are dragged by.
        pass_memory: what a pass of the UNet stores for its backward pass.
        lora_widths: by attention projection, inputs plus outputs of its layers: a LoRA's weights per rank.
        projection_bytes: by attention projection, weights of its layers, of which a fitted LoRA has merged copies.
        reference_bytes: that reference control stores, per level and latent cell.
        autoencoder: what decoding or encoding a picture needs.
        saves_memory: whether fitting, encoding and decoding can save memory, see `LowMemory`.
    """

    native_side: int
    stride: int
    latent_stride: int
    feature_channels: int
    pass_memory: PassMemory
    lora_widths: Mapping[str, int]
    projection_bytes: Mapping[str, int]
    reference_bytes: float
    autoencoder: AutoencoderMemory
    saves_memory: bool


@dataclass(frozen=True)
class Cost:
    """What a session needs.

    Args:
        session: bytes that it holds between two steps.
        step: further bytes at the peak of its most expensive step.
        cells: of features that an iteration of dragging samples; its time grows with them.
    """

    session: int
    step: int
    cells: int


@dataclass(frozen=True)
class Memory:
    """Bytes on a device, beside the model: for all sessions together, and for them and one step."""

    sessions: int
    total: int


def estimate(settings: DragSettings, shape: ModelShape, picture: Size, drags: int = 1) -> Cost:
    """What a session needs, with the steps that save memory where the model has them.

    Args:
        settings: of the session.
        shape: of the model.
        picture: size as uploaded, in pixels.
        drags: their number.
    """
    working = working_size(picture, shape.native_side, shape.stride)
    rows, columns = working.height // shape.latent_stride, working.width // shape.latent_stride
    cells, latent, targets = rows * columns, 4 * rows * columns * FLOAT, settings.lora_targets.split()
    lora = settings.lora_rank * sum(shape.lora_widths[target] for target in targets) * FLOAT
    merged = sum(shape.projection_bytes[target] for target in targets)
    levels = settings.inversion_steps
    timeline = min(TIMELINE_BUDGET, settings.max_iterations * latent // 2)
    reference = min(REFERENCE_BUDGET, levels * cells * shape.reference_bytes) if settings.reference_control else 0
    compared = settings.supervision == "region" or settings.alternation > 1
    passes, channels = shape.pass_memory, shape.feature_channels
    features = cells * channels * FLOAT if compared else 0  # of the unedited latent
    patches = drags * (2 * settings.supervision_radius + 1) ** 2
    windows = drags * (2 * settings.tracking_radius + 1) ** 2
    sampled = (SUPERVISION_TENSORS * patches + TRACKING_TENSORS * windows) * channels * FLOAT
    rows_per_pass = min(settings.lora_batch, ROWS_PER_PASS)
    fitted = (passes.recomputing if shape.saves_memory else passes.stored).of(min(rows, columns) ** 2)
    coded = shape.autoencoder.tiled if shape.saves_memory else shape.autoencoder.whole
    steps = {
        "fitting": rows_per_pass * fitted * PEAK + 2 * lora,
        "dragging": passes.stored.of(cells) * PEAK + sampled,
        "decoding": coded(working.height, working.width),
    }
    latents = (LATENTS + levels + settings.lora_copies) * latent
    return Cost(
        session=round(3 * lora + merged + latents + timeline + reference + features),
        step=round(max(steps.values())),
        cells=5 * patches + windows,  # motion supervision reads a patch's cells once, and four around each of them
    )


def check_cost(settings: DragSettings, shape: ModelShape, picture: Size, drags: int, memory: Memory) -> None:
    """Raise `SettingsError`, naming the most expensive setting, if a session needs more than there is."""
    cost = estimate(settings, shape, picture, drags)
    if cost.cells > MAX_CELLS:
        raise SettingsError(
            f"supervision_radius {settings.supervision_radius} and tracking_radius {settings.tracking_radius} with "
            f"{drags} drags sample {cost.cells:,} cells per iteration, more than {MAX_CELLS:,}: "
            "use smaller radii or fewer drags"
        )
    for needed, available in ((held_bytes, memory.sessions), (peak_bytes, memory.total)):
        if needed(cost) > available:
            raise SettingsError(
                f"this picture needs about {gigabytes(needed(cost))} of the device's memory, and "
                f"{gigabytes(available)} are available: {_advice(settings, shape, picture, drags, needed)}"
            )


def check_free(settings: DragSettings, model: Diffusion, picture: Size, drags: int) -> None:
    """Raise `SettingsError` if a session needs more than a GPU has free beside the model.

    On a CPU nothing is checked: the operating system may provide more than is free.
    """
    if model.device.type != "cpu":
        free = int(USABLE * free_bytes(model.device))
        check_cost(settings, measure_shape(model), picture, drags, Memory(sessions=free, total=free))


def check_weights(source: ModelSource, device: torch.device) -> None:
    """Raise `ModelError` if a model that is not loaded yet needs more than a GPU has free."""
    if device.type == "cpu":
        return
    needed, free = needed_weights(source, device), free_bytes(device)
    if needed > free:
        raise ModelError(
            f"the model {source.name!r} needs about {gigabytes(needed)}, {gigabytes(free)} are free on "
            f"{str(device)!r}: choose a smaller one, or --device cpu"
        )


def held_bytes(cost: Cost) -> int:
    """Bytes of a session between two steps."""
    return cost.session


def peak_bytes(cost: Cost) -> int:
    """Bytes of a session during its most expensive step."""
    return cost.session + cost.step


def _advice(settings: DragSettings, shape: ModelShape, picture: Size, drags: int, needed: Callable[[Cost], int]) -> str:
    """What to do about too large a cost: change the setting that saves most at its default."""
    bytes_now = needed(estimate(settings, shape, picture, drags))
    savings = {
        name: bytes_now - needed(estimate(settings.changed({name: default}), shape, picture, drags))
        for name, default in DEFAULTS.items()
    }
    name = max(savings, key=lambda name: savings[name])
    if savings[name] < bytes_now / 20:
        return "use a smaller model, or a device with more memory"
    if name == "reference_control":
        return "turn reference_control off"
    return f"{name} is {getattr(settings, name)}, use a smaller one"


DEFAULTS: Mapping[str, Setting] = {
    name: value for name, value in DragSettings().as_dict().items() if type(value) in (int, bool)
}
"""Of the settings that memory depends on, and some more."""


def gigabytes(count: int) -> str:
    """For people, such as ``6.2 GB``."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


# The weights ---------------------------------------------------------------------------------------------------------


def weight_bytes(model: Diffusion) -> int:
    """Bytes of a model's weights, without LoRAs."""
    networks = (model.unet, model.vae, model.text_encoder, model.text_encoder_2, model.tiny)
    weights = (weight for network in networks if network is not None for weight in network.parameters())
    return sum({place_of(weight): weight.nbytes for weight in weights}.values())


def needed_weights(source: ModelSource, device: torch.device) -> int:
    """Bytes that a model will take on a device, from the headers of its files, without LoRAs. Raises `ModelError`."""
    dtype = best_dtype(device, wide_range=source.needs_wide_range)
    files = {file for origin in origins_of(source) for file in origin.files}
    numbers = sum(
        math.prod(shape)
        for file in files
        for name, shape in read_header(file).shapes.items()
        if not name.startswith("model_ema.")  # copies, which are not opened
    )
    return numbers * dtype.itemsize


# Measuring a model ---------------------------------------------------------------------------------------------------


def measure_shape(model: Diffusion) -> ModelShape:
    """Measure a model, with passes of small latents."""
    layers = {target: _projections(model.unet, target) for target in PROJECTIONS}
    return ModelShape(
        native_side=model.native_side,
        stride=model.stride,
        latent_stride=model.latent_stride,
        feature_channels=model.feature_channels,
        pass_memory=model.pass_memory,
        lora_widths={target: sum(sum(weight.shape) for weight in found) for target, found in layers.items()},
        projection_bytes={target: sum(weight.nbytes for weight in found) for target, found in layers.items()},
        reference_bytes=_reference_bytes(model),
        autoencoder=AutoencoderMemory.of(model.vae),
        saves_memory=model.low_memory.can_save,
    )


def _projections(unet: nn.Module, target: str) -> list[Tensor]:
    """The weights of one projection of every attention."""
    ending = "to_out.0" if target == "to_out" else target
    return [
        module.weight
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear) and name.removesuffix(".base_layer").endswith(f".{ending}")  # PEFT wraps it
    ]


def _reference_bytes(model: Diffusion) -> float:
    """Bytes of the inputs of the attention layers that reference control stores, per latent cell."""
    last = len(model.unet.up_blocks) - 1
    total = 0.0
    for name, layer in controlled_layers(model.unet).items():
        cells_per_token = 4 ** (last - int(name.partition(".")[0]))
        total += layer.query_dim / cells_per_token
    return total * torch.finfo(model.dtype).bits / 8
