"""A second render with reference-latent control, against denoising two rows (measurement 4)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from livedrag.editor import Diffusion, DragSession
from livedrag.editor.models.ddim import ddim_step
from tests.bench.clock import Clock
from tests.bench.model import Bench, new_lora, picture_for, settings_for
from tests.bench.table import Row

OURS, THEIRS = "step of a second render", "step of the two-row render"


class FirstRowSeen:
    """Self-attention in which every row looks at the first one's keys and values."""

    def __init__(self, inner: Callable[..., Tensor]) -> None:
        self._inner = inner

    def __call__(
        self, attention: Attention, hidden_states: Tensor, encoder_hidden_states: None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        return self._inner(attention, hidden_states, hidden_states[:1].expand_as(hidden_states), *args, **kwargs)


@contextlib.contextmanager
def first_row_seen(model: Diffusion) -> Iterator[None]:
    """Within this block, the self-attentions of the last two up blocks look at the first row."""
    layers = [
        layer
        for block in model.unet.up_blocks[-2:]
        for name, layer in block.named_modules()
        if isinstance(layer, Attention) and name.endswith("attn1")
    ]
    before = [layer.processor for layer in layers]
    try:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(FirstRowSeen(processor))
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)


def measure(model: Diffusion, bench: Bench, clock: Clock) -> list[Row]:
    """Seconds per step of denoising, the unedited row kept by the product and computed beside the edited one."""
    settings = settings_for(model, lora_steps=0, ddim_steps=bench.ddim_steps, reference_control=True)
    session = DragSession(model, picture_for(model), settings=settings)
    for _ in session.prepare():
        pass
    for _ in session.render(preview_every=0):
        pass
    levels = model.schedule.levels(settings.ddim_steps)[: settings.inversion_steps][::-1]
    prompt, lora = model.embed_prompt(""), new_lora(model)

    def again() -> None:
        steps = session.render(preview_every=0)
        for _ in range(session.render_steps):
            with clock.timing(OURS):
                next(steps)
        assert next(steps, None) is None

    @torch.no_grad()
    def two_rows() -> None:
        latents = session.latent.repeat(2, 1, 1, 1)
        with lora.active(), first_row_seen(model):
            for level in levels:
                with clock.timing(THEIRS):
                    noise = model.predict(latents, level.timestep, prompt).noise
                    latents = ddim_step(latents, noise, level.alpha, level.alpha_below)

    clock.take_turns([two_rows, again], rounds=bench.rounds, warm_up=bench.warm_up)
    session.close()
    lora.remove()
    return [Row(4, OURS, clock.median(OURS), THEIRS, clock.median(THEIRS), 0.6)]
