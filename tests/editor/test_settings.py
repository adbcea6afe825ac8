from __future__ import annotations

import pytest

from livedrag.editor import PRESETS, DragSettings, SettingsError
from livedrag.editor.settings import unsuitable_presets


def test_precedence_is_person_preset_model_table() -> None:
    model = {"lora_lr": 0.001, "lora_steps": 60}
    assert DragSettings.resolve().lora_lr == 5e-4
    assert DragSettings.resolve(None, model).lora_lr == 0.001
    assert DragSettings.resolve("paper", model).lora_lr == 2e-4
    assert DragSettings.resolve("official", model).lora_steps == 80
    assert DragSettings.resolve("paper", model, {"lora_lr": 0.5}).lora_lr == 0.5


def test_the_papers_first_version() -> None:
    paper = DragSettings.resolve("paper")
    assert (paper.lora_rank, paper.lora_lr, paper.lora_steps, paper.inversion_steps) == (16, 2e-4, 200, 40)
    assert paper.lora_targets == "to_q to_k to_v"
    assert not paper.reference_control
    assert DragSettings.resolve("official").reference_control
    assert DragSettings().inversion_steps == 35


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"lora_rnak": 3}, ["'lora_rnak'", "lora_rank"]),
        ({"lora_rank": 0}, ["lora_rank is 0", "1 to 256"]),
        ({"lora_rank": 1.5}, ["lora_rank is 1.5", "must be a whole number such as 16"]),
        ({"latent_lr": "fast"}, ["latent_lr is 'fast'", "must be a number such as 0.01"]),
        ({"latent_lr": float("nan")}, ["nan"]),
        ({"reference_control": 1}, ["reference_control is 1", "must be true or false"]),
        ({"lora_targets": "to_x"}, ["'to_x'", "to_q"]),
        ({"background": "loose"}, ["background", "'loose'", "loss or keep"]),
    ],
)
def test_what_cannot_be_set_is_said(overrides: dict[str, object], words: list[str]) -> None:
    with pytest.raises(SettingsError) as refused:
        DragSettings.resolve(None, {}, overrides)  # type: ignore[arg-type]
    assert all(word in str(refused.value) for word in words), refused.value


def test_presets_that_destroy_pictures_on_a_model_are_named_with_the_reason() -> None:
    unsuitable = unsuitable_presets("builtin")
    assert {"official", "paper"} <= unsuitable.keys() <= set(PRESETS)
    assert "70%" in unsuitable["official"]
    assert unsuitable_presets("stable-diffusion") == {}


def test_an_unknown_preset_is_said() -> None:
    with pytest.raises(SettingsError, match=r"'fast'.*official, gooddrag, paper"):
        DragSettings.resolve("fast")
