from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from editor import Diffusion
from editor.attention import controlled, controlled_layers, recording
from tests.pipelines import write_pipeline


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    return Diffusion.load(str(write_pipeline(tmp_path_factory.mktemp("tiny") / "model")), device="cpu")


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
