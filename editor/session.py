"""DragSession: one picture being dragged. The loop reads like the algorithm of DragDiffusion (arXiv 2306.14435)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from editor.attention import Seen, controlled, recording
from editor.ddim import ddim_step, denoising_step, inversion_step, predict_x0
from editor.errors import EditorError, NumericalError, PointError, SettingsError
from editor.lora import FitStep, Lora
from editor.model import Diffusion, Level, Setting
from editor.motion import mask_loss, motion_supervision_loss
from editor.picture import check_mask, compose, mask_to_latent, to_tensor, working_size
from editor.points import Cell, Drag, Point, Rasters, Size, distance
from editor.settings import LIVE_SETTINGS, DragSettings
from editor.tracking import have_arrived, take_templates, track_points

REFERENCE_BUDGET = 2 * 2**30
"""Bytes of the unedited picture's attention inputs kept by a session; the rest is computed again at each render."""


@dataclass(frozen=True)
class InversionStep:
    """After a step of DDIM inversion: ``step`` of ``steps``."""

    step: int
    steps: int


@dataclass(frozen=True)
class DragStep:
    """After an iteration of dragging.

    Args:
        iteration: motion supervision steps taken on the latent since the picture was prepared.
        handles: where the content of each drag was found by this iteration, in pixels of the picture.
        distances: from there to its target, in pixels of the picture.
        loss: motion supervision plus mask; 0 where no step was taken any more.
        arrived: all handles are at their targets; the loop ends here.
        predicted_x0: the clean latent that this pass implies, ``(1, 4, H/8, W/8)``, where a preview was due.
    """

    iteration: int
    handles: dict[str, Point]
    distances: dict[str, float]
    loss: float
    arrived: bool
    predicted_x0: Tensor | None


@dataclass(frozen=True)
class RenderStep:
    """After a step of denoising: ``step`` of ``steps``, and the predicted clean latent where a preview was due."""

    step: int
    steps: int
    predicted_x0: Tensor | None


@dataclass(frozen=True)
class _Handle:
    """A drag under way. The exact place is ``cell + offset``; ``template`` is None until the next features are read."""

    start: Drag
    target: Point
    cell: Cell
    offset: Cell
    template: Tensor | None = None


class DragSession:
    """One picture being edited: its LoRA, inverted latent, optimiser, handles and random generator.

    Sessions share a model and never disturb each other: what one puts on the model it takes off before each yield.

    Args:
        model: shared by all sessions of a device.
        picture: as uploaded, any size up to 8 to 1.
        prompt: what the picture shows; may be empty.
        settings: the method's numbers; by default the model's own.
        seed: of the random generator; the same seed gives the same picture on the same machine.

    Raises:
        PictureError: the picture's shape cannot be edited.
    """

    def __init__(
        self,
        model: Diffusion,
        picture: Image.Image,
        *,
        prompt: str = "",
        settings: DragSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = settings or DragSettings.resolve(model_defaults=model.defaults)
        self.iteration = 0
        self._model = model
        self._picture = picture.convert("RGB")
        size = Size(*picture.size)
        self._rasters = Rasters(size, working_size(size, model.native_side, model.stride))
        self._generator = torch.Generator().manual_seed(seed)
        self._prompt = model.embed_prompt(prompt)
        self._clean = model.encode(to_tensor(self._picture, self._rasters.working))
        self._levels = model.levels(self.settings.ddim_steps)[: self.settings.levels_inverted]
        self._lora: Lora | None = None
        self._fitted = 0
        self._climbed = 0
        self._inverted = self._clean
        self._latent: Tensor | None = None
        self._optimizer: torch.optim.Adam | None = None
        self._handles: dict[str, _Handle] = {}
        self._latent_moved = False
        self._mask: NDArray[np.bool_] | None = None
        self._latent_mask: Tensor | None = None
        self._unedited_noise: Tensor | None = None
        self._unedited: list[Tensor] = []  # the inverted latent on its way down, noisiest first
        self._reference: dict[int, Seen] = {}  # what attention saw on that way, by index
        self._rendered: Tensor | None = None

    # What people may change at any time between two yields ------------------------------------------------------------

    @property
    def drags(self) -> dict[str, Drag]:
        """By id: where the content is now, and where it should go."""
        return {name: Drag(self._point(handle), handle.target) for name, handle in self._handles.items()}

    def add_drag(self, name: str, drag: Drag) -> None:
        """Put down a handle and its target. Its template is the feature there now. Raises `PointError`."""
        self._rasters.check_drag(drag)
        self._handles[name] = self._put_down(drag, drag)

    def aim(self, name: str, target: Point) -> None:
        """Give a drag another target. Raises `PointError`."""
        self._rasters.check_point(target, "target")
        self._handles[name] = replace(self._handle(name), target=target)

    def grab(self, name: str, handle: Point) -> None:
        """Put a drag's handle elsewhere; it holds what is there now. Raises `PointError`."""
        before = self._handle(name)
        drag = Drag(handle, before.target)
        self._rasters.check_drag(drag)
        self._handles[name] = self._put_down(drag, drag if self.iteration == 0 else before.start)

    def remove_drag(self, name: str) -> None:
        """Forget a drag. Raises `PointError` where there is none."""
        self._handle(name)
        del self._handles[name]

    def set_mask(self, mask: NDArray[np.generic] | None) -> None:
        """Say what may change.

        Args:
            mask: ``(H, W)`` of the picture's size, nonzero may change; None or all zeros: everything may.

        Raises:
            MaskError: it is of another size.
        """
        checked = None if mask is None else check_mask(mask, self._rasters.picture)
        self._mask = checked if checked is not None and checked.any() else None
        rows, columns = self._clean.shape[-2:]
        self._latent_mask = None if self._mask is None else mask_to_latent(self._mask, rows, columns).to(self._clean)

    def change(self, overrides: Mapping[str, Setting]) -> None:
        """Change settings that may change during a run. Raises `SettingsError`."""
        for name in overrides:
            if name in self.settings.as_dict() and name not in LIVE_SETTINGS:
                raise SettingsError(
                    f"{name} cannot change on a prepared picture: start anew with it, "
                    f"or change {', '.join(sorted(LIVE_SETTINGS))}"
                )
        self.settings = self.settings.changed(overrides)

    def reset(self) -> None:
        """Back to the unedited latent, with the handles as they were put down."""
        self._handles = {name: self._put_down(handle.start, handle.start) for name, handle in self._handles.items()}
        self.iteration = 0
        self._latent_moved = False
        self._rendered = None
        if self.prepared:
            self._start_from(self._inverted)

    # Preparing --------------------------------------------------------------------------------------------------------

    @property
    def prepared(self) -> bool:
        """Whether the LoRA is fitted and the picture inverted."""
        return self._latent is not None

    def prepare(self) -> Iterator[FitStep | InversionStep]:
        """Fit the picture's LoRA, then invert the picture; goes on from where it was left."""
        settings = self.settings
        if self._lora is None:
            self._lora = Lora(
                self._model,
                rank=settings.lora_rank,
                targets=tuple(settings.lora_targets.split()),
                learning_rate=settings.lora_lr,
                generator=self._generator,
            )
        while self._fitted < settings.lora_steps:
            loss = self._lora.fit_step(self._model, self._clean, self._prompt, settings.lora_batch, self._generator)
            self._fitted += 1
            yield FitStep(self._fitted, settings.lora_steps, loss)
        while self._climbed < len(self._levels):
            with self._lora.active():
                self._inverted = inversion_step(self._model, self._inverted, self._prompt, self._levels[self._climbed])
            self._climbed += 1
            if self._climbed == len(self._levels):
                self._start_from(self._inverted)
            yield InversionStep(self._climbed, len(self._levels))

    # Dragging ---------------------------------------------------------------------------------------------------------

    def drag(self, preview_every: int = 4) -> Iterator[DragStep]:
        """Move the content until all handles have arrived or ``max_iterations`` steps have been taken.

        Args:
            preview_every: every how many iterations a step carries a predicted picture; 0 for never.

        Raises:
            EditorError: the picture is not prepared yet.
            PointError: there is nothing to drag.
            NumericalError: the loss is not finite; the last good latent is kept.
        """
        self._ready()
        for taken in itertools.count():
            if not self._handles:
                raise PointError(
                    "there is nothing to drag: put a handle on what should move, a target where it should go"
                )
            last = taken >= self.settings.max_iterations
            step = self._iterate(last=last, preview=preview_every > 0 and self.iteration % preview_every == 0)
            yield step
            if last or step.arrived:
                return

    def _iterate(self, *, last: bool, preview: bool) -> DragStep:
        """One iteration; the ``last`` one of an exhausted run only looks where the content is."""
        latent, optimizer, lora = self._ready()
        settings, level, mask = self.settings, self._levels[-1], self._latent_mask
        noise: Tensor | None = None
        x0: Tensor | None = None
        with torch.set_grad_enabled(not last), lora.active():
            # 1. One pass: the features, and the noise where the mask or a preview needs it.
            if last or (mask is None and not preview):
                features = self._model.predict_features(latent, level.timestep, self._prompt)
            else:
                prediction = self._model.predict(latent, level.timestep, self._prompt, noise_gradient=mask is not None)
                features, noise = prediction.features, prediction.noise

            # 2. Where is the content now?
            self._track(features.detach())

            # 3. All there, or out of iterations?
            handles, targets = self._cells()
            moving = ~have_arrived(handles, targets, settings.arrival_distance)
            if last or not moving.any():
                return self._step(loss=0.0, arrived=not moving.any(), x0=None)

            # 4. and 5. Motion supervision, and keeping what may not change.
            handles, targets = handles[moving].to(latent.device), targets[moving].to(latent.device)
            loss = motion_supervision_loss(features, handles, targets, settings.supervision_radius, self._raster)
            if mask is not None and noise is not None:
                below = ddim_step(latent, noise, level.alpha, level.alpha_below)
                unedited = ddim_step(self._inverted, self._noise_of_unedited(noise), level.alpha, level.alpha_below)
                loss = loss + mask_loss(below, unedited, mask, settings.mask_weight)

            # 6. One step of Adam on the latent alone.
            (gradient,) = torch.autograd.grad(loss, latent)
            value, largest = torch.stack([loss.detach(), gradient.abs().max()]).tolist()
            if not (math.isfinite(value) and math.isfinite(largest)):
                raise NumericalError(
                    f"iteration {self.iteration + 1} gave a loss of {value} and a gradient of {largest}: "
                    f"a latent_lr below {settings.latent_lr:g} may work"
                )
            if preview and noise is not None:
                x0 = predict_x0(latent, noise, level.alpha).detach()
            optimizer.param_groups[0]["lr"] = settings.latent_lr
            latent.grad = gradient
            optimizer.step()
            optimizer.zero_grad()
        self.iteration += 1
        self._latent_moved = True
        return self._step(loss=value, arrived=False, x0=x0)

    def _track(self, features: Tensor) -> None:
        """Move the handles to where these features show their templates; new handles take theirs."""
        known = [name for name, handle in self._handles.items() if handle.template is not None]
        if known and self._latent_moved:
            cells = torch.tensor([_pair(self._handles[name].cell) for name in known]).to(features)
            templates = torch.stack([self._template(name) for name in known])
            found = track_points(features, templates, cells, self.settings.tracking_radius, self._raster).tolist()
            for name, (row, column) in zip(known, found, strict=True):
                self._handles[name] = replace(self._handles[name], cell=Cell(row, column))
        self._latent_moved = False
        new = [name for name in self._handles if name not in known]
        if new:
            cells = torch.tensor([_pair(self._handles[name].cell) for name in new]).to(features)
            for name, template in zip(new, take_templates(features, cells, self._raster), strict=True):
                self._handles[name] = replace(self._handles[name], template=template)

    def _cells(self) -> tuple[Tensor, Tensor]:
        """Handles, on whole cells, and targets, shifted by the same fraction; ``(n, 2)`` each, on the CPU."""
        handles = self._handles.values()
        targets = [self._rasters.to_cell(handle.target) - handle.offset for handle in handles]
        return (
            torch.tensor([_pair(handle.cell) for handle in handles], dtype=self._clean.dtype),
            torch.tensor([_pair(target) for target in targets], dtype=self._clean.dtype),
        )

    def _noise_of_unedited(self, noise: Tensor | None = None) -> Tensor:
        """The noise predicted for the unedited latent; ``noise`` is the current one's, the same while nothing moved."""
        if self._unedited_noise is None:
            if self.iteration == 0 and noise is not None:
                self._unedited_noise = noise.detach()
            else:
                with torch.no_grad(), self._ready()[2].active():
                    timestep = self._levels[-1].timestep
                    self._unedited_noise = self._model.predict(self._inverted, timestep, self._prompt).noise
        return self._unedited_noise

    def _step(self, *, loss: float, arrived: bool, x0: Tensor | None) -> DragStep:
        drags = self.drags
        return DragStep(
            iteration=self.iteration,
            handles={name: drag.handle for name, drag in drags.items()},
            distances={name: distance(drag.handle, drag.target) for name, drag in drags.items()},
            loss=loss,
            arrived=arrived,
            predicted_x0=x0,
        )

    @property
    def latent(self) -> Tensor:
        """A copy of the latent as dragged so far, ``(1, 4, H/8, W/8)``. Raises `EditorError` before it is prepared."""
        return self._ready()[0].detach().clone()

    # Rendering --------------------------------------------------------------------------------------------------------

    def render(self, preview_every: int = 4) -> Iterator[RenderStep]:
        """Denoise the latent as it is now; the first time, the unedited one before it. Then `result` is the picture.

        Args:
            preview_every: every how many steps one carries a predicted picture; 0 for never.

        Raises:
            EditorError: the picture is not prepared yet.
        """
        latent = self.latent
        levels = self._levels[::-1]
        steps = self.render_steps
        done = 0
        while len(self._unedited) < len(levels):
            self._unedited.append(self._denoise_unedited(len(self._unedited)))
            done += 1
            yield RenderStep(done, steps, None)
        for index, level in enumerate(levels):
            latent, x0 = self._denoise_edited(latent, index, level)
            done += 1
            if index == len(levels) - 1:
                self._rendered = latent
            due = preview_every > 0 and (index + 1) % preview_every == 0
            yield RenderStep(done, steps, x0 if due else None)

    @property
    def render_steps(self) -> int:
        """How many steps the next `render` takes."""
        return 2 * len(self._levels) - len(self._unedited)

    def result(self) -> Image.Image:
        """The last rendered picture, RGB at the uploaded size. Raises `EditorError` where there is none."""
        if self._rendered is None:
            raise EditorError("there is no result yet: run render() to its end first")
        edited, unedited = self._model.decode(self._rendered), self._model.decode(self._unedited[-1])
        return compose(self._picture, edited, unedited, self._mask)

    def preview(self, step: DragStep | RenderStep, longest_side: int = 256) -> Image.Image | None:
        """A small RGB picture of what a step predicts, decoded by the model; None where the step carries no prediction.

        Args:
            step: of this session's `drag` or `render`, the latest one.
            longest_side: of the preview, in pixels.
        """
        if step.predicted_x0 is None:
            return None
        level = self._levels[-1]
        unedited = (
            predict_x0(self._inverted, self._noise_of_unedited(), level.alpha)
            if isinstance(step, DragStep)
            else self._unedited[-1]
        )
        small = self._picture.copy()
        small.thumbnail((longest_side, longest_side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        mask = None if self._mask is None else np.asarray(Image.fromarray(self._mask).resize(small.size))
        decode = self._model.decode_small
        return compose(small, decode(step.predicted_x0, longest_side), decode(unedited, longest_side), mask)

    def close(self) -> None:
        """Give back what the session holds on the model."""
        if self._lora is not None:
            self._lora.remove()
            self._lora = None

    def _denoise_unedited(self, index: int) -> Tensor:
        """The unedited latent below the level of this index (0: the noisiest); keeps what attention saw if it fits."""
        _, _, lora = self._ready()
        before = self._unedited[index - 1] if index else self._inverted
        level = self._levels[::-1][index]
        with lora.active(), recording(self._model.unet) as seen:
            below, _ = denoising_step(self._model, before, self._prompt, level)
        kept = sum(tensor.nbytes for entry in (seen, *self._reference.values()) for tensor in entry.values())
        if self.settings.reference_control and kept <= REFERENCE_BUDGET:
            self._reference[index] = seen
        return below

    def _denoise_edited(self, latent: Tensor, index: int, level: Level) -> tuple[Tensor, Tensor]:
        _, _, lora = self._ready()
        if not self.settings.reference_control:
            with lora.active():
                return denoising_step(self._model, latent, self._prompt, level)
        with lora.active(), controlled(self._model.unet, self._reference_at(index, level)):
            return denoising_step(self._model, latent, self._prompt, level)

    def _reference_at(self, index: int, level: Level) -> Seen:
        if index in self._reference:
            return self._reference[index]
        before = self._unedited[index - 1] if index else self._inverted
        with recording(self._model.unet) as seen:
            denoising_step(self._model, before, self._prompt, level)
        return seen

    # ------------------------------------------------------------------------------------------------------------------

    def _ready(self) -> tuple[Tensor, torch.optim.Adam, Lora]:
        if self._latent is None or self._optimizer is None or self._lora is None:
            raise EditorError("the picture is not prepared yet: run prepare() to its end first")
        return self._latent, self._optimizer, self._lora

    def _start_from(self, latent: Tensor) -> None:
        self._latent = latent.detach().clone().requires_grad_()
        self._optimizer = torch.optim.Adam([self._latent], lr=self.settings.latent_lr)

    @property
    def _raster(self) -> tuple[int, int]:
        return self._rasters.rows, self._rasters.columns

    def _put_down(self, drag: Drag, start: Drag) -> _Handle:
        cell = self._rasters.nearest_cell(drag.handle)
        return _Handle(start=start, target=drag.target, cell=cell, offset=self._rasters.to_cell(drag.handle) - cell)

    def _handle(self, name: str) -> _Handle:
        if name not in self._handles:
            raise PointError(f"there is no drag {name!r}: {', '.join(map(repr, self._handles)) or 'none'} are there")
        return self._handles[name]

    def _template(self, name: str) -> Tensor:
        template = self._handles[name].template
        assert template is not None
        return template

    def _point(self, handle: _Handle) -> Point:
        return self._rasters.to_point(handle.cell + handle.offset)


def _pair(cell: Cell) -> tuple[float, float]:
    return cell.row, cell.column
