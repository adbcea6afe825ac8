"""Whether content has arrived: what a tracker claims is checked against what the decoded prediction shows.

A drag whose content stayed behind is *lost*. The run goes back to the last moment at which both agreed and tries with
twice the step (as FreeDrag does, arXiv 2307.04684), `MAX_TRIES` times, then goes on without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from livedrag.editor.drag.content import ContentSearch, has_followed, lacks_look, near
from livedrag.editor.drag.handles import Handle, Handles, current_position
from livedrag.editor.drag.state import SessionState
from livedrag.editor.models.ddim import predict_x0
from livedrag.editor.points import Point, distance

SEARCH_EVERY = 8
"""Iterations after which content is searched even if no handle seems to have arrived."""
MAX_TRIES = 2
"""Further attempts at a lost drag."""


@dataclass(frozen=True)
class Check:
    """What the picture shows.

    Args:
        handles: with what is now known of them.
        content: by drag: from where the picture shows its content to the target, in pixels of the picture.
        failed: whether content that seemed to have arrived has not.
    """

    handles: dict[str, Handle]
    content: dict[str, float]
    failed: bool


def checks_content(state: SessionState) -> bool:
    """Whether arrival is judged by what the picture shows."""
    return state.settings.arrival_check == "content"


def search_is_due(state: SessionState, later: int = 0) -> bool:
    """Whether this iteration, or one so many ``later``, searches for the content, whatever the tracker finds."""
    if not checks_content(state):
        return False
    begins = (state.iterations_done + later) % SEARCH_EVERY == 0 or not state.latent.steps + later
    return begins or any(lacks_look(handle) for handle in state.edit.handles.values())


def given_up(handle: Handle) -> bool:
    """Whether a run goes on without this drag."""
    return handle.lost and handle.tries > MAX_TRIES


def active(state: SessionState, handles: Handles) -> dict[str, Handle]:
    """The handles that the run has not given up."""
    if not checks_content(state):
        return dict(handles)
    return {name: handle for name, handle in handles.items() if not given_up(handle)}


def begin_run(state: SessionState) -> None:
    """Every drag has all its tries, and content is where its handle is."""
    state.edit.handles = {
        name: replace(handle, confirmed=False, lost=False, tries=0) for name, handle in state.edit.handles.items()
    }
    state.timeline.mark_agreed(state.edit.handles)


def check_content(
    state: SessionState, search: ContentSearch, handles: dict[str, Handle], moving: Iterable[str], noise: Tensor | None
) -> Check:
    """Check each handle that has just arrived, and note where the picture shows all content, if a search is due.

    Args:
        state: of the session.
        search: of the session.
        handles: as they were tracked in this iteration.
        moving: names of those that have not arrived.
        noise: predicted in this iteration, ``(1, 4, H/8, W/8)``; None: it is predicted here if it is needed.
    """
    handles = {name: replace(handle, confirmed=False) if name in moving else handle for name, handle in handles.items()}
    claims = [name for name in active(state, handles) if name not in moving and not handles[name].confirmed]
    if not claims and not search_is_due(state):
        return Check(handles, {}, failed=False)
    pixels = search.decode(_predicted_x0(state, noise))
    handles = search.with_looks(handles, pixels)
    found = search.find(handles, pixels)
    followed = {name: name not in found or has_followed(handles[name], found[name], state.rasters) for name in claims}
    for name, arrived in followed.items():
        handle = handles[name]
        tries = handle.tries if arrived else handle.tries + 1
        handles[name] = replace(handle, confirmed=arrived, lost=not arrived, tries=tries)
    if all(followed.values()) and _agree(state, active(state, handles), found):
        state.timeline.mark_agreed(handles)
    content = {name: distance(place, handles[name].target) for name, place in found.items()}
    return Check(handles, content, failed=not all(followed.values()))


def go_back(state: SessionState, handles: Handles) -> None:
    """To the last moment at which the picture showed content where it was tracked; what was tried since is noted."""
    timeline, agreed = state.timeline, state.timeline.agreed
    moment = next(iter(timeline)) if agreed is None else timeline[agreed.index]
    then = moment.handles if agreed is None else agreed.handles
    state.return_to(moment)
    state.edit.handles = {name: _as_it_was(handle, then.get(name)) for name, handle in handles.items()}


def _as_it_was(now: Handle, then: Handle | None) -> Handle:
    """A handle where it was at an earlier moment, unless it has been placed since."""
    if then is None or (then.start, then.warp.handle) != (now.start, now.warp.handle):
        return replace(now, confirmed=False)
    return replace(then, target=now.target, look=now.look, lost=now.lost, tries=now.tries, confirmed=False, held=0)


def _agree(state: SessionState, handles: Handles, found: dict[str, Point]) -> bool:
    """Whether the picture shows all content about where it is tracked."""
    return all(
        distance(found[name], current_position(handle, state.rasters)) <= near(state.rasters)
        for name, handle in handles.items()
        if name in found
    )


@torch.no_grad()
def _predicted_x0(state: SessionState, noise: Tensor | None) -> Tensor:
    latent, level = state.latent.value.detach(), state.level
    if noise is None:
        with state.preparation.lora.active():
            noise = state.model.predict(latent, level.timestep, state.preparation.prompt).noise
    return predict_x0(latent, noise.detach(), level.alpha)
