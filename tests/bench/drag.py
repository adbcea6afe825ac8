"""The drag loop against the literal reference loop and a bare pass; what previews add (measurements 1 to 3)."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from livedrag.editor import Diffusion, Drag, DragSession, Point
from livedrag.editor.models.convolution import MAX_PIXELS, MatmulConv2d
from tests import reference
from tests.bench.clock import Clock
from tests.bench.model import Bench, new_lora, picture_for, settings_for
from tests.bench.table import Row

CADENCE = 4
"""By default, every how many iterations a preview is shown."""

STILL = 1e-6
"""Learning rate of the latent: nothing ever arrives, so every iteration does all of its work."""

WITHOUT, WITH = "without a mask", "with a mask"
BARE, BARE_TO_FEATURES = "bare pass", "bare pass to the penultimate block"


class Scene:
    """A prepared picture with one drag across it, to be dragged by the product and by what it is measured against.

    Attributes:
        previews, decoded: how many previews were shown, and how many of them the decoder made.
        masks: of the product's sessions, whether they have a mask; one each.
    """

    def __init__(self, model: Diffusion, clock: Clock, masks: Sequence[bool] = (False, True)) -> None:
        self._model, self._clock = model, clock
        side = model.native_side
        settings = settings_for(model, lora_steps=0, ddim_steps=2, latent_lr=STILL, max_iterations=10_000)
        left_half = np.zeros((side, side), dtype=bool)
        left_half[:, : side // 2] = True
        self.sessions: dict[bool, DragSession] = {}
        for masked in masks:
            self.sessions[masked] = session = DragSession(model, picture_for(model), settings=settings)
            for _ in session.prepare():
                pass
            session.add_drag("a", Drag(Point(side / 4, side / 2), Point(side * 3 / 4, side / 2)))
            session.set_mask(left_half if masked else None)
        self.previews = self.decoded = 0
        self._decoder_ran = False
        model.vae.decoder.register_forward_pre_hook(self._notice_decoder)
        self._start = self.sessions[masks[0]].latent.to(model.dtype)
        self._prompt = model.embed_prompt("")
        self._level = model.schedule.levels(2)[0]
        self._lora = new_lora(model)

    def ours(self, iterations: int, *, masked: bool, preview_every: int = CADENCE) -> None:
        """The product's loop, as its worker runs it: previews are decoded and compressed at once."""
        session = self.sessions[masked]
        if session.iteration % CADENCE:
            session.reset()
        steps = session.drag(preview_every)
        for _ in range(iterations):
            self._decoder_ran = False
            began = self._clock.now()
            step = next(steps)
            preview = session.preview(step)
            if preview is not None:
                preview.save(io.BytesIO(), "WEBP", quality=70, method=0)
            assert not step.arrived
            self._clock.times[ours(masked, previewed=preview is not None)].append(self._clock.now() - began)
            self.previews += preview is not None
            self.decoded += self._decoder_ran

    def close(self) -> None:
        """Take the LoRAs off the model."""
        for session in self.sessions.values():
            session.close()
        self._lora.remove()

    def _notice_decoder(self, *_: object) -> None:
        self._decoder_ran = True

    def reference(self, iterations: int, *, masked: bool, weights_require_grad: bool, settled: bool = True) -> None:
        """The literal loop. An iteration lasts from one pass's first layer to the next one's; its look at the unedited
        picture, before the first, does not count. ``settled``: as one that has run before, so that gradients of weights
        are added to those that are there, as nothing ever clears them."""
        raster = (self._model.native_side // 2,) * 2
        rows, columns = raster
        side = self._model.native_side // self._model.latent_stride
        mask = torch.zeros(1, 1, side, side, dtype=self._model.dtype, device=self._model.device)
        mask[..., : side // 2] = 1
        passes: list[float] = []
        with self._lora.unmerged(), library(self._model), _weights(self._model, weights_require_grad, settled):
            watch = self._model.unet.conv_in.register_forward_pre_hook(lambda *_: passes.append(self._clock.now()))
            try:
                trace = reference.drag(
                    self._model.unet,
                    self._start,
                    self._prompt,
                    [(rows // 2, columns // 4)],
                    [(rows // 2, columns * 3 // 4)],
                    mask if masked else None,
                    timestep=self._level.timestep,
                    alpha=self._level.alpha,
                    alpha_below=self._level.alpha_below,
                    prediction_type=self._model.schedule.prediction_type,
                    raster=raster,
                    iterations=iterations,
                    learning_rate=STILL,
                )
                passes.append(self._clock.now())
            finally:
                watch.remove()
        assert not trace.arrived
        assert len(passes) == iterations + 2
        times = self._clock.times[theirs(masked, weights_require_grad)]
        times += [after - before for before, after in itertools.pairwise(passes[1:])]

    def bare(self, passes: int) -> None:
        """The UNet forward, and backward to its input, as the libraries run it: a LoRA beside the weights, convolutions
        by oneDNN."""
        for _ in range(passes):
            latent = self._start.clone().requires_grad_()
            with self._lora.unmerged(), library(self._model), self._clock.timing(BARE):
                output = self._model.unet(latent, self._level.timestep, self._prompt, return_dict=False)[0]
                torch.autograd.grad(output, latent, torch.ones_like(output))

    def bare_to_features(self, passes: int) -> None:
        """The same up to the penultimate up block, which is all that an iteration without a mask needs."""
        for _ in range(passes):
            latent = self._start.clone().requires_grad_()
            with self._lora.unmerged(), library(self._model), self._clock.timing(BARE_TO_FEATURES):
                output = self._model.predict_features(latent, self._level.timestep, self._prompt)
                torch.autograd.grad(output, latent, torch.ones_like(output))


@contextlib.contextmanager
def library(model: Diffusion) -> Iterator[None]:
    """Within this block no convolution is computed in the product's own way."""
    layers = [layer for layer in model.unet.modules() if isinstance(layer, MatmulConv2d)]
    for layer in layers:
        layer.max_pixels = 0
    try:
        yield
    finally:
        for layer in layers:
            layer.max_pixels = MAX_PIXELS


@contextlib.contextmanager
def _weights(model: Diffusion, require_grad: bool, with_gradients: bool) -> Iterator[None]:
    """Within this block all weights of the UNet require grad, or none does; their gradients are dropped after it."""
    model.unet.requires_grad_(require_grad)
    if require_grad and with_gradients:
        for weight in model.unet.parameters():
            weight.grad = torch.zeros_like(weight)
    try:
        yield
    finally:
        model.unet.requires_grad_(False)
        model.unet.zero_grad(set_to_none=True)


def ours(masked: bool, *, previewed: bool) -> str:
    return f"ours {WITH if masked else WITHOUT}{', iteration with a preview' if previewed else ''}"


def theirs(masked: bool, weights_require_grad: bool) -> str:
    weights = "weights requiring grad" if weights_require_grad else "weights frozen"
    return f"reference {WITH if masked else WITHOUT}, {weights}"


def measure(model: Diffusion, bench: Bench, clock: Clock) -> list[Row]:
    """Seconds per iteration: rows of measurements 1 to 3."""
    scene = Scene(model, clock)
    # What a session computes once, at its first iteration and its first preview, is no part of an iteration.
    _ = model.latent_colours
    for masked in (False, True, False, True):  # twice: the second preview shows what the next ones should cost
        scene.ours(1, masked=masked)
    clock.times.clear()
    scene.previews = scene.decoded = 0
    visits = [
        partial(scene.reference, bench.visit, masked=False, weights_require_grad=True),
        partial(scene.ours, bench.ours, masked=False),
        partial(scene.reference, bench.visit, masked=False, weights_require_grad=False),
        partial(scene.bare, bench.visit),
        partial(scene.bare_to_features, bench.visit),
        partial(scene.reference, bench.visit, masked=True, weights_require_grad=True),
        partial(scene.ours, bench.ours, masked=True),
        partial(scene.reference, bench.visit, masked=True, weights_require_grad=False),
    ]
    clock.take_turns(visits, rounds=bench.rounds, warm_up=bench.warm_up)
    scene.close()

    shown = f"with previews ({scene.decoded} of {scene.previews} by a decoder)"
    against_reference, against_bare, added = [], [], []
    for masked, aims in ((False, (0.40, 0.63)), (True, (0.53, 1.03))):
        kind = WITH if masked else WITHOUT
        plain, previewed = (clock.median(ours(masked, previewed=previewed)) for previewed in (False, True))
        usual = ((CADENCE - 1) * plain + previewed) / CADENCE
        for grad, aim in ((True, aims[0]), (False, None)):
            case = theirs(masked, grad)
            against_reference.append(Row(1, f"iteration {kind}", plain, case, clock.median(case), aim))
        against_bare.append(Row(2, f"iteration {kind}, {shown}", usual, BARE, clock.median(BARE), aims[1]))
        least = BARE if masked else BARE_TO_FEATURES
        against_bare.append(Row(2, f"iteration {kind}", plain, least, clock.median(least)))
        added.append(Row(3, f"iteration {kind}, {shown}", usual, "without previews", plain, 1.05))
    return against_reference + against_bare + added
