from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from PIL import Image
from torch import Tensor

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, Point
from livedrag.editor.drag.attention import controlled, controlled_layers, recording
from livedrag.editor.drag.snapshot_format import Snapshot
from livedrag.editor.models.ddim import ddim_step


class TwoRows:
    """The published way, written out: two rows in one batch, the second with keys and values of the first."""

    def __call__(self, attention: Attention, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        def heads(tensor: Tensor) -> Tensor:
            split: Tensor = tensor.unflatten(-1, (attention.heads, -1))
            return split.transpose(1, 2)

        query = heads(attention.to_q(hidden_states))
        key = heads(attention.to_k(hidden_states[:1])).expand(2, -1, -1, -1)
        value = heads(attention.to_v(hidden_states[:1])).expand(2, -1, -1, -1)
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        output: Tensor = attention.to_out[0]((weights @ value).transpose(1, 2).flatten(2))
        return output


def test_kept_inputs_agree_with_the_two_row_computation(tiny: Diffusion) -> None:
    reference, edited = torch.randn(2, 1, 4, 16, 16).unbind(0)
    text = tiny.embed_prompt("a cat")
    with torch.no_grad():
        layers = controlled_layers(tiny.unet)
        before = {name: layer.processor for name, layer in layers.items()}
        for layer in layers.values():
            layer.set_processor(TwoRows())
        two_rows = tiny.predict(torch.cat([reference, edited]), 400, text).noise
        for name, layer in layers.items():
            layer.set_processor(before[name])

        plain = tiny.predict(edited, 400, text).noise
        with recording(tiny.unet) as seen:
            recorded = tiny.predict(reference, 400, text).noise
        with controlled(tiny.unet, seen):
            kept = tiny.predict(edited, 400, text).noise
    assert torch.allclose(recorded, two_rows[:1], atol=1e-4)
    assert torch.allclose(kept, two_rows[1:], atol=1e-4)
    assert not torch.allclose(kept, plain, atol=1e-4)


def test_a_whole_render_agrees_with_denoising_two_rows(tiny: Diffusion) -> None:
    """Level by level, with the picture's LoRA; the second render too, which has the first one's inputs."""
    quick = {"lora_steps": 2, "lora_batch": 1, "lora_lr": 0.01, "ddim_steps": 6, "max_iterations": 3, "latent_lr": 0.1}
    settings = DragSettings.resolve("official", {}, quick)
    picture = Image.radial_gradient("L").resize((128, 128))
    session = DragSession(tiny, picture, prompt="a cat", settings=settings)
    session.add_drag("a", Drag(Point(30, 40), Point(90, 60)))
    for _ in itertools.chain(session.prepare(), session.drag(0), session.render(0)):
        pass
    first = Snapshot.from_bytes(session.snapshot()).tensors
    for _ in session.render(0):
        pass
    second = Snapshot.from_bytes(session.snapshot()).tensors

    layers = controlled_layers(tiny.unet)
    before = {name: layer.processor for name, layer in layers.items()}
    rows = torch.cat([first["picture.inverted"], session.latent])
    assert not torch.allclose(rows[0], rows[1], atol=1e-2)
    try:
        for layer in layers.values():
            layer.set_processor(TwoRows())
        with torch.no_grad(), session._state.preparation.lora.active():
            for level in tiny.schedule.levels(6)[: settings.inversion_steps][::-1]:
                noise = tiny.predict(rows, level.timestep, tiny.embed_prompt("a cat")).noise
                rows = ddim_step(rows, noise, level.alpha, level.alpha_below)
    finally:
        for name, layer in layers.items():
            layer.set_processor(before[name])
        session.close()
    assert torch.allclose(first["session.rendered"], rows[1:], atol=1e-4)
    assert torch.allclose(second["session.rendered"], rows[1:], atol=1e-4)


def test_the_controlled_layers_are_those_of_the_last_two_up_blocks(tiny: Diffusion) -> None:
    names = list(controlled_layers(tiny.unet))
    assert len(names) == 4  # two of each block here; three each, layers 10 to 15, in Stable Diffusion 1.x
    assert {name.split(".")[0] for name in names} == {"2", "3"}
    assert all(name.endswith("attn1") for name in names)


def test_processors_come_off_again_even_after_an_error(tiny: Diffusion) -> None:
    before = dict(tiny.unet.attn_processors)
    with pytest.raises(KeyError), recording(tiny.unet):
        raise KeyError
    with pytest.raises(KeyError), controlled(tiny.unet, {}):
        pass
    assert tiny.unet.attn_processors == before
