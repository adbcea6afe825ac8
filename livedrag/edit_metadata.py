"""What a result says about how it was made, as JSON: enough to make it again.

It lies above both packages, like `livedrag.pictures`. What is read may have been written by anyone: `decode` bounds
every number, text and list, and nothing in it names a file to open.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from livedrag.limits import MAX_ASPECT, MAX_PIXELS, MAX_SEED

VERSION = 1
MAX_BYTES = 8 * 2**20
"""Of the JSON: a mask of `MAX_PIXELS` pixels and more fit."""
MAX_TEXT = 10_000
"""Characters of a prompt."""
MAX_NAME = 1000
"""Characters of the name of a model and of other short texts."""
MAX_DRAGS = 1000
"""Of a state; pins too."""
MAX_STATES = 10_000
"""Of all runs together."""
MAX_STEPS = 10_000_000
MAX_WEIGHTS = 100
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SETTING = re.compile(r"[a-z][a-z0-9_]{0,63}")

Setting = bool | int | float | str
XY = tuple[float, float]
Role = Literal["model", "vae", "lora"]
T = TypeVar("T")


class MetadataError(Exception):
    """Metadata that is not livedrag's, or not possible; the message names the entry and its value."""


@dataclass(frozen=True)
class SourcePicture:
    """The picture that was edited.

    Args:
        sha256: of its size and pixels; see `livedrag.picture_metadata.hash_pixels`.
        file_sha256: of the file that it was read from; on a server, of the PNG that is stored.
        width, height: in pixels.
    """

    sha256: str
    file_sha256: str
    width: int
    height: int


@dataclass(frozen=True)
class Weights:
    """Weights that were used.

    Args:
        role: a ``model``, or what was put on it: a ``lora``, or another ``vae``.
        name: of it, without a folder.
        sha256: of its file; of a folder, of the SHA-256 of all its files. Empty: they could not be read any more.
        strength: of a LoRA.
    """

    role: Role
    name: str
    sha256: str
    strength: float = 1.0


@dataclass(frozen=True)
class PlacedDrag:
    """A drag, in pixels of the picture. ``handle_version`` grows each time its handle is placed."""

    handle: XY
    target: XY
    handle_version: int = 0


@dataclass(frozen=True)
class EditState:
    """What the drags, the mask, the pins and the settings were changed to.

    Args:
        at: iterations of its run before this change.
        drags: by name.
        mask: a PNG of the picture's size, white may change; None: everything may.
        pins: places that hold still, by name.
        settings: those that differ from the preset's or, without one, the model's.
    """

    at: int = 0
    drags: Mapping[str, PlacedDrag] = field(default_factory=dict)
    mask: bytes | None = None
    pins: Mapping[str, XY] = field(default_factory=dict)
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class EditRun:
    """One run, or a part of one.

    Args:
        states: oldest first; the first ones are ``at`` 0.
        steps: iterations it took; None: until it ended by itself.
        done: iterations of the same run before this part.
    """

    states: tuple[EditState, ...]
    steps: int | None = None
    done: int = 0


@dataclass(frozen=True)
class EditMetadata:
    """How a result was made.

    Args:
        software: that made it, with its version.
        picture: that was edited.
        weights: of the model, of another autoencoder, and of LoRAs in their order.
        preset: empty: none, the model's own settings.
        settings: those that differ from the preset's, at the beginning.
        seed, prompt: as in `livedrag.editor.drag.session.DragSession`.
        runs: one after the other, all on one picture.
        final: changes made while the result was rendered.
        preview_every: iterations between two previews.
        device: that it was made on, such as ``cpu``.
        branch: of a room, the moment of the timeline that it shows.
        room: that it was made in; empty: by the command line.
        inexact: reasons why it can't be made again exactly; none: it can, on the same machine.
    """

    software: str
    picture: SourcePicture
    weights: tuple[Weights, ...]
    preset: str
    settings: Mapping[str, Setting]
    seed: int
    prompt: str
    runs: tuple[EditRun, ...]
    final: tuple[EditState, ...] = ()
    preview_every: int = 0
    device: str = ""
    branch: int | None = None
    room: str = ""
    inexact: tuple[str, ...] = ()

    @property
    def states(self) -> list[EditState]:
        """All of them, oldest first."""
        return [*(state for run in self.runs for state in run.states), *self.final]

    @property
    def last(self) -> EditState:
        """The drags, mask, pins and settings at the end."""
        return next(reversed(self.states), EditState())


# Writing -------------------------------------------------------------------------------------------------------------


def encode(metadata: EditMetadata) -> str:
    """The metadata as JSON, in ASCII; equal metadata give equal text."""
    masks: dict[bytes, int] = {}
    written = {
        "version": VERSION,
        "software": metadata.software,
        "picture": vars(metadata.picture),
        "weights": [vars(each) for each in metadata.weights],
        "preset": metadata.preset,
        "settings": dict(metadata.settings),
        "seed": metadata.seed,
        "prompt": metadata.prompt,
        "runs": [
            {"steps": run.steps, "done": run.done, "states": [_written(state, masks) for state in run.states]}
            for run in metadata.runs
        ],
        "final": [_written(state, masks) for state in metadata.final],
        "preview_every": metadata.preview_every,
        "device": metadata.device,
        "branch": metadata.branch,
        "room": metadata.room,
        "inexact": list(metadata.inexact),
    }
    written["masks"] = [base64.b64encode(mask).decode() for mask in masks]
    return json.dumps(written, separators=(",", ":"))


def _written(state: EditState, masks: dict[bytes, int]) -> dict[str, Any]:
    """A state as JSON; its mask as its number among ``masks``, where it is put if it is new."""
    return {
        "at": state.at,
        "drags": {name: vars(drag) for name, drag in state.drags.items()},
        "mask": None if state.mask is None else masks.setdefault(state.mask, len(masks)),
        "pins": dict(state.pins),
        "settings": dict(state.settings),
    }


# Reading -------------------------------------------------------------------------------------------------------------


def decode(text: str) -> EditMetadata:
    """Metadata from JSON that anyone may have written. Raises `MetadataError`."""
    if len(text) > MAX_BYTES:
        raise MetadataError(f"the metadata has {len(text)} characters: at most {MAX_BYTES} are read")
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"the metadata is not JSON ({error})") from None
    read = _Entry("metadata", content)
    if (version := read.get("version").whole(0, 10**6)) != VERSION:
        raise MetadataError(f"the metadata has version {version}: this livedrag reads version {VERSION}")
    masks = [entry.bytes() for entry in read.get("masks").entries(MAX_STATES)]
    picture = _picture(read.get("picture"))
    runs = tuple(_run(entry, masks, picture) for entry in read.get("runs").entries(MAX_STATES))
    final = tuple(_state(entry, masks, picture) for entry in read.get("final").entries(MAX_STATES))
    if (count := sum(len(run.states) for run in runs) + len(final)) > MAX_STATES:
        raise MetadataError(f"the metadata has {count} changes: at most {MAX_STATES} are read")
    branch = read.get("branch")
    return EditMetadata(
        software=read.get("software").text(MAX_NAME),
        picture=picture,
        weights=tuple(_weights(entry) for entry in read.get("weights").entries(MAX_WEIGHTS)),
        preset=read.get("preset").text(MAX_NAME),
        settings=read.get("settings").settings(),
        seed=read.get("seed").whole(0, MAX_SEED),
        prompt=read.get("prompt").text(MAX_TEXT),
        runs=runs,
        final=final,
        preview_every=read.get("preview_every").whole(0, MAX_STEPS),
        device=read.get("device").text(MAX_NAME),
        branch=None if branch.value is None else branch.whole(0, 2**53),
        room=read.get("room").text(64),
        inexact=tuple(entry.text(MAX_NAME) for entry in read.get("inexact").entries(100)),
    )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


class _Entry:
    """A value of the JSON, and where it stands."""

    def __init__(self, where: str, value: Any) -> None:
        self.where, self.value = where, value

    def get(self, name: str) -> _Entry:
        """An entry of an object."""
        if not isinstance(self.value, dict) or name not in self.value:
            raise MetadataError(f"{self.where} has no {name!r}")
        return _Entry(f"{self.where}.{name}", self.value[name])

    def entries(self, most: int) -> list[_Entry]:
        """Those of a list."""
        self._must(isinstance(self.value, list), "a list")
        self._check_count(len(self.value), most)
        return [_Entry(f"{self.where}[{index}]", each) for index, each in enumerate(self.value)]

    def named(self, most: int, read: Callable[[_Entry], T]) -> dict[str, T]:
        """An object with entries of one kind."""
        self._must(isinstance(self.value, dict), "an object")
        self._check_count(len(self.value), most)
        return {
            _Entry(f"a name in {self.where}", name).text(64): read(_Entry(f"{self.where}.{name[:64]}", each))
            for name, each in self.value.items()
        }

    def text(self, most: int) -> str:
        self._must(isinstance(self.value, str), "text")
        self._check_count(len(self.value), most, "characters")
        try:
            self.value.encode()
        except UnicodeEncodeError:
            raise MetadataError(f"{self.where} is {self.value[:100]!a}: it is not valid text") from None
        value: str = self.value
        return value

    def whole(self, low: int, high: int) -> int:
        self._must(type(self.value) is int and low <= self.value <= high, f"a whole number from {low} to {high}")
        value: int = self.value
        return value

    def number(self) -> float:
        fine = type(self.value) in (int, float) and abs(self.value) <= 1e6 and math.isfinite(self.value)
        self._must(fine, "a number from -1000000 to 1000000")
        return float(self.value)

    def point(self, picture: SourcePicture) -> XY:
        """A point inside the picture."""
        self._must(isinstance(self.value, list) and len(self.value) == 2, "a point, [x, y]")
        x, y = (_Entry(self.where, each).number() for each in self.value)
        inside = 0 <= x <= picture.width - 1 and 0 <= y <= picture.height - 1
        self._must(inside, f"inside the picture of {picture.width} x {picture.height} pixels")
        return x, y

    def sha256(self) -> str:
        self._must(isinstance(self.value, str) and bool(_SHA256.fullmatch(self.value)), "a SHA-256, 64 digits")
        value: str = self.value
        return value

    def bytes(self) -> bytes:
        try:
            return base64.b64decode(self.text(MAX_BYTES), validate=True)
        except ValueError:
            raise MetadataError(f"{self.where} is not base64") from None

    def settings(self) -> dict[str, Setting]:
        return self.named(200, _setting)

    def _must(self, fine: bool, what: str) -> None:
        if not fine:
            raise MetadataError(f"{self.where} is {repr(self.value)[:100]}: it must be {what}")

    def _check_count(self, count: int, most: int, what: str = "entries") -> None:
        if count > most:
            raise MetadataError(f"{self.where} has {count} {what}: at most {most} are read")


def _setting(entry: _Entry) -> Setting:
    name = entry.where.rpartition(".")[2]
    if not _SETTING.fullmatch(name):
        raise MetadataError(f"{entry.where}: {name!r} is not a setting's name")
    if isinstance(entry.value, str):
        return entry.text(MAX_NAME)
    if isinstance(entry.value, bool):
        return entry.value
    fine = isinstance(entry.value, int | float) and abs(entry.value) < 2**53
    entry._must(fine, "a number, a text, true or false")
    value: Setting = entry.value
    return value


def _picture(entry: _Entry) -> SourcePicture:
    width, height = (entry.get(side).whole(1, MAX_PIXELS) for side in ("width", "height"))
    if width * height > MAX_PIXELS or max(width, height) > MAX_ASPECT * min(width, height):
        raise MetadataError(f"{entry.where} is of {width} x {height} pixels, which no picture here has")
    return SourcePicture(entry.get("sha256").sha256(), entry.get("file_sha256").sha256(), width, height)


def _weights(entry: _Entry) -> Weights:
    role, sha256 = entry.get("role"), entry.get("sha256")
    role._must(role.value in get_args(Role), " or ".join(get_args(Role)))
    return Weights(
        role.value,
        entry.get("name").text(MAX_NAME),
        sha256.sha256() if sha256.value else "",
        entry.get("strength").number(),
    )


def _run(entry: _Entry, masks: list[bytes], picture: SourcePicture) -> EditRun:
    steps = entry.get("steps")
    return EditRun(
        tuple(_state(state, masks, picture) for state in entry.get("states").entries(MAX_STATES)),
        None if steps.value is None else steps.whole(0, MAX_STEPS),
        entry.get("done").whole(0, MAX_STEPS),
    )


def _state(entry: _Entry, masks: list[bytes], picture: SourcePicture) -> EditState:
    mask = entry.get("mask")
    if mask.value is not None:
        mask.whole(0, len(masks) - 1)
    return EditState(
        entry.get("at").whole(0, MAX_STEPS),
        entry.get("drags").named(
            MAX_DRAGS,
            lambda drag: PlacedDrag(
                drag.get("handle").point(picture),
                drag.get("target").point(picture),
                drag.get("handle_version").whole(-(2**53), 2**53),
            ),
        ),
        None if mask.value is None else masks[mask.value],
        entry.get("pins").named(MAX_DRAGS, lambda pin: pin.point(picture)),
        entry.get("settings").settings(),
    )
