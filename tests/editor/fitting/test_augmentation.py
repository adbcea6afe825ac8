from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from livedrag.editor import Diffusion, DragSession, DragSettings
from livedrag.editor.fitting.augmentation import random_warp


def test_copies_are_the_picture_bent_and_its_edges_stay() -> None:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 96), indexing="ij")
    picture = torch.stack([rows, columns, torch.sin(3 * rows * columns)])[None]
    copies = torch.cat([random_warp(picture, torch.Generator().manual_seed(seed)) for seed in range(5)])
    assert copies.shape == (5, 3, 64, 96)
    assert torch.equal(copies[:1], random_warp(picture, torch.Generator().manual_seed(0)))
    off = (copies - picture).abs()
    assert off[:, :, 20:44, 30:66].amax(dim=(1, 2, 3)).min() > 0.05  # each is moved in the middle
    assert off[..., 0].max() < 0.05
    assert off[:, :, 0].max() < 0.05
    # The first two channels say where content came from: the third must be what is there.
    expected = torch.sin(3 * copies[:, 0] * copies[:, 1])
    torch.testing.assert_close(copies[:, 2], expected, atol=0.05, rtol=0)


def fitted(model: Diffusion, copies: int) -> torch.Tensor:
    """A weight of the LoRA after some steps."""
    levels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    settings = DragSettings(lora_steps=4, lora_batch=2, ddim_steps=2, lora_copies=copies)
    session = DragSession(model, Image.fromarray(levels).resize((150, 100)), settings=settings)
    for _ in session.prepare():
        pass
    weight = session._state.preparation.lora.up[0].detach().clone()
    session.close()
    return weight


def test_the_lora_is_fitted_to_copies_where_they_are_wanted(tiny: Diffusion) -> None:
    none, some, more = (fitted(tiny, copies) for copies in (0, 2, 4))
    assert torch.equal(some, fitted(tiny, 2))
    assert not torch.equal(none, some)
    assert not torch.equal(some, more)
