"""Rooms that are edited with another model: it is loaded first, then everyone has it, or the room keeps its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from livedrag.server.device.messages import LoadModel, ModelFailed, ModelLoaded, PreparationProgress, Prepare, Start
from livedrag.server.device.model_names import resolved
from livedrag.server.document.checks import Refused
from livedrag.server.document.protocol import (
    AddDrag,
    CatalogEntry,
    Edit,
    Edited,
    LoraChoice,
    ModelChoice,
    Prepared,
    Rejected,
    RoomModel,
    SetModel,
    StartRun,
    Undo,
)
from livedrag.server.rooms.run_control import PREPARE_PAUSE
from livedrag.server.rooms.session import RoomSession
from tests.open_room import OpenRoom, open_room, received, send
from tests.quiet import MODEL

DREAM = ModelChoice(name="checkpoints/dream.safetensors")
INFO = replace(MODEL, name="dream", kind="stable-diffusion")
CATALOG = (
    CatalogEntry(name="builtin", kind="model", info=MODEL),
    CatalogEntry(name=DREAM.name, kind="model", info=INFO),
    CatalogEntry(name="xl/dream.safetensors", kind="model", problem="it is a refiner"),
    CatalogEntry(name="checkpoints/bare.safetensors", kind="model", info=INFO, needs_vae=True),
    CatalogEntry(name="loras/ink.safetensors", kind="lora"),
    CatalogEntry(name="loras/b/ink.safetensors", kind="lora"),
    CatalogEntry(name="vae/ft.safetensors", kind="vae"),
    CatalogEntry(name="checkpoints/old.ckpt", kind="other", problem="not opened: convert it"),
)


def switch(op_id: str, model: ModelChoice) -> Edit:
    return Edit(op_id=op_id, base=0, op=SetModel(model=model))


async def two(opened: OpenRoom) -> tuple[RoomSession, RoomSession]:
    """Two people in the room, whose picture is prepared."""
    ada, grace = await opened.join(), await opened.join()
    await opened.advance(PREPARE_PAUSE)
    received(ada), received(grace)
    return ada, grace


async def loaded(opened: OpenRoom, model: ModelChoice) -> None:
    opened.engine.tell(ModelLoaded(room=opened.id, model=model))
    await opened.settle()


def test_everyone_has_the_model_once_it_is_loaded_and_the_picture_is_prepared_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            opened.engine.catalog = CATALOG
            ada, grace = await two(opened)
            send(ada, switch("m1", replace(DREAM, name="checkpoints/dream")))
            await opened.settle()
            assert opened.engine.submitted(LoadModel) == [LoadModel(room=opened.id, model=DREAM)]
            assert ada.room.document.model == ModelChoice()
            opened.engine.tell(PreparationProgress(room=opened.id, stage="loading", step=1, steps=3))
            await opened.settle()
            await loaded(opened, DREAM)
            for session in (ada, grace):
                messages = received(session)
                assert [m.stage for m in messages if isinstance(m, Prepared)] == ["loading"]
                assert [m.op for m in messages if isinstance(m, Edited)] == [SetModel(model=DREAM)]
                assert [m.model for m in messages if isinstance(m, RoomModel)] == [INFO]
            await opened.advance(PREPARE_PAUSE)
            assert opened.engine.submitted(Prepare)[-1].desired.model == DREAM
            send(ada, Undo(op_id="m2"))
            await opened.settle()
            assert ada.room.document.model == ModelChoice()
            assert [m.model for m in received(grace) if isinstance(m, RoomModel)] == [MODEL]

    asyncio.run(scenario())


def test_a_model_that_cannot_be_loaded_leaves_the_room_as_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            opened.engine.catalog = CATALOG
            ada, grace = await two(opened)
            send(ada, switch("m1", DREAM))
            await opened.settle()
            opened.engine.tell(ModelFailed(room=opened.id, model=DREAM, message="dream is damaged"))
            await opened.settle()
            rejected = [m for m in received(ada) if isinstance(m, Rejected)]
            assert [(m.op_id, m.message) for m in rejected] == [("m1", "dream is damaged")]
            assert not [m for m in received(grace) if isinstance(m, Edited | RoomModel)]
            assert ada.room.document.model == ModelChoice()

    asyncio.run(scenario())


def test_the_latest_of_two_requests_counts_and_one_sent_again_is_answered_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            opened.engine.catalog = CATALOG
            ada, grace = await two(opened)
            send(ada, switch("m1", DREAM))
            await opened.settle()
            send(grace, switch("m2", ModelChoice(vae="ft")))
            send(grace, switch("m2", ModelChoice(vae="ft")))
            await opened.settle()
            assert [m.op_id for m in received(ada) if isinstance(m, Rejected)] == ["m1"]
            await loaded(opened, DREAM)
            assert ada.room.document.model == ModelChoice()
            await loaded(opened, ModelChoice(vae="vae/ft.safetensors"))
            assert ada.room.document.model.vae == "vae/ft.safetensors"
            assert len(opened.engine.submitted(LoadModel)) == 2
            assert [m.op_id for m in received(grace) if isinstance(m, Edited)] == ["m2"]

    asyncio.run(scenario())


def test_not_during_a_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            opened.engine.catalog = CATALOG
            ada = await opened.join()
            send(ada, Edit(op_id="d1", base=0, op=AddDrag(id="d9", handle=(10, 10), target=(20, 20))))
            send(ada, StartRun(op_id="r1"))
            await opened.settle()
            assert opened.engine.submitted(Start)[0].desired.model == ModelChoice()
            received(ada)
            send(ada, switch("m1", DREAM))
            await opened.settle()
            (refused,) = [m for m in received(ada) if isinstance(m, Rejected)]
            assert (refused.reason, refused.message) == (
                "busy",
                "the model cannot change during a run: press Stop first",
            )
            assert not opened.engine.submitted(LoadModel)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (ModelChoice(name="drem"), "there is no model 'drem' on this server"),
        (ModelChoice(name="/etc/passwd"), "there is no model '/etc/passwd' on this server"),
        (ModelChoice(name="../dream"), "there is no model '../dream' on this server"),
        (ModelChoice(name="xl/dream"), "the model 'xl/dream.safetensors' can't be used: it is a refiner"),
        (ModelChoice(name="old"), "'old' can't be used: not opened: convert it"),
        (ModelChoice(name="ink"), "there is no model 'ink'"),
        (ModelChoice(vae="dream"), "there is no VAE 'dream'"),
        (ModelChoice(loras=(LoraChoice(name="ink"),)), "the LoRA 'ink' may be 'loras/ink.safetensors' and"),
        (ModelChoice(loras=(LoraChoice(name="b/ink"), LoraChoice(name="b/ink"))), "is there twice"),
    ],
)
def test_names_are_only_looked_up_in_the_catalog(choice: ModelChoice, message: str) -> None:
    with pytest.raises(Refused) as refused:
        resolved(choice, CATALOG)
    assert message in str(refused.value)


def test_a_model_without_an_autoencoder_is_chosen_with_one() -> None:
    bare = ModelChoice(name="checkpoints/bare")
    with pytest.raises(Refused, match=r"'checkpoints/bare.safetensors' has no autoencoder"):
        resolved(bare, CATALOG)
    assert resolved(replace(bare, vae="ft"), CATALOG).vae == "vae/ft.safetensors"


def test_names_may_be_short() -> None:
    lora = LoraChoice(name="b/ink", weight=0.5)
    found = resolved(ModelChoice(name="checkpoints/dream", loras=(lora,), vae="ft"), CATALOG)
    assert found == ModelChoice(
        name=DREAM.name, loras=(LoraChoice(name="loras/b/ink.safetensors", weight=0.5),), vae="vae/ft.safetensors"
    )
