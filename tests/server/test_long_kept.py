"""The server is killed at twenty random moments, and no edit that it acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from livedrag.server.client import Client, NewRoom, create_room
from livedrag.server.document.protocol import AddDrag, Document, Edited, MoveDrag, SetPrompt
from tests.conftest import find_free_port
from tests.quiet import png
from tests.traffic import serving_traffic

KILLS = 20
PEOPLE = 3


class Editors:
    """People who edit one room without a pause, and what was acknowledged."""

    def __init__(self, address: str, room: NewRoom) -> None:
        self.address, self.room = address, room
        self.acknowledged: dict[int, Edited] = {}
        self.connections = 0

    async def edit(self, person: int, until: asyncio.Event) -> Document:
        """Move one drag again and again; returns the document as this person has it at the end."""
        async with Client.join(self.address, self.room.id, self.room.secret, name=f"P{person}") as client:
            mine = f"d{person}"
            if mine not in client.document.drags:
                self.note(await client.edit(AddDrag(id=mine, handle=(1, 1), target=(50, 40))))
            number = 0
            while not until.is_set():
                number += 1
                target = (10 + number % 40, 10 + person)
                self.note(await client.edit(MoveDrag(id=mine, target=target)))
                if number % 5 == 0:
                    self.note(await client.edit(SetPrompt(prompt=f"{mine} {number}")))
            self.connections += client.connections
            return client.document

    def note(self, record: Edited) -> None:
        assert record.seq not in self.acknowledged, f"two edits are number {record.seq}"
        self.acknowledged[record.seq] = record


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_no_acknowledged_edit_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    data, port, moments = tmp_path / "data", find_free_port(), random.Random(5)
    address = f"http://127.0.0.1:{port}"

    async def story() -> None:
        until = asyncio.Event()
        editing: list[asyncio.Task[Document]] = []
        editors: Editors | None = None
        for kill in range(KILLS + 1):
            serving = serving_traffic(data, port, heartbeat=0.5, deadline=3.0)
            process = await asyncio.to_thread(serving.__enter__)
            if editors is None:
                editors = Editors(address, await asyncio.to_thread(create_room, address, png()))
                editing = [asyncio.create_task(editors.edit(person, until)) for person in range(PEOPLE)]
            before = len(editors.acknowledged)
            while len(editors.acknowledged) < before + PEOPLE:  # all have reconnected, or will
                await asyncio.sleep(0.01)
                for task in editing:
                    if task.done():
                        task.result()
            await asyncio.sleep(moments.uniform(0.0, 0.6))
            if kill < KILLS:
                process.send_signal(signal.SIGKILL)
                process.wait()
                await check(editors)
            else:
                until.set()
                documents = await asyncio.gather(*editing)
                async with Client.join(address, editors.room.id, editors.room.secret) as late:
                    assert late.seq == max(editors.acknowledged)
                    assert sorted(editors.acknowledged) == list(range(1, late.seq + 1)), (
                        "an edit was applied twice, or lost"
                    )
                    assert late.document in documents
                assert editors.connections >= PEOPLE * 2
                sys.stdout.write(f"{late.seq} edits, {editors.connections} connections, {KILLS} kills\n")
            await asyncio.to_thread(serving.__exit__, None, None, None)

    async def check(editors: Editors) -> None:
        """Every edit acknowledged by now is on disk, as it was acknowledged."""
        acknowledged = dict(editors.acknowledged)

        def on_disk_now() -> dict[int, Edited]:
            from livedrag.server.storage import Store

            with Store(data) as store:
                saved = store.load(editors.room.id).result(10)
            assert saved is not None
            return {record.seq: record for record in saved.records if isinstance(record, Edited)}

        on_disk = await asyncio.to_thread(on_disk_now)
        recent = {seq: record for seq, record in acknowledged.items() if seq >= min(on_disk)}
        assert len(recent) >= min(len(acknowledged), 900)
        assert recent.items() <= on_disk.items()

    asyncio.run(story())
