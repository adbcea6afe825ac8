"""Making an edit again, from what a result says about how it was made."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import replace

from livedrag.edit_metadata import EditMetadata, EditState
from livedrag.editor.drag.following import changes
from livedrag.editor.drag.session import DragSession
from livedrag.editor.drag.steps import DragStep
from livedrag.editor.errors import EditorError
from livedrag.editor.settings import LIVE_SETTINGS, DragSettings


def replay(session: DragSession, metadata: EditMetadata, base: DragSettings) -> Generator[DragStep, None, None]:
    """Take the steps of all runs again, on a prepared session; what is left is to `render`, then `finish`.

    Args:
        session: with the settings at the beginning.
        metadata: of the edit.
        base: the settings of its preset or, without one, of the model.

    Raises:
        SettingsError: a setting does not exist or is out of range.
        PointError: there is nothing to drag.
    """
    before = EditState()
    for run in metadata.runs:
        before = _follow(session, before, (state for state in run.states if state.at == 0), base)
        if run.steps == 0:
            continue
        with contextlib.closing(session.drag(metadata.preview_every, run.done)) as steps:
            for taken, step in enumerate(steps, 1):
                yield step
                before = _follow(session, before, (state for state in run.states if state.at == taken), base)
                if taken == run.steps:
                    break


def finish(session: DragSession, metadata: EditMetadata, base: DragSettings) -> None:
    """Apply what was changed while the result was rendered. Raises `SettingsError`."""
    _follow(session, replace(metadata, final=()).last, metadata.final, base)


def _follow(session: DragSession, before: EditState, states: Iterable[EditState], base: DragSettings) -> EditState:
    for state in states:
        wanted = base.changed(state.settings).as_dict()
        current = session.settings.as_dict()
        settings = {name: wanted[name] for name in LIVE_SETTINGS if wanted[name] != current[name]}
        for change in changes(session, before, state, settings):
            with contextlib.suppress(EditorError):  # the edit went on without it, too
                change()
        before = state
    return before
