"""The product's loop against the literal transcription of the paper in `tests.reference`."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from editor import Diffusion, Drag, DragSession, DragSettings, Point
from tests import reference
from tests.pipelines import write_pipeline

ITERATIONS = 20


def noise_picture(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(7).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def both(
    model: Diffusion, picture: Image.Image, drags: list[Drag], mask: np.ndarray | None, iterations: int
) -> tuple[list[torch.Tensor], list[list[tuple[float, float]]], reference.Trace]:
    """Latents and handle cells of the product's loop, and the reference's trace, from the same inverted latent."""
    settings = DragSettings.resolve(
        None, {}, {"lora_steps": 2, "lora_batch": 1, "lora_lr": 0.01, "ddim_steps": 10, "max_iterations": iterations}
    )
    session = DragSession(model, picture, prompt="a cat", settings=settings, seed=1)
    for _ in session.prepare():
        pass
    for index, drag in enumerate(drags):
        session.add_drag(str(index), drag)
    session.set_mask(mask)
    start = session.latent
    assert session._lora is not None
    level = session._levels[-1]
    latent_height, latent_width = start.shape[-2:]
    raster = (latent_height * 4, latent_width * 4)

    def cell(point: Point) -> tuple[float, float]:
        return (point.y + 0.5) * raster[0] / picture.height - 0.5, (point.x + 0.5) * raster[1] / picture.width - 0.5

    handles = [tuple(float(round(side)) for side in cell(drag.handle)) for drag in drags]
    targets = [
        tuple(t - (exact - whole) for t, exact, whole in zip(cell(drag.target), cell(drag.handle), handle, strict=True))
        for drag, handle in zip(drags, handles, strict=True)
    ]
    latent_mask = None
    if mask is not None:
        area = torch.nn.functional.adaptive_avg_pool2d(
            torch.from_numpy(mask)[None, None].double(), (latent_height, latent_width)
        )
        latent_mask = (area >= 0.5).to(start)
    with session._lora.active():
        trace = reference.drag(
            model.unet,
            start,
            model.embed_prompt("a cat"),
            handles,  # type: ignore[arg-type]
            targets,  # type: ignore[arg-type]
            latent_mask,
            timestep=level.timestep,
            alpha=level.alpha,
            alpha_below=level.alpha_below,
            prediction_type=model.prediction_type,
            raster=raster,
            iterations=iterations,
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


def assert_agrees(
    latents: list[torch.Tensor],
    handles: list[list[tuple[float, float]]],
    trace: reference.Trace,
    tolerance: float,
    steps: int,
) -> float:
    assert len(handles) == len(trace.handles)
    assert np.allclose(handles[:steps], trace.handles[:steps], atol=1e-6)
    assert len(latents) == len(trace.latents) > 0
    worst = max(
        (mine - theirs).abs().max().item() for mine, theirs in zip(latents[:steps], trace.latents[:steps], strict=True)
    )
    assert worst <= tolerance
    moved = (latents[-1] - latents[0]).abs().max().item()
    assert moved > 1e-3 or len(latents) == 1, "nothing was dragged, so nothing was compared"
    return worst


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


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
@pytest.mark.parametrize("drags", [ONE, SEVERAL, BORDER], ids=["one", "several", "border"])
@pytest.mark.parametrize(("version", "prediction"), [(1, "epsilon"), (2, "v_prediction")])
def test_the_loop_is_the_papers_in_float64(
    tmp_path: Path, version: int, prediction: str, drags: list[Drag], masked: bool
) -> None:
    folder = write_pipeline(tmp_path / "model", version=version, prediction_type=prediction)
    model = Diffusion.load(str(folder), device="cpu", dtype=torch.float64)
    mask = half_mask(128, 128) if masked else None
    assert_agrees(*both(model, noise_picture(128, 128), drags, mask, ITERATIONS), 1e-6, ITERATIONS)


@pytest.mark.parametrize("size", [(200, 120), (90, 260)], ids=str)
def test_other_shapes_and_scales(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    folder = write_pipeline(tmp_path / "model")
    model = Diffusion.load(str(folder), device="cpu", dtype=torch.float64)
    drags = [Drag(Point(width * 0.2, height * 0.3), Point(width * 0.7, height * 0.4))]
    assert_agrees(
        *both(model, noise_picture(width, height), drags, half_mask(width, height), ITERATIONS), 1e-6, ITERATIONS
    )


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
def test_the_built_in_model(samples: Path, masked: bool) -> None:
    picture = Image.open(samples / "teddy-bear.png").convert("RGB")
    drags = [Drag(Point(62, 150), Point(40, 110))]
    mask = half_mask(256, 256) if masked else None
    exact = Diffusion.load("builtin", device="cpu", dtype=torch.float64)
    assert_agrees(*both(exact, picture, drags, mask, ITERATIONS), 1e-6, ITERATIONS)


def test_float32_stays_near_for_five_iterations(model: Diffusion, samples: Path) -> None:
    picture = Image.open(samples / "teddy-bear.png").convert("RGB")
    assert_agrees(*both(model, picture, [Drag(Point(62, 150), Point(40, 110))], None, 5), 1e-3, 5)
