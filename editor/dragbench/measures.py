"""What is measured of a result: how near content came to its targets, and how like the original the rest is.

Mean distance follows DragBench: where does the result show what the original has at each handle, and how far from the
target is that? DragBench finds it by DIFT (Tang et al., arXiv 2306.03881), which needs a model; without one, pixels are
correlated. The two give other numbers and must not be compared.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from livedrag.editor.drag.content import correlate
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.picture import to_tensor
from livedrag.editor.points import Drag, Point, Size, distance
from livedrag.editor.sampling import bilinear
from livedrag.editor.similarity import structural_similarity

SIDE, RADIUS = 512, 20
"""Longest side in pixels of pictures whose pixels are correlated, and the reach of a handle's patch there."""
DIFT_TIMESTEP, DIFT_BLOCK, DIFT_PASSES, DIFT_SEED = 261, 1, 8, 42
"""As published: the timestep, the up block, how many noises are averaged."""
ROWS = 32
"""Of the picture, compared at once."""

Likeness = Callable[[Point], Tensor]
"""How alike the result is, at each of its pixels ``(H, W)``, to the original at a point."""


def by_correlation(original: Image.Image, edited: Image.Image) -> Likeness:
    """Likeness of pixels: normalised cross-correlation of patches."""
    scale = min(1.0, SIDE / max(original.size))
    size = Size(round(original.width * scale), round(original.height * scale))
    pads = (RADIUS,) * 4
    one, other = (nn.functional.pad(to_tensor(each, size), pads, mode="replicate")[0] for each in (original, edited))

    def likeness(point: Point) -> Tensor:
        column, row = round((point.x + 0.5) * scale - 0.5), round((point.y + 0.5) * scale - 0.5)
        column, row = min(max(column, 0), size.width - 1), min(max(row, 0), size.height - 1)
        patch = one[:, row : row + 2 * RADIUS + 1, column : column + 2 * RADIUS + 1]
        found = correlate(other, patch)
        if scale == 1:
            return found
        shape = (original.height, original.width)
        return nn.functional.interpolate(found[None, None], shape, mode="bilinear", align_corners=False)[0, 0]

    return likeness


def by_dift(model: Diffusion, prompt: str, original: Image.Image, edited: Image.Image) -> Likeness:
    """Likeness of diffusion features (DIFT): cosine similarity."""
    one, other = (_dift(model, prompt, each) for each in (original, edited))
    height, width = original.height, original.width

    def likeness(point: Point) -> Tensor:
        wanted = _sample(one, torch.tensor([[point.y]]), torch.tensor([[point.x]]), height, width)[:, 0, 0]
        columns = torch.arange(width, dtype=torch.float32)
        parts = []
        for top in range(0, height, ROWS):
            rows = torch.arange(top, min(height, top + ROWS), dtype=torch.float32)
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            found = _sample(other, y, x, height, width)
            parts.append(nn.functional.cosine_similarity(found, wanted[:, None, None], dim=0))
        return torch.cat(parts).cpu()

    return likeness


@torch.no_grad()
def _dift(model: Diffusion, prompt: str, picture: Image.Image) -> Tensor:
    """Features ``(C, h, w)``, averaged over noises."""
    embedding = model.embed_prompt(prompt)
    latent = model.encode(to_tensor(picture, Size(model.native_side, model.native_side)))
    alpha = model.schedule.alphas[DIFT_TIMESTEP]
    generator = torch.Generator().manual_seed(DIFT_SEED)
    seen: list[Tensor] = []
    hook = model.unet.up_blocks[DIFT_BLOCK].register_forward_hook(lambda _, __, output: seen.append(output[0].float()))
    try:
        for _ in range(DIFT_PASSES):
            noise = torch.randn(latent.shape, generator=generator).to(latent)
            model.run_unet(alpha**0.5 * latent + (1 - alpha) ** 0.5 * noise, DIFT_TIMESTEP, embedding)
    finally:
        hook.remove()
    return torch.stack(seen).mean(0)


def _sample(features: Tensor, y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """Features ``(C, h, w)`` at pixels of the picture, ``(C, *y.shape)``, bilinear."""
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)[None].to(features)
    return bilinear(features[None], grid)[0]


def mean_distance(drags: Sequence[Drag], likeness: Likeness, inside: NDArray[np.bool_] | None = None) -> float:
    """From where the result shows the content of each handle to its target, in pixels, on average.

    Args:
        likeness: of the result.
        inside: ``(H, W)``, where content is searched; None: everywhere.
    """
    return float(np.mean([distance(_best(likeness(drag.handle), inside), drag.target) for drag in drags]))


def _best(likeness: Tensor, inside: NDArray[np.bool_] | None) -> Point:
    if inside is not None:
        likeness = likeness.masked_fill(~torch.from_numpy(inside), -torch.inf)
    row, column = divmod(int(likeness.argmax()), likeness.shape[1])
    return Point(column, row)


def similarity(original: Image.Image, edited: Image.Image) -> float:
    """SSIM of the brightness of two pictures, at most 1."""
    size = Size(*original.size)
    return float(structural_similarity(to_tensor(original, size)[0], to_tensor(edited, size)[0]).mean())


def difference(original: Image.Image, edited: Image.Image) -> float:
    """Mean absolute difference of two pictures, in levels of 255."""
    one, other = (np.asarray(each, np.float64) for each in (original, edited))
    return float(np.abs(one - other).mean())


def perceptual_distance(original: Image.Image, edited: Image.Image) -> float | None:
    """LPIPS (AlexNet), if the package ``lpips`` is installed with its weights; else None. Untested."""
    if importlib.util.find_spec("lpips") is None:
        return None
    lpips = importlib.import_module("lpips")
    size = Size(*original.size)
    with torch.no_grad():
        return float(lpips.LPIPS(net="alex", verbose=False)(to_tensor(original, size), to_tensor(edited, size)))
