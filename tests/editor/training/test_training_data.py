"""What is trained on: pictures, scenes, pairs of views, and places that correspond in them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from livedrag.editor import Diffusion
from livedrag.editor.training.correspondence import FeatureUNet, Likeness, cell_places, correspondence, draw_places
from livedrag.editor.training.flows import Flows
from livedrag.editor.training.pairs import draw_pairs, local_contrast
from livedrag.editor.training.pck import invert
from livedrag.editor.training.pictures import Collection, catalogue, held_out, names_of
from livedrag.editor.training.scenes import crops, draw_scenes, name_of, render, whole
from livedrag.editor.training.stage import CPU

# Pictures --------------------------------------------------------------------------------------------------------


def test_captions_come_from_code_points_without_the_skin_tone() -> None:
    assert names_of("1f9f8") == ("teddy bear",)
    assert names_of("1f44b-1f3fd") == names_of("1f44b") == ("waving hand", "wave")
    assert names_of("1f3d8-fe0f")[0] == "houses"
    assert names_of("1f697") == ("automobile", "car", "red car")
    assert names_of("1f415") == ("dog",)  # not "dog2" as well
    assert names_of("31-20e3")[0] == "keycap 1"
    assert names_of("1f3f4-e0067_e0062_e0065_e006e_e0067_e007f")[0] == "england"  # so named in the package
    assert names_of("e000") == ()


def test_a_concept_counts_once_however_many_tones_it_comes_in() -> None:
    emojis = catalogue(["1f44b", "1f44b-1f3fb", "1f44b-1f3ff", "1f9f8", "1f1f0-1f1f5", "e000"])
    weights = {emoji.code: emoji.weight for emoji in emojis}
    assert weights["1f44b"] == weights["1f44b-1f3ff"] == pytest.approx(1 / 3)
    assert weights["1f9f8"] == 1
    assert weights["1f1f0-1f1f5"] < 0.5
    assert "e000" not in weights


def test_what_is_held_out_goes_by_the_concept_and_stays_so() -> None:
    assert [name for name in ("fox", "bacon", "snail", "teddy bear", "cactus") if held_out(name)] == [
        "fox",
        "bacon",
        "snail",
    ]
    share = np.mean([held_out(f"thing {number}") for number in range(4000)])
    assert 0.035 < share < 0.065


# Scenes ------------------------------------------------------------------------------------------------------------


def test_a_crop_is_a_part_of_the_scene(shapes: Collection) -> None:
    scenes = draw_scenes(shapes, np.random.default_rng(0), 6)
    corners = torch.from_numpy(np.random.default_rng(1).integers(0, 256 - 96 + 1, (6, 2)))
    parts, wholes = (render(scenes, shapes.atlas, places) for places in (crops(corners, 96), whole()))
    for part, scene, (x, y) in zip(parts, wholes, corners.tolist(), strict=True):
        torch.testing.assert_close(part, scene[:, y : y + 96, x : x + 96], atol=1e-4, rtol=0)
    assert parts.abs().max() <= 1


def test_scenes_are_drawn_by_their_seed(shapes: Collection) -> None:
    drawn = [draw_scenes(shapes, np.random.default_rng(seed), 8) for seed in (1, 1, 2)]
    one, two, other = (render(scenes, shapes.atlas, whole()) for scenes in drawn)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert all("striped disc" in caption for caption in drawn[0].captions)


def test_backgrounds_have_the_nearest_word() -> None:
    assert name_of((0.9, 0.2, 0.2)) == "red"
    assert name_of((0.95, 0.95, 0.98)) == "white"


# Pairs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(shapes: Collection) -> tuple[Tensor, Flows, tuple[str, ...]]:
    return draw_pairs(shapes, shapes.atlas, np.random.default_rng(0), 12)


def test_the_first_view_warped_by_the_flow_is_the_second(pairs: tuple[Tensor, Flows, tuple[str, ...]]) -> None:
    views, flows, _ = pairs
    places = flows.at(whole().expand(12, -1, -1, -1))
    warped = grid_sample(views[0], places, mode="bicubic", align_corners=False)
    inside = (places.abs().amax(-1) < 0.98)[:, None].expand_as(warped)
    assert inside.float().mean() > 0.3
    off = (warped - views[1]).abs()[inside]
    assert off.mean() < 0.02, "only edges are a little softer"
    assert (views[0] - views[1]).abs()[inside].mean() > 5 * off.mean()


def test_flows_move_everything_far(pairs: tuple[Tensor, Flows, tuple[str, ...]]) -> None:
    """Without large translations features learn positions."""
    _, flows, _ = pairs
    places = whole().expand(12, -1, -1, -1)
    moved = (flows.at(places) - places).norm(dim=-1) * 128
    assert (moved.flatten(1).median(1).values > 24).float().mean() > 0.6
    assert moved.median() < 80


def test_flows_are_inverted(pairs: tuple[Tensor, Flows, tuple[str, ...]]) -> None:
    _, flows, _ = pairs
    here = torch.rand(12, 20, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    back = flows.at(invert(flows, here)[:, None])[:, 0]
    missed = (back - here).norm(dim=-1) * 128
    assert missed.quantile(0.9) < 0.1


@pytest.mark.gpu
def test_a_gpu_draws_the_same_pairs(shapes: Collection) -> None:
    (views, flows, captions), (theirs, their_flows, their_captions) = (
        draw_pairs(shapes, shapes.atlas.to(device), np.random.default_rng(0), 12) for device in ("cpu", "cuda")
    )
    assert captions == their_captions
    assert torch.equal(flows.numbers, their_flows.numbers.cpu())
    off = (views - theirs.cpu()).abs()
    assert off.mean() < 1e-4
    assert off.max() < 0.05


# Correspondence ----------------------------------------------------------------------------------------------------


def position_features(flows: Flows, side: int = 32) -> tuple[Tensor, Tensor]:
    """Features that correspond perfectly: each cell's place in view A, in waves that none has twice."""
    waves = torch.randn(2, 48, generator=torch.Generator().manual_seed(0)) * 6

    def features(places: Tensor) -> Tensor:
        return torch.cat([(places @ waves).sin(), (places @ waves).cos()], dim=-1).movedim(-1, 1)

    places = cell_places(side, side, CPU).unflatten(0, (side, side)).expand(len(flows.numbers), -1, -1, -1)
    return features(places), features(flows.at(places))


def test_features_that_correspond_have_a_low_loss(pairs: tuple[Tensor, Flows, tuple[str, ...]]) -> None:
    views, flows, _ = pairs
    places = draw_places(local_contrast(views[1]), torch.Generator().manual_seed(0))
    perfect = position_features(flows)
    useless = (torch.randn_like(perfect[0]), torch.randn_like(perfect[0]))
    losses = []
    for features in (perfect, useless):
        loss, far, found = correspondence(Likeness(), features, flows, places)
        losses.append(loss.mean())
        share = float(found.sum() / far.sum())
        assert share > 0.95 if features is perfect else share < 0.1
    assert losses[0] < 0.6 * losses[1]


def test_the_loss_makes_features_correspond(pairs: tuple[Tensor, Flows, tuple[str, ...]]) -> None:
    """Its gradient alone, on random features: what is looked for is found after some steps, and not before."""
    views, flows, _ = pairs
    flows = Flows(flows.numbers[:2])
    generator = torch.Generator().manual_seed(0)
    places = draw_places(local_contrast(views[1, :2]), generator)
    features = torch.randn(2, 2, 32, 32, 32, generator=generator).requires_grad_()
    likeness = Likeness()
    optimizer = torch.optim.Adam([features, *likeness.parameters()], lr=0.05)
    shares = []
    for _ in range(60):
        here, there = features
        loss, far, found = correspondence(likeness, (here, there), flows, places)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        shares.append(float(found.sum() / far.sum()))
    assert shares[0] < 0.1
    assert shares[-1] > 0.9


def test_places_are_drawn_by_contrast_each_cell_once() -> None:
    contrast = torch.zeros(16, 32, 32)
    contrast[:, :8, :8] = 1
    cells = ((draw_places(contrast, torch.Generator().manual_seed(0), 40) + 1) * 16).floor()
    assert all(len({tuple(cell) for cell in row}) == 40 for row in cells.tolist())
    assert (cells < 8).all(dim=-1).float().mean() == pytest.approx(0.82, abs=0.05)  # a sixth of the weight is elsewhere


def test_features_are_those_that_dragging_reads() -> None:
    model = Diffusion.load("builtin", device="cpu")
    latents, prompt = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0)), model.embed_prompt("a cat")
    with torch.no_grad():
        _, features = FeatureUNet(copy.deepcopy(model.unet))(latents, torch.tensor([300]), prompt)
    torch.testing.assert_close(features, model.predict_features(latents, 300, prompt))
