"""Reference-latent control: self-attention attends to the unedited picture while denoising (MasaCtrl, 2304.08465).

DragDiffusion's later code denoises the inverted latent next to the dragged one, and the self-attentions of the last two
up blocks take their keys and values from it. The inverted latent's pass is the same for every edit of a picture, so the
inputs of those layers are stored at each step and used again. Inputs are half as large as keys and values, and
projecting them costs as much as projecting the layer's own input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.models.features import BeyondFeatures

Processor = Callable[..., Tensor]
Seen = dict[str, Tensor]
"""By layer, its input: ``(R, tokens, channels)``, of as many rows as the pass has."""


@contextlib.contextmanager
def recording(unet: UNet2DConditionModel) -> Iterator[Seen]:
    """Within this block, a pass of the reference latent records the inputs of the controlled layers."""
    seen: Seen = {}
    with _processors(unet, lambda name, inner: _Recorder(inner, name, seen)):
        yield seen


@contextlib.contextmanager
def controlled(unet: UNet2DConditionModel, seen: Seen) -> Iterator[None]:
    """Within this block, the controlled layers take keys and values from the recorded inputs."""
    with _processors(unet, lambda name, inner: _Controller(inner, seen[name])):
        yield


def predict_seen(
    model: Diffusion, given: tuple[Tensor, Tensor, Tensor, list[Tensor]]
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """A pass with reference-latent control, or of the reference itself, as a function of tensors.

    Args:
        model: with the LoRA, or LoRAs, of the rows.
        given: latents ``(R, 4, H/8, W/8)``, timesteps ``(R,)``, prompts ``(R, L, D)``, and what controlled layers saw
            in passes of the references, in the order of `controlled_layers`; none: these are the references.

    Returns:
        Features, the network's own output, and what the controlled layers saw if these are the references.
    """
    latents, timesteps, prompts, references = given
    names = list(controlled_layers(model.unet))
    beyond: list[BeyondFeatures] = ["no gradient"] * len(latents)
    if references:
        with controlled(model.unet, dict(zip(names, references, strict=True))):
            return (*model.predict_rows(latents, timesteps, prompts, beyond), [])
    with recording(model.unet) as seen:
        features, output = model.predict_rows(latents, timesteps, prompts, beyond)
    return features, output, [seen[name] for name in names]


def controlled_layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """The self-attentions of the last two up blocks, by name: layers 10 to 15 of Stable Diffusion 1.x."""
    first = len(unet.up_blocks) - 2
    return {
        f"{index}.{name}": module
        for index, block in enumerate(unet.up_blocks[first:], first)
        for name, module in block.named_modules()
        if isinstance(module, Attention) and not module.is_cross_attention
    }


@contextlib.contextmanager
def _processors(unet: UNet2DConditionModel, wrap: Callable[[str, Processor], Processor]) -> Iterator[None]:
    layers = controlled_layers(unet)
    before = {name: layer.processor for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.set_processor(wrap(name, before[name]))
        yield
    finally:
        for name, layer in layers.items():
            layer.set_processor(before[name])


class _Recorder:
    def __init__(self, inner: Processor, name: str, seen: Seen) -> None:
        self._inner, self._name, self._seen = inner, name, seen

    def __call__(self, attention: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._seen[self._name] = hidden_states.detach()
        return self._inner(attention, hidden_states, *args, **kwargs)


class _Controller:
    def __init__(self, inner: Processor, reference: Tensor) -> None:
        self._inner, self._reference = inner, reference

    def __call__(
        self, attention: Attention, hidden_states: Tensor, encoder_hidden_states: None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        reference = self._reference.expand(len(hidden_states), -1, -1)
        return self._inner(attention, hidden_states, reference, *args, **kwargs)
