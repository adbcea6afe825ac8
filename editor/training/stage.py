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
from livedrag.editor.training.shards import save_shards

CPU = torch.device("cpu")
log = logging.getLogger(__name__)

_NORM = "norm of the gradients"

FLOOR = 0.02
"""Share of the learning rate that is left at the last step."""
CLIP = 1.0
"""Norm that gradients are clipped to."""
LOOK = 20
"""Steps between two looks at the losses; a device that has work queued does not wait for them meanwhile."""


class Stage(ABC):
    """What is trained, on what, and how it looks. Everything random in a step comes from the seed and its number.

    Attributes:
        name: of the stage; its checkpoint is ``<name>.pt`` in the folder, beside ``<name>-loss.png``.
        modules: what is trained, on the device that it is trained on.
        rate: learning rate at its highest, of Muon and AdamW alike.
        orthogonal: whether matrices are trained by Muon, else by AdamW like all others.
        averaging: decay of the moving average of the weights, in the long run.
        warm_up: steps in which the learning rate rises from nothing.
        cooling: last part of the training, in which the learning rate falls to `FLOOR` of itself, along a cosine.
        watched: names of what `loss` returns that is written down but not trained on.
    """

    name: str
    rate: float
    orthogonal = True
    averaging = 0.999
    warm_up = 200
    cooling = 0.3
    watched: frozenset[str] = frozenset()
    modules: nn.ModuleDict

    @abstractmethod
    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        """The parts of the loss, scalars, to be summed, and what is `watched`; ``progress`` from 0 to 1."""

    @abstractmethod
    def sheet(self, averaged: nn.ModuleDict) -> Image.Image:
        """What the averaged weights can do, as a picture."""

    def state_dict(self) -> dict[str, Any]:
        """What the stage needs beside its modules to go on exactly where it was."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        assert not state


class Training:
    """A stage under way.

    Args:
        stage: what is trained.
        folder: of the checkpoint.
        shards: folder that also gets the averaged weights, in small files, at every checkpoint.

    Attributes:
        step: steps taken.
        averaged: the moving average of the modules, which is what is kept in the end.
    """

    def __init__(self, stage: Stage, folder: Path, *, shards: Path | None = None) -> None:
        self._stage, self._folder, self._shards = stage, folder, shards
        self._device = next(stage.modules.parameters()).device
        matrices, others = split(stage.modules) if stage.orthogonal else ([], list(stage.modules.parameters()))
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

    def run(self, steps: int | None, *, minutes: float = math.inf, save_every: float = 300) -> bool:
        """Train for so many steps, or for so many minutes.

        Args:
            steps: in all, over all runs; the learning rate's curve belongs to them. Without them the minutes are those
                of all runs, and the curve belongs to these.
            minutes: with steps, when to stop this run.
            save_every: seconds between checkpoints.

        Returns:
            Whether the training is complete: without steps always, else if they have all been taken.

        Raises:
            TrainingError: there is no end, or the loss is not finite; the last checkpoint is of before.
        """
        if steps is None and minutes == math.inf:
            raise TrainingError("training needs an end: give --steps, --minutes or both")
        self._stage.modules.train()
        before, began = self.seconds, time.monotonic()
        saved = began
        try:
            while not self._is_over(steps, minutes, before):
                self._advance(self.step / steps if steps is not None else self.seconds / (60 * minutes))
                now = time.monotonic()
                self.seconds = before + now - began
                if self.step % LOOK == 0:
                    self._look()
                    log.info("%s, step %d, %.0f s: %s", self._stage.name, self.step, self.seconds, self._recent())
                if now - saved > save_every:
                    self.save()
                    saved = time.monotonic()
        finally:  # when interrupted, too
            self.save()
        self.show()
        return steps is None or self.step >= steps

    def _is_over(self, steps: int | None, minutes: float, before: float) -> bool:
        if steps is None:
            return self.seconds >= 60 * minutes
        return self.step >= steps or self.seconds - before >= 60 * minutes

    def _advance(self, progress: float) -> None:
        """One step; progress from 0 to 1."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._stage.rate * pace(self.step, progress, self._stage.warm_up, self._stage.cooling)
        parts = self._stage.loss(self.step, progress)
        total = torch.stack([part for name, part in parts.items() if name not in self._stage.watched]).sum()
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
            "stage": self._stage.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": {name: torch.tensor(values) for name, values in self._losses.items()},
        }
        torch.save(state, beside)
        beside.replace(self.checkpoint)
        if self._shards is not None:
            save_shards(self.averaged, self._shards, self.step)

    def _load(self) -> None:
        state: Mapping[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self._stage.modules.load_state_dict(state["modules"])
        self.averaged.load_state_dict(state["averaged"])
        for optimizer, theirs in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(theirs)
        self._stage.load_state_dict(state["stage"])
        self.step, self.seconds = state["step"], state["seconds"]
        self._losses = {name: values.tolist() for name, values in state["losses"].items()}

    def show(self) -> None:
        """Write the loss curve and the sample sheet beside the checkpoint."""
        draw_losses(self._losses, self._folder / f"{self._stage.name}-loss.png")
        self._stage.sheet(self.averaged).save(self._folder / f"{self._stage.name}-sheet.png")

    def _recent(self) -> str:
        return ", ".join(f"{name} {np.mean(values[-100:]):.5f}" for name, values in self._losses.items())


def load_averaged(folder: Path, name: str) -> dict[str, Tensor]:
    """The averaged weights of a stage's checkpoint.

    Raises:
        TrainingError: there is none.
    """
    checkpoint = (folder / name).with_suffix(".pt")
    if not checkpoint.is_file():
        raise TrainingError(f"there is no checkpoint of the {name} in {folder}: train that first")
    averaged: dict[str, Tensor] = torch.load(checkpoint, map_location=CPU, weights_only=True)["averaged"]
    return averaged


def pace(step: int, progress: float, warm_up: int, cooling: float) -> float:
    """Share of the highest learning rate at a step; it falls over the last part, ``cooling``, of the progress to 1."""
    left = (1 - progress) / cooling
    falling = FLOOR + (1 - FLOOR) * (1 - math.cos(math.pi * min(1.0, max(0.0, left)))) / 2
    return min((step + 1) / warm_up, 1.0) * falling


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
