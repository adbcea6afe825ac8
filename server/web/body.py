"""Request bodies with a limit on their size."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from typing import IO, TypeVar

import msgspec
from starlette.requests import Request
from starlette.types import Message

from livedrag.server.errors import ServiceError
from livedrag.server.settings import MIB

T = TypeVar("T")

MAX_JSON = 4096
"""Bytes of a JSON body that holds no long text."""
SPOOLED = MIB
"""Bytes of an upload that are held in memory; more go to a temporary file."""
MAX_DRAINED = 64 * MIB
DRAIN_SECONDS = 10.0
"""How much of a refused upload is read and dropped, and for how long: browsers read a response only after sending."""


async def read_json(request: Request, kind: type[T], limit: int = MAX_JSON) -> T:
    """Decode a small JSON body; an empty body counts as ``{}``."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise ServiceError(413, "too_large", f"the body has more than {limit} bytes, the most allowed here")
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise ServiceError(422, "bad_body", f"body: {error}") from None  # not quoted: it may hold a secret


class BoundedBody:
    """A request body that raises `ServiceError` 413 as soon as it is known to be too large.

    Args:
        limit: bytes of the file in it, which the error names.
        what: names the file in the error.
        beside: bytes that form fields may take beside the file.
    """

    def __init__(self, request: Request, limit: int, what: str, *, beside: int = 0) -> None:
        self._request = request
        self._limit = limit
        self._max = limit + beside
        self._what = what
        self._received = 0
        self._ended = False

    @property
    def request(self) -> Request:
        """The request, reading this body."""
        return Request(self._request.scope, self._receive)

    async def spooled(self) -> IO[bytes]:
        """All of it in a file, which is in memory while it is small. The caller closes it.

        Raises:
            ServiceError: it is too large; the rest has been read and dropped.
        """
        file = tempfile.SpooledTemporaryFile(SPOOLED)  # noqa: SIM115 - given away
        try:
            async for chunk in self.request.stream():
                await asyncio.to_thread(file.write, chunk)
        except BaseException as error:
            file.close()
            if isinstance(error, ServiceError):
                await self.drain()
            raise
        file.seek(0)
        return file

    async def _receive(self) -> Message:
        announced = self._request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max:
            raise too_large(int(announced), self._limit, self._what)
        message = await self._next()
        if self._received > self._max:
            text = f"{self._what} has more than {self._limit / MIB:g} MiB, the most allowed"
            raise ServiceError(413, "too_large", text)
        return message

    async def _next(self) -> Message:
        message = await self._request.receive()
        self._received += len(message.get("body", b""))
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read and drop the rest, or the client may never read the response."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._ended and self._received < MAX_DRAINED:
                    await self._next()


def too_large(size: int, limit: int, what: str) -> ServiceError:
    """The error for a file of ``size`` bytes."""
    text = f"{what} has {size / MIB:.1f} MiB ({size} bytes): at most {limit / MIB:g} MiB are allowed"
    return ServiceError(413, "too_large", text)
