"""The evaluation: what the model keeps, what a drag moves, and what words make, as one Markdown page with pictures."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import ImageDraw, ImageOps
from torch import Tensor

from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.picture import to_picture, to_tensor
from livedrag.editor.points import Size
from livedrag.editor.settings import DragSettings, Setting
from livedrag.editor.training.autoencoder import signal_to_noise
from livedrag.editor.training.clean_latents import WORDS, clean_latent_errors
from livedrag.editor.training.denoiser import PROMPTS, draw_prompts
from livedrag.editor.training.evaluation import (
    DEFAULT,
    GUESS,
    NO_EDIT,
    PUBLISHED_STRENGTH,
    TRUTH,
    Evaluation,
    Judged,
    ways_of,
)
from livedrag.editor.training.judgement import summarise
from livedrag.editor.training.pck import CORRECT, MOVED, NOISE_SEEDS, make_keypoints, percentages_of_correct_keypoints
from livedrag.editor.training.pictures import SIDE, Collection, TrainingError
from livedrag.editor.training.preparations import Preparations, judge_edit
from livedrag.editor.training.scenes import still_scene
from livedrag.editor.training.stage import tile
from livedrag.editor.training.trials import ARRIVED, MIN_LIKENESS, Trial, make_trials, make_trials_on
from livedrag.pictures import PictureFileError, read_picture

log = logging.getLogger(__name__)

EVALUATED, SEARCHED = 30, 10
"""Held-out pictures that the report is on, and others that the defaults are searched on."""
PAGE = 20
"""Trials on a sheet."""
DRAGS = 2
"""On each picture of the report."""


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


MIN_GAIN = 0.5
"""Decibels by which settings have to be better than those before: ten pictures tell no finer difference."""
FOOLED_COST = 5.0
"""Decibels that settings lose if the editor is fooled in every trial."""


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
    progress: Path,
    overrides: Mapping[str, Setting] = MappingProxyType({}),
    limit: int | None = None,
    prompts: Sequence[str] = PROMPTS,
    trained_on: Collection | None = None,
    others: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, object]:
    """Judge a model on held-out pictures and write the report, ``README.md`` with its pictures and ``figures.json``.

    Args:
        model: with its own default settings.
        pictures: that are held out.
        folder: of the report.
        progress: folder where judgements stay, so that an interrupted evaluation continues.
        overrides: other settings than the model's.
        limit: pictures to drag on, for a quick look.
        prompts: to draw.
        trained_on: pictures to make new scenes of, for the error of predicted clean latents.
        others: pictures of other kinds, ``(3, 256, 256)`` in [-1, 1], by caption, to drag on too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(model, ways_of(model, overrides), progress)
    judged = list(evaluation.judge_all(trials_for(pictures, search=False)[:limit]))
    on_others = list(evaluation.judge_all(make_trials_on(others, DRAGS)[:limit]))
    scenes = torch.stack([still_scene(pictures[index]) for index in choose(pictures)])
    back = torch.cat([model.decode(model.encode(scene[None])) for scene in scenes])
    kept = {one.trial.caption: one.kept for one in judged}
    figures: dict[str, object] = {
        "model": model.name,
        "settings": {**model.defaults, **overrides},
        "autoencoder": {"pictures": len(scenes), "psnr": float(signal_to_noise(back, scenes).mean())},
        "kept": {"pictures": len(kept), "psnr": float(np.mean(list(kept.values())))},
        "drags": _by_way(judged),
        "other kinds": _by_way(on_others),
        "prompts": list(prompts),
        "each": [asdict(one.judgements[DEFAULT]) for one in judged],
        **measure_features(model, pictures, trained_on, most=limit),
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    shown = max(1, len(scenes) // 16)
    tile(torch.cat([part[::shown][start : start + 8] for start in (0, 8) for part in (scenes, back)]), 8).save(
        folder / "reconstructions.webp", quality=90
    )
    _save_sheets(judged, folder, "drags")
    _save_sheets(on_others, folder, "others")
    draw_prompts(model, prompts).save(folder / "words.webp", quality=90)
    (folder / "README.md").write_text(page(figures, sheets=math.ceil(len(judged) / PAGE), others=len(on_others)))
    return figures


def _by_way(judged: Sequence[Judged]) -> dict[str, object]:
    """Summaries by way, as plain values; empty without trials."""
    ways = judged[0].judgements if judged else {}
    return {way: asdict(summarise([one.judgements[way] for one in judged])) for way in ways}


def _save_sheets(judged: Sequence[Judged], folder: Path, name: str) -> None:
    """Sheets of trials, two a row: the picture with its drag, the guess, the default way, the true answer."""
    rows = [
        torch.stack([_marked(one.trial), one.pictures[GUESS], one.pictures[DEFAULT], one.trial.truth]) for one in judged
    ]
    for number, start in enumerate(range(0, len(rows), PAGE), start=1):
        tile(torch.cat(rows[start : start + PAGE]), 8, side=160).save(folder / f"{name}-{number}.webp", quality=90)


def read_pictures(folder: Path) -> dict[str, Tensor]:
    """All pictures of a folder by their names without extension: their middle, as ``(3, 256, 256)`` in [-1, 1].

    Raises:
        TrainingError: there is none, or one cannot be read.
    """
    pictures = {}
    for path in sorted(folder.glob("*.*")):
        try:
            with path.open("rb") as file:
                picture = read_picture(file, str(path))
        except (PictureFileError, OSError) as error:
            raise TrainingError(f"{path} can't be read: {error}") from None
        pictures[path.stem] = to_tensor(ImageOps.fit(picture, (SIDE, SIDE)), Size(SIDE, SIDE))[0]
    if not pictures:
        raise TrainingError(f"there are no pictures in {folder}: put some there as PNG, JPEG or WebP")
    return pictures


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
        *_drags_table(drags),
    ]
    if others := figures["other kinds"]:
        assert isinstance(others, dict)
        lines += ["", "Pictures of other kinds:", "", *_drags_table(others)]
    return "\n".join(lines) + "\n\n" + features_table(figures)


def _drags_table(drags: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lines of a Markdown table of summaries, by way."""
    lines = [
        f"| drags with a known answer | distance | median | within {ARRIVED:.0f} px | fooled | falsely lost "
        "| PSNR inside | SSIM inside | change outside | seconds |",
        "|---|" + "--:|" * 9,
    ]
    for way, summary in drags.items():
        computed = way not in (NO_EDIT, GUESS, TRUTH)
        cells = [
            f"{summary['distance']:.1f} px",
            f"{summary['median']:.1f} px",
            f"{100 * summary['arrived']:.0f} %",
            f"{100 * summary['fooled']:.0f} %" if computed else "",
            f"{100 * summary['falsely_lost']:.0f} %" if computed else "",
            "" if way == TRUTH else f"{summary['likeness']:.1f} dB",
            "" if way == TRUTH else f"{summary['structure']:.3f}",
            f"{summary['outside']:.2f} of 255",
            f"{summary['seconds']:.0f}" if computed else "",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def page(figures: Mapping[str, object], *, sheets: int, others: int) -> str:
    """The report as Markdown, with so many sheets of drags, and so many trials on pictures of other kinds."""
    prompts = figures["prompts"]
    assert isinstance(prompts, list)
    drags = "\n".join(f"![drags](drags-{number}.webp)" for number in range(1, sheets + 1))
    other = range(1, math.ceil(others / PAGE) + 1)
    kinds = "\n".join(f"![other kinds](others-{number}.webp)" for number in other)
    return f"""# Evaluation of {figures["model"]}

Made by `python -m livedrag.editor.training evaluate`, settings {figures["settings"]}. No picture here was trained on.

{table(figures)}
Distance is from where normalised cross-correlation finds the handle's patch to where it should be; its own error is the
distance of the true answer. PSNR and SSIM inside are to the true answer, within the mask. Fooled: the editor reported
that a drag had arrived, but around the target the picture is further from the true answer than the unedited picture is,
or below {MIN_LIKENESS:.0f} dB. Falsely lost: it reported that the content had not followed, and neither is so. The
published ways and `region` begin at `inversion_strength` {PUBLISHED_STRENGTH}; else all prepare the picture alike.
Places are corners that moved by more than {MOVED} px; each is looked for in the whole moved picture by the features
that dragging reads, with {NOISE_SEEDS} draws of noise.

## Drags

Two trials a row: the picture with its drag and mask; the instant guess; livedrag; the true answer.

{drags}
{kinds}

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
