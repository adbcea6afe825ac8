"""Two people switch the room's model, on a server with a folder of small random models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.checkpoints import write_checkpoint
from tests.conftest import serving
from tests.e2e.editor import A_RUN, HANDLE, TARGET, Editor, OpenPage, choose
from tests.e2e.test_together import new_link
from tests.pipelines import write_pipeline

PATIENCE = A_RUN
"""Milliseconds that a model may take to load on a busy machine."""


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server with a tiny model, and another one in its folder of models."""
    top = tmp_path_factory.mktemp("with-models")
    own = write_pipeline(top / "own")
    (top / "models" / "checkpoints").mkdir(parents=True)
    write_checkpoint(write_pipeline(top / "other", seed=7), top / "models" / "checkpoints" / "dream.safetensors")
    options = ("--model", str(own), "--model-config", str(own), "--models", str(top / "models"), "--device", "cpu")
    with serving(top / "data", *options) as address:
        yield address


def test_one_person_switches_the_model_and_both_drag_with_it(open_page: OpenPage, upload: Path) -> None:
    ada = choose(open_page(), upload)
    bo = Editor(open_page(new_link(ada.page, "edit")))
    for editor in (ada, bo):
        expect(editor.page.get_by_test_id("model")).to_contain_text("own")

    bo.page.get_by_test_id("model").get_by_role("button", name="Change").click()
    picker = bo.page.get_by_test_id("model-picker")
    expect(picker).to_contain_text(re.compile("Stable Diffusion 1.x.*for photos"))
    picker.get_by_label("checkpoints/dream.safetensors").check()
    picker.get_by_role("button", name="Use this model").click()
    for editor in (ada, bo):
        expect(editor.page.get_by_test_id("model")).to_contain_text("dream", timeout=PATIENCE)

    ada.change_settings({"LoRA steps": "2", "DDIM steps": "4", "Max iterations": "2"})
    ada.pull(HANDLE, TARGET)
    bo.expect_place("target", TARGET)
    ada.button("Drag").click()
    for editor in (ada, bo):
        editor.expect_outcome("exhausted|arrived")
