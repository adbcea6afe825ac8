"""Ways of editing, judged on drags whose answer is known: no edit, the instant guess, the loop in several settings.

One picture is prepared once for all the ways that share its LoRA and inversion. Every judgement is on disk as soon as
it is made, so an evaluation that is interrupted continues where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from livedrag.editor.drag.warp import warp
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.picture import to_picture, to_tensor
from livedrag.editor.points import Size
from livedrag.editor.settings import PRESETS, DragSettings, Setting
from livedrag.editor.training.judgement import Judgement, judge
from livedrag.editor.training.pictures import SIDE
from livedrag.editor.training.preparations import Edited, Preparations, judge_edit
from livedrag.editor.training.trials import Trial

log = logging.getLogger(__name__)

NO_EDIT, GUESS, TRUTH = "no edit", "instant guess", "the true answer"
OTHER_CHECK = "default, arrival by {}"
PUBLISHED, REGION, UNWARPED, DEFAULT = "published loop", "region", "default without warp", "default"
NOT_COMPARED = ("official", "paper")
"""Presets that differ from the published loop only in their preparation."""


PUBLISHED_STRENGTH = 0.5
"""``inversion_strength`` of published ways of dragging: with less noise, they move next to nothing."""
UNWARPED_ARRIVAL = 1.5
"""``arrival_distance`` of the defaults without a warp, which have to bring the content all of its way by themselves."""


def guess(trial: Trial) -> Tensor:
    """The instant guess, ``(3, 256, 256)`` in [-1, 1]."""
    return to_tensor(warp(to_picture(trial.picture[None]), [trial.drag], trial.mask), Size(SIDE, SIDE))[0]


def ways_of(model: Diffusion, overrides: Mapping[str, Setting]) -> dict[str, DragSettings]:
    """The ways in which the loop is run, by name; their pictures are prepared as the model's defaults say, but those
    of published ways at `PUBLISHED_STRENGTH`.

    Args:
        model: with its own defaults.
        overrides: other settings than those, for all ways.
    """
    default = DragSettings.resolve(None, model.defaults, overrides)
    prepared = {
        name: value
        for name, value in default.as_dict().items()
        if name.startswith("lora_") or name in ("ddim_steps", "inversion_strength")
    }
    prepared |= {"inversion_strength": PUBLISHED_STRENGTH, **overrides}
    ways = {PUBLISHED: DragSettings().changed(prepared)}
    for preset in PRESETS:
        if preset not in NOT_COMPARED:
            ways[preset] = DragSettings.resolve(preset, {}, prepared)
    ways[REGION] = ways[PUBLISHED].changed({"supervision": "region", "latent_lr": 0.02, **overrides})
    ways[UNWARPED] = default.changed({"arrival_distance": UNWARPED_ARRIVAL, **overrides, "warp_share": 0.0})
    (other,) = {"tracker", "content"} - {default.arrival_check}
    return {**ways, OTHER_CHECK.format(other): default.changed({"arrival_check": other}), DEFAULT: default}


@dataclass(frozen=True)
class Judged:
    """A trial, and the judgement of each way; edited pictures ``(3, 256, 256)`` by way. ``kept`` is the PSNR of its
    picture as it comes back without a drag, in decibels."""

    trial: Trial
    kept: float
    judgements: dict[str, Judgement]
    pictures: dict[str, Tensor]


class Evaluation:
    """Judges ways of editing, and remembers what it has judged.

    Args:
        model: that is judged.
        ways: settings by name.
        folder: for judgements and edited pictures, between runs of the same model.
    """

    def __init__(self, model: Diffusion, ways: Mapping[str, DragSettings], folder: Path) -> None:
        self._model, self._ways = model, ways
        self._folder = folder / fingerprint(model)
        self._folder.mkdir(parents=True, exist_ok=True)

    def judge_all(self, groups: Sequence[Sequence[Trial]]) -> Iterator[Judged]:
        """Judge trials, grouped by picture; only what has not been judged before is computed."""
        for group in groups:
            kept = self._file(group[0], self._ways[DEFAULT]).with_suffix(".kept")
            with closing(Preparations(self._model, [group])) as preparations:
                if not kept.is_file():
                    kept.write_text(str(preparations.reconstructions(self._ways[DEFAULT])[0]))
                for way, settings in self._ways.items():
                    if not all(self._file(trial, settings).is_file() for trial in group):
                        for trial, edited in preparations.edits(settings):
                            self._store(way, settings, trial, edited)
            for trial in group:
                yield self._judged(trial, float(kept.read_text()))

    def _store(self, way: str, settings: DragSettings, trial: Trial, edited: Edited) -> None:
        judgement = judge_edit(trial, edited)
        log.info("%s, %s: %s", trial.caption, way, judgement)
        file = self._file(trial, settings)
        to_picture(edited.picture[None]).save(file.with_suffix(".png"))
        part = file.with_suffix(".part")
        part.write_text(json.dumps(asdict(judgement)))
        part.replace(file)

    def _judged(self, trial: Trial, kept: float) -> Judged:
        guessed = guess(trial)
        pictures = {NO_EDIT: trial.picture, GUESS: guessed}
        judgements = {way: judge(trial, picture, 0.0) for way, picture in pictures.items()}
        for way, settings in self._ways.items():
            file = self._file(trial, settings)
            judgements[way] = Judgement(**json.loads(file.read_text()))
            with Image.open(file.with_suffix(".png")) as picture:
                pictures[way] = to_tensor(picture, Size(SIDE, SIDE))[0]
        judgements[TRUTH] = judge(trial, trial.truth, 0.0)
        return Judged(trial, kept, judgements, pictures)

    def _file(self, trial: Trial, settings: DragSettings) -> Path:
        """Of a judgement; named by all that it depends on."""
        levels: NDArray[np.uint8] = np.asarray(to_picture(trial.picture[None]))
        facts = repr((trial.caption, trial.drag, settings.as_dict()))
        digest = hashlib.sha256(facts.encode() + trial.mask.tobytes() + levels.tobytes()).hexdigest()
        return self._folder / f"{digest[:24]}.json"


def fingerprint(model: Diffusion) -> str:
    """Of a model's weights."""
    digest = hashlib.sha256()
    for module in (model.unet, model.vae, model.text_encoder):
        for tensor in module.state_dict().values():
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
