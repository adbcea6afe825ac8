"""DragSettings: every number of the method, with the paper's symbol, its range, and the presets.

The fields' metadata is the only source of ranges (``low``, ``high``), allowed values (``choices``; ``words`` where
several may be combined), and which settings may change during a run (``live``).
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from livedrag.editor.errors import SettingsError
from livedrag.limits import MAX_GUIDANCE, MAX_SEED

Setting = bool | int | float | str
"""A setting's value."""

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")
"""The projections of an attention layer that a LoRA may be fitted to."""


MAX_DDIM_STEPS = 999
"""Most steps of a DDIM schedule."""

Quality = Literal["latent", "tiny", "full"]
"""Quality of previews; see `livedrag.editor.drag.preview`."""


def _setting(default: Setting, low: float, high: float, *, live: bool = False) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "live": live})


def _choice(*choices: str) -> Any:
    """A live setting with a few values, the default first."""
    return field(default=choices[0], metadata={"choices": choices, "live": True})


@dataclass(frozen=True)
class DragSettings:
    """The numbers of DragDiffusion (arXiv 2306.14435). Those in `LIVE_SETTINGS` may change during a run.

    Args:
        lora_rank: rank of the picture's LoRA.
        lora_lr: learning rate of its AdamW.
        lora_steps: training steps of the LoRA.
        lora_batch: rows per training step.
        lora_targets: attention projections that it is fitted to, names separated by spaces.
        lora_copies: randomly warped copies of the picture that it is fitted to as well; 0 in the paper.
        ddim_steps: T, steps of the DDIM schedule.
        inversion_strength: t / T, the noise level at which the latent is dragged, as a share of the schedule.
        warp_share: share of the way that content is warped before motion supervision takes over; 0 in the paper.
        latent_lr: eta, learning rate of the optimizer of the latent.
        latent_optimizer: Adam (``adam``, the paper), or Adam-mini (``adam_mini``, arXiv 2406.16793), whose steps are as
            long as the gradient asks in each place, where Adam's are equally long everywhere.
        supervision: what motion supervision pulls: patches around tracked handles (``points``, the paper), or all that
            the drags' displacement field moves (``region``, DragFlow's idea), without tracking.
        supervision_radius: r1, of motion supervision's patch, in half-resolution cells of the working picture.
        supervision_step: cells that one step of motion supervision goes; 1 in the paper, 4 are a cell of the features.
        supervision_template: features that are pulled to the target: those at the handle now (``current``, the paper),
            or those where it was placed (``first``, as in GoodDrag), which cannot drift.
        steps_per_tracking: iterations for which a handle stays where it was tracked; 1 in the paper.
        tracking_radius: r2, of point tracking's window, in the same cells.
        alternation: noise levels at which the latent is dragged, one after the other, each for its share of the
            iterations; in between it is denoised one step (GoodDrag). 1 in the paper.
        background: how what must not change is kept: by the mask loss (``loss``, the paper), or by restoring the
            unedited latent there after every iteration (``keep``, as in DragFlow).
        mask_weight: lambda, weight of the mask loss.
        feather: how softly the result blends into the uploaded picture at the edge of the editable area, in pixels of
            the working picture; not in the paper, which shows the whole working picture.
        max_iterations: iterations per run.
        arrival_distance: a handle closer to its target than this has arrived, in the same cells.
        arrival_check: what decides that a handle has arrived: its tracked place (``tracker``, the paper), or also where
            the decoded prediction shows its content (``content``).
        detail: what a full-size result shows where content only moved: the uploaded picture's own pixels, moved
            (``carried``), or the model's, scaled up (``model``); see `livedrag.editor.drag.detail`.
        reference_control: whether denoising attends to the unedited picture (the authors' later code; MasaCtrl).

    Raises:
        SettingsError: a value is out of range.
    """

    lora_rank: int = _setting(16, 1, 256)
    lora_lr: float = _setting(5e-4, 1e-7, 1.0)
    lora_steps: int = _setting(80, 0, 10_000)
    lora_batch: int = _setting(4, 1, 64)
    lora_targets: str = field(default=" ".join(PROJECTIONS), metadata={"live": False, "words": PROJECTIONS})
    lora_copies: int = _setting(0, 0, 64)
    ddim_steps: int = _setting(50, 2, MAX_DDIM_STEPS)
    inversion_strength: float = _setting(0.7, 0.01, 1.0)
    warp_share: float = _setting(0.0, 0.0, 1.0, live=True)
    latent_lr: float = _setting(0.01, 1e-6, 10.0, live=True)
    latent_optimizer: str = _choice("adam", "adam_mini")
    supervision: str = _choice("points", "region")
    supervision_radius: int = _setting(1, 0, 32, live=True)
    supervision_step: float = _setting(1.0, 0.25, 32.0, live=True)
    supervision_template: str = _choice("current", "first")
    steps_per_tracking: int = _setting(1, 1, 32, live=True)
    tracking_radius: int = _setting(3, 1, 64, live=True)
    alternation: int = _setting(1, 1, 50, live=True)
    background: str = _choice("loss", "keep")
    mask_weight: float = _setting(0.1, 0.0, 1e6, live=True)
    feather: float = _setting(2.0, 0.0, 64.0, live=True)
    max_iterations: int = _setting(80, 1, 10_000, live=True)
    arrival_distance: float = _setting(2.0, 0.5, 256.0, live=True)
    arrival_check: str = _choice("tracker", "content")
    detail: str = _choice("carried", "model")
    reference_control: bool = field(default=False, metadata={"live": False})

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            _check_range(entry, getattr(self, entry.name))
            _check_words(entry, getattr(self, entry.name))
            _check_choice(entry, getattr(self, entry.name))

    @classmethod
    def resolve(
        cls,
        preset: str | None = None,
        model_defaults: Mapping[str, Setting] = types.MappingProxyType({}),
        overrides: Mapping[str, Setting] = types.MappingProxyType({}),
    ) -> DragSettings:
        """Combine settings: ``overrides`` over the preset, over the model's defaults, over the fields' defaults.

        A preset sets every field, so that it means the same on every model; without one, the model's defaults apply.

        Args:
            preset: one of `PRESETS`, or None.
            model_defaults: settings that suit the model, by name.
            overrides: settings that the user chose, by name.

        Raises:
            SettingsError: an unknown preset or name, or a value of the wrong type or out of range.
        """
        base = DragSettings().changed(model_defaults) if preset is None else _preset(preset)
        return base.changed(overrides)

    def changed(self, overrides: Mapping[str, Setting]) -> DragSettings:
        """These settings with some replaced. Raises `SettingsError`."""
        entries = {entry.name: entry for entry in dataclasses.fields(self)}
        for name in overrides:
            if name not in entries:
                raise SettingsError(f"unknown setting {name!r}: choose from {', '.join(entries)}")
        typed: dict[str, Any] = {name: _typed(entries[name], value) for name, value in overrides.items()}
        return dataclasses.replace(self, **typed)

    def changed_live(self, overrides: Mapping[str, Setting]) -> DragSettings:
        """As `changed`, during a run. Raises `SettingsError` also for a setting that is not live."""
        for name in overrides:
            if name in self.as_dict() and name not in LIVE_SETTINGS:
                raise SettingsError(
                    f"{name} can't change once a picture is prepared: start a new session, "
                    f"or change {', '.join(sorted(LIVE_SETTINGS))}"
                )
        return self.changed(overrides)

    def as_dict(self) -> dict[str, Setting]:
        """All fields by name."""
        return dataclasses.asdict(self)

    @property
    def inversion_steps(self) -> int:
        """How many steps of the schedule the inversion takes."""
        return max(1, round(self.inversion_strength * self.ddim_steps))


LIVE_SETTINGS = frozenset(entry.name for entry in dataclasses.fields(DragSettings) if entry.metadata["live"])
"""The settings that may change during a run."""

OFFICIAL: Mapping[str, Setting] = types.MappingProxyType({"reference_control": True})
"""The preset ``official``, of the authors' code, which also applies to models without defaults of their own."""
_PRESETS: dict[str, Mapping[str, Setting]] = {
    "official": OFFICIAL,
    "gooddrag": {
        "lora_steps": 70,
        "inversion_strength": 0.75,
        "latent_lr": 0.02,
        "supervision_radius": 4,
        "supervision_step": 4.0,
        "supervision_template": "first",
        "steps_per_tracking": 3,
        "tracking_radius": 12,
        "alternation": 7,
        "max_iterations": 210,
        "reference_control": True,
    },
    "paper": {"lora_lr": 2e-4, "lora_steps": 200, "lora_targets": "to_q to_k to_v", "inversion_strength": 0.8},
}
PRESETS = tuple(_PRESETS)
"""Names of the presets."""
MAX_NOISE: Mapping[str, float] = types.MappingProxyType({"builtin": 0.5})
"""By kind of model: the inversion strength above which it cannot bring a picture back."""


def unsuitable_presets(kind: str) -> dict[str, str]:
    """The presets that destroy pictures on a kind of model, with the reason."""
    limit = MAX_NOISE.get(kind, 1.0)
    strengths = {name: _preset(name).inversion_strength for name in PRESETS}
    return {
        name: f"it adds {strength:.0%} of the noise, and above {limit:.0%} this model loses the picture"
        for name, strength in strengths.items()
        if strength > limit
    }


def check_seed(seed: int) -> None:
    """Raise `SettingsError` unless the seed is 0 to `livedrag.limits.MAX_SEED`."""
    if not 0 <= seed <= MAX_SEED:
        raise SettingsError(f"the seed is {seed}: it must be 0 to {MAX_SEED}")


def check_generation(guidance: float, ddim_steps: int) -> None:
    """Raise `SettingsError` unless a picture can be generated with this guidance scale and number of steps."""
    if not 0 <= guidance <= MAX_GUIDANCE:
        raise SettingsError(f"guidance is {guidance!r}: it must be 0 to {MAX_GUIDANCE:g}, usually 3 to 8")
    if not 1 <= ddim_steps <= MAX_DDIM_STEPS:
        raise SettingsError(f"the schedule has {ddim_steps} steps: it must have 1 to {MAX_DDIM_STEPS}, usually 50")


def check_prompt(prompt: str) -> None:
    """Raise `SettingsError` unless the prompt is text: bytes that are not UTF-8 reach Python as lone surrogates."""
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SettingsError(
            f"the prompt {prompt!a} is not valid text from character {error.start + 1} on: write it in UTF-8"
        ) from None


def _preset(name: str) -> DragSettings:
    if name not in _PRESETS:
        raise SettingsError(f"unknown preset {name!r}: choose from {', '.join(PRESETS)}")
    return DragSettings().changed(_PRESETS[name])


_KINDS = {int: "a whole number", float: "a number"}


def _typed(entry: dataclasses.Field[Any], value: object) -> Setting:
    wanted = type(entry.default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        kind = "true or false" if wanted is bool else f"{_KINDS.get(wanted, 'text')} such as {entry.default!r}"
        raise SettingsError(f"{entry.name} is {value!r}: it must be {kind}")
    return value  # type: ignore[return-value]


def _check_range(entry: dataclasses.Field[Any], value: float) -> None:
    if "low" in entry.metadata and not entry.metadata["low"] <= value <= entry.metadata["high"]:
        raise SettingsError(
            f"{entry.name} is {value!r}: it must be {entry.metadata['low']:g} to {entry.metadata['high']:g}"
        )


def _check_words(entry: dataclasses.Field[Any], value: str) -> None:
    if "words" in entry.metadata and not (value.split() and {*value.split()} <= {*entry.metadata["words"]}):
        choices = ", ".join(entry.metadata["words"])
        raise SettingsError(f"{entry.name} is {value!r}: it must be one or more of {choices}, separated by spaces")


def _check_choice(entry: dataclasses.Field[Any], value: str) -> None:
    if "choices" in entry.metadata and value not in entry.metadata["choices"]:
        raise SettingsError(f"{entry.name} is {value!r}: it must be {' or '.join(entry.metadata['choices'])}")


def parse_setting(text: str) -> tuple[str, Setting]:
    """Parse ``NAME=VALUE``. Raises `SettingsError`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"--set {text!r} is not NAME=VALUE: write for example --set max_iterations=40")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    return name, parsed
