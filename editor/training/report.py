"""The evaluation: what the model keeps, what a drag moves, and what words make, as one Markdown page with pictures."""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from livedrag.editor.drag.session import DragSession
from livedrag.editor.drag.warp import warp
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.picture import to_picture, to_tensor
from livedrag.editor.points import Size
from livedrag.editor.settings import LIVE_SETTINGS, DragSettings, Setting
from livedrag.editor.training.autoencoder import signal_to_noise
from livedrag.editor.training.clean_latents import WORDS, clean_latent_errors
from livedrag.editor.training.denoiser import PROMPTS, draw_prompts
from livedrag.editor.training.pck import CORRECT, MOVED, NOISE_SEEDS, make_keypoints, percentages_of_correct_keypoints
from livedrag.editor.training.pictures import SIDE, Collection
from livedrag.editor.training.scenes import still_scene
from livedrag.editor.training.stage import tile
from livedrag.editor.training.trials import ARRIVED, MIN_LIKENESS, Trial, distance_left, is_wrong, make_trials

log = logging.getLogger(__name__)

EVALUATED, SEARCHED = 30, 10
"""Held-out pictures that the report is on, and others that the defaults are searched on."""
PAGE = 20
"""Trials on a sheet."""
CHECKS = ("tracker", "content")
"""What judges arrival: the report says how often each is wrong."""
DRAGS = 2
"""On each picture of the report."""


@dataclass(frozen=True)
class Judgement:
    """What one way of editing did on one trial.

    Args:
        distance: from where the content is to where it should be, in pixels.
        outside: mean absolute change outside the mask, in levels of 255.
        likeness: PSNR to the true answer within the mask, in decibels.
        seconds: it took.
        claimed: whether the editor reported that the drag had arrived.
        lost: whether it reported that the content had not followed.
        wrong: whether the picture is not the true answer around the target; see `is_wrong`.
    """

    distance: float
    outside: float
    likeness: float
    seconds: float
    claimed: bool = False
    lost: bool = False
    wrong: bool = False


@dataclass(frozen=True)
class Summary:
    """Means of judgements, and shares of trials.

    Args:
        arrived: those that came within `ARRIVED` pixels.
        fooled: those of which the editor reported that they had arrived, wrongly.
        falsely_lost: those of which it reported that the content had not followed, wrongly.
    """

    distance: float
    arrived: float
    outside: float
    likeness: float
    seconds: float
    fooled: float = 0.0
    falsely_lost: float = 0.0


def choose(pictures: Collection) -> list[int]:
    """One picture of each held-out concept that is a thing of its own, in the order of the file names."""
    first: dict[str, int] = {}
    for index, emoji in enumerate(pictures.emojis):
        if emoji.weight >= 1:
            first.setdefault(emoji.caption, index)
    return list(first.values())


def trials_for(pictures: Collection, *, search: bool) -> list[list[Trial]]:
    """The fixed trials of the report, or those for searching defaults, on other pictures."""
    concepts = choose(pictures)
    theirs = concepts[::4]
    if search:
        return make_trials(pictures, theirs, 1)[:SEARCHED]
    return make_trials(pictures, [index for index in concepts if index not in theirs], DRAGS)[:EVALUATED]


def judge(trial: Trial, edited: Tensor, seconds: float, *, claimed: bool = False, lost: bool = False) -> Judgement:
    """Compare an edited picture ``(3, 256, 256)`` in [-1, 1] with the truth; the rest is as in `Judgement`."""
    outside = torch.from_numpy(~trial.mask)
    change = (edited - trial.picture).abs().mean(0)[outside].mean() * 127.5
    squares = ((edited - trial.truth) / 2).square().mean(0)[~outside].mean().clamp(min=1e-10)
    return Judgement(
        distance_left(trial.picture, edited, trial.drag, trial.mask),
        float(change),
        float(-10 * squares.log10()),
        seconds,
        claimed=claimed,
        lost=lost,
        wrong=is_wrong(trial, edited),
    )


def summarise(judgements: Sequence[Judgement]) -> Summary:
    """Means over trials."""
    distances = np.array([judgement.distance for judgement in judgements])
    return Summary(
        float(distances.mean()),
        float((distances <= ARRIVED).mean()),
        float(np.mean([judgement.outside for judgement in judgements])),
        float(np.mean([judgement.likeness for judgement in judgements])),
        float(np.mean([judgement.seconds for judgement in judgements])),
        fooled=float(np.mean([judgement.claimed and judgement.wrong for judgement in judgements])),
        falsely_lost=float(np.mean([judgement.lost and not judgement.wrong for judgement in judgements])),
    )


def guess(trial: Trial) -> Tensor:
    """The instant guess, ``(3, 256, 256)`` in [-1, 1]."""
    return to_tensor(warp(to_picture(trial.picture[None]), [trial.drag], trial.mask), Size(SIDE, SIDE))[0]


@dataclass(frozen=True)
class Edited:
    """What the editor made of one trial, ``(3, 256, 256)`` in [-1, 1], and what it reported of the drag."""

    picture: Tensor
    seconds: float
    arrived: bool
    lost: bool


@dataclass(frozen=True)
class Edits:
    """What the editor made of the trials of one picture, for each arrival check, and the picture as it comes back
    without a drag, ``(3, 256, 256)`` in [-1, 1]."""

    edited: Mapping[str, list[Edited]]
    back: Tensor


@dataclass(frozen=True)
class Prepared:
    """A picture that is ready to be dragged, and the seconds that took."""

    session: DragSession
    seconds: float


def prepare(model: Diffusion, trial: Trial, settings: DragSettings) -> Prepared:
    """Prepare the picture of a trial."""
    began = time.perf_counter()
    session = DragSession(model, to_picture(trial.picture[None]), prompt=trial.caption, settings=settings)
    for _ in session.prepare():
        pass
    return Prepared(session, time.perf_counter() - began)


def drag(prepared: Prepared, trial: Trial) -> Edited:
    """Make the drag of a trial from the beginning."""
    session, began = prepared.session, time.perf_counter()
    session.reset()
    session.set_mask(trial.mask)
    session.add_drag("a", trial.drag)
    *_, end = session.drag(preview_every=0)
    for _ in session.render(preview_every=0):
        pass
    picture = to_tensor(session.result(), Size(SIDE, SIDE))[0]
    return Edited(picture, prepared.seconds + time.perf_counter() - began, end.arrived, bool(end.lost))


def edit(
    model: Diffusion, trials: Sequence[Trial], settings: DragSettings, checks: Sequence[str] | None = None
) -> Edits:
    """Prepare a picture once, give it back, then make each drag from the beginning.

    Args:
        checks: values of ``arrival_check`` to make each drag with; by default the settings' own.
    """
    prepared = prepare(model, trials[0], settings)
    session = prepared.session
    *_, last = session.render(preview_every=1)
    assert last.predicted_x0 is not None
    back = model.decode(last.predicted_x0)[0].float()
    edited: dict[str, list[Edited]] = {}
    for check in checks or [settings.arrival_check]:
        session.change({"arrival_check": check})
        edited[check] = [drag(prepared, trial) for trial in trials]
    session.close()
    return Edits(edited, back)


def judge_edit(trial: Trial, edited: Edited) -> Judgement:
    """Compare what the editor made with the truth."""
    return judge(trial, edited.picture, edited.seconds, claimed=edited.arrived, lost=edited.lost)


MIN_GAIN = 0.5
"""Decibels by which settings have to be better than those before: ten pictures tell no finer difference."""
FOOLED_COST = 5.0
"""Decibels that settings lose if the editor is fooled in every trial."""


class Preparations:
    """Pictures prepared once for all settings that may change during a run.

    Args:
        model: that prepares them.
        trials: groups, of one picture each.
    """

    def __init__(self, model: Diffusion, trials: Sequence[Sequence[Trial]]) -> None:
        self._model, self._trials = model, trials
        self._prepared: dict[DragSettings, list[Prepared]] = {}

    def edits(self, settings: DragSettings) -> Iterator[tuple[Trial, Edited]]:
        """Each trial, dragged with these settings."""
        live = {name: value for name, value in settings.as_dict().items() if name in LIVE_SETTINGS}
        for group, prepared in zip(self._trials, self._for(settings), strict=True):
            prepared.session.change(live)
            for trial in group:
                yield trial, drag(prepared, trial)

    def _for(self, settings: DragSettings) -> list[Prepared]:
        """The pictures as these settings prepare them; the latest two kinds are kept."""
        fixed = {name: value for name, value in settings.as_dict().items() if name not in LIVE_SETTINGS}
        kind = DragSettings().changed(fixed)
        prepared = self._prepared.pop(kind, None)
        if prepared is None:
            prepared = [prepare(self._model, group[0], kind) for group in self._trials]
        self._prepared[kind] = prepared
        while len(self._prepared) > 2:
            for old in self._prepared.pop(next(iter(self._prepared))):
                old.session.close()
        return prepared

    def close(self) -> None:
        """Free them."""
        for prepared in itertools.chain.from_iterable(self._prepared.values()):
            prepared.session.close()
        self._prepared = {}


def search(
    model: Diffusion, trials: Sequence[Sequence[Trial]], candidates: Iterable[Mapping[str, Setting]]
) -> dict[str, Setting]:
    """Improve the model's defaults by one candidate after the other, if it scores better by `MIN_GAIN`.

    Args:
        candidates: changes to try, alone or several at once, each on top of those that were taken before.
    """
    preparations = Preparations(model, trials)
    best: dict[str, Setting] = dict(model.defaults)
    score = _score(preparations, best)
    for candidate in candidates:
        tried = {**best, **candidate}
        if _settings(tried) != _settings(best) and (result := _score(preparations, tried)) > score + MIN_GAIN:
            best, score = tried, result
    preparations.close()
    return best


def _settings(overrides: Mapping[str, Setting]) -> DragSettings:
    return DragSettings.resolve(None, {}, overrides)


def _score(preparations: Preparations, overrides: Mapping[str, Setting]) -> float:
    """Decibels of likeness, less one for each 2 pixels that content is away, and less the share of `FOOLED_COST`."""
    summary = summarise([judge_edit(trial, edited) for trial, edited in preparations.edits(_settings(overrides))])
    score = summary.likeness - summary.distance / 2 - FOOLED_COST * summary.fooled
    log.info("%s: %s, score %.3f", dict(overrides), summary, score)
    return score


def evaluate(
    model: Diffusion,
    pictures: Collection,
    folder: Path,
    *,
    overrides: Mapping[str, Setting] = MappingProxyType({}),
    most: int | None = None,
    prompts: Sequence[str] = PROMPTS,
    trained_on: Collection | None = None,
) -> dict[str, object]:
    """Judge a model on held-out pictures and write the report, ``README.md`` with its pictures and ``figures.json``.

    Args:
        model: with its own default settings.
        overrides: other settings than those.
        pictures: that are held out.
        folder: of the report.
        most: pictures to drag on, for a quick look.
        prompts: to draw.
        trained_on: pictures to make new scenes of, for the error of predicted clean latents.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = trials_for(pictures, search=False)[:most]
    settings = DragSettings.resolve(None, model.defaults, overrides)
    ways: dict[str, list[Judgement]] = {"no edit": [], "instant guess": [], "livedrag": [], "the true answer": []}
    by_check: dict[str, list[Judgement]] = {check: [] for check in CHECKS}
    kept, rows = [], []
    for group in groups:
        edits = edit(model, group, settings, CHECKS)
        kept.append(float(signal_to_noise(edits.back[None], group[0].picture[None])))
        for check, each in edits.edited.items():
            by_check[check] += [judge_edit(trial, edited) for trial, edited in zip(group, each, strict=True)]
        for trial, edited in zip(group, edits.edited[settings.arrival_check], strict=True):
            guessed = guess(trial)
            ways["livedrag"].append(judge_edit(trial, edited))
            others = {"no edit": trial.picture, "instant guess": guessed, "the true answer": trial.truth}
            for way, picture in others.items():
                ways[way].append(judge(trial, picture, 0.0))
            rows.append(torch.stack([_marked(trial), guessed, edited.picture, trial.truth]))
        log.info("%s: %.1f dB, %s", group[0].caption, kept[-1], ways["livedrag"][-len(group) :])
    scenes = torch.stack([still_scene(pictures[index]) for index in choose(pictures)])
    back = torch.cat([model.decode(model.encode(scene[None])) for scene in scenes])
    figures: dict[str, object] = {
        "model": model.name,
        "settings": {**model.defaults, **overrides},
        "autoencoder": {"pictures": len(scenes), "psnr": float(signal_to_noise(back, scenes).mean())},
        "kept": {"pictures": len(groups), "psnr": float(np.mean(kept))},
        "drags": {way: asdict(summarise(judgements)) for way, judgements in ways.items()},
        "arrival checks": {check: asdict(summarise(judgements)) for check, judgements in by_check.items()},
        "prompts": list(prompts),
        "each": [asdict(judgement) for judgement in ways["livedrag"]],
        **measure_features(model, pictures, trained_on, most=most),
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    shown = len(scenes) // 16
    tile(torch.cat([part[::shown][start : start + 8] for start in (0, 8) for part in (scenes, back)]), 8).save(
        folder / "reconstructions.webp", quality=90
    )
    for number, start in enumerate(range(0, len(rows), PAGE), start=1):
        tile(torch.cat(rows[start : start + PAGE]), 8, side=160).save(folder / f"drags-{number}.webp", quality=90)
    draw_prompts(model, prompts).save(folder / "words.webp", quality=90)
    (folder / "README.md").write_text(page(figures))
    return figures


def measure_features(
    model: Diffusion, pictures: Collection, trained_on: Collection | None, *, most: int | None = None
) -> dict[str, object]:
    """Correct keypoints on held-out pictures, and errors of clean latents in scenes of others, by timestep as text."""
    keypoints = make_keypoints(pictures, choose(pictures)[:most])
    percentages = percentages_of_correct_keypoints(model, keypoints)
    figures: dict[str, object] = {
        "keypoints": {
            "pictures": len(keypoints),
            "count": sum(len(each.here) for each in keypoints),
            "correct": {str(timestep): percentage for timestep, percentage in percentages.items()},
        }
    }
    if trained_on is not None:
        errors = clean_latent_errors(model, trained_on)
        figures["clean latents"] = {str(timestep): by_words for timestep, by_words in errors.items()}
    return figures


def features_table(figures: Mapping[str, object]) -> str:
    """What `measure_features` found, as Markdown tables."""
    keypoints, errors = figures["keypoints"], figures.get("clean latents", {})
    assert isinstance(keypoints, dict)
    assert isinstance(errors, dict)
    correct = keypoints["correct"]
    lines = [
        f"| {keypoints['count']} places on {keypoints['pictures']} pictures, timestep | {' | '.join(correct)} |",
        "|---|" + "--:|" * len(correct),
        f"| found within {CORRECT} px | {' | '.join(f'{value:.0f} %' for value in correct.values())} |",
    ]
    if errors:
        lines += ["", f"| error of the clean latent, timestep | {' | '.join(WORDS)} |", "|---|" + "--:|" * len(WORDS)]
        lines += [
            f"| {timestep} | {' | '.join(f'{by_words[words]:.4f}' for words in WORDS)} |"
            for timestep, by_words in errors.items()
        ]
    return "\n".join(lines) + "\n"


def table(figures: Mapping[str, object]) -> str:
    """The figures as Markdown tables."""
    autoencoder, kept, drags = (figures[name] for name in ("autoencoder", "kept", "drags"))
    assert isinstance(autoencoder, dict)
    assert isinstance(kept, dict)
    assert isinstance(drags, dict)
    lines = [
        "| on held-out pictures | PSNR |",
        "|---|---|",
        f"| autoencoder alone, {autoencoder['pictures']} pictures (aim 32 dB) | {autoencoder['psnr']:.1f} dB |",
        f"| LoRA, inversion and denoising without a drag, {kept['pictures']} pictures (aim 28 dB)"
        f" | {kept['psnr']:.1f} dB |",
        "",
        f"| drags with a known answer | mean distance | within {ARRIVED:.0f} px | change outside | PSNR inside |",
        "|---|---|---|---|---|",
    ]
    for way, summary in drags.items():
        likeness = "" if way == "the true answer" else f"{summary['likeness']:.1f} dB"
        lines.append(
            f"| {way} | {summary['distance']:.1f} px | {100 * summary['arrived']:.0f} % "
            f"| {summary['outside']:.2f} of 255 | {likeness} |"
        )
    checks = figures.get("arrival checks", {})
    assert isinstance(checks, dict)
    if checks:
        lines += ["", "| arrival check | within 10 px | PSNR inside | fooled | falsely lost |", "|---|--:|--:|--:|--:|"]
        lines += [
            f"| {check} | {100 * summary['arrived']:.0f} % | {summary['likeness']:.1f} dB "
            f"| {100 * summary['fooled']:.0f} % | {100 * summary['falsely_lost']:.0f} % |"
            for check, summary in checks.items()
        ]
    return "\n".join(lines) + "\n\n" + features_table(figures)


def page(figures: Mapping[str, object]) -> str:
    """The report as Markdown."""
    each, prompts = figures["each"], figures["prompts"]
    assert isinstance(each, list)
    assert isinstance(prompts, list)
    sheets = range(1, math.ceil(len(each) / PAGE) + 1)
    drags = "\n".join(f"![drags](drags-{number}.webp)" for number in sheets)
    return f"""# Evaluation of {figures["model"]}

Made by `python -m livedrag.editor.training evaluate`, settings {figures["settings"]}. No picture here was trained on.

{table(figures)}
Distance is from where normalised cross-correlation finds the handle's patch to where it should be; its own error is the
distance of the true answer. PSNR inside is to the true answer, within the mask. Fooled: the editor reported that a drag
had arrived, but around the target the picture is further from the true answer than the unedited picture is, or below
{MIN_LIKENESS:.0f} dB. Falsely lost: it reported that the content had not followed, and neither is so. Places are
corners that moved by more than {MOVED} px; each is looked for in the whole moved picture by the features that
dragging reads, with {NOISE_SEEDS} draws of noise.

## Drags

Two trials a row: the picture with its drag and mask; the instant guess; livedrag; the true answer.

{drags}

## Pictures through the autoencoder

Each row of pictures above what comes back.

![reconstructions](reconstructions.webp)

## Words

{"; ".join(prompts)}.

![words](words.webp)
"""


def _marked(trial: Trial) -> Tensor:
    """The picture with its drag, dimmed where it must not change."""
    dimmed = torch.where(torch.from_numpy(trial.mask), trial.picture, trial.picture * 0.6 - 0.3)
    picture = to_picture(dimmed[None])
    handle, target = ((point.x, point.y) for point in (trial.drag.handle, trial.drag.target))
    pen = ImageDraw.Draw(picture)
    pen.line([handle, target], fill="white", width=5)
    pen.line([handle, target], fill="black", width=2)
    for (x, y), colour in ((handle, "red"), (target, "blue")):
        pen.ellipse([x - 5, y - 5, x + 5, y + 5], fill=colour, outline="white")
    return to_tensor(picture, Size(SIDE, SIDE))[0]
