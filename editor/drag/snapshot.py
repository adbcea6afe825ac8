"""Snapshots of sessions: take one, and restore a session from it, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from livedrag.editor.drag.edit import Edit
from livedrag.editor.drag.preparation import Preparation
from livedrag.editor.drag.snapshot_format import Part, Snapshot, part_of
from livedrag.editor.drag.state import SessionState
from livedrag.editor.drag.timeline import Agreement, Moment
from livedrag.editor.errors import EditorError
from livedrag.editor.models.ddim import Guidance
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.points import Point, Rasters, Size
from livedrag.editor.settings import DragSettings


def take(state: SessionState) -> Snapshot:
    """The whole session but for thumbnails and what can be recomputed."""
    snapshot, preparation, agreed = _tensors(state), state.preparation, state.timeline.agreed
    snapshot.facts = {
        "model": state.model.name,
        "picture": state.picture_hash,
        "taken": state.iterations_done,
        "settings": state.settings.as_dict(),
        "iteration": state.iteration,
        "descended": state.descended,
        "fitted": preparation.fitted,
        "climbed": preparation.inverted_levels,
        "guidance": None if preparation.guidance is None else preparation.guidance.scale,
        "latent_moved": state.prepared and state.latent.moved,
        "handles": snapshot.put_handles(state.edit.handles),
        "current": state.timeline.current,
        "agreed": None if agreed is None else [agreed.index, snapshot.put_handles(agreed.handles)],
        "timeline": [
            [moment.index, moment.parent, moment.iteration, snapshot.put_handles(moment.handles), moment.descended]
            for moment in state.timeline
        ],
    }
    if (margin := state.rasters.margin) != Size(0, 0):
        snapshot.facts["margin"] = [margin.width, margin.height]
    if pins := state.edit.pins:
        snapshot.facts["pins"] = [[pin.x, pin.y] for pin in pins]
    return snapshot


def take_parts(state: SessionState) -> list[Part]:
    """The same in parts; a part whose stamp is unchanged need not be written again."""
    moments: dict[str, list[str]] = {}
    for moment in state.timeline:
        moments.setdefault(part_of(f"moment.{moment.index}"), []).append(str(moment.index))
    preparation = state.preparation
    has_noise = preparation.unedited_noise is not None
    stamps = {
        "lora": f"{preparation.fitted} steps",
        "picture": f"{preparation.inverted_levels} steps, {len(preparation.augmented)} copies, noise {has_noise}",
        "unedited": f"{0 if state.denoising is None else len(state.denoising.unedited)} steps",
        **{name: " ".join(indices) for name, indices in moments.items()},
    }
    return take(state).split(stamps)


def count_bytes(state: SessionState) -> int:
    """Bytes of the session's tensors, without the model."""
    seen = 0 if state.denoising is None else state.denoising.nbytes
    return seen + sum(tensor.nbytes for tensor in _tensors(state).tensors.values())


def restore(model: Diffusion, picture: Image.Image, data: bytes | Mapping[str, bytes]) -> SessionState:
    """The session that a snapshot was taken of.

    Args:
        model: the same model, on the same kind of device.
        picture: the same picture, RGB.
        data: one file, or all parts by name.

    Raises:
        EditorError: it is not a snapshot, or of another picture, or of a model of another name.
    """
    snapshot = Snapshot.from_bytes(data) if isinstance(data, bytes) else Snapshot.from_parts(data)
    facts, tensors = snapshot.facts, snapshot.get("picture")
    if facts["model"] != model.name:
        raise EditorError(
            f"the snapshot is of the model {facts['model']!r}, not of {model.name!r}: start a new session"
        )
    clean = tensors["clean"].to(model.device)
    rows, columns = clean.shape[-2:]
    state = SessionState(
        model,
        picture,
        DragSettings().changed(facts["settings"]),
        prompt=tensors["prompt"].to(model.device),
        clean=clean,
        generator=torch.Generator(),
        rasters=Rasters(
            Size(*picture.size),
            working=Size(columns * model.latent_stride, rows * model.latent_stride),
            margin=Size(*facts.get("margin", (0, 0))),  # earlier versions stretched the picture instead
        ),
    )
    if facts["picture"] != state.picture_hash:
        raise EditorError(f"the snapshot is of another picture than this one of {state.rasters.picture} pixels")
    _restore_preparation(state.preparation, model, snapshot)
    _restore_edit(state.edit, snapshot, state.preparation.clean)
    _restore_latent(state, snapshot)
    _restore_timeline(state, snapshot)
    state.iterations_done = facts["taken"]
    return state


def _tensors(state: SessionState) -> Snapshot:
    snapshot, preparation, denoising = Snapshot(), state.preparation, state.denoising
    latent, mask = state.latent if state.prepared else None, state.edit.mask
    named = {
        "picture.clean": preparation.clean,
        "picture.prompt": preparation.prompt,
        "picture.copies": preparation.augmented if len(preparation.augmented) else None,
        "picture.inverted": preparation.inverted,
        "picture.unedited_noise": preparation.unedited_noise,
        "session.generator": preparation.generator.get_state(),
        "session.latent": None if latent is None else latent.value,
        "session.rendered": None if denoising is None else denoising.rendered,
        "session.mask": None if mask is None else torch.from_numpy(np.packbits(mask)),
    }
    snapshot.tensors.update({name: tensor for name, tensor in named.items() if tensor is not None})
    if denoising is not None:
        snapshot.put("unedited", {str(index): latent for index, latent in enumerate(denoising.unedited)})
    snapshot.put("moment", {str(moment.index): moment.latent for moment in state.timeline})
    if preparation.has_lora:
        snapshot.put("lora", preparation.lora.state())
    if latent is not None:
        snapshot.put("adam", latent.adam_state)
    return snapshot


def _restore_preparation(preparation: Preparation, model: Diffusion, snapshot: Snapshot) -> None:
    facts, tensors, like = snapshot.facts, snapshot.get("picture"), preparation.clean
    preparation.generator.set_state(snapshot.get("session")["generator"])
    preparation.fitted, preparation.inverted_levels = facts["fitted"], facts["climbed"]
    if "copies" in tensors:
        preparation.augmented = tensors["copies"].to(like)
    preparation.inverted = tensors["inverted"].to(like)
    if "unedited_noise" in tensors:
        preparation.unedited_noise = tensors["unedited_noise"].to(like)
    if facts["guidance"] is not None:
        preparation.guidance = Guidance(model.embed_nothing(), facts["guidance"])
    if lora := snapshot.get("lora"):
        preparation.restore_lora(lora)


def _restore_edit(edit: Edit, snapshot: Snapshot, like: Tensor) -> None:
    edit.handles = snapshot.get_handles(snapshot.facts["handles"], like)
    edit.set_pins(Point(x, y) for x, y in snapshot.facts.get("pins", []))
    size = edit.rasters.picture
    if (packed := snapshot.get("session").get("mask")) is not None:
        bits = np.unpackbits(packed.numpy(), count=size.width * size.height)
        edit.set_mask(bits.reshape(size.height, size.width))


def _restore_latent(state: SessionState, snapshot: Snapshot) -> None:
    tensors, like = snapshot.get("session"), state.preparation.clean
    if "latent" not in tensors:
        return
    facts = snapshot.facts  # earlier versions dragged at one level
    state.go_on_from(tensors["latent"].to(like), facts["iteration"], facts.get("descended", 0))
    state.latent.moved = snapshot.facts["latent_moved"]
    if adam := snapshot.get("adam"):
        state.latent.load_adam(adam)
    assert state.denoising is not None
    state.denoising.unedited = [latent.to(like) for latent in snapshot.get("unedited").values()]
    if "rendered" in tensors:
        state.denoising.rendered = tensors["rendered"].to(like)


def _restore_timeline(state: SessionState, snapshot: Snapshot) -> None:
    latents: dict[str, Any] = snapshot.get("moment")
    like = state.preparation.clean
    for index, parent, iteration, handles, *descended in snapshot.facts["timeline"]:
        latent = latents[str(index)].to(like.device)
        placed = snapshot.get_handles(handles, like)
        state.timeline.insert(Moment(index, parent, iteration, placed, latent, descended=sum(descended)))
    state.timeline.current = snapshot.facts["current"]
    if (agreed := snapshot.facts.get("agreed")) is not None:
        state.timeline.agreed = Agreement(agreed[0], snapshot.get_handles(agreed[1], like))
