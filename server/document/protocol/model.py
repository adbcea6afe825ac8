"""The document of a room and what it consists of."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from livedrag.limits import MAX_GUIDANCE
from livedrag.server.document.protocol.base import (
    MAX_STROKE_POINTS,
    XY,
    Growth,
    Id,
    ModelName,
    Name,
    Record,
    Seed,
    Setting,
    Sha256,
    Title,
)
from livedrag.server.settings import MAX_PROMPT_LENGTH

Stage = Literal["idle", "queued", "loading", "generating", "fitting", "inverting", "dragging", "rendering"]
EngineState = Literal["ready", "restarting", "starting"]
Outcome = Literal["arrived", "stopped", "exhausted", "failed", "kept"]


class Drag(Struct, frozen=True, kw_only=True):
    """Moves the content at ``handle`` to ``target``. ``tracked`` is where the last run left the content.

    ``lost``: the last run followed this drag to its target, but the picture shows that its content did not follow.
    """

    handle: XY
    target: XY
    tracked: XY | None = None
    lost: bool = False


class Stroke(Record, frozen=True, kw_only=True, weakref=True, tag="stroke"):
    """A round brush drawn through ``points``. ``paint`` makes the area editable, ``erase`` protects it.

    ``radius`` is in pixels. ``softness`` is 0 for a hard edge; at 1 the brush fades over its whole radius, and an area
    counts where the brush is at least half opaque. If the first layer of a mask is an ``erase``, everything else is
    editable.

    ``fill``: the area that the points enclose (even-odd), whatever the radius.
    """

    id: Id
    mode: Literal["paint", "erase"]
    radius: Annotated[float, Meta(gt=0, le=10_000)]
    points: Annotated[list[XY], Meta(min_length=1, max_length=MAX_STROKE_POINTS)]
    softness: Annotated[float, Meta(ge=0, le=1)] = 0.0
    fill: bool = False


class Invert(Record, frozen=True, kw_only=True, tag="invert"):
    """Swaps editable and protected areas of the layers below."""

    id: Id


class Grow(Record, frozen=True, kw_only=True, tag="grow"):
    """Moves the border of the editable area of the layers below outwards by ``pixels``, or inwards if negative."""

    id: Id
    pixels: Growth


class Raster(Record, frozen=True, kw_only=True, tag="raster"):
    """A loaded mask file, which replaces all layers below it. Its PNG is at ``/api/rooms/{room}/masks/{sha256}``."""

    id: Id
    sha256: Sha256


MaskLayer = Stroke | Raster | Invert | Grow


class Generation(Struct, frozen=True, kw_only=True):
    """How a picture was generated from a prompt.

    As long as the room's prompt, its ``ddim_steps`` and the server's model are the same, the picture is generated again
    and dragged from its own latent. Otherwise it is inverted like an uploaded picture.
    """

    prompt: Annotated[str, Meta(max_length=MAX_PROMPT_LENGTH)]
    seed: Seed
    guidance: Annotated[float, Meta(ge=0, le=MAX_GUIDANCE)]
    ddim_steps: Annotated[int, Meta(ge=2, le=999)]
    model: Annotated[str, Meta(max_length=1000)]


class Picture(Struct, frozen=True, kw_only=True):
    """The picture being edited. ``width`` and ``height`` are in pixels, after EXIF orientation.

    ``generation`` is None if the picture was uploaded.
    """

    sha256: Sha256
    width: int
    height: int
    generation: Generation | None = None


class Run(Struct, frozen=True, kw_only=True):
    """One press of Drag. ``outcome`` is None until it ends; ``by`` is a person.

    ``kept``: no run of the model, but the quick preview at full size, kept as the result.

    ``interrupted``: the server stopped during the run. Pressing Drag then continues it from its last checkpoint, under
    the same id.
    """

    id: str
    by: str
    iterations: int = 0
    outcome: Outcome | None = None
    interrupted: bool = False
    message: str | None = None


class Result(Struct, frozen=True, kw_only=True):
    """The picture that the last run produced, at the uploaded size. Its PNG is at ``/api/rooms/{room}/result``.

    ``moment`` is the moment of the timeline that it shows; None in rooms of older versions.
    """

    sha256: Sha256
    run: str
    moment: int | None = None


class Content(Struct, frozen=True, kw_only=True):
    """What the picture shows, and where the content of each drag is: what runs, jumps and resets change.

    ``run`` is the last one that had ended. ``handles`` and ``tracked`` are those of the drags.
    """

    picture: Picture
    run: Run | None = None
    result: Result | None = None
    moment: int | None = None
    handles: dict[str, XY] = {}
    tracked: dict[str, XY] = {}


class BranchMark(Struct, frozen=True, kw_only=True):
    """What people have done with a branch of the timeline: given it a ``name``, or ``removed`` it from the list."""

    name: Name = ""
    removed: bool = False


class LoraChoice(Struct, frozen=True, kw_only=True):
    """A LoRA on a room's model, and how strong it is; 1 is as it was made."""

    name: ModelName
    weight: Annotated[float, Meta(ge=-10, le=10)] = 1.0


class ModelChoice(Struct, frozen=True, kw_only=True):
    """The model that a room edits with: names that ``GET /api/models`` lists.

    An empty ``name`` is the model that the server was started with, an empty ``vae`` the model's own autoencoder.
    """

    name: ModelName = ""
    loras: Annotated[tuple[LoraChoice, ...], Meta(max_length=8)] = ()
    vae: ModelName = ""


class Document(Struct, frozen=True, kw_only=True):
    """Everything that is edited in a room. Without mask layers, the whole picture is editable.

    ``pins`` are places that stay as they are in the uploaded picture while something is dragged.

    ``moment`` is the moment of the timeline that the last run ended at, or that was jumped to since. ``branches`` are
    marked by a moment of theirs, in decimal digits.

    ``model`` is what the room edits with; changing it prepares the picture again.
    """

    picture: Picture
    drags: dict[str, Drag] = {}
    mask: tuple[MaskLayer, ...] = ()
    prompt: str = ""
    settings: dict[str, Setting] = {}
    run: Run | None = None
    result: Result | None = None
    moment: int | None = None
    branches: dict[str, BranchMark] = {}
    pins: dict[str, XY] = {}
    title: Title = ""
    model: ModelChoice = ModelChoice()
