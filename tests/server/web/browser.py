"""What the tests of HTTP share: requests, and a browser without a page."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import time
from typing import Any

from PIL import Image
from websockets.asyncio.client import connect

from livedrag.server.client import NewRoom, request
from livedrag.server.document.protocol import (
    VERSION,
    Hello,
    Welcome,
    decode_server,
    encode,
)


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def get(address: str, room: NewRoom, what: str, secret: str | None = None) -> bytes:
    path = f"/api/rooms/{room.id}/{what}"
    return request(address, "GET", path, headers={"Authorization": f"Bearer {secret or room.secret}"})


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def answer(address: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


class Visitor:
    """A browser without a page: it keeps its cookie, as ``name=value``."""

    def __init__(self, address: str, **headers: str) -> None:
        self.address, self.headers = address, headers
        self.cookie = ""
        self.set_cookie = ""

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=20)
        given = {**self.headers, "Cookie": self.cookie}
        headers = {name: value for name, value in given.items() if value}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            self.set_cookie = response.getheader("set-cookie") or ""
            if self.set_cookie:
                self.cookie = self.set_cookie.partition(";")[0]
            data = response.read()
            return response.status, json.loads(data) if data[:1] in (b"{", b"[") else data
        finally:
            connection.close()

    def enter(self, room: NewRoom, secret: str = "", **said: str) -> tuple[int, Any]:
        return self.ask("POST", f"/api/rooms/{room.id}/enter", {"secret": secret, **said})

    def handshake(self, room: NewRoom, **hello: Any) -> tuple[Welcome | None, int]:
        """Say hello with the cookie, as a page does; gives the welcome or the close code."""

        async def story() -> tuple[Welcome | None, int]:
            headers = {"Cookie": self.cookie} if self.cookie else {}
            url = f"{self.address.replace('http', 'ws')}/ws/{room.id}"
            origin: Any = self.headers.get("Origin", self.address) or None
            async with connect(url, origin=origin, additional_headers=headers, proxy=None) as socket:
                await socket.send(encode(Hello(version=VERSION, **hello)))
                message = decode_server(await socket.recv())
                if isinstance(message, Welcome):
                    return message, 0
                await socket.wait_closed()
                return None, socket.close_code or 0

        return asyncio.run(story())


def refusal(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["error"]["reason"]


def owner(address: str, room: NewRoom) -> Visitor:
    visitor = Visitor(address)
    assert visitor.enter(room, room.secret)[0] == 200
    return visitor


def slowly(address: str, method: str, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPConnection:
    """A request whose head has arrived, and whose body has not."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.putrequest(method, path)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(body[:1])
    time.sleep(0.2)
    return connection
