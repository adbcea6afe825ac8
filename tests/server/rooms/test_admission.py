"""Admission: who a request or a connection comes from."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from livedrag.server.access.password import Caller
from tests.open_room import new_room, open_registry


def test_only_scripts_are_named_by_a_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_registry(tmp_path) as (registry, _, _):
            room, hello = await new_room(registry)
            browser = Caller(address="192.0.2.1")
            cookie, _, _ = await registry.admission.enter(room, browser, hello.secret)
            live, person = await registry.admission.visit(room, replace(browser, cookie=cookie), "")
            assert live.members.members[person].name == "", "joining names a person"
            live, script = await registry.admission.visit(room, browser, hello.secret)
            assert live.members.members[script].name == "script"

    asyncio.run(scenario())
