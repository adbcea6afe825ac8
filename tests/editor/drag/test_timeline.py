from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, EditorError, Point
from livedrag.editor.drag.timeline import MAX_MOMENTS, Timeline

LATENT = torch.zeros(1, 4, 8, 8)
SIZE = LATENT.numel() * 2


def test_thinning_keeps_first_and_last_and_is_denser_where_newer() -> None:
    timeline = Timeline(budget=20 * SIZE)
    for iteration in range(200):
        timeline.add(iteration, {}, LATENT)
    kept = [moment.iteration for moment in timeline]
    assert len(kept) == 20
    assert (kept[0], kept[-1]) == (0, 199)
    gaps = [after - before for before, after in itertools.pairwise(kept)]
    assert sum(gaps[:5]) > 4 * sum(gaps[-5:])


def test_there_are_never_more_moments_than_people_can_tell_apart() -> None:
    timeline = Timeline(budget=10**9)
    for iteration in range(MAX_MOMENTS + 50):
        timeline.add(iteration, {}, LATENT)
    assert len(timeline) == MAX_MOMENTS


def test_a_timeline_that_follows_another_uses_none_of_its_names() -> None:
    timeline = Timeline(budget=10**9)
    timeline.begin_at(7)
    assert [timeline.add(iteration, {}, LATENT).index for iteration in range(2)] == [7, 8]
    assert [moment.parent for moment in timeline] == [None, 7]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.just(None), st.integers(0, 10**6)), min_size=1, max_size=80), st.integers(4, 30))
def test_branches_survive_any_thinning(moves: list[int | None], room: int) -> None:
    """None goes on by an iteration, a number goes back to some kept moment."""
    timeline = Timeline(budget=room * SIZE)
    timeline.add(0, {}, LATENT)
    ends, forks, iteration = {0}, set[int](), 0
    for move in moves:
        if move is None:
            iteration += 1
            before, known = timeline.current, {moment.index for moment in timeline}
            added = timeline.add(iteration, {}, LATENT).index
            if added in known:  # the same again
                continue
            if before is not None and before not in ends:
                forks.add(before)
            ends.discard(before or 0)
            ends.add(added)
        else:
            moment = list(timeline)[move % len(timeline)]
            timeline.current, iteration = moment.index, moment.iteration
    kept = {moment.index: moment for moment in timeline}
    assert 0 in kept
    assert ends | forks <= kept.keys()
    for moment in timeline:
        assert moment.parent is None or kept[moment.parent].iteration < moment.iteration


def test_the_same_iterations_from_the_same_moment_are_no_other_branch() -> None:
    timeline = Timeline(budget=10**9)
    first = timeline.add(0, {}, LATENT).index
    latents = [torch.full_like(LATENT, iteration) for iteration in range(1, 4)]
    for _ in range(50):
        timeline.current = first
        for iteration, latent in enumerate(latents, 1):
            timeline.add(iteration, {}, latent)
    assert [(moment.index, moment.parent) for moment in timeline] == [(0, None), (1, 0), (2, 1), (3, 2)]
    assert timeline.current == 3
    timeline.current = first
    assert timeline.add(1, {}, latents[0] + 1).parent == first
    assert len(timeline) == 5


def ends(timeline: Timeline) -> list[int]:
    """The iterations at which branches end."""
    parents = {moment.parent for moment in timeline}
    return [moment.iteration for moment in timeline if moment.index not in parents]


@pytest.mark.parametrize("room", [5, 12, 25])
def test_fifty_rounds_of_drag_and_reset_are_one_branch_on_a_timeline_that_is_thinned(room: int) -> None:
    timeline = Timeline(budget=room * SIZE)
    first = timeline.add(0, {}, LATENT).index
    for _ in range(50):
        timeline.current = first
        for iteration in range(1, 31):
            timeline.add(iteration, {}, torch.full_like(LATENT, iteration))
            if iteration == 17:
                timeline.mark_agreed({})
        assert len(ends(timeline)) <= 2
        assert len(timeline) <= room
    assert ends(timeline).count(30) == 1
    timeline.current = first
    timeline.add(1, {}, torch.full_like(LATENT, -1))
    assert sorted(ends(timeline))[-1] == 30
    assert 1 in ends(timeline)


def test_a_moment_that_is_not_there_is_said() -> None:
    timeline = Timeline(budget=10 * SIZE)
    timeline.add(0, {}, LATENT)
    with pytest.raises(EditorError, match="moment 7 is not on the timeline"):
        timeline[7]


def test_seeking_goes_back_and_branches(tiny: Diffusion) -> None:
    settings = DragSettings.resolve(None, {}, {"lora_steps": 0, "ddim_steps": 6, "max_iterations": 6})
    session = DragSession(tiny, Image.radial_gradient("L").resize((128, 128)), settings=settings)
    session.add_drag("a", Drag(Point(30, 40), Point(90, 60)))
    for _ in session.prepare():
        pass
    start = session.latent
    latents = [start, *(session.latent for _ in session.drag(2))]
    moments = list(session.timeline)
    assert [moment.iteration for moment in moments] == list(range(7))

    session.seek(3)
    assert session.iteration == 3
    assert torch.allclose(session.latent, latents[3], atol=2e-3)  # half precision
    session.set_target("a", Point(30, 120))
    list(itertools.islice(session.drag(), 2))
    branch = list(session.timeline)[7:]
    assert [(moment.parent, moment.iteration) for moment in branch] == [(3, 4), (7, 5)]

    session.seek(6)
    assert torch.allclose(session.latent, latents[6], atol=2e-3)
    assert session.drags["a"].target == Point(90, 60)  # as it was then
    session.seek(0)
    assert torch.equal(session.latent, start)  # the beginning is exact
    session.close()


def test_previews_leave_thumbnails(tiny: Diffusion) -> None:
    settings = DragSettings.resolve(None, {}, {"lora_steps": 0, "ddim_steps": 6, "max_iterations": 4})
    session = DragSession(tiny, Image.radial_gradient("L").resize((200, 100)), settings=settings)
    session.add_drag("a", Drag(Point(30, 40), Point(90, 60)))
    for _ in session.prepare():
        pass
    for step in session.drag(2):
        session.preview(step)
    shown = {moment.iteration: moment.thumbnail for moment in session.timeline if moment.thumbnail}
    assert list(shown) == [1, 3]
    assert all(thumbnail.size == (96, 48) for thumbnail in shown.values())
    session.close()
