"""HTTP requests to a server, with the standard library alone. All of them block."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from livedrag.server.client.errors import RequestFailed

REQUEST_SECONDS = 60.0


@dataclass(frozen=True)
class NewRoom:
    """A room that was just created; ``url`` is the path of its page, with the secret."""

    id: str
    secret: str
    url: str


def create_room(
    address: str, picture: bytes, *, name: str = "picture.png", password: str = "", **fields: str | bytes
) -> NewRoom:
    """Create a room with a picture.

    Args:
        address: of the server, such as ``http://127.0.0.1:8000``, with its base path if it has one.
        picture: a file in any format that the server reads, such as PNG or JPEG.
        password: the server's, if it has one.
        fields: ``mask`` (a PNG), ``prompt``, ``title``, ``drags`` and ``settings`` (JSON), ``restore``.

    Raises:
        RequestFailed: the server refused.
    """
    boundary = secrets.token_hex(16)
    parts = [_part(boundary, field, value, name) for field, value in {"picture": picture, **fields}.items()]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", **password_header(password)}
    return _new_room(request(address, "POST", "/api/rooms", body, headers))


def create_generated_room(address: str, prompt: str, *, seed: int | None = None, password: str = "") -> NewRoom:
    """Generate a picture from a prompt, and create a room with it once it is done.

    Args:
        prompt: what the picture should show.
        seed: of the noise that it starts from; by default a random one.
        password: the server's, if it has one.

    Raises:
        RequestFailed: the server refused, or the generation failed.
    """
    headers = {"Content-Type": "application/json", **password_header(password)}
    body = json.dumps({"prompt": prompt, "seed": seed}).encode()
    generation = json.loads(request(address, "POST", "/api/generations", body, headers))["id"]
    *_, last = request(address, "GET", f"/api/generations/{generation}", None, headers).splitlines()
    end = json.loads(last)
    if end["type"] != "done":
        raise RequestFailed(409, "not_generated", end.get("message", "the generation was cancelled"))
    body = json.dumps({"generation": generation}).encode()
    return _new_room(request(address, "POST", "/api/rooms", body, headers))


def request(
    address: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """Send one request and return the body of the response. Raises `RequestFailed`."""
    sent = urllib.request.Request(f"{address}{path}", body, dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(sent, timeout=REQUEST_SECONDS) as response:
            answer: bytes = response.read()
            return answer
    except urllib.error.HTTPError as error:
        with error:
            raise _failure(error.code, error.reason, error.read()) from None


def password_header(password: str) -> dict[str, str]:
    return {"Livedrag-Password": quote(password)} if password else {}


def _new_room(body: bytes) -> NewRoom:
    answer = json.loads(body)
    return NewRoom(answer["room"], answer["secret"], answer["url"])


def _failure(status: int, phrase: str, body: bytes) -> RequestFailed:
    try:
        error = json.loads(body)["error"]
        return RequestFailed(status, str(error["reason"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):  # not from livedrag: a proxy's page
        text = body[:200].decode(errors="replace")
        return RequestFailed(status, "http", f"the answer was {status} {phrase}: {text!r}")


def _part(boundary: str, field: str, value: str | bytes, name: str) -> bytes:
    file = f'; filename="{name}"' if isinstance(value, bytes) else ""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'
    return head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
