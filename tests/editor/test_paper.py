"""The product's loop against the literal transcription of the paper in `tests.reference`.

The transcription runs on a network that the libraries open and PEFT puts the picture's LoRA on, and takes the schedule
from diffusers: of the product it gets the inverted latent, the LoRA's weights and the prompt's embedding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, Point
from livedrag.editor.fitting.lora import Lora
from livedrag.editor.models.references import BUILTIN
from livedrag.editor.settings import Setting
from tests import reference
from tests.pipelines import XL_WIDTH, write_pipeline

ITERATIONS = 20
STEPS, CLIMBED = 10, 7


@dataclass(frozen=True)
class Opened:
    """A model as the product opens it, and its folder, from which the reference opens it."""

    model: Diffusion
    folder: Path


def opened(folder: Path, dtype: torch.dtype = torch.float64) -> Opened:
    return Opened(Diffusion.load(str(folder), device="cpu", dtype=dtype), folder)


def plain_unet(folder: Path, dtype: torch.dtype, lora: Lora) -> UNet2DConditionModel:
    """The network as the libraries open it, with a LoRA's weights in an adapter of PEFT's."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=dtype)
    rank = lora.down[0].shape[0]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    adapted = [module for module in unet.modules() if hasattr(module, "lora_A")]
    with torch.no_grad():
        for module, down, up in zip(adapted, lora.down, lora.up, strict=True):
            module.lora_A["default"].weight.copy_(down)
            module.lora_B["default"].weight.copy_(up)
    return unet.requires_grad_(False).to(lora.down[0].device)


def noise_picture(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(7).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def both(
    opened: Opened,
    picture: Image.Image,
    drags: list[Drag],
    mask: np.ndarray | None,
    iterations: int = ITERATIONS,
    numbers: dict[str, Setting] | None = None,
) -> tuple[list[torch.Tensor], list[list[tuple[float, float]]], reference.Trace]:
    """Latents and handle cells of the product's loop, and the reference's trace, from the same inverted latent."""
    model = opened.model
    quick: dict[str, Setting] = {"lora_steps": 2, "lora_batch": 1, "lora_lr": 0.01, "ddim_steps": STEPS}
    settings = DragSettings.resolve(None, {}, {**quick, "max_iterations": iterations, **(numbers or {})})
    session = DragSession(model, picture, prompt="a cat", settings=settings, seed=1)
    for _ in session.prepare():
        pass
    for index, drag in enumerate(drags):
        session.add_drag(str(index), drag)
    session.set_mask(mask)
    start = session.latent
    latent_height, latent_width = start.shape[-2:]
    raster = (latent_height * 4, latent_width * 4)

    covered = session._state.rasters.covered

    def cell(point: Point) -> tuple[float, float]:
        return (point.y + 0.5) * raster[0] / covered.height - 0.5, (point.x + 0.5) * raster[1] / covered.width - 0.5

    handles = [tuple(float(round(side)) for side in cell(drag.handle)) for drag in drags]
    targets = [
        tuple(t - (exact - whole) for t, exact, whole in zip(cell(drag.target), cell(drag.handle), handle, strict=True))
        for drag, handle in zip(drags, handles, strict=True)
    ]
    latent_mask = None
    if mask is not None:
        padded = np.pad(mask, ((0, covered.height - picture.height), (0, covered.width - picture.width)))
        latent_mask = torch.nn.functional.adaptive_max_pool2d(
            torch.from_numpy(padded)[None, None].to(start), (latent_height, latent_width)
        )
    schedule = DDIMScheduler.from_pretrained(opened.folder / "scheduler")
    schedule.set_timesteps(STEPS)
    timestep, below = schedule.timesteps[-CLIMBED : STEPS - CLIMBED + 2].tolist()
    text, pooled = model.embed_prompt("a cat"), None
    if model.kind == "stable-diffusion-xl":  # its last row, padded to the width of the others
        text, pooled = text[:, :-1], text[:, -1, :XL_WIDTH]
    given = (
        plain_unet(opened.folder, model.dtype, session._state.preparation.lora),
        start,
        text,
        handles,
        targets,
        latent_mask,
    )
    trace = (
        good_drag(given, schedule, settings, raster)
        if settings.alternation > 1
        else reference.drag(
            *given,  # type: ignore[arg-type]
            timestep=timestep,
            alpha=schedule.alphas_cumprod[timestep].item(),
            alpha_below=schedule.alphas_cumprod[below].item(),
            prediction_type=schedule.config.prediction_type,
            raster=raster,
            iterations=iterations,
            learning_rate=settings.latent_lr,
            supervision_radius=settings.supervision_radius,
            tracking_radius=settings.tracking_radius,
            mask_weight=settings.mask_weight,
            arrival_distance=settings.arrival_distance,
            supervision_step=settings.supervision_step,
            supervision_template=settings.supervision_template,
            steps_per_tracking=settings.steps_per_tracking,
            background=settings.background,
            pooled=pooled,
        )
    )
    latents, found = [], []
    for step in itertools.islice(session.drag(preview_every=3), iterations):
        found.append([cell(step.handles[str(index)]) for index in range(len(drags))])
        if not step.arrived:
            latents.append(session.latent)
    offsets = [
        tuple(exact - whole for exact, whole in zip(cell(drag.handle), handle, strict=True))
        for drag, handle in zip(drags, handles, strict=True)
    ]
    whole = [
        [(row - offset[0], column - offset[1]) for (row, column), offset in zip(step, offsets, strict=True)]
        for step in found
    ]
    session.close()
    return latents, whole, trace


def good_drag(
    given: tuple[object, ...], schedule: DDIMScheduler, settings: DragSettings, raster: tuple[int, int]
) -> reference.Trace:
    """The reference's trace of GoodDrag, from the level of dragging on."""
    timesteps = schedule.timesteps.tolist()[-CLIMBED:][: settings.alternation + 1]
    alphas = [schedule.alphas_cumprod[timestep].item() for timestep in timesteps]
    return reference.good_drag(
        *given,  # type: ignore[arg-type]
        levels=list(zip(timesteps, alphas, alphas[1:], strict=False)),
        prediction_type=schedule.config.prediction_type,
        raster=raster,
        trackings_per_level=settings.max_iterations // settings.alternation // settings.steps_per_tracking,
        steps_per_tracking=settings.steps_per_tracking,
        learning_rate=settings.latent_lr,
        supervision_radius=settings.supervision_radius,
        tracking_radius=settings.tracking_radius,
        supervision_step=settings.supervision_step,
        mask_weight=settings.mask_weight,
        arrival_distance=settings.arrival_distance,
    )


def assert_agrees(
    latents: list[torch.Tensor],
    handles: list[list[tuple[float, float]]],
    trace: reference.Trace,
    tolerance: float = 1e-6,
) -> None:
    assert len(handles) == len(trace.handles)
    assert np.allclose(handles, trace.handles, atol=1e-6)
    assert len(latents) == len(trace.latents) > 1
    worst = max((mine - theirs).abs().max().item() for mine, theirs in zip(latents, trace.latents, strict=True))
    print(f"over {len(latents)} iterations the latents differ by {worst:.1e}")  # noqa: T201  # `pytest -rP` shows it
    assert worst <= tolerance
    assert (latents[-1] - latents[0]).abs().max() > 1e-3, "nothing was dragged, so nothing was compared"


ONE = [Drag(Point(30.3, 40), Point(70, 52))]
SEVERAL = [
    Drag(Point(30, 40), Point(50, 52)),
    Drag(Point(90, 20.4), Point(60, 24)),
    Drag(Point(64, 64), Point(66, 100)),
]
BORDER = [Drag(Point(0, 0), Point(40, 0)), Drag(Point(127, 90), Point(127, 127))]


def half_mask(width: int, height: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[:, : width // 2] = True
    return mask


Layout = tuple[int | str, str]
OLD, NEW, XL = (1, "epsilon"), (2, "v_prediction"), ("xl", "epsilon")
MIXED = (1, "v_prediction"), (2, "epsilon")
"""Stable Diffusion's version, whose layout it has, and what it predicts."""
CASES: list[Any] = [(layout, SEVERAL) for layout in (OLD, NEW, XL)] + [
    pytest.param(layout, drags, marks=pytest.mark.long)
    for layout, drags in itertools.chain(
        ((layout, SEVERAL) for layout in MIXED),
        itertools.product((OLD, NEW, XL), (ONE, BORDER)),
    )
]
Tiny = Callable[[Layout], Opened]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    @cache
    def make(layout: Layout) -> Opened:
        folder = tmp_path_factory.mktemp("tiny") / "model"
        return opened(write_pipeline(folder, version=layout[0], prediction_type=layout[1]))

    return make


@pytest.mark.parametrize("masked", [pytest.param(False, marks=pytest.mark.long), True], ids=["free", "masked"])
@pytest.mark.parametrize(("layout", "drags"), CASES)
def test_the_loop_is_the_papers_in_float64(tiny: Tiny, layout: Layout, drags: list[Drag], masked: bool) -> None:
    mask = half_mask(128, 128) if masked else None
    latents, handles, trace = both(tiny(layout), noise_picture(128, 128), drags, mask)
    assert_agrees(latents, handles, trace)
    assert trace.handles[-1] != trace.handles[0], "nothing was tracked, so nothing was compared"


@pytest.mark.parametrize(
    ("layout", "size", "masked"),
    [(OLD, (200, 120), True), (NEW, (90, 260), True), (NEW, (200, 120), False), (XL, (200, 120), True)],
)
def test_other_shapes_and_scales(tiny: Tiny, layout: Layout, size: tuple[int, int], masked: bool) -> None:
    width, height = size
    drags = [Drag(Point(width * 0.2, height * 0.3), Point(width * 0.7, height * 0.4))]
    mask = half_mask(width, height) if masked else None
    assert_agrees(*both(tiny(layout), noise_picture(width, height), drags, mask))


def test_other_numbers_and_a_point_that_has_arrived(tiny: Tiny) -> None:
    """The first drag is nearer to its target than the distance of arriving: it only follows its content."""
    drags = [Drag(Point(60, 64), Point(66, 64)), Drag(Point(30, 40), Point(90, 52))]
    numbers: dict[str, Setting] = {
        "latent_lr": 0.03,
        "supervision_radius": 2,
        "tracking_radius": 5,
        "mask_weight": 0.7,
        "arrival_distance": 7.0,
    }
    assert_agrees(*both(tiny(OLD), noise_picture(128, 128), drags, half_mask(128, 128), numbers=numbers))


GOODDRAG: dict[str, Setting] = {
    "supervision_template": "first",
    "supervision_step": 4.0,
    "supervision_radius": 2,
    "tracking_radius": 6,
    "steps_per_tracking": 3,
    "latent_lr": 0.02,
}
"""GoodDrag's supervision, with smaller radii, so that the literal transcription does not take minutes."""


@pytest.mark.parametrize("background", ["loss", "keep"])
def test_supervision_beyond_the_paper(tiny: Tiny, background: str) -> None:
    numbers = {**GOODDRAG, "background": background}
    latents, handles, trace = both(tiny(OLD), noise_picture(128, 128), SEVERAL, half_mask(128, 128), 9, numbers=numbers)
    assert_agrees(latents, handles, trace)
    assert trace.handles[-1] != trace.handles[0], "nothing was tracked, so nothing was compared"


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
def test_dragging_and_denoising_alternate_as_in_gooddrag(tiny: Tiny, masked: bool) -> None:
    mask = half_mask(128, 128) if masked else None
    numbers: dict[str, Setting] = {**GOODDRAG, "alternation": 3, "max_iterations": 18}
    latents, handles, trace = both(tiny(OLD), noise_picture(128, 128), SEVERAL, mask, 18, numbers=numbers)
    assert_agrees(latents, handles, trace, tolerance=1e-9)
    assert trace.handles[-1] != trace.handles[0], "nothing was tracked, so nothing was compared"


def test_the_preset_has_gooddrags_published_constants() -> None:
    """Those of its benchmark script: `bench_gooddrag.py` at commit fc01bc1."""
    settings = DragSettings.resolve("gooddrag")
    assert (settings.lora_steps, settings.lora_lr, settings.lora_batch, settings.lora_rank) == (70, 5e-4, 4, 16)
    assert (settings.ddim_steps, settings.inversion_strength, settings.inversion_steps) == (50, 0.75, 38)
    assert (settings.latent_lr, settings.mask_weight) == (0.02, 0.1)
    assert (settings.supervision_radius, settings.tracking_radius, settings.supervision_step) == (4, 12, 4)
    assert (settings.alternation, settings.steps_per_tracking) == (7, 3)
    assert settings.max_iterations == 7 * 10 * 3, "levels, trackings at each, and steps for each tracking"
    assert settings.supervision_template == "first"
    assert settings.reference_control


@pytest.mark.long
@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
def test_the_built_in_model(samples: Path, masked: bool) -> None:
    picture = Image.open(samples / "teddy-bear.png").convert("RGB")
    drags = [Drag(Point(62, 150), Point(40, 110))]
    mask = half_mask(256, 256) if masked else None
    assert_agrees(*both(opened(BUILTIN), picture, drags, mask))


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
def test_float32_stays_near_for_five_iterations(model: Diffusion, samples: Path, masked: bool) -> None:
    picture = Image.open(samples / "teddy-bear.png").convert("RGB")
    mask = half_mask(256, 256) if masked else None
    assert_agrees(*both(Opened(model, BUILTIN), picture, [Drag(Point(62, 150), Point(40, 110))], mask, 5), 1e-3)
