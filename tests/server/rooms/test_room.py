"""LiveRoom: requests are answered once, and what the disk refuses is reverted and reported."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import livedrag.server.storage.writer
from livedrag.server.device.messages import Start, Stop, UpdateRun
from livedrag.server.document.protocol import (
    AddStroke,
    ClearMask,
    Document,
    Edit,
    Edited,
    Log,
    MoveDrag,
    Raster,
    Rejected,
    SetPrompt,
    Snapshot,
    Started,
    StartRun,
    Stroke,
    Undo,
)
from livedrag.server.images.rasteriser import Rasteriser
from livedrag.server.rooms import mask_cache
from livedrag.server.rooms.mask_cache import MaskCache, RasterisedMask, rasterise_mask
from livedrag.server.storage import Store, StoreError
from tests.open_room import disk_full, open_room, received, send

STROKE = Stroke(id="s", mode="paint", radius=4.0, points=[(5.0, 5.0)])


def test_a_run_requested_twice_while_the_mask_is_rasterised_starts_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            send(session, Edit(op_id="paint", base=1, op=AddStroke(stroke=STROKE)))
            send(session, StartRun(op_id="go"))
            send(session, StartRun(op_id="go"))  # as after a reconnect
            await opened.settle()
            answers = [message for message in received(session) if isinstance(message, Started | Rejected)]
            assert [type(answer) for answer in answers] == [Started, Started]
            assert answers[0] == answers[1]
            assert len(opened.engine.submitted(Start)) == 1

    asyncio.run(scenario())


def test_a_full_disk_is_reported_and_the_document_is_as_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            await opened.settle()

            received(session)
            with monkeypatch.context() as patched:
                patched.setattr(opened.registry.store, "append", disk_full)
                send(session, Edit(op_id="lost", base=1, op=SetPrompt(prompt="lost")))
                await opened.settle()
            answers = received(session)
            (rejected,) = [message for message in answers if isinstance(message, Rejected)]
            assert (rejected.op_id, "disk full" in rejected.message) == ("lost", True)
            (snapshot,) = [message for message in answers if isinstance(message, Snapshot)]
            assert (snapshot.seq, snapshot.document.prompt) == (1, "")
            after = answers[answers.index(snapshot) + 1]
            assert isinstance(after, Log), "a snapshot clears what clients list as done lately"
            assert [entry.type for entry in after.entries] == ["add_drag"]
            send(session, Edit(op_id="saved", base=1, op=SetPrompt(prompt="saved")))
            await opened.settle()
            assert (session.room.seq, session.room.document.prompt) == (2, "saved")

    asyncio.run(scenario())


def test_an_edit_sent_again_while_the_disk_refuses_it_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            await opened.settle()
            received(session)
            monkeypatch.setattr(opened.registry.store, "append", disk_full)
            lost = Edit(op_id="lost", base=1, op=SetPrompt(prompt="lost"))
            send(session, lost)
            send(session, lost)
            with pytest.raises(StoreError, match="lost"):
                await session.room.requests.load_mask(session.person, "lost", Raster(id="lost", sha256="a" * 64))
            await opened.settle()
            answers = [type(message) for message in received(session) if isinstance(message, Edited | Rejected)]
            assert answers == [Rejected, Rejected]

    asyncio.run(scenario())


def test_a_saved_run_continues_though_the_edit_after_it_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            await opened.settle()
            commit = livedrag.server.storage.writer.commit

            def slowly(*given: Any) -> None:
                time.sleep(0.05)
                commit(*given)

            with monkeypatch.context() as patched:
                patched.setattr(livedrag.server.storage.writer, "commit", slowly)
                send(session, StartRun(op_id="go"))
                patched.setattr(opened.registry.store, "append", disk_full)  # answers before the start is saved
                send(session, Edit(op_id="lost", base=1, op=MoveDrag(id="d1", target=(50.0, 40.0))))
                await opened.settle()
            assert [m.op_id for m in received(session) if isinstance(m, Rejected)] == ["lost"]
            assert session.room.draft.running
            assert not opened.engine.submitted(Stop)
            send(session, Edit(op_id="saved", base=1, op=MoveDrag(id="d1", target=(40.0, 40.0))))
            await opened.settle()
            update = opened.engine.submitted(UpdateRun)[-1]
            assert update.desired.drags["d1"].target == (40.0, 40.0), "the engine still gets edits"

    asyncio.run(scenario())


def test_strokes_have_a_budget_that_refuses_only_strokes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            for number in range(50):
                stroke = Stroke(id=f"s{number}", mode="paint", radius=4.0, points=[(5.0, 5.0)] * 2000)
                send(session, Edit(op_id=f"s{number}", base=1, op=AddStroke(stroke=stroke)))
            await opened.settle()
            refused: list[Rejected] = []
            for number in range(12):
                send(session, Edit(op_id=f"clear{number}", base=1, op=ClearMask()))
                send(session, Undo(op_id=f"undo{number}"))
                await opened.settle()
                refused += [message for message in received(session) if isinstance(message, Rejected)]
            send(session, Edit(op_id="prompt", base=1, op=SetPrompt(prompt="a bear")))
            await opened.settle()
            assert not [message for message in received(session) if isinstance(message, Rejected)]
            assert {message.reason for message in refused} == {"slow_down"}
            assert refused[0].message.startswith("too many strokes in this room: try again in ")
            assert [message.op_id for message in refused] == [f"undo{number}" for number in range(2, 12)]
            assert session.room.document.prompt == "a bear"
            await opened.advance(60)
            send(session, Undo(op_id="later"))
            await opened.settle()
            assert not [message for message in received(session) if isinstance(message, Rejected)]

    asyncio.run(scenario())


def test_a_mask_is_rasterised_once_for_all_that_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            send(session, Edit(op_id="paint", base=1, op=AddStroke(stroke=STROKE)))
            await opened.settle()
            rasterised: list[object] = []

            async def slowly(document: Document, store: Store, rasteriser: Rasteriser) -> RasterisedMask:
                rasterised.append(document.mask)
                await asyncio.sleep(0.05)
                return await rasterise_mask(document, store, rasteriser)

            monkeypatch.setattr(mask_cache, "rasterise_mask", slowly)
            cache = MaskCache(opened.registry.store, Rasteriser(), lambda: session.room.document)
            masks = await asyncio.gather(*(cache.current() for _ in range(5)))
            assert (len({mask.png for mask in masks}), len(rasterised)) == (1, 1)

    asyncio.run(scenario())
