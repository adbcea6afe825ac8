"""What a session's denoised latents show: the result, and how well the model knows the picture."""

from __future__ import annotations

from PIL import Image

from livedrag.editor.drag.detail import carry_detail
from livedrag.editor.drag.latent_warp import is_warped_to_targets
from livedrag.editor.drag.state import SessionState
from livedrag.editor.errors import EditorError
from livedrag.editor.picture import compose, to_working_tensor
from livedrag.editor.similarity import peak_signal_to_noise


def compose_result(state: SessionState) -> Image.Image:
    """The last rendered picture, RGB, of the uploaded size. Raises `EditorError` if there is none."""
    if state.denoising is None or state.denoising.rendered is None:
        raise EditorError("there is no result yet: run render() to its end first")
    edited, unedited = state.model.decode(state.denoising.rendered), state.denoising.unedited_pixels()
    edit, feather = state.edit, state.settings.feather
    if state.settings.detail == "model":
        return compose(state.picture, edited, unedited, edit.mask, state.rasters, feather=feather)
    # What was warped to its target is there, though a tracker may find it a few pixels off.
    moves = [edit.aimed] if is_warped_to_targets(edit.handles) else [edit.moved, edit.aimed]
    return carry_detail(state.picture, edited, unedited, edit.mask, state.rasters, moves, feather=feather)


def measure_reconstruction(state: SessionState) -> float:
    """PSNR, in decibels, of the unedited picture as it comes back from its inversion; it must have been denoised."""
    assert state.denoising is not None
    back = state.denoising.unedited_pixels().float()
    squares = (back - to_working_tensor(state.picture, state.rasters).to(back)).square()
    return float(peak_signal_to_noise(squares.mean()))
