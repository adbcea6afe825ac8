"""Rooms with other models than the server's: loaded in the background, beside the runs of other rooms."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import save_file

from livedrag.editor.model_options import WantedModel, find_wanted
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import (
    DesiredState,
    LoadModel,
    ModelFailed,
    ModelLoaded,
    PreparationProgress,
    Prepare,
    RunFinished,
    RunProgress,
    Start,
    Stop,
)
from livedrag.server.document.protocol import LoraChoice, ModelChoice, Points, Progress
from tests.checkpoints import original_vae, write_checkpoint
from tests.pipelines import write_pipeline
from tests.server.device.workers import DESIRED, PICTURE, Events, start

if TYPE_CHECKING:
    from livedrag.editor import Diffusion
    from livedrag.server.device.worker.device_worker import DeviceWorker
    from livedrag.server.device.worker.model_catalog import ModelCatalog

DREAM = ModelChoice(name="checkpoints/dream.safetensors")
INK = ModelChoice(name=DREAM.name, loras=(LoraChoice(name="loras/ink.safetensors", weight=0.5),))
SECONDS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models as ComfyUI has it."""
    top = tmp_path_factory.mktemp("models")
    for name in ("checkpoints", "loras", "vae", "diffusers"):
        (top / name).mkdir()
    other = write_pipeline(top / "diffusers" / "other", seed=7)
    write_checkpoint(other, top / "checkpoints" / "dream.safetensors")
    save_file({name: each.contiguous() for name, each in original_vae(other).items()}, top / "vae" / "ft.safetensors")
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    lora = {f"{layer}.lora.down.weight": torch.ones(2, 32), f"{layer}.lora.up.weight": torch.ones(32, 2)}
    save_file(lora, top / "loras" / "ink.safetensors")
    torch.save({}, top / "checkpoints" / "old.ckpt")
    return top


@pytest.fixture(scope="module")
def catalog(folder: Path, tiny_folder: Path) -> ModelCatalog:
    from livedrag.server.device.worker.model_catalog import read_catalog

    return read_catalog(find_wanted(str(tiny_folder), config=tiny_folder, models=folder), folder)


class Gate:
    """Opens models as the worker does, one after another, when it is open."""

    def __init__(self) -> None:
        self.open, self.asked = threading.Event(), threading.Semaphore(0)
        self.opened: list[str] = []
        self.woken = threading.Semaphore(0)

    def __call__(self, wanted: WantedModel, note: Callable[[int, int], None]) -> Diffusion:
        self.asked.release()
        assert self.open.wait(SECONDS)
        self.opened.append(wanted.reference)
        note(1, 2)
        return wanted.open("cpu")  # in this process, as nothing else goes on


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def worker(
    small: Diffusion, catalog: ModelCatalog, gate: Gate, events: Events, checkpoints: Checkpoints
) -> Iterator[DeviceWorker]:
    from livedrag.server.device.worker.device_worker import DeviceWorker

    worker = DeviceWorker(
        small,
        events.append,
        checkpoints,
        sessions=3,
        catalog=catalog,
        open_model=gate,
        wake=gate.woken.release,
    )
    yield worker
    gate.open.set()
    worker.close()


def finish(worker: DeviceWorker, gate: Gate) -> None:
    """Until nothing is left to do."""
    while worker.busy or worker.loading:
        if not worker.busy:
            worker.advance()
            if worker.loading and not worker.busy:
                assert gate.woken.acquire(timeout=SECONDS)
        worker.advance()


def in_room(room: str, model: ModelChoice) -> DesiredState:
    return replace(DESIRED, room=room, model=model)


def test_a_model_is_opened_in_a_process_of_its_own(catalog: ModelCatalog, tiny_folder: Path) -> None:
    from livedrag.editor import Diffusion, ModelError
    from livedrag.server.device.worker.model_opener import open_apart

    noted: list[tuple[int, int]] = []
    wanted = catalog.wanted(DREAM)
    opened, plain = open_apart(wanted, "cpu", lambda *parts: noted.append(parts)), wanted.open("cpu")
    assert noted == [(1, 3), (2, 3), (3, 3)]
    assert isinstance(opened, Diffusion)
    assert (opened.name, opened.kind, opened.dtype) == (plain.name, plain.kind, plain.dtype)
    weights = dict(plain.unet.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in opened.unet.named_parameters())
    latent = torch.ones(1, 4, 8, 8)
    noise = [model.predict(latent, 10, model.embed_prompt("a cat")).noise for model in (opened, plain)]
    assert torch.equal(*noise)
    with pytest.raises(ModelError, match="there is no such file"):
        open_apart(WantedModel("gone", None, None, (), None), "cpu", lambda *parts: None)


def test_the_catalog_has_what_rooms_may_choose(catalog: ModelCatalog) -> None:
    listed = {entry.name: entry for entry in catalog.entries}
    assert listed.keys() == {
        "builtin",
        "checkpoints/dream.safetensors",
        "checkpoints/old.ckpt",
        "diffusers/other",
        "loras/ink.safetensors",
        "vae/ft.safetensors",
    }
    dream = listed["checkpoints/dream.safetensors"]
    assert (dream.kind, dream.architecture, dream.problem) == ("model", "Stable Diffusion 1.x", "")
    assert dream.info is not None
    assert (dream.info.name, dream.info.kind) == ("dream", "stable-diffusion")
    assert dream.bytes > 1000
    assert [listed[name].kind for name in ("loras/ink.safetensors", "vae/ft.safetensors")] == ["lora", "vae"]
    assert "convert" in listed["checkpoints/old.ckpt"].problem


def test_a_run_goes_on_while_another_room_loads_its_model(worker: DeviceWorker, gate: Gate, events: Events) -> None:
    start(worker)
    worker.obey(LoadModel(room="b", model=DREAM))
    worker.advance()
    assert gate.asked.acquire(timeout=SECONDS)
    while worker.busy:  # the model is not there before this run has ended
        worker.advance()
    assert [event.outcome for event in events.of(RunFinished)] == ["exhausted"]
    assert not events.of(ModelLoaded, "b")
    assert events.of(PreparationProgress, "b")[0].stage == "loading"
    gate.open.set()
    finish(worker, gate)
    assert events.of(ModelLoaded, "b") == [ModelLoaded(room="b", model=DREAM)]
    assert worker.stats.models == ("", DREAM.name)


def test_a_run_waits_for_its_model_and_drags_with_it(
    worker: DeviceWorker, gate: Gate, events: Events, small: Diffusion
) -> None:
    worker.obey(Start(run="r1", picture=PICTURE, desired=in_room("a", DREAM)))
    worker.advance()
    assert not worker.busy
    gate.open.set()
    finish(worker, gate)
    (ended,) = events.of(RunFinished)
    assert (ended.outcome, ended.iterations) == ("exhausted", 3)
    first = next(event.record for event in events if isinstance(event, RunProgress))
    assert isinstance(first, Progress)
    assert first.stage == "loading"
    dragged = [each.handles for each in events.records(Points)]
    events.clear()
    worker.obey(Start(run="r2", picture=PICTURE, desired=in_room("c", ModelChoice())))
    finish(worker, gate)
    assert [each.handles for each in events.records(Points)] != dragged


def test_a_prepared_room_is_prepared_anew_with_another_model(worker: DeviceWorker, gate: Gate, events: Events) -> None:
    gate.open.set()
    for seq, model in enumerate((ModelChoice(), DREAM, INK)):
        events.clear()
        worker.obey(Prepare(picture=PICTURE, desired=replace(in_room("a", model), seq=seq)))
        finish(worker, gate)
        stages = [event.stage for event in events.of(PreparationProgress)]
        assert {"fitting", "inverting", "ready"} <= set(stages)
    assert len(gate.opened) == 1  # rooms with other LoRAs share one base
    start(worker, replace(in_room("a", INK), seq=9))
    finish(worker, gate)
    assert events.of(RunFinished)[-1].outcome == "exhausted"


def test_a_model_that_cannot_be_loaded(worker: DeviceWorker, gate: Gate, events: Events, folder: Path) -> None:
    gate.open.set()
    gone = ModelChoice(name="checkpoints/gone.safetensors")
    worker.obey(LoadModel(room="a", model=gone))
    finish(worker, gate)
    (failed,) = events.of(ModelFailed)
    assert failed.message == f"there is no model {gone.name!r} on this server (any more): choose another one"
    worker.obey(Start(run="r1", picture=PICTURE, desired=in_room("a", gone)))
    finish(worker, gate)
    (ended,) = events.of(RunFinished)
    assert (ended.outcome, ended.message) == ("failed", failed.message)
    worker.obey(Prepare(picture=PICTURE, desired=in_room("a", gone)))
    finish(worker, gate)
    assert events.of(PreparationProgress)[-1].stage == "failed"


def test_a_file_that_vanishes(
    worker: DeviceWorker, gate: Gate, events: Events, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    file = folder / DREAM.name
    data = file.read_bytes()
    file.unlink()
    try:
        worker.obey(LoadModel(room="a", model=DREAM))
        finish(worker, gate)
    finally:
        file.write_bytes(data)
    (failed,) = events.of(ModelFailed)
    assert "dream.safetensors" in failed.message
    assert "\n" not in failed.message


def test_a_run_is_stopped_while_its_model_is_loaded(worker: DeviceWorker, gate: Gate, events: Events) -> None:
    worker.obey(Start(run="r1", picture=PICTURE, desired=in_room("a", DREAM)))
    worker.advance()
    assert gate.asked.acquire(timeout=SECONDS)
    worker.obey(Stop(room="a", run="r1"))
    assert [event.outcome for event in events.of(RunFinished)] == ["stopped"]
    gate.open.set()
    finish(worker, gate)
    assert len(events.of(RunFinished)) == 1


def test_the_least_recently_used_model_leaves_first(
    small: Diffusion, catalog: ModelCatalog, gate: Gate, events: Events, checkpoints: Checkpoints
) -> None:
    from livedrag.editor.cost import Memory, weight_bytes
    from livedrag.server.device.worker.device_worker import DeviceWorker

    size = weight_bytes(small)  # all of these models are alike: there is memory for two
    memory = Memory(sessions=100 * size, total=103 * size)
    worker = DeviceWorker(
        small, events.append, checkpoints, memory=memory, catalog=catalog, open_model=gate, wake=gate.woken.release
    )
    gate.open.set()
    other = ModelChoice(name="diffusers/other")
    try:
        start(worker)
        finish(worker, gate)
        worker.obey(LoadModel(room="b", model=DREAM))
        finish(worker, gate)
        assert worker.stats.models == ("", DREAM.name)
        worker.obey(LoadModel(room="b", model=other))
        finish(worker, gate)
        assert worker.stats.models == (DREAM.name, other.name)  # the server's own was used before
        start(worker, replace(DESIRED, seq=5), run="r2")  # and comes back, with the session from the disk
        finish(worker, gate)
        assert [event.outcome for event in events.of(RunFinished)] == ["exhausted", "exhausted"]
        assert worker.stats.models == ("", other.name)
    finally:
        worker.close()


def test_a_model_that_leaves_takes_its_graphs_with_it(
    small: Diffusion, catalog: ModelCatalog, gate: Gate, events: Events, checkpoints: Checkpoints
) -> None:
    """They refer to the model, so that its weights would stay on the device."""
    from livedrag.editor.cost import Memory, weight_bytes
    from livedrag.editor.models.graphs import Graphs
    from livedrag.server.device.worker.device_worker import DeviceWorker
    from tests.recorders import EagerRecorder

    opened: list[Diffusion] = []

    def open_with_graphs(wanted: WantedModel, note: Callable[[int, int], None]) -> Diffusion:
        model = gate(wanted, note)
        model.graphs = Graphs(EagerRecorder(), eager_runs=0)
        opened.append(model)
        return model

    size = weight_bytes(small)
    memory = Memory(sessions=100 * size, total=103 * size)
    wake = gate.woken.release
    worker = DeviceWorker(
        small, events.append, checkpoints, memory=memory, catalog=catalog, open_model=open_with_graphs, wake=wake
    )
    gate.open.set()
    try:
        start(worker, in_room("b", DREAM))
        finish(worker, gate)
        graphs = opened[0].graphs
        assert graphs is not None
        assert len(graphs) > 0
        start(worker, in_room("a", ModelChoice()), run="r2")
        finish(worker, gate)
        worker.obey(LoadModel(room="c", model=ModelChoice(name="diffusers/other")))
        finish(worker, gate)
        assert worker.stats.models == ("", "diffusers/other")
        assert len(graphs) == 0
    finally:
        worker.close()


def test_a_steady_load_of_runs_does_not_keep_a_model_waiting(
    small: Diffusion, catalog: ModelCatalog, gate: Gate, events: Events, checkpoints: Checkpoints
) -> None:
    """Both models that there is memory for are always in use: each room has its next run before the other's ends."""
    from livedrag.editor.cost import Memory, weight_bytes
    from livedrag.server.device.worker.device_worker import DeviceWorker

    size = weight_bytes(small)
    memory = Memory(sessions=100 * size, total=103 * size)
    worker = DeviceWorker(
        small, events.append, checkpoints, memory=memory, catalog=catalog, open_model=gate, wake=gate.woken.release
    )
    gate.open.set()
    rooms, other = {"a": ModelChoice(), "b": DREAM}, ModelChoice(name="diffusers/other")
    begun = dict.fromkeys(rooms, 0)

    def press_drag(room: str) -> None:
        begun[room] += 1
        worker.obey(
            Start(
                run=f"{room}{begun[room]}",
                picture=PICTURE,
                desired=replace(in_room(room, rooms[room]), seq=begun[room]),
            )
        )

    def ended(room: str) -> int:
        return len(events.of(RunFinished, room))

    try:
        worker.obey(LoadModel(room="b", model=DREAM))
        finish(worker, gate)
        press_drag("a")
        press_drag("b")
        worker.obey(LoadModel(room="c", model=other))
        while not worker._models.loading[other].started:
            worker.advance()
            for room in rooms:
                if ended(room) == begun[room]:
                    press_drag(room)
            assert max(begun.values()) <= 3, "the model still waits"
        finish(worker, gate)
        assert events.of(ModelLoaded, "c") == [ModelLoaded(room="c", model=other)]
        assert all(ended(room) == begun[room] for room in rooms)
        assert {event.outcome for event in events.of(RunFinished)} == {"exhausted"}
    finally:
        worker.close()


def test_a_run_can_be_stopped_while_its_next_preparation_waits_for_the_model(
    worker: DeviceWorker, gate: Gate, events: Events
) -> None:
    start(worker)
    worker.advance()
    worker.obey(Prepare(picture=PICTURE, desired=in_room("a", DREAM)))
    worker.obey(Stop(room="a", run="r1"))
    while not events.of(RunFinished):
        worker.advance()
    assert [event.outcome for event in events.of(RunFinished)] == ["stopped"]
    gate.open.set()
    finish(worker, gate)


def test_a_checkpoint_without_an_autoencoder_is_chosen_with_one(folder: Path, tiny_folder: Path) -> None:
    from livedrag.server.device.worker.model_catalog import read_catalog

    bare = folder / "checkpoints" / "bare.safetensors"
    write_checkpoint(folder / "diffusers" / "other", bare, vae=False)
    try:
        catalog = read_catalog(find_wanted(str(tiny_folder), config=tiny_folder, models=folder), folder)
        listed = {entry.name: entry for entry in catalog.entries}
        assert listed["checkpoints/bare.safetensors"].needs_vae
        assert not listed["checkpoints/bare.safetensors"].problem
        assert [entry.name for entry in catalog.entries if entry.needs_vae] == ["checkpoints/bare.safetensors"]
        opened = catalog.wanted(ModelChoice(name="checkpoints/bare.safetensors", vae="vae/ft.safetensors")).open("cpu")
        assert opened.name == "bare with ft"
    finally:
        bare.unlink()


def test_a_model_that_is_too_large(
    small: Diffusion, catalog: ModelCatalog, gate: Gate, events: Events, checkpoints: Checkpoints
) -> None:
    from livedrag.editor.cost import Memory
    from livedrag.server.device.worker.models import Models

    models = Models(small, catalog=catalog, open=gate, memory=Memory(sessions=0, total=0), wake=gate.woken.release)
    models._default_bytes //= 4
    models.request(DREAM)
    models.start(frozenset(), lambda choice: None)
    ((_, problem),) = models.take()
    assert problem.startswith("the model needs about ")
    assert problem.endswith(" are free: choose a smaller one")
