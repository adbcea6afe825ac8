"""DragSession: one picture being dragged. The loop reads like the algorithm of DragDiffusion (arXiv 2306.14435)."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from livedrag.editor.drag.denoising import Denoising
from livedrag.editor.drag.handles import Handle, cells_and_targets, follow, place, put_down
from livedrag.editor.drag.latent_warp import came_from, glide, has_way, warped
from livedrag.editor.drag.motion import mask_loss, motion_supervision_loss
from livedrag.editor.drag.preview import Previewer, Quality
from livedrag.editor.drag.snapshot import Part, Snapshot, part_of
from livedrag.editor.drag.timeline import Moment, Timeline
from livedrag.editor.drag.tracking import have_arrived
from livedrag.editor.errors import EditorError, NumericalError, PointError, SettingsError
from livedrag.editor.fitting.augmentation import warped_copy
from livedrag.editor.fitting.lora import FitStep, Lora
from livedrag.editor.generate import GUIDANCE, GenerationStep
from livedrag.editor.models.ddim import Guidance, ddim_step, inversion_step, predict_x0
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.picture import (
    check_mask,
    compose,
    mask_to_latent,
    resize_mask,
    to_picture,
    to_rgb,
    to_tensor,
    working_size,
)
from livedrag.editor.points import Drag, Point, Rasters, Size, distance
from livedrag.editor.settings import LIVE_SETTINGS, DragSettings, Setting, check_seed

TIMELINE_BUDGET = 64 * 2**20
"""Bytes of latents and thumbnails on one session's timeline."""


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


class DragSession:
    """One picture being edited: its LoRA, inverted latent, optimiser, handles and random generator.

    Sessions share a model and never disturb each other: each of their passes says which LoRA it wants, and attention
    processors and grad modes are left before each yield.

    Args:
        model: shared by all sessions of a device.
        picture: as uploaded, any size up to 8 to 1.
        prompt: what the picture shows; may be empty.
        settings: the method's numbers; by default the model's own.
        seed: of the random generator; the same seed gives the same picture on the same machine.

    Raises:
        PictureError: the picture's shape cannot be edited.
        SettingsError: the seed is out of range.
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
        check_seed(seed)
        picture = to_rgb(picture)
        working = working_size(Size(*picture.size), model.native_side, model.stride)
        self._set_up(
            model,
            picture,
            settings or DragSettings.resolve(model_defaults=model.defaults),
            prompt=model.embed_prompt(prompt),
            clean=model.encode(to_tensor(picture, working)),
            generator=torch.Generator().manual_seed(seed),
        )

    @classmethod
    def from_generation(
        cls,
        model: Diffusion,
        prompt: str,
        steps: Sequence[GenerationStep],
        *,
        guidance: float = GUIDANCE,
        picture: Image.Image | None = None,
        settings: DragSettings | None = None,
        seed: int = 0,
    ) -> DragSession:
        """A session on a picture that `generate` has made: dragged is its own latent, without inversion.

        Args:
            model: that made it.
            prompt: it was made from.
            steps: all steps of making it.
            guidance: it was made with.
            picture: that was kept of it; by default the one that the steps gives.
            settings, seed: as for any session; ``ddim_steps`` must be those of the steps.

        Raises:
            SettingsError: it was made in another number of steps.
        """
        settings = settings or DragSettings.resolve(model_defaults=model.defaults)
        if len(steps) != settings.ddim_steps:
            raise SettingsError(
                f"the picture was generated in {len(steps)} steps and ddim_steps is {settings.ddim_steps}: "
                "the same number works"
            )
        picture = picture or to_picture(model.decode(steps[-1].latent))
        session = cls(model, picture, prompt=prompt, settings=settings, seed=seed)
        session._clean = steps[-1].latent
        session._inverted = steps[-settings.levels_inverted].before
        session._climbed = len(session._levels)
        session._guidance = Guidance(model.embed_prompt(""), guidance)
        return session

    def _set_up(
        self,
        model: Diffusion,
        picture: Image.Image,
        settings: DragSettings,
        *,
        prompt: Tensor,
        clean: Tensor,
        generator: torch.Generator,
    ) -> None:
        size = Size(*picture.size)
        self.settings = settings
        self.iteration = 0
        self._model, self._picture = model, picture
        self._rasters = Rasters(size, working_size(size, model.native_side, model.stride))
        self._prompt, self._clean, self._generator = prompt, clean, generator
        self._levels = model.levels(self.settings.ddim_steps)[: self.settings.levels_inverted]
        self._lora: Lora | None = None
        self._copies = clean[:0]  # latents of warped copies of the picture, (N, 4, H/8, W/8)
        self._fitted = 0
        self._climbed = 0
        self._inverted = self._clean
        self._guidance: Guidance | None = None
        self._latent: Tensor | None = None
        self._optimizer: torch.optim.Adam | None = None
        self._handles: dict[str, Handle] = {}
        self._latent_moved = False
        self._taken = 0  # iterations of the run that is going on
        self.timeline = Timeline(TIMELINE_BUDGET)
        self._mask: NDArray[np.bool_] | None = None
        self._latent_mask: Tensor | None = None
        self._working_mask: NDArray[np.bool_] | None = None
        self._unedited_noise: Tensor | None = None
        self._encoded: tuple[Image.Image, Tensor] | None = None
        self._descent: Denoising | None = None
        self._rendered: Tensor | None = None
        self._previewer = Previewer(model, self._picture)

    @property
    def picture(self) -> Image.Image:
        """The picture that is edited, RGB."""
        return self._picture

    # What people may change at any time between two yields ------------------------------------------------------------

    @property
    def drags(self) -> dict[str, Drag]:
        """By id: where the content is now, and where it should go."""
        return {name: Drag(place(handle, self._rasters), handle.target) for name, handle in self._handles.items()}

    def add_drag(self, name: str, drag: Drag) -> None:
        """Put down a handle and its target. Its template is the feature there now. Raises `PointError`."""
        self._rasters.check_drag(drag)
        self._handles[name] = put_down(drag, self._rasters, origin=self._origin(drag))

    def aim(self, name: str, target: Point) -> None:
        """Give a drag another target. Raises `PointError`."""
        self._rasters.check_point(target, "target")
        self._handles[name] = replace(self._handle(name), target=target)

    def grab(self, name: str, handle: Point) -> None:
        """Put a drag's handle elsewhere; it holds what is there now. Raises `PointError`."""
        before = self._handle(name)
        drag = Drag(handle, before.target)
        self._rasters.check_drag(drag)
        self._handles[name] = put_down(
            drag,
            self._rasters,
            start=None if self.iteration == 0 else before.start,
            origin=self._origin(drag),
        )

    def remove_drag(self, name: str) -> None:
        """Forget a drag. Raises `PointError` where there is none."""
        self._handle(name)
        del self._handles[name]

    def set_mask(self, mask: NDArray[np.generic] | None) -> None:
        """Say what may change.

        Args:
            mask: ``(H, W)`` of the picture's size, nonzero may change; None: everything may.

        Raises:
            MaskError: it is of another size, or lets nothing change.
        """
        self._mask = None if mask is None else check_mask(mask, self._rasters.picture)
        rows, columns = self._clean.shape[-2:]
        self._latent_mask = None if self._mask is None else mask_to_latent(self._mask, rows, columns).to(self._clean)
        self._working_mask = None if self._mask is None else resize_mask(self._mask, self._rasters.working)

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
        """Back to the unedited latent, the handles where they were put down; the timeline keeps what was reached."""
        self._handles = {
            name: put_down(Drag(handle.start.handle, handle.target), self._rasters)
            for name, handle in self._handles.items()
        }
        self._rendered = None
        if self.prepared:
            self._go_on_from(self._inverted, iteration=0)
            self.timeline.current = next(iter(self.timeline)).index

    def seek(self, index: int) -> None:
        """Back (or forth) to a kept iteration; the next one branches from there.

        Its latent was kept in half precision and Adam starts afresh: going on is not bit for bit the run of then.

        Args:
            index: of a `Moment` on the `timeline`.

        Raises:
            EditorError: it is not kept.
        """
        moment = self.timeline[index]
        if moment.parent is None:
            self.reset()
            return
        self._handles = dict(moment.handles)
        self._go_on_from(moment.latent.to(self._clean), iteration=moment.iteration)
        self._latent_moved = True
        self.timeline.current = index

    def tracked(self, index: int) -> dict[str, Point]:
        """Where the content of each drag was at a moment of the timeline. Raises `EditorError` where it is not kept."""
        return {name: place(handle, self._rasters) for name, handle in self.timeline[index].handles.items()}

    # Preparing --------------------------------------------------------------------------------------------------------

    @property
    def prepared(self) -> bool:
        """Whether the LoRA is fitted and the picture inverted."""
        return self._latent is not None

    def prepare(self) -> Generator[FitStep | InversionStep, None, None]:
        """Fit the picture's LoRA, then invert the picture; goes on from where it was left."""
        settings = self.settings
        if self._lora is None:
            self._lora = self._make_lora(self._generator)
        lacks_copies = len(self._copies) < settings.lora_copies
        working = to_tensor(self._picture, self._rasters.working) if lacks_copies else None
        while self._fitted < settings.lora_steps:
            if working is not None and len(self._copies) < settings.lora_copies:  # one a step: no step takes long
                copy = self._model.encode(warped_copy(working, self._generator))
                self._copies = torch.cat([self._copies, copy])
            latents = torch.cat([self._clean, self._copies])
            loss = self._lora.fit_step(self._model, latents, self._prompt, settings.lora_batch, self._generator)
            self._fitted += 1
            yield FitStep(self._fitted, settings.lora_steps, loss)
        while self._climbed < len(self._levels):
            with self._lora.active():
                climbed = inversion_step(self._model, self._inverted, self._prompt, self._levels[self._climbed])
            self._inverted = _finite(climbed, f"step {self._climbed + 1} of the inversion")
            self._climbed += 1
            if self._climbed == len(self._levels):
                self._begin()
            yield InversionStep(self._climbed, len(self._levels))
        if self._latent is None:  # of a generated picture
            self._begin()

    def _begin(self) -> None:
        """The latent that is going to be dragged is there."""
        self._go_on_from(self._inverted, iteration=0)
        self._descent = self._make_descent()
        self.timeline.add(0, self._handles, self._inverted)

    # Dragging ---------------------------------------------------------------------------------------------------------

    def drag(self, preview_every: int = 4, taken: int | None = None) -> Generator[DragStep, None, None]:
        """Move the content until all handles have arrived or ``max_iterations`` steps have been taken.

        Args:
            preview_every: every how many iterations a step carries a predicted picture; 0 for never.
            taken: how many of those steps were taken before, where a run is gone on with; by default as many as the
                snapshot of the session knew of, if it was taken during a run.

        Raises:
            EditorError: the picture is not prepared yet.
            PointError: there is nothing to drag.
            NumericalError: the loss is not finite; the last good latent is kept.
        """
        self._ready()
        self._taken = self._taken if taken is None else taken
        try:
            yield from self._run(preview_every)
        finally:
            self._taken = 0

    def _run(self, preview_every: int) -> Generator[DragStep, None, None]:
        while True:
            if not self._handles:
                raise PointError(
                    "there is nothing to drag: put a handle on what should move, a target where it should go"
                )
            last = self._taken >= self.settings.max_iterations
            began = time.perf_counter()
            preview = preview_every > 0 and self.iteration % preview_every == 0
            glides = not last and any(has_way(handle, self.settings.warp_share) for handle in self._handles.values())
            step = self._glide(preview=preview) if glides else self._iterate(last=last, preview=preview)
            self._previewer.iteration_seconds = time.perf_counter() - began
            self._previewer.every = preview_every
            ends = last or step.arrived
            self._taken = 0 if ends else self._taken + 1
            yield step
            if ends:
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
                if self.iteration == 0:
                    self._unedited_noise = noise.detach()

            # 2. Where is the content now?
            found = follow(
                self._handles, features.detach(), settings.tracking_radius, self._rasters, moved=self._latent_moved
            )

            # 3. All there, or out of iterations?
            handles, targets = cells_and_targets(found, self._rasters, self._clean.dtype)
            moving = ~have_arrived(handles, targets, settings.arrival_distance)
            if last or not moving.any():
                _finite(features, f"the pass after iteration {self.iteration}")
                self._handles, self._latent_moved = found, False
                return self._step(loss=0.0, arrived=not moving.any(), x0=None)

            # 4. and 5. Motion supervision, and keeping what may not change.
            handles, targets = handles[moving].to(latent.device), targets[moving].to(latent.device)
            loss = motion_supervision_loss(features, handles, targets, settings.supervision_radius, self._rasters.cells)
            if mask is not None and noise is not None:
                below = ddim_step(latent, noise, level.alpha, level.alpha_below)
                unedited = ddim_step(self._inverted, self._noise_of_unedited(), level.alpha, level.alpha_below)
                loss = loss + mask_loss(below, unedited, mask, settings.mask_weight)

            # 6. One step of Adam on the latent alone.
            (gradient,) = torch.autograd.grad(loss * self._model.loss_scale, latent)
            gradient = gradient / self._model.loss_scale
            value, largest = torch.stack([loss.detach(), gradient.abs().max()]).tolist()
            if not (math.isfinite(value) and math.isfinite(largest)):
                raise NumericalError(
                    f"iteration {self.iteration + 1} gave a loss of {value} and a gradient of {largest}: "
                    f"a latent_lr below {settings.latent_lr:g} may work"
                )
            if preview and noise is not None:
                x0 = predict_x0(latent, noise, level.alpha).detach()
            self._handles = found
            optimizer.param_groups[0]["lr"] = settings.latent_lr
            latent.grad = gradient
            optimizer.step()
            optimizer.zero_grad()
        return self._advance(latent, loss=value, x0=x0)

    @torch.no_grad()
    def _glide(self, *, preview: bool) -> DragStep:
        """One iteration that warps what the latent shows, and leaves its noise."""
        latent, _, lora = self._ready()
        settings, level = self.settings, self._levels[-1]
        x0: Tensor | None = None
        if preview or any(handle.template is None for handle in self._handles.values()):
            with lora.active():
                prediction = self._model.predict(latent, level.timestep, self._prompt)
            if self.iteration == 0:
                self._unedited_noise = prediction.noise
            self._handles = follow(
                self._handles, prediction.features, settings.tracking_radius, self._rasters, moved=False
            )
            x0 = predict_x0(latent, prediction.noise, level.alpha) if preview else None
        further = glide(self._handles, settings.warp_share, self._rasters)
        before, after = (
            self._encode(warped(self._working, handles, self._working_mask, self._rasters))
            for handles in (self._handles, further)
        )
        latent += math.sqrt(level.alpha) * (after - before)
        self._handles = further
        return self._advance(latent, loss=0.0, x0=x0)

    def _advance(self, latent: Tensor, *, loss: float, x0: Tensor | None) -> DragStep:
        """The latent has been changed: one iteration more, kept on the timeline."""
        self.iteration += 1
        self._latent_moved = True
        self.timeline.add(self.iteration, self._handles, latent)
        return self._step(loss=loss, arrived=False, x0=x0)

    def _encode(self, working: Image.Image) -> Tensor:
        """The clean latent of a picture of the working size; the last one's is kept, since the next begins there."""
        if self._encoded is None or self._encoded[0] != working:
            self._encoded = working, self._model.encode(to_tensor(working, self._rasters.working))
        return self._encoded[1]

    def _noise_of_unedited(self) -> Tensor:
        """The noise predicted for the unedited latent at the level of dragging."""
        if self._unedited_noise is None:
            with torch.no_grad(), self._ready()[2].active():
                self._unedited_noise = self._model.predict(
                    self._inverted, self._levels[-1].timestep, self._prompt
                ).noise
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

    def render(self, preview_every: int = 4) -> Generator[RenderStep, None, None]:
        """Denoise the latent as it is now; the first time, the unedited one before it. Then `result` is the picture.

        Args:
            preview_every: every how many steps one carries a predicted picture; 0 for never.

        Raises:
            EditorError: the picture is not prepared yet.
        """
        latent, descent, levels = self.latent, self._ready_to_descend(), len(self._levels)
        steps, done = self.render_steps, 0
        while (index := len(descent.unedited)) < levels:
            below = _finite(descent.step_unedited(), f"rendering step {index + 1} of the unedited picture")
            descent.unedited.append(below)
            done += 1
            yield RenderStep(done, steps, None)
        for index in range(levels):
            latent, x0 = descent.step(latent, index)
            _finite(latent, f"rendering step {index + 1}")
            done += 1
            if index == levels - 1:
                self._rendered = latent
            due = preview_every > 0 and (index + 1) % preview_every == 0
            yield RenderStep(done, steps, x0 if due else None)

    @property
    def render_steps(self) -> int:
        """How many steps the next `render` takes."""
        return 2 * len(self._levels) - (0 if self._descent is None else len(self._descent.unedited))

    def result(self) -> Image.Image:
        """The last rendered picture, RGB at the uploaded size. Raises `EditorError` where there is none."""
        if self._rendered is None:
            raise EditorError("there is no result yet: run render() to its end first")
        edited, unedited = self._model.decode(self._rendered), self._model.decode(self._unedited_clean(RenderStep))
        return compose(self._picture, edited, unedited, self._mask)

    def preview(
        self, step: DragStep | RenderStep, longest_side: int = 256, quality: Quality | None = None
    ) -> Image.Image | None:
        """A small RGB picture of what a step predicts; None where the step carries no prediction.

        Args:
            step: of this session's `drag` or `render`, the latest one.
            longest_side: of the preview, in pixels.
            quality: see `editor.drag.preview`; by default a decoder's, unless that would hold the iterations up.
        """
        if step.predicted_x0 is None:
            return None
        stage = type(step)
        picture = self._previewer.make(
            stage.__name__,
            step.predicted_x0,
            lambda: self._unedited_clean(stage),
            self._mask,
            longest_side,
            quality,
        )
        if isinstance(step, DragStep):
            self.timeline.show(picture)
        return picture

    def _unedited_clean(self, stage: type[DragStep | RenderStep]) -> Tensor:
        """The clean latent of a stage if nothing were edited."""
        if stage is RenderStep:
            assert self._descent is not None
            return self._descent.unedited[-1]
        return predict_x0(self._inverted, self._noise_of_unedited(), self._levels[-1].alpha)

    # Leaving and coming back ------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All that the session is, but for thumbnails and what can be computed again; see `restore`."""
        return self._taken_down().to_bytes()

    def parts(self) -> list[Part]:
        """The snapshot in parts, of which most need not be written again each time; see `restore`."""
        moments: dict[str, list[str]] = {}
        for moment in self.timeline:
            moments.setdefault(part_of(f"moment.{moment.index}"), []).append(str(moment.index))
        stamps = {
            "lora": f"{self._fitted} steps",
            "picture": f"{self._climbed} steps, {len(self._copies)} copies, noise {self._unedited_noise is not None}",
            "unedited": f"{0 if self._descent is None else len(self._descent.unedited)} steps",
            **{name: " ".join(indices) for name, indices in moments.items()},
        }
        return self._taken_down().split(stamps)

    @property
    def nbytes(self) -> int:
        """Bytes that the session holds beside the model."""
        seen = 0 if self._descent is None else self._descent.nbytes
        return seen + sum(tensor.nbytes for tensor in self._tensors().tensors.values())

    def _taken_down(self) -> Snapshot:
        taken = self._tensors()
        taken.facts = {
            "model": self._model.name,
            "picture": self._picture_hash,
            "taken": self._taken,
            "settings": self.settings.as_dict(),
            "iteration": self.iteration,
            "fitted": self._fitted,
            "climbed": self._climbed,
            "guidance": None if self._guidance is None else self._guidance.scale,
            "latent_moved": self._latent_moved,
            "handles": taken.put_handles(self._handles),
            "current": self.timeline.current,
            "timeline": [
                [moment.index, moment.parent, moment.iteration, taken.put_handles(moment.handles)]
                for moment in self.timeline
            ],
        }
        return taken

    def _tensors(self) -> Snapshot:
        taken = Snapshot()
        named = {
            "picture.clean": self._clean,
            "picture.prompt": self._prompt,
            "picture.copies": self._copies if len(self._copies) else None,
            "picture.inverted": self._inverted,
            "picture.unedited_noise": self._unedited_noise,
            "session.generator": self._generator.get_state(),
            "session.latent": self._latent,
            "session.rendered": self._rendered,
            "session.mask": None if self._mask is None else torch.from_numpy(np.packbits(self._mask)),
        }
        taken.tensors.update({name: tensor for name, tensor in named.items() if tensor is not None})
        if self._descent is not None:
            taken.put("unedited", {str(index): latent for index, latent in enumerate(self._descent.unedited)})
        taken.put("moment", {str(moment.index): moment.latent for moment in self.timeline})
        if self._lora is not None:
            taken.put("lora", self._lora.state())
        if self._optimizer is not None and self._latent is not None:
            taken.put("adam", self._optimizer.state.get(self._latent, {}))
        return taken

    @classmethod
    def restore(cls, model: Diffusion, picture: Image.Image, snapshot: bytes | Mapping[str, bytes]) -> DragSession:
        """A session that goes on, bit for bit, as the one that `snapshot` was taken of.

        Args:
            model: the same model, on the same kind of device.
            picture: the same picture.
            snapshot: what `snapshot` gave, in this process or another; or each of the `parts` as bytes, by name.

        Raises:
            EditorError: it is no snapshot, or one of another picture or of a model of another name.
        """
        taken = Snapshot.from_bytes(snapshot) if isinstance(snapshot, bytes) else Snapshot.from_parts(snapshot)
        facts, named = taken.facts, taken.get("picture")
        if facts["model"] != model.name:
            raise EditorError(f"the snapshot is of the model {facts['model']!r}, not of {model.name!r}: start anew")
        session = cls.__new__(cls)
        session._set_up(
            model,
            to_rgb(picture),
            DragSettings().changed(facts["settings"]),
            prompt=named["prompt"].to(model.device),
            clean=named["clean"].to(model.device),
            generator=torch.Generator(),
        )
        if facts["picture"] != session._picture_hash:
            raise EditorError(f"the snapshot is of another picture than this one of {session._rasters.picture} pixels")
        session._take_up(taken)
        return session

    @cached_property
    def _picture_hash(self) -> str:
        digest = hashlib.sha256(str(self._rasters.picture).encode())
        digest.update(self._picture.tobytes())
        return digest.hexdigest()

    def _take_up(self, taken: Snapshot) -> None:
        facts, named = taken.facts, {**taken.get("session"), **taken.get("picture")}
        self._generator.set_state(named["generator"])
        self._fitted, self._climbed, self._taken = facts["fitted"], facts["climbed"], facts["taken"]
        if "copies" in named:
            self._copies = named["copies"].to(self._clean)
        self._inverted = named["inverted"].to(self._clean)
        if facts["guidance"] is not None:
            self._guidance = Guidance(self._model.embed_prompt(""), facts["guidance"])
        if lora := taken.get("lora"):
            self._lora = self._make_lora(torch.Generator())
            self._lora.load_state(lora)
        if "latent" in named:
            self._go_on_from(named["latent"].to(self._clean), facts["iteration"])
            self._descent = self._make_descent()
            self._descent.unedited = [latent.to(self._clean) for latent in taken.get("unedited").values()]
            _, optimizer, _ = self._ready()
            if adam := taken.get("adam"):
                optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: adam}})
        self._latent_moved = facts["latent_moved"]
        self._handles = taken.get_handles(facts["handles"], self._clean)
        size = self._rasters.picture
        packed = named.get("mask")
        self.set_mask(
            None
            if packed is None
            else np.unpackbits(packed.numpy(), count=size.width * size.height).reshape(size.height, size.width)
        )
        self._unedited_noise = named["unedited_noise"].to(self._clean) if "unedited_noise" in named else None
        self._rendered = named["rendered"].to(self._clean) if "rendered" in named else None
        latents = taken.get("moment")
        for index, parent, iteration, handles in facts["timeline"]:
            latent = latents[str(index)].to(self._clean.device)
            self.timeline.put(Moment(index, parent, iteration, taken.get_handles(handles, self._clean), latent))
        self.timeline.current = facts["current"]

    def close(self) -> None:
        """Give back what the session holds on the model."""
        if self._lora is not None:
            self._lora.remove()
            self._lora = None

    # ------------------------------------------------------------------------------------------------------------------

    def _ready(self) -> tuple[Tensor, torch.optim.Adam, Lora]:
        if self._latent is None or self._optimizer is None or self._lora is None:
            raise EditorError("the picture is not prepared yet: run prepare() to its end first")
        return self._latent, self._optimizer, self._lora

    def _ready_to_descend(self) -> Denoising:
        self._ready()
        assert self._descent is not None  # made together with the latent
        return self._descent

    def _make_descent(self) -> Denoising:
        _, _, lora = self._ready()
        return Denoising(
            self._model,
            lora,
            self._prompt,
            self._levels[::-1],
            self._inverted,
            guidance=self._guidance,
            control=self.settings.reference_control,
        )

    def _make_lora(self, generator: torch.Generator) -> Lora:
        return Lora(
            self._model,
            rank=self.settings.lora_rank,
            targets=tuple(self.settings.lora_targets.split()),
            learning_rate=self.settings.lora_lr,
            generator=generator,
        )

    def _go_on_from(self, latent: Tensor, iteration: int) -> None:
        self.iteration = iteration
        self._latent_moved = False
        self._latent = latent.detach().clone().requires_grad_()
        self._optimizer = torch.optim.Adam([self._latent], lr=self.settings.latent_lr)

    @cached_property
    def _working(self) -> Image.Image:
        return to_picture(to_tensor(self._picture, self._rasters.working))

    def _origin(self, drag: Drag) -> Point:
        """Where in the unedited picture the content at its handle comes from."""
        return came_from(drag.handle, self._handles, self._mask, self._rasters)

    def _handle(self, name: str) -> Handle:
        if name not in self._handles:
            raise PointError(f"there is no drag {name!r}: {', '.join(map(repr, self._handles)) or 'none'} are there")
        return self._handles[name]


def _finite(tensor: Tensor, what: str) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise NumericalError(f"{what} gave numbers that are not finite; the state before it is kept")
    return tensor
