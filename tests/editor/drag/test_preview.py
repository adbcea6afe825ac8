from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, ModelError, Point, SettingsError
from livedrag.editor.drag import preview
from livedrag.editor.drag.decoding import decode_preview
from livedrag.editor.drag.preview import affordable
from livedrag.editor.picture import to_tensor
from livedrag.editor.points import Size
from livedrag.editor.settings import Quality
from tests.pipelines import write_pipeline


@pytest.fixture(scope="module")
def latent(model: Diffusion, samples: Path) -> torch.Tensor:
    return model.encode(to_tensor(Image.open(samples / "t-rex.png"), Size(256, 256)))


def test_a_smaller_preview_shows_the_same(model: Diffusion, latent: torch.Tensor) -> None:
    small, full = decode_preview(model, latent, "full", 128), decode_preview(model, latent, "full", 256)
    assert (small.shape[-1], full.shape[-1]) == (128, 256)
    assert (small - torch.nn.functional.avg_pool2d(full, 2)).abs().mean() < 0.1


def test_the_linear_map_shows_the_colours(model: Diffusion, latent: torch.Tensor) -> None:
    """On a picture it was not fitted on, it explains most of what the decoder shows at the latent's size."""
    colours = decode_preview(model, latent, "latent", 256)
    decoded = torch.nn.functional.avg_pool2d(model.decode(latent), 8)
    assert colours.shape == (1, 3, 32, 32)
    unexplained = (colours - decoded).square().mean() / decoded.var()
    assert unexplained < 0.2


def test_decoders_give_way_where_they_would_hold_up_the_iterations(model: Diffusion) -> None:
    assert affordable(model, 256, decode_seconds=0.09, iteration_seconds=0.12, every=4) == ("full", 256)
    assert affordable(model, 256, decode_seconds=0.3, iteration_seconds=0.1, every=4) == ("full", 128)
    assert affordable(model, 256, decode_seconds=0.3, iteration_seconds=1.0, every=8) == ("full", 256)
    assert affordable(model, 256, decode_seconds=0.3, iteration_seconds=0.01, every=4) == ("latent", 128)
    assert affordable(model, 128, decode_seconds=0.3, iteration_seconds=0.4, every=4) == ("full", 128)


def test_a_decoder_that_is_too_slow_is_tried_again_after_so_many_previews(
    tiny: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "MAX_DECODER_SHARE", 0.0)
    monkeypatch.setattr(preview, "REMEASURE_EVERY", 4)
    qualities: list[Quality] = []

    def noting(model: Diffusion, latent: torch.Tensor, quality: Quality, side: int) -> torch.Tensor:
        qualities.append(quality)
        return decode_preview(model, latent, quality, side)

    settings = DragSettings(lora_steps=0, ddim_steps=4, max_iterations=10)
    session = DragSession(tiny, Image.new("RGB", (96, 64), "teal"), settings=settings)
    for _ in session.prepare():
        pass
    session.add_drag("d1", Drag(Point(30, 30), Point(70, 40)))
    tried = []
    with monkeypatch.context() as patched:
        patched.setattr(preview, "decode_preview", noting)
        for step in session.drag(preview_every=1):
            if step.predicted_x0 is not None:
                session.preview(step)
                tried.append("full" in qualities)
                qualities.clear()
    session.close()
    assert tried[4:9] == [True, False, False, False, True]


def test_a_tiny_autoencoder_is_used_where_one_is_named(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path / "model")
    channels = (8, 8, 8, 8)
    tiny = AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels)
    tiny.save_pretrained(tmp_path / "tiny")
    plain = Diffusion.load(str(folder), device="cpu")
    with pytest.raises(SettingsError, match="use 'full'"):
        decode_preview(plain, torch.zeros(1, 4, 16, 16), "tiny", 128)
    named = Diffusion.load(str(folder), device="cpu", tiny=str(tmp_path / "tiny"))
    assert decode_preview(named, torch.zeros(1, 4, 16, 16), "tiny", 128).shape == (1, 3, 128, 128)
    assert affordable(named, 256, 0.0, 1.0, 4) == ("tiny", 256)
    tiny.save_pretrained(folder / "tiny")
    assert Diffusion.load(str(folder), device="cpu").tiny is not None
    with pytest.raises(ModelError, match="need an AutoencoderTiny"):
        Diffusion.load(str(folder), device="cpu", tiny=str(folder / "unet"))
