"""Pictures and masks: conversions between the uploaded picture and the working picture that the model sees."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor, nn

from livedrag.editor.errors import MaskError
from livedrag.editor.points import Rasters, Size

GHOST_CHANGE = 0.25
"""A change of the working picture this large (black to white is 2) replaces the uploaded picture's own detail."""
GHOST_REACH = 5
"""Side in pixels of the working picture's neighbourhood in which a large change counts.

Without it, fine edges of the uploaded picture would stay as ghosts beside the content that moved.
"""


def to_tensor(picture: Image.Image, size: Size) -> Tensor:
    """RGB picture to float32 ``(1, 3, H, W)`` in [-1, 1], resized to ``size``."""
    resized = picture.convert("RGB").resize((size.width, size.height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_working_tensor(picture: Image.Image, rasters: Rasters) -> Tensor:
    """RGB picture to the working picture, float32 ``(1, 3, H, W)`` in [-1, 1]; the margin repeats the border."""
    if rasters.margin == Size(0, 0):
        return to_tensor(picture, rasters.working)
    margin = ((0, rasters.margin.height), (0, rasters.margin.width), (0, 0))
    return to_tensor(Image.fromarray(np.pad(np.asarray(picture.convert("RGB")), margin, "edge")), rasters.working)


def to_picture(tensor: Tensor) -> Image.Image:
    """Float ``(1, 3, H, W)`` in [-1, 1] to an RGB picture; values outside are clipped."""
    levels = ((tensor[0].float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())


def check_mask(mask: NDArray[np.generic], picture: Size) -> NDArray[np.bool_]:
    """The mask as booleans, True where the picture may change.

    Args:
        mask: ``(H, W)``, any type; nonzero may change.
        picture: size of the picture.

    Raises:
        MaskError: its size is not the picture's, or nothing may change.
    """
    if mask.ndim != 2 or mask.shape != (picture.height, picture.width):
        shape = " x ".join(str(side) for side in mask.shape[1::-1])
        raise MaskError(f"the mask is {shape} pixels but the picture is {picture}: they must have the same size")
    if not mask.any():
        raise MaskError(
            "the mask lets nothing change: paint the area that may change, or use no mask to let everything change"
        )
    return mask.astype(bool)


def with_margin(mask: NDArray[np.bool_], rasters: Rasters) -> NDArray[np.bool_]:
    """The mask ``(H, W)`` of the picture with its margin, which may not change."""
    return np.pad(mask, ((0, rasters.margin.height), (0, rasters.margin.width)))


def mask_to_latent(mask: NDArray[np.bool_], rows: int, columns: int) -> Tensor:
    """The mask at the latent's size, ``(1, 1, rows, columns)``: 1 in every cell with a pixel that may change, else 0.

    However small a brush dot is, it frees its cell; what may not change is restored by `compose`, pixel by pixel.
    """
    return nn.functional.adaptive_max_pool2d(torch.from_numpy(mask)[None, None].float(), (rows, columns))


def resize_mask(mask: NDArray[np.bool_], size: Size) -> NDArray[np.bool_]:
    """The mask ``(H, W)`` at another size, by the nearest pixel."""
    return np.asarray(Image.fromarray(mask).resize((size.width, size.height), Image.Resampling.NEAREST))


def compose(
    uploaded: Image.Image,
    edited: Tensor,
    unedited: Tensor,
    mask: NDArray[np.bool_] | None,
    rasters: Rasters | None = None,
    *,
    feather: float = 2.0,
) -> Image.Image:
    """Apply an edit of the working picture to the uploaded picture.

    Where the edit changed little, its *difference* is upsampled and added to the uploaded picture, which keeps its
    sharpness, and its exact pixels where nothing moved. Where it changed much, the edited working picture itself shows,
    or else fine edges of the uploaded picture would stay behind as ghosts. Outside the mask every pixel is the uploaded
    one.

    Args:
        uploaded: RGB picture, of any size.
        edited: the working picture with the edit, ``(1, 3, h, w)`` in [-1, 1].
        unedited: the working picture as the model reconstructs it without the edit, same shape.
        mask: ``(H, W)`` at the size of ``uploaded``, True may change; None means everything may.
        rasters: of the picture, whose margin the working picture shows too; by default there is none.
        feather: how softly the mask ends, in pixels of the working picture; see `soften`.

    Returns:
        RGB picture of the size of ``uploaded``.
    """
    size = (uploaded.height, uploaded.width)
    change = (edited - unedited).float().cpu()
    strength = nn.functional.max_pool2d(change.abs().amax(1, keepdim=True), GHOST_REACH, 1, GHOST_REACH // 2)
    replaced = _upsample((strength / GHOST_CHANGE).clamp(max=1) ** 2, size, rasters)
    picture = torch.from_numpy(np.array(uploaded.convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1
    added = picture + _upsample(change, size, rasters)
    shown = added + replaced * (_upsample(edited.float().cpu(), size, rasters) - added)
    if mask is not None:
        sigma = feather * math.sqrt(size[0] * size[1] / edited[0, 0].numel())
        shown = torch.lerp(picture, shown, torch.from_numpy(soften(mask, sigma)))
    return to_picture(shown)


def _upsample(working: Tensor, size: tuple[int, int], rasters: Rasters | None) -> Tensor:
    """The working picture at the size of the picture, rows and columns, without the margin."""
    if rasters is None:
        return resize(working, size)
    shares = (rasters.covered.height / rasters.picture.height, rasters.covered.width / rasters.picture.width)
    rows, columns = (round(side * share) for side, share in zip(size, shares, strict=True))
    return resize(working, (rows, columns))[..., : size[0], : size[1]]


def resize(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """``(1, C, h, w)`` at another size, rows and columns; bilinear, averaging where it shrinks."""
    if tuple(tensor.shape[-2:]) == size:
        return tensor
    return nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False, antialias=True)


def soften(mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Soften a mask inwards: 0 where the mask is False, rising to 1 within about ``2 * sigma`` pixels of its edge."""
    blurred = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(sigma))
    inward = (np.asarray(blurred, dtype=np.float32) / 127.5 - 1).clip(0, 1)
    return np.where(mask, inward, np.float32(0))
