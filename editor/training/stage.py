"""One stage of training: a loop that is seeded, stops at any time, and goes on exactly where it was."""

from __future__ import annotations

import copy
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from livedrag.editor.training.muon import Muon, split
from livedrag.editor.training.pictures import TrainingError

CPU = torch.device("cpu")
log = logging.getLogger(__name__)

_NORM = "norm of the gradients"

WARM_UP = 200
"""Steps in which the learning rate rises from nothing."""
FLOOR = 0.02
"""Share of the learning rate that is left at the last step."""
CLIP = 1.0
"""Norm that gradients are clipped to."""
LOOK = 100
"""Steps between two looks at the losses; a device that has work queued does not wait for them meanwhile."""


class Stage(ABC):
    """What is trained, on what, and how it looks. Everything random in a step comes from the seed and its number.

    Attributes:
        name: of the stage; its checkpoint is ``<name>.pt`` in the folder, beside ``<name>-loss.png``.
        modules: what is trained, on the device that it is trained on.
        rate: learning rate of Muon and AdamW at its highest.
        averaging: decay of the moving average of the weights, in the long run.
        cooling: last part of the steps, in which the learning rate falls to `FLOOR` of itself, along a cosine.
    """

    name: str
    rate: float
    averaging = 0.999
    cooling = 0.3
    modules: nn.ModuleDict

    @abstractmethod
    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        """The parts of the loss, scalars, to be summed; ``progress`` from 0 to 1."""

    @abstractmethod
    def sheet(self, averaged: nn.ModuleDict) -> Image.Image:
        """What the averaged weights can do, as a picture."""


class Training:
    """A stage under way.

    Attributes:
        step: steps taken.
        averaged: the moving average of the modules, which is what is kept in the end.
    """

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage, self._folder = stage, folder
        self._device = next(stage.modules.parameters()).device
        matrices, others = split(stage.modules)
        self._optimizers: list[torch.optim.Optimizer] = []
        if matrices:
            self._optimizers.append(Muon(matrices, lr=stage.rate))
        if others:
            self._optimizers.append(torch.optim.AdamW(others, stage.rate, (0.9, 0.99), weight_decay=0.01, fused=True))
        self.averaged = copy.deepcopy(stage.modules).requires_grad_(False).eval()
        self.step = 0
        self.seconds = 0.0
        self._losses: dict[str, list[float]] = {}
        self._unseen: list[dict[str, Tensor]] = []
        if self.checkpoint.is_file():
            self._load()

    @property
    def checkpoint(self) -> Path:
        """The file that training goes on from."""
        return self._folder / f"{self._stage.name}.pt"

    def run(self, steps: int, *, minutes: float = math.inf, save_every: float = 300) -> None:
        """Train until so many steps have been taken in all, or for so many minutes.

        Args:
            steps: in all, over all runs; the learning rate's curve belongs to them.
            save_every: seconds between checkpoints.

        Raises:
            TrainingError: the loss is not finite; the last checkpoint is of before.
        """
        self._stage.modules.train()
        began = saved = time.monotonic()
        before = self.seconds
        try:
            while self.step < steps and time.monotonic() - began < 60 * minutes:
                self._advance(steps)
                now = time.monotonic()
                self.seconds = before + now - began
                if self.step % LOOK == 0:
                    self._look()
                    name = self._stage.name
                    log.info("%s, step %d of %d, %.0f s: %s", name, self.step, steps, self.seconds, self._recent())
                if now - saved > save_every:
                    self.save()
                    saved = time.monotonic()
        finally:  # also when somebody interrupts it
            self.save()
        self.show()

    def _advance(self, steps: int) -> None:
        progress = self.step / steps
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._stage.rate * pace(self.step, steps, self._stage.cooling)
        parts = self._stage.loss(self.step, progress)
        total = torch.stack(list(parts.values())).sum()
        total.backward()
        norm = nn.utils.clip_grad_norm_(self._stage.modules.parameters(), CLIP)
        self._unseen.append({**{name: part.detach() for name, part in parts.items()}, _NORM: norm})
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        average(self.averaged, self._stage.modules, min(self._stage.averaging, self.step / (self.step + 10)))

    def _look(self) -> None:
        """Take in the losses of the steps since the last look; what is not finite stays unseen, and is said again."""
        if not self._unseen:
            return
        columns = {name: torch.stack([parts[name] for parts in self._unseen]).tolist() for name in self._unseen[0]}
        for step, row in enumerate(zip(*columns.values(), strict=True), self.step - len(self._unseen)):
            if not all(map(math.isfinite, row)):
                raise TrainingError(f"the loss of {self._stage.name} is not finite at step {step}: take a lower rate")
        self._unseen = []
        del columns[_NORM]
        for name, values in columns.items():
            self._losses.setdefault(name, []).extend(values)

    def save(self) -> None:
        """Write the checkpoint in one piece, unless a loss is not finite."""
        self._look()
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = self.checkpoint.with_suffix(".new")
        state = {
            "modules": self._stage.modules.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "losses": {name: torch.tensor(values) for name, values in self._losses.items()},
        }
        torch.save(state, beside)
        beside.replace(self.checkpoint)

    def _load(self) -> None:
        state: Mapping[str, Any] = torch.load(self.checkpoint, map_location=self._device, weights_only=True)
        self._stage.modules.load_state_dict(state["modules"])
        self.averaged.load_state_dict(state["averaged"])
        for optimizer, theirs in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(theirs)
        self.step, self.seconds = state["step"], state["seconds"]
        self._losses = {name: values.tolist() for name, values in state["losses"].items()}

    def show(self) -> None:
        """Write the loss curve and the sample sheet beside the checkpoint."""
        draw_losses(self._losses, self._folder / f"{self._stage.name}-loss.png")
        self._stage.sheet(self.averaged).save(self._folder / f"{self._stage.name}-sheet.png")

    def _recent(self) -> str:
        return ", ".join(f"{name} {np.mean(values[-100:]):.5f}" for name, values in self._losses.items())


def pace(step: int, steps: int, cooling: float) -> float:
    """Share of the highest learning rate at a step of so many; it falls over the last ``cooling`` of them."""
    left = (steps - step) / max(1.0, cooling * steps)
    falling = FLOOR + (1 - FLOOR) * (1 - math.cos(math.pi * min(1.0, left))) / 2
    return min((step + 1) / WARM_UP, 1.0) * falling


@torch.no_grad()
def average(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    """Move the averaged weights a little towards the current ones, in place."""
    torch._foreach_lerp_(list(averaged.parameters()), list(current.parameters()), 1 - decay)


def draw_losses(losses: Mapping[str, list[float]], path: Path) -> None:
    """Each part of the loss over the steps, smoothed, on a logarithmic scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, values in losses.items():
        window = max(1, len(values) // 100)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(np.arange(len(smooth)) + window, smooth, label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def tile(pictures: Tensor, columns: int, side: int = 128) -> Image.Image:
    """Pictures ``(N, 3, H, W)`` in [-1, 1] on one sheet, row by row."""
    small = nn.functional.interpolate(pictures.float(), (side, side), mode="bilinear", antialias=True)
    levels = ((small.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    rows = math.ceil(len(levels) / columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for index, picture in enumerate(levels):
        sheet.paste(Image.fromarray(picture), (index % columns * side, index // columns * side))
    return sheet
