"""Pictures of trials, prepared once and dragged in any number of ways."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from livedrag.editor.drag.session import DragSession
from livedrag.editor.models.diffusion import Diffusion
from livedrag.editor.picture import to_picture, to_tensor
from livedrag.editor.points import Size
from livedrag.editor.progress import returned
from livedrag.editor.settings import LIVE_SETTINGS, DragSettings
from livedrag.editor.training.judgement import Judgement, judge
from livedrag.editor.training.pictures import SIDE
from livedrag.editor.training.trials import Trial


@dataclass(frozen=True)
class Edited:
    """What the editor made of one trial, ``(3, 256, 256)`` in [-1, 1], and what it reported of the drag."""

    picture: Tensor
    seconds: float
    arrived: bool
    lost: bool


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


def judge_edit(trial: Trial, edited: Edited) -> Judgement:
    """Compare what the editor made with the truth."""
    return judge(trial, edited.picture, edited.seconds, claimed=edited.arrived, lost=edited.lost)


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

    def reconstructions(self, settings: DragSettings) -> list[float]:
        """PSNR of each picture as it comes back without a drag, in decibels."""
        return [returned(prepared.session.reconstruct()) for prepared in self._for(settings)]

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
