"""Fitting the LoRA, against a loop that encodes the picture at each step (measurement 4)."""

from __future__ import annotations

import torch

from livedrag.editor import Diffusion, DragSession
from tests.bench.clock import Clock
from tests.bench.model import Bench, picture_for, settings_for
from tests.bench.table import Row

OURS, ENCODING, ENCODER = "LoRA step", "LoRA step that encodes its rows", "encoder"


def measure(model: Diffusion, bench: Bench, clock: Clock) -> list[Row]:
    """Seconds per step of fitting. The authors' code encodes every row of every step."""
    own = settings_for(model).lora_batch
    batch = bench.lora_batch or own
    session = DragSession(model, picture_for(model), settings=settings_for(model, lora_steps=10_000, lora_batch=batch))
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(batch, 3, model.native_side, model.native_side, generator=generator) * 2 - 1

    steps = session.prepare()
    next(steps)  # puts the LoRA on the UNet

    def fit() -> None:
        with clock.timing(OURS):
            next(steps)

    def encode_and_fit() -> None:
        with clock.timing(ENCODING):
            with clock.timing(ENCODER):
                model.encode(rows)
            next(steps)

    clock.take_turns([fit, encode_and_fit], rounds=bench.rounds * bench.visit, warm_up=bench.warm_up)
    session.close()
    encoding = clock.median(ENCODING)
    unit = "1 row" if batch == 1 else f"{batch} rows"
    return [
        Row(4, f"{OURS}, {unit}", clock.median(OURS), ENCODING, encoding),
        Row(4, f"{ENCODER} in it, {unit}", clock.median(ENCODER), ENCODING, encoding),
    ]
