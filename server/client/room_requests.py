"""Requests over HTTP for one room: its pictures, links and people."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

from livedrag.server.client.http import password_header, request
from livedrag.server.document.protocol import Role


class RoomRequests:
    """What one person asks of a room over HTTP. All methods raise `RequestFailed`.

    Args:
        address: of the server, such as ``http://127.0.0.1:8000``, with its base path if it has one.
        room: its id.
        secret: of a link into the room.
        name: of the person.
        password: the server's, if it has one.
    """

    def __init__(self, address: str, room: str, secret: str, name: str, password: str) -> None:
        self.address = address
        self.room = room
        self.secret = secret
        self._name = name
        self._headers = password_header(password)

    async def get(self, what: str) -> bytes:
        """Download ``picture``, ``result`` or ``mask`` as a PNG, or another resource of the room."""
        return await self.fetch("GET", what)

    async def load_mask(self, png: bytes) -> None:
        """Replace the mask by a file; white may change."""
        await self.fetch("PUT", "mask", png)

    async def models(self) -> list[dict[str, Any]]:
        """What a room may edit with: ``name``, ``kind``, ``architecture``, ``bytes``, ``problem`` and ``info``."""
        answer = await asyncio.to_thread(request, self.address, "GET", "/api/models", None, self._headers)
        entries: list[dict[str, Any]] = json.loads(answer)["entries"]
        return entries

    async def links(self) -> list[dict[str, Any]]:
        """The room's links: ``id``, ``role``, and when they were ``made`` and ``used``."""
        links: list[dict[str, Any]] = json.loads(await self.fetch("GET", "links"))
        return links

    async def make_link(self, role: Role) -> dict[str, Any]:
        """Create a link: ``id``, ``role``, ``secret`` and ``url``."""
        link: dict[str, Any] = json.loads(await self.fetch("POST", "links", {"role": role}))
        return link

    async def revoke(self, link: str) -> None:
        """Revoke a link by its id, and remove those who joined with it."""
        await self.fetch("DELETE", f"links/{link}")

    async def set_role(self, person: str, role: Role) -> None:
        """Change a person's role."""
        await self.fetch("PUT", f"people/{person}", {"role": role})

    async def remove(self, person: str) -> None:
        """Remove a person from the room."""
        await self.fetch("DELETE", f"people/{person}")

    async def copy(self, title: str = "") -> tuple[str, str]:
        """Make a room like this one, with its preparation; returns its id and its owner's secret."""
        made: dict[str, str] = json.loads(await self.fetch("POST", "copy", {"title": title}))
        return made["room"], made["secret"]

    async def delete_room(self) -> None:
        """Delete the room and everything in it."""
        await self.fetch("DELETE", "")

    async def fetch(self, method: str, path: str, body: bytes | dict[str, Any] | None = None) -> bytes:
        """Send an HTTP request for a path below the room's; a dict is sent as JSON."""
        headers = {"Authorization": f"Bearer {self.secret}", "Livedrag-Name": quote(self._name), **self._headers}
        if isinstance(body, dict):
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        url = f"/api/rooms/{self.room}/{path}".rstrip("/")
        return await asyncio.to_thread(request, self.address, method, url, body, headers)
