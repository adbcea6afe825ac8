from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from livedrag.editor import MaskError
from livedrag.editor.picture import (
    check_mask,
    compose,
    mask_to_latent,
    soften,
    to_picture,
    to_tensor,
    to_working_tensor,
)
from livedrag.editor.points import Rasters, Size


def random_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_tensors_and_pictures_are_inverse() -> None:
    picture = random_picture(40, 24)
    assert same(to_picture(to_tensor(picture, Size(40, 24))), picture)


def test_no_change_gives_the_upload_back_exactly() -> None:
    uploaded = random_picture(301, 203)
    working = to_tensor(uploaded, Size(96, 64))
    assert same(compose(uploaded, working, working, None), uploaded)


def test_outside_the_mask_the_upload_stays_and_inside_the_edit_shows() -> None:
    uploaded = random_picture(300, 200)
    unedited = to_tensor(uploaded, Size(96, 64))
    edited = torch.ones_like(unedited)
    mask = np.zeros((200, 300), dtype=bool)
    mask[50:150, 100:250] = True
    result = np.asarray(compose(uploaded, edited, unedited, mask))
    assert np.array_equal(result[~mask], np.asarray(uploaded)[~mask])
    assert result[95:105, 170:180].min() > 250


def test_fine_detail_survives_where_little_changed() -> None:
    """A faint change, scaled up, must not blur what the working picture cannot hold."""
    uploaded = random_picture(256, 256)
    unedited = to_tensor(uploaded, Size(64, 64))
    result = np.asarray(compose(uploaded, unedited + 0.01, unedited, None)).astype(int)
    assert np.abs(result - np.asarray(uploaded)).max() <= 4


def test_a_12_megapixel_picture_comes_back_at_its_size() -> None:
    uploaded = random_picture(4000, 3000)
    unedited = to_tensor(uploaded, Size(288, 224))
    edited = unedited.clone()
    edited[..., 50:100, 50:100] = 1
    mask = np.zeros((3000, 4000), dtype=bool)
    mask[:1500] = True
    result = np.asarray(compose(uploaded, edited, unedited, mask))
    assert result.shape == (3000, 4000, 3)
    assert np.array_equal(result[1500:], np.asarray(uploaded)[1500:])


def test_the_feather_lies_inside_the_mask() -> None:
    mask = np.zeros((60, 60), dtype=bool)
    mask[20:, :] = True
    soft = soften(mask, 3.0)
    assert not soft[~mask].any()
    column = soft[20:, 30]
    assert (np.diff(column) >= 0).all()
    assert column[0] < 0.3
    assert column[10:].min() > 0.99


def test_a_working_picture_with_a_margin_gives_the_upload_back() -> None:
    """1015 x 1000 pixels do not divide by a latent's cell: a margin repeats the border, and goes again."""
    uploaded = random_picture(254, 250)
    rasters = Rasters.fit(Size(254, 250), 256, 8)
    assert rasters.margin != Size(0, 0)
    working = to_working_tensor(uploaded, rasters)
    assert tuple(working.shape[-2:]) == (rasters.working.height, rasters.working.width)
    assert same(compose(uploaded, working, working, None, rasters), uploaded)
    edited = working.clone()
    edited[..., -1, -1] = 1  # in the margin
    assert compose(uploaded, edited, working, None, rasters).size == (254, 250)
    small = random_picture(64, 63)
    assert compose(small, edited, working, None, rasters).size == (64, 63)


@pytest.mark.parametrize("radius", [1, 2, 3, 5])
def test_a_brush_dot_frees_at_least_its_cell(radius: int) -> None:
    """Small dots cover less than half of any cell of the latent."""
    rng = np.random.default_rng(radius)
    y, x = np.mgrid[:512, :512]
    for _ in range(20):
        centre = rng.uniform(10, 500, 2)
        dot = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
        latent = mask_to_latent(dot, 64, 64)[0, 0].numpy()
        rows, columns = np.nonzero(dot)
        assert latent[rows // 8, columns // 8].all()
        assert latent.sum() <= ((2 * radius) // 8 + 2) ** 2


def test_masks_are_checked_and_brought_to_the_latent() -> None:
    with pytest.raises(MaskError, match="30 x 20 pixels but the picture is 40 x 20"):
        check_mask(np.zeros((20, 30)), Size(40, 20))
    mask = check_mask(np.pad(np.full((16, 32), 255), ((0, 16), (0, 0))), Size(32, 32))
    assert mask_to_latent(mask, 4, 4)[0, 0].tolist() == [[1] * 4, [1] * 4, [0] * 4, [0] * 4]
